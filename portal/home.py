"""Set up PORTAL_HOME, the directory with the embedded database, the generated secret key and the logs."""

import contextlib
import os
import pwd
import secrets
import stat
import tempfile
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured


def postgres_account() -> pwd.struct_passwd | None:
    """Return the account to run PostgreSQL as, since it refuses to run as root; None means the current user."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def prepare(home: Path) -> None:
    """Create the directory `home`, which only the current user can access. Several processes may do so at once.

    If the current user is root, the account of PostgreSQL may enter the directory (mode 0710), but not list or change
    it. An existing directory keeps its mode, because it may be somebody's home directory; all secret files in it are
    protected by their own modes.

    Raises:
        ImproperlyConfigured: the directory can't be created or isn't writable.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        account = postgres_account()
        status = home.stat()
        if account and status.st_uid == 0 and stat.S_IMODE(status.st_mode) == 0o700:
            os.chown(home, 0, account.pw_gid)
            home.chmod(0o710)
    except OSError as error:
        raise unwritable(home, error) from error
    if not os.access(home, os.W_OK | os.X_OK):
        raise unwritable(home, PermissionError(13, "Permission denied"))


def unwritable(home: Path, error: OSError) -> ImproperlyConfigured:
    """Return the error for a directory in which Portal can't store its files."""
    return ImproperlyConfigured(
        f"PORTAL_HOME is {home}, but Portal cannot store its files there ({error.strerror or error}). "
        "Set PORTAL_HOME to a directory that you can write to."
    )


def secret_key(home: Path) -> str:
    """Return the secret key stored in `home`, which the first call generates.

    Several processes that call this at once get the same key.

    Raises:
        ImproperlyConfigured: the directory isn't writable, or the stored key is too short.
    """
    prepare(home)
    path = home / "secret_key"
    try:
        if not path.exists():
            # Write a temporary file and link it, so that nobody reads a partial key and the first one is kept.
            with tempfile.NamedTemporaryFile("w", dir=home, prefix="secret_key.") as new:  # mode 0600
                new.write(secrets.token_urlsafe(48))
                new.flush()
                os.fsync(new.fileno())
                with contextlib.suppress(FileExistsError):
                    os.link(new.name, path)
        key = path.read_text().strip()
    except OSError as error:
        raise unwritable(home, error) from error
    if len(key) < 50:
        raise ImproperlyConfigured(
            f"{path} does not contain a secret key of at least 50 characters. Delete it to get a new one."
        )
    return key
