"""The system account that runs the web server and PostgreSQL if root starts Portal.

Root itself only prepares: it never serves HTTP, and nothing that it reads, writes or executes can be changed by this
account.
"""

from __future__ import annotations

import functools
import os
import pwd
import subprocess
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from django.core.exceptions import ImproperlyConfigured

from portal.peers import first_login_uid

Account = pwd.struct_passwd
DEFAULT = "portal"
NO_LOGIN_SHELLS = {"nologin", "false"}
USERADD = ("useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin")


class ChildFailed(Exception):
    """Raised if a function that ran as another account failed."""


def is_needed() -> bool:
    """Return whether this process is root, and therefore hands over to another account."""
    return os.geteuid() == 0


@functools.cache
def service_account() -> Account:
    """Return the account, creating it if it doesn't exist. Several processes may call this at once.

    Raises:
        ImproperlyConfigured: it cannot be created, or it is not a system account without a login shell.
    """
    name = os.environ.get("PORTAL_USER", "").strip() or DEFAULT
    account = _find(name) or _create(name)
    shell = Path(account.pw_shell).name
    if account.pw_uid == 0 or account.pw_uid >= first_login_uid() or shell not in NO_LOGIN_SHELLS:
        raise ImproperlyConfigured(
            f"The account {name} is not a system account without a login shell, so Portal does not run as {name}. "
            "Name another account in PORTAL_USER: Portal creates it if it does not exist."
        )
    return account


def _find(name: str) -> Account | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _create(name: str) -> Account:
    command = [*USERADD, "--comment", "Portal", "--", name]
    try:
        done = subprocess.run(command, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, capture_output=True, text=True)
        reason = " ".join(done.stderr.split()) if done.returncode else ""
    except OSError as error:
        reason = f"{command[0]}: {error.strerror}"
    account = _find(name)  # another process may have created it in the meantime
    if account is None:
        raise ImproperlyConfigured(
            f"The system account {name}, as which Portal runs if root starts it, cannot be created "
            f"({reason.rstrip('.')}). Create it, or name an existing system account in PORTAL_USER."
        )
    return account


def become(account: Account) -> None:
    """Give up root for good, in this process and all that it starts."""
    os.setgroups([])
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    os.umask(0o077)


def run(account: Account, command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a program as an account, with none of the rights, the groups and the environment of root.

    Args:
        options: those of subprocess.run().
    """
    options.setdefault("env", {"PATH": os.defpath})
    return subprocess.run(
        command, user=account.pw_uid, group=account.pw_gid, extra_groups=[], umask=0o077, check=False, **options
    )


def call(account: Account, function: Callable[[], None]) -> None:
    """Call a function in a child that has become this account.

    The child is a fork, because the account may not be able to read the files of Python. So the function must not
    import anything.

    Raises:
        ChildFailed: the function raised an exception, whose text this has.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Python warns of threads, whose locks the child would inherit. Those of Django and psycopg hold none that the
        # child needs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(reader)
        _run_and_exit(account, function, writer)
    os.close(writer)
    with open(reader, "rb") as pipe:  # noqa: PTH123 it is a descriptor
        text = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if status:
        raise ChildFailed(text or f"the process that ran as {account.pw_name} ended with status {status}")


def _run_and_exit(account: Account, function: Callable[[], None], writer: int) -> NoReturn:
    status = 1
    try:
        become(account)
        function()
        status = 0
    except BaseException as error:
        os.write(writer, str(error).encode(errors="replace"))
    finally:
        os._exit(status)  # without what the parent does when it ends
