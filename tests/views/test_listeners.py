"""Unallocated listeners, and adopting one."""

import re
import socket

import pytest
from django.test import Client

from allocations.models import PortAllocation
from allocations.ports import PortManager
from tests.make import FIRST

from .helpers import HTMX, text

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "htmx"])
def test_adopt_an_unallocated_listener(
    operator: Client, ports: PortManager, listener: socket.socket, headers: dict[str, str]
) -> None:
    ports.audit()
    assert re.search(rf"{FIRST + 1} tcp .*pid \d+", text(operator.get("/listeners")))
    values = {"project": "shop", "port_number": str(FIRST + 1), "hostname": "localhost", "protocol": "tcp"}
    refusal = operator.post("/listeners/adopt", values | {"service_name": "Bad Name"}, headers=headers)
    assert refusal.status_code == 422
    assert "is not valid" in text(refusal)
    response = operator.post("/listeners/adopt", values | {"service_name": "legacy"}, headers=headers)
    assert response.status_code == (200 if headers else 303)
    assert PortAllocation.objects.get().port_number == FIRST + 1
    assert "Every listener inside a range has an allocation" in text(operator.get("/listeners"))


def test_the_page_says_that_no_audit_has_run(viewer: Client) -> None:
    assert "No audit has run yet" in text(viewer.get("/listeners"))
