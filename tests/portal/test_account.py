"""The system account that serves Portal if root starts it."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from django.core.exceptions import ImproperlyConfigured

from portal import account, checkout, home, launch

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root hands over to another account"),
    pytest.mark.xdist_group("account"),  # they share a copy of the code
]


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of an account that does not exist, in PORTAL_USER."""
    name = f"portal-{uuid4().hex[:8]}"
    monkeypatch.setenv("PORTAL_USER", name)
    account.service_account.cache_clear()
    yield name
    account.service_account.cache_clear()
    subprocess.run(["userdel", name], stderr=subprocess.DEVNULL)


def test_account_is_made_once_without_a_login_shell(name: str) -> None:
    made = account.service_account()
    assert 0 < made.pw_uid < 1000
    assert made.pw_shell.endswith("nologin")
    account.service_account.cache_clear()
    assert account.service_account() == made


@pytest.mark.parametrize("options", [["--shell", "/bin/bash", "--system"], ["--shell", "/usr/sbin/nologin"]])
def test_account_of_a_person_is_refused(name: str, options: list[str]) -> None:
    subprocess.run(["useradd", *options, "--no-create-home", name], check=True)
    with pytest.raises(ImproperlyConfigured, match="is not a system account without a login shell"):
        account.service_account()


def test_root_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTAL_USER", "root")
    with pytest.raises(ImproperlyConfigured, match="is not a system account"):
        account.service_account()


@pytest.mark.parametrize("invalid", ["not a name", "-rf", "a:b"])
def test_account_that_cannot_be_made_is_reported_in_one_sentence(
    name: str, monkeypatch: pytest.MonkeyPatch, invalid: str
) -> None:
    monkeypatch.setenv("PORTAL_USER", invalid)
    with pytest.raises(ImproperlyConfigured, match=r"cannot be created \(useradd: .*\)\. Create it, or name"):
        account.service_account()


def test_without_useradd(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "USERADD", ("useradd-that-is-missing",))
    with pytest.raises(ImproperlyConfigured, match="cannot be created"):
        account.service_account()


def test_becoming_the_account_is_for_good() -> None:
    user = account.service_account()

    def check() -> None:
        assert os.getresuid() == (user.pw_uid,) * 3
        assert os.getresgid() == (user.pw_gid,) * 3
        assert os.getgroups() == []
        with pytest.raises(PermissionError):
            os.setuid(0)

    account.call(user, check)


def test_failure_of_the_child_is_reported() -> None:
    def fail() -> None:
        raise ValueError("as it should")

    with pytest.raises(account.ChildFailed, match="as it should"):
        account.call(account.service_account(), fail)


# PORTAL_HOME


@pytest.fixture(scope="module")
def portal_home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="portal-test-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        path = Path(folder, "home")
        home.prepare(path)
        yield path


def test_directory_in_use_for_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    mode = tmp_path.stat().st_mode
    with pytest.raises(ImproperlyConfigured, match="in use for something else"):
        home.prepare(tmp_path)
    assert tmp_path.stat().st_mode == mode


def test_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 1234, -1)
    with pytest.raises(ImproperlyConfigured, match="does not belong to root"):
        home.prepare(tmp_path)


# The copy of the code


def test_copy_belongs_to_root_and_runs(portal_home: Path) -> None:
    user = account.service_account()
    copy = checkout.readable_by(user, portal_home, always_copy=True)
    assert copy.root == portal_home / "app"
    for path in (copy.root, *(copy.root / "portal").rglob("*")):
        status = path.lstat()
        assert status.st_uid == 0
        assert not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH), path
    first = copy.root.stat().st_ino
    assert checkout.readable_by(user, portal_home, always_copy=True).root.stat().st_ino == first, "it is up to date"


def test_copy_is_replaced_if_the_code_has_changed(portal_home: Path) -> None:
    user = account.service_account()
    copy = checkout.readable_by(user, portal_home, always_copy=True)
    (copy.root / "source").write_text("of an older version")
    (copy.root / "portal" / "left_behind.py").touch()
    checkout.readable_by(user, portal_home, always_copy=True)
    assert not (copy.root / "portal" / "left_behind.py").exists()
    assert list(portal_home.glob("app.*")) == []


def test_account_can_read_what_root_can_but_others_cannot(portal_home: Path) -> None:
    """Such as a clone in /root, or with a umask of 077."""
    user = pwd.getpwnam("nobody")
    copy = checkout.readable_by(user, portal_home, always_copy=True)
    done = account.run(user, [copy.python, "-c", checkout.IMPORTS], cwd=copy.root, env=copy.environment)
    assert done.returncode == 0


def test_low_port_is_refused_with_the_first_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tmp_path / "first"
    first.write_text("1024\n")
    monkeypatch.setattr(launch, "FIRST_UNPRIVILEGED", first)
    launch.refuse_low_port(1024)
    with pytest.raises(ImproperlyConfigured, match="may only open ports from 1024 on"):
        launch.refuse_low_port(443)
