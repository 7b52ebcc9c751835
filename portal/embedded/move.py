"""Move the database of a Portal up to 1f39b2f into a new cluster, which has a role for the application.

The old cluster has one role, a superuser, and whoever reaches its socket may have it. If root ran that Portal, its
files belong to `nobody`. It is dumped by its own account, and the dump is restored by the account of the new cluster,
so root never reads or changes a file of either. The old directory stays as `postgresql.old` until `make clean-old`.

Whatever interrupts this, the old cluster stays in place until the new one is complete.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

from portal import account
from portal.embedded import access
from portal.home import refuse_foreign

if TYPE_CHECKING:
    from portal.embedded.server import Server

OLD_ACCOUNT = "nobody"
OLD_ROLE = "portal"
RESTORE = ("--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error")


@dataclass(frozen=True, slots=True)
class Places:
    """The directories that are involved."""

    home: Path

    @property
    def current(self) -> Path:
        return self.home / "postgresql"

    @property
    def old(self) -> Path:
        """Return where the old cluster stays."""
        return self.home / "postgresql.old"

    @property
    def next(self) -> Path:
        """Return where the new cluster is once it is complete, until it takes the place of the old one."""
        return self.home / "postgresql.next"


def is_due(home: Path) -> bool:
    """Return whether the cluster in `home` is one of an earlier Portal.

    Raises:
        ImproperlyConfigured: this process is root, and the cluster belongs to an account as which Portal never ran.
    """
    current = Places(home).current
    if not current.exists():
        return False
    if not account.is_needed():
        return not access.is_prepared(current)
    owner = current.lstat().st_uid
    if owner == account.service_account().pw_uid:
        return False
    if owner != pwd.getpwnam(OLD_ACCOUNT).pw_uid:
        raise ImproperlyConfigured(
            f"{current} belongs to another account (uid {owner}) than the one that serves Portal if root starts it. "
            "Run Portal as that account, or set PORTAL_HOME to another directory."
        )
    return True


def move(server_for: Callable[[Path, pwd.struct_passwd | None], Server], home: Path) -> None:
    """Move the cluster in `home`. Several processes may call this at once.

    Args:
        server_for: returns the server in a directory, with programs that an account can run.

    Raises:
        ImproperlyConfigured: it cannot be moved; the sentence says why. Nothing was changed.
    """
    with _locked(home):
        if is_due(home):
            _move(server_for, Places(home))


def _move(server_for: Callable[[Path, pwd.struct_passwd | None], Server], places: Places) -> None:
    home = places.home
    if places.old.exists():
        raise ImproperlyConfigured(
            f"{places.current} has to be moved aside, but {places.old} exists. Delete it with `make clean-old`."
        )
    print(f"Moving the database in {home} to a new cluster …", file=sys.stderr)  # noqa: T201 before any command runs
    old_account = pwd.getpwnam(OLD_ACCOUNT) if account.is_needed() else None
    new_account = account.service_account() if account.is_needed() else None
    old_server, new_server = server_for(home, old_account), server_for(home, new_account)
    with tempfile.TemporaryFile(dir=home) as dump:  # its name is gone, so that nobody else can open it
        try:
            _as(old_account, lambda: _dump(old_server, dump.fileno()))
            _clear(places, new_account)
            _as(new_account, lambda: _load(new_server, dump.fileno()))
        except (account.ChildFailed, ImproperlyConfigured, OSError) as error:
            raise ImproperlyConfigured(
                f"The database in {home} could not be moved to a new cluster: {str(error).rstrip('.')}. Nothing was "
                "changed."
            ) from error
    places.current.rename(places.old)
    finish(home)


def finish(home: Path) -> None:
    """Put a complete new cluster in its place, if the old one has been moved aside."""
    places = Places(home)
    if places.next.exists() and not places.current.exists():
        places.next.rename(places.current)


def clean(home: Path) -> Path | None:
    """Delete the old cluster, and return where it was; None if there was none."""
    old = Places(home).old
    if old.is_symlink() or not old.exists():
        return None
    shutil.rmtree(old)  # does not follow links
    return old


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    file = home / "move.lock"
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        refuse_foreign(file)
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _as(user: pwd.struct_passwd | None, function: Callable[[], None]) -> None:
    if user is None:
        function()
    else:
        account.call(user, function)


def _clear(places: Places, new_account: pwd.struct_passwd | None) -> None:
    """Remove what the old server has left behind beside its cluster, and what an interrupted move has."""
    uid = new_account.pw_uid if new_account else os.geteuid()
    for path in (places.home / "run", places.home / "postgresql.log", places.home / "postgresql.lock"):
        if path.is_symlink() or not path.exists() or path.lstat().st_uid == uid:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    if places.next.exists():
        shutil.rmtree(places.next)


def _dump(server: Server, output: int) -> None:
    """Dump the old cluster, as the account to which it belongs."""
    if server.is_running():
        server.execute("pg_ctl", "stop", "-D", ".", "-m", "fast", "-w")
    with _running(server, server.data) as socket_dir:
        command = ["pg_dump", "--format=custom", "-h", str(socket_dir), "-U", OLD_ROLE, "-d", OLD_ROLE]
        _run(server, command, stdout=output)


def _load(server: Server, dump: int) -> None:
    """Create the new cluster and restore the dump, as the account to which the new cluster belongs."""
    os.lseek(dump, 0, os.SEEK_SET)
    new = server.create_cluster()
    with _running(server, new) as socket_dir:
        address = ["-h", str(socket_dir), "-U", access.OWNER, "-d", server.database]
        _run(server, ["pg_restore", *RESTORE, *address], stdin=dump)
        _run(server, ["psql", "-q", "-c", "ANALYZE", *address])
    new.rename(Places(server.home).next)


@contextmanager
def _running(server: Server, data: Path) -> Iterator[Path]:
    """Run the server of a cluster for this process only, and provide the directory of its socket."""
    with tempfile.TemporaryDirectory(prefix="portal-move-", dir="/tmp") as folder:
        trust = Path(folder, "pg_hba.conf")
        trust.write_text("local all all trust\n")
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c hba_file={trust} -c port=5432"
        start = ("pg_ctl", "start", "-w", "-D", ".", "-l", f"{folder}/log", "-o", options)
        server.execute(*start, cwd=data)
        try:
            yield Path(folder)
        finally:
            server.execute("pg_ctl", "stop", "-D", ".", "-m", "fast", "-w", cwd=data)


def _run(server: Server, command: list[str], *, stdin: int | None = None, stdout: int | None = None) -> None:
    with tempfile.TemporaryFile() as errors:
        done = subprocess.run(
            [server.programs / command[0], *command[1:]],
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.DEVNULL if stdout is None else stdout,
            stderr=errors,
            env={"PATH": os.defpath, "LC_ALL": "C", "PGPORT": "5432"},
        )
        if done.returncode:
            errors.seek(0)
            raise OSError(f"{command[0]}: {' '.join(errors.read().decode(errors='replace').split())[-500:]}")
