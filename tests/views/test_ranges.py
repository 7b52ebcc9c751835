"""Ranges: the list, and adding, editing and deleting one."""

import pytest
from django.test import Client
from django.urls import reverse

from allocations.models import PortAllocation, PortRange
from allocations.ports import PortManager

from .helpers import text

pytestmark = pytest.mark.django_db


def test_list_add_edit_and_delete(admin: Client, ports: PortManager) -> None:
    assert "20500–20519 shop shop 0 of 20 held" in text(admin.get("/ranges"))
    values = {"project": "shop", "range_name": "more", "start_port": "20600", "end_port": "20609", "is_active": "on"}
    assert admin.post("/ranges/add", values).status_code == 303
    port_range = PortRange.objects.get(range_name="more")
    edited = values | {"end_port": "20619", "is_shared": "on"}
    assert admin.post(reverse("range-edit", args=[port_range.pk]), edited).status_code == 303
    port_range.refresh_from_db()
    assert (port_range.end_port, port_range.is_shared, port_range.is_active) == (20619, True, True)
    assert "Delete more (20600-20619)?" in text(admin.get(reverse("range-delete", args=[port_range.pk])))
    assert admin.post(reverse("range-delete", args=[port_range.pk])).status_code == 303
    assert not PortRange.objects.filter(pk=port_range.pk).exists()


def test_an_overlap_names_the_other_range(admin: Client, ports: PortManager) -> None:
    values = {"project": "shop", "range_name": "more", "start_port": "20510", "end_port": "20529", "is_active": "on"}
    response = admin.post("/ranges/add", values)
    assert response.status_code == 409
    assert "20510-20529 overlaps shop (20500-20519) of shop in 20510-20519." in text(response)
    assert 'value="20529"' in response.content.decode()


def test_a_range_cannot_exclude_a_held_port(admin: Client, web: PortAllocation) -> None:
    address = reverse("range-edit", args=[web.port_range_id])
    values = {"project": "shop", "range_name": "shop", "start_port": "20501", "end_port": "20519", "is_active": "on"}
    response = admin.post(address, values)
    assert response.status_code == 409
    assert "20500/tcp (shop/web) would lie outside" in text(response)
    deleted = admin.post(reverse("range-delete", args=[web.port_range_id]))
    assert deleted.status_code == 409
    assert "shop cannot be deleted: 1 of its ports is held" in text(deleted)
