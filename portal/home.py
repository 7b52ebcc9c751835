"""Set up PORTAL_HOME, the directory with the embedded database, the generated secret key and the logs.

If root starts Portal, the directory belongs to root, and the account that serves Portal may add files, but not replace
those of root: the directory has the sticky bit, like /tmp.
"""

import contextlib
import os
import secrets
import stat
import tempfile
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from portal import account

PRIVATE, SHARED_WITH_ACCOUNT = 0o700, 0o1771
READ_BY_ACCOUNT = 0o640
PORTALS_OWN = {"secret_key", "postgresql", "restart.toml", "backups"}


def prepare(home: Path) -> None:
    """Create the directory `home`, which only the current user can access. Several processes may do so at once.

    If the current user is root, the account that serves Portal may add files to it (mode 1771), and other accounts may
    enter it, but not list it. An existing directory of an ordinary user keeps its mode, because it may be somebody's
    home directory; all secret files in it are protected by their own modes.

    Raises:
        ImproperlyConfigured: the directory can't be created, isn't writable, or belongs to somebody else.
    """
    try:
        home.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        if account.is_needed():
            _share(home)
    except OSError as error:
        raise unwritable(home, error) from error
    if not os.access(home, os.W_OK | os.X_OK):
        raise unwritable(home, PermissionError(13, "Permission denied"))


def _share(home: Path) -> None:
    status = home.stat()
    if status.st_uid != 0:
        raise ImproperlyConfigured(
            f"PORTAL_HOME is {home}, which does not belong to root, so root does not store anything there. Run Portal "
            "as the user to whom it belongs, or set PORTAL_HOME to another directory."
        )
    gid = account.service_account().pw_gid
    if (stat.S_IMODE(status.st_mode), status.st_gid) == (SHARED_WITH_ACCOUNT, gid):
        return
    names = {path.name for path in home.iterdir()}
    if names and not names & PORTALS_OWN:
        raise ImproperlyConfigured(
            f"PORTAL_HOME is {home}, which is in use for something else. Set PORTAL_HOME to a directory of its own, "
            "such as /var/lib/portal."
        )
    os.chown(home, 0, gid)
    home.chmod(SHARED_WITH_ACCOUNT)


def unwritable(home: Path, error: OSError) -> ImproperlyConfigured:
    """Return the error for a directory in which Portal can't store its files."""
    return ImproperlyConfigured(
        f"PORTAL_HOME is {home}, but Portal cannot store its files there ({error.strerror or error}). "
        "Set PORTAL_HOME to a directory that you can write to."
    )


def make_own(directory: Path, mode: int = PRIVATE) -> None:
    """Create a directory in PORTAL_HOME that belongs to the current user, with this mode, if it doesn't exist.

    Raises:
        ImproperlyConfigured: somebody else has created it.
    """
    directory.mkdir(exist_ok=True)
    refuse_foreign(directory)
    directory.chmod(mode)


def refuse_foreign(path: Path) -> None:
    """Refuse a file or directory in PORTAL_HOME that is a link, or that somebody else has created.

    Raises:
        ImproperlyConfigured: it is. If it isn't, nobody else can replace it afterwards.
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode) or status.st_uid != os.geteuid():
        raise ImproperlyConfigured(
            f"{path} was not made by the account that runs Portal. Find out who made it, and remove it."
        )


def secret_key(home: Path) -> str:
    """Return the secret key stored in `home`, which the first call generates.

    Several processes that call this at once get the same key. If root generates it, the account that serves Portal may
    read it.

    Raises:
        ImproperlyConfigured: the directory isn't writable, or the stored key is too short.
    """
    path = home / "secret_key"
    try:
        if account.is_needed() or not path.exists():
            prepare(home)
            _generate_key(path)
        key = path.read_text().strip()
    except OSError as error:
        raise unwritable(home, error) from error
    if len(key) < 50:
        raise ImproperlyConfigured(
            f"{path} does not contain a secret key of at least 50 characters. Delete it to get a new one."
        )
    return key


def _generate_key(path: Path) -> None:
    if not path.exists():
        # Write a temporary file and link it, so that nobody reads a partial key and the first one is kept.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix="secret_key.") as new:  # mode 0600
            new.write(secrets.token_urlsafe(48))
            new.flush()
            os.fsync(new.fileno())
            if account.is_needed():
                _let_account_read(new.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(new.name, path)
    if account.is_needed():  # it may be of a Portal that ran as root
        refuse_foreign(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            wanted = READ_BY_ACCOUNT, account.service_account().pw_gid
            if (stat.S_IMODE(status.st_mode), status.st_gid) != wanted:
                if status.st_nlink != 1:  # a second name of another file
                    raise ImproperlyConfigured(f"{path} has several names. Find out who made them, and remove it.")
                _let_account_read(descriptor)
        finally:
            os.close(descriptor)


def _let_account_read(descriptor: int) -> None:
    os.fchown(descriptor, 0, account.service_account().pw_gid)
    os.fchmod(descriptor, READ_BY_ACCOUNT)


if __name__ == "__main__":  # `make install`
    prepare(Path(os.environ["PORTAL_HOME"]))
