"""The units of systemd. They were tried in a real one; here, nothing that hardens them gets lost."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
from django.conf import settings

UNITS = Path(settings.BASE_DIR) / "deploy" / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
RUNS_AS_ROOT = {"portal-migrate", "portal-observer"}
HARDENED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ReadWritePaths": "/var/lib/portal",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "RestrictNamespaces": "yes",
    "RestrictSUIDSGID": "yes",
    "MemoryDenyWriteExecute": "yes",
}


def read(unit: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    return parser["Service"]


def test_target_starts_all_services() -> None:
    assert {f"{unit.name}" for unit in SERVICES} <= set(
        (UNITS / "portal.target").read_text().split("Wants=")[1].split()
    )


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_unit_has_as_few_rights_as_possible(unit: Path) -> None:
    service = read(unit)
    assert {name: service.get(name) for name in HARDENED} == HARDENED
    if unit.stem in RUNS_AS_ROOT:
        assert "User" not in service
        assert service["CapabilityBoundingSet"]
    else:
        assert (service["User"], service["CapabilityBoundingSet"]) == ("portal", "")


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_unit_runs_code_of_root_only(unit: Path) -> None:
    service = read(unit)
    commands = [value for name, value in service.items() if name.startswith("Exec")]
    assert all(command.startswith("/opt/portal/.venv/bin/python ") for command in commands)
    assert service["WorkingDirectory"] == "/opt/portal"


def test_web_server_does_not_get_the_rights_of_the_owner() -> None:
    service = read(UNITS / "portal-web.service")
    assert service["UnsetEnvironment"].split() == ["DATABASE_OWNER_URL", "PORTAL_ADMIN_PASSWORD"]
