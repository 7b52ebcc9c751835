"""The caller's own tokens."""

import re

import pytest
from django.test import Client

from allocations.models import Token
from allocations.ports import PortManager, tokens

from .helpers import text

pytestmark = pytest.mark.django_db


def test_a_token_is_created_shown_once_and_revoked(operator: Client, ports: PortManager) -> None:
    assert "No tokens yet" in text(operator.get("/tokens"))
    values = {"name": "deploy", "role": "operator", "projects": ["shop"], "expires_at": "30d"}
    response = operator.post("/tokens", values)
    (secret,) = set(re.findall(r"ptl_\w{8}_\w{46}", response.content.decode()))
    assert response["Cache-Control"] == "private, no-store"
    assert Client(headers={"Authorization": f"Bearer {secret}"}).get("/api/ports?project=shop").status_code == 200
    page = operator.get("/tokens").content.decode()
    assert secret not in page
    assert secret[:12] in page
    token = Token.objects.get()
    assert "Revoke deploy?" in text(operator.get(f"/tokens/{token.pk}/revoke"))
    assert operator.post(f"/tokens/{token.pk}/revoke").status_code == 303
    assert re.search(r"Revoked \d{4}-\d\d-\d\d", text(operator.get("/tokens")))
    assert Client(headers={"Authorization": f"Bearer {secret}"}).get("/api/ports").status_code == 401


def test_a_refusal_is_shown_beside_its_field(operator: Client, ports: PortManager) -> None:
    response = operator.post("/tokens", {"name": "a/b", "role": "operator", "expires_at": "2d"})
    assert (response.status_code, "without a slash" in text(response)) == (422, True)
    assert operator.post("/tokens", {"name": "x", "role": "admin", "expires_at": "2d"}).status_code == 422
    assert operator.post("/tokens", {"name": "x", "role": "viewer", "expires_at": "2000d"}).status_code == 422
    assert not Token.objects.exists()


def test_tokens_of_other_users_are_hidden(operator: Client, ports: PortManager) -> None:
    token, _ = tokens.create(ports.context, "deploy")
    assert "deploy" not in text(operator.get("/tokens"))
    assert operator.post(f"/tokens/{token.pk}/revoke").status_code == 404
