"""Backup and restore, with the programs of PostgreSQL and two installations side by side."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings

from portal.embedded.server import Server

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def homes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return two values for PORTAL_HOME in a directory that the account of PostgreSQL can reach."""
    base = Path("/var/tmp" if os.geteuid() == 0 else tmp_path_factory.mktemp("homes"))
    return [base / f"portal-backup-{os.getpid()}-{name}" for name in ("a", "b")]


@pytest.fixture
def run(homes: list[Path]) -> Run:
    def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PORTAL_HOME": str(home), "DJANGO_SETTINGS_MODULE": "portal.settings"}
        environment |= {"DATABASE_URL": "", "PORTAL_SECRET_KEY": ""}
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, cwd=settings.BASE_DIR, env=environment
        )

    return run


@pytest.fixture(autouse=True)
def _remove_homes(homes: list[Path]) -> object:
    yield
    for home in homes:
        if home.exists():
            Server(home).stop()
            subprocess.run(["rm", "-rf", str(home)], check=True)


@pytest.mark.slow
def test_backup_is_restored(homes: list[Path], run: Run, tmp_path: Path) -> None:
    first, second = homes
    dump = str(tmp_path / "portal.dump")
    assert run(first, "manage.py", "migrate", "-v", "0").returncode == 0
    run(first, "manage.py", "add_project", "shop")
    run(first, "manage.py", "allocate", "shop", "api")
    run(first, "manage.py", "allocate", "shop", "old")
    run(first, "manage.py", "release", "shop", "old")
    done = run(first, "-m", "portal.backup", "backup", dump)
    assert (done.returncode, done.stderr) == (0, "")
    assert (Path(dump).stat().st_mode & 0o777) == 0o600
    done = run(second, "-m", "portal.backup", "restore", dump)
    assert (done.returncode, done.stderr) == (0, "")
    list_ports = ("manage.py", "list_ports", "--status", "all", "--json")
    assert run(second, *list_ports).stdout == run(first, *list_ports).stdout
    assert run(second, "manage.py", "allocate", "shop", "new").stdout == "3001\n"

    done = run(second, "-m", "portal.backup", "restore", dump)
    assert done.returncode == 1
    assert "not empty" in done.stderr
    done = run(first, "-m", "portal.backup", "backup", str(tmp_path / "no" / "portal.dump"))
    assert (done.returncode, done.stderr) == (
        1,
        f"{tmp_path}/no/portal.dump: No such file or directory. Nothing was changed.\n",
    )
    assert run(first, "-m", "portal.embedded").stdout == f"Stopped the PostgreSQL server of {first}.\n"
    assert run(first, "-m", "portal.embedded").stdout == f"The PostgreSQL server of {first} is not running.\n"


@pytest.mark.slow
def test_invalid_backup_changes_nothing(homes: list[Path], run: Run, tmp_path: Path) -> None:
    (tmp_path / "no.dump").write_text("this is not a dump")
    done = run(homes[0], "-m", "portal.backup", "restore", str(tmp_path / "no.dump"))
    assert done.returncode == 1
    assert (
        done.stderr.splitlines()[-1] == f"pg_restore failed: {tmp_path}/no.dump was not restored. Nothing was changed."
    )


@pytest.mark.parametrize("arguments", [(), ("backup",), ("backup", ""), ("dump", "x")])
def test_usage(homes: list[Path], run: Run, arguments: tuple[str, ...]) -> None:
    done = run(homes[0], "-m", "portal.backup", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("Name the file: make backup FILE=portal.dump")
