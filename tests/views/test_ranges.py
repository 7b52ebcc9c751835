"""Ranges: the list, and adding, editing and deleting one."""

import pytest
from django.test import Client
from django.urls import reverse

from allocations.models import PortAllocation, PortRange
from allocations.ports import PortManager
from tests.make import FIRST

from .helpers import text

pytestmark = pytest.mark.django_db


def range_values(name: str, start: int, end: int) -> dict[str, str]:
    return {"project": "shop", "range_name": name, "start_port": str(start), "end_port": str(end), "is_active": "on"}


def test_list_add_edit_and_delete(admin: Client, ports: PortManager) -> None:
    assert f"{FIRST}–{FIRST + 19} shop shop 0 of 20 held" in text(admin.get("/ranges"))
    values = range_values("more", FIRST + 100, FIRST + 109)
    assert admin.post("/ranges/add", values).status_code == 303
    port_range = PortRange.objects.get(range_name="more")
    edited = values | {"end_port": str(FIRST + 119), "is_shared": "on"}
    assert admin.post(reverse("range-edit", args=[port_range.pk]), edited).status_code == 303
    port_range.refresh_from_db()
    assert (port_range.end_port, port_range.is_shared, port_range.is_active) == (FIRST + 119, True, True)
    assert f"Delete more ({FIRST + 100}-{FIRST + 119})?" in text(
        admin.get(reverse("range-delete", args=[port_range.pk]))
    )
    assert admin.post(reverse("range-delete", args=[port_range.pk])).status_code == 303
    assert not PortRange.objects.filter(pk=port_range.pk).exists()


def test_an_overlap_names_the_other_range(admin: Client, ports: PortManager) -> None:
    values = range_values("more", FIRST + 10, FIRST + 29)
    response = admin.post("/ranges/add", values)
    assert response.status_code == 409
    assert (
        f"{FIRST + 10}-{FIRST + 29} overlaps shop ({FIRST}-{FIRST + 19}) of shop in {FIRST + 10}-{FIRST + 19}."
        in text(response)
    )
    assert f'value="{FIRST + 29}"' in response.content.decode()


def test_a_range_cannot_exclude_a_held_port(admin: Client, web: PortAllocation) -> None:
    address = reverse("range-edit", args=[web.port_range_id])
    values = range_values("shop", FIRST + 1, FIRST + 19)
    response = admin.post(address, values)
    assert response.status_code == 409
    assert f"{FIRST}/tcp (shop/web) would lie outside" in text(response)
    deleted = admin.post(reverse("range-delete", args=[web.port_range_id]))
    assert deleted.status_code == 409
    assert "shop cannot be deleted: 1 of its ports is held" in text(deleted)
