"""Ranges, projects and listeners."""

import re
import socket

import pytest
from django.test import Client
from django.urls import reverse

from allocations.models import PortAllocation, PortRange, Project
from allocations.ports import PortManager

from .reading import HTMX, text

pytestmark = pytest.mark.django_db


def test_ranges(admin: Client, ports: PortManager) -> None:
    assert "20500–20519 shop shop 0 of 20 held" in text(admin.get("/ranges"))
    values = {"project": "shop", "range_name": "more", "start": "20600", "end": "20609", "active": "on"}
    assert admin.post("/ranges/add", values).status_code == 303
    made = PortRange.objects.get(range_name="more")
    edited = values | {"end": "20619", "shared": "on"}
    assert admin.post(reverse("range-edit", args=[made.pk]), edited).status_code == 303
    made.refresh_from_db()
    assert (made.end_port, made.is_shared, made.is_active) == (20619, True, True)
    assert "Delete more (20600-20619)?" in text(admin.get(reverse("range-delete", args=[made.pk])))
    assert admin.post(reverse("range-delete", args=[made.pk])).status_code == 303
    assert not PortRange.objects.filter(pk=made.pk).exists()


def test_an_overlap_is_told_in_words(admin: Client, ports: PortManager) -> None:
    values = {"project": "shop", "range_name": "more", "start": "20510", "end": "20529", "active": "on"}
    response = admin.post("/ranges/add", values)
    assert response.status_code == 409
    assert "20510-20529 overlaps shop (20500-20519) of shop in 20510-20519." in text(response)
    assert 'value="20529"' in response.content.decode()


def test_a_range_does_not_move_from_under_a_port(admin: Client, web: PortAllocation) -> None:
    address = reverse("range-edit", args=[web.port_range_id])
    values = {"project": "shop", "range_name": "shop", "start": "20501", "end": "20519", "active": "on"}
    response = admin.post(address, values)
    assert response.status_code == 409
    assert "20500/tcp (shop/web) would lie outside" in text(response)
    deleted = admin.post(reverse("range-delete", args=[web.port_range_id]))
    assert deleted.status_code == 409
    assert "shop cannot be deleted: 1 of its ports is held" in text(deleted)


def test_projects(admin: Client, ports: PortManager) -> None:
    added = admin.post("/add-project", {"name": "bank", "size": "10", "start": "20700"})
    assert (added.status_code, added["Location"]) == (303, "/projects/bank")
    edited = admin.post("/projects/bank/edit", {"new_name": "vault", "description": "Money", "mode": "ask"})
    assert (edited.status_code, edited["Location"]) == (303, "/projects/vault")
    assert Project.objects.get(name="vault").description == "Money"
    assert admin.post("/add-project", {"name": "vault", "size": "10"}).status_code == 409
    assert admin.post("/projects/vault/delete").status_code == 303
    assert not Project.objects.filter(name="vault").exists()


def test_a_project_that_holds_ports_stays(admin: Client, web: PortAllocation) -> None:
    response = admin.post("/projects/shop/delete")
    assert response.status_code == 409
    assert "shop cannot be deleted: 1 port is held in it" in text(response)


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "htmx"])
def test_adopt(operator: Client, ports: PortManager, listener: socket.socket, headers: dict[str, str]) -> None:
    ports.audit()
    shown = operator.get("/listeners")
    assert re.search(r"20501 tcp .*pid \d+", text(shown))
    values = {"project": "shop", "port": "20501", "hostname": "localhost", "protocol": "tcp"}
    refused = operator.post("/listeners/adopt", values | {"service_name": "Bad Name"}, headers=headers)
    assert refused.status_code == 422
    assert "is not a name" in text(refused)
    response = operator.post("/listeners/adopt", values | {"service_name": "found"}, headers=headers)
    assert response.status_code == (200 if headers else 303)
    assert PortAllocation.objects.get().port_number == 20501
    assert "Everything that listens inside a range has an allocation" in text(operator.get("/listeners"))


def test_listeners_say_what_to_do_before_the_first_audit(viewer: Client) -> None:
    assert "Nobody has looked yet" in text(viewer.get("/listeners"))
