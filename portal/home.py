"""PORTAL_HOME: the directory with the embedded database, the generated secret key and the logs."""

import contextlib
import os
import pwd
import secrets
import stat
import tempfile
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured


def postgres_account() -> pwd.struct_passwd | None:
    """Return the account that PostgreSQL runs as, None for the caller's own: it refuses to run as root."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def prepare(home: Path) -> None:
    """Make `home`, closed to everyone else; any number of processes may do so at once.

    As root the group of PostgreSQL's account may walk through (0710), but neither list the directory nor change it.
    A directory that was there before keeps its mode: it may be somebody's home, and all that is secret in it is closed
    by itself. Raises ImproperlyConfigured, in one sentence, if `home` cannot be made or written.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        account = postgres_account()
        found = home.stat()
        if account and found.st_uid == 0 and stat.S_IMODE(found.st_mode) == 0o700:
            os.chown(home, 0, account.pw_gid)
            home.chmod(0o710)
    except OSError as error:
        raise unwritable(home, error) from error
    if not os.access(home, os.W_OK | os.X_OK):
        raise unwritable(home, PermissionError(13, "Permission denied"))


def unwritable(home: Path, error: OSError) -> ImproperlyConfigured:
    """Return the error that says that Portal cannot keep its files in `home`, and what to do."""
    return ImproperlyConfigured(
        f"PORTAL_HOME is {home}, and Portal cannot keep its files there ({error.strerror or error}): "
        "set PORTAL_HOME to a directory that you may write."
    )


def secret_key(home: Path) -> str:
    """Return the secret key kept in `home`, made at the first call; callers that race get the same one."""
    prepare(home)
    path = home / "secret_key"
    try:
        if not path.exists():
            # Written aside and linked: whoever reads the name reads a whole key, and the first one stays.
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
        raise ImproperlyConfigured(f"{path} does not hold a secret key of 50 characters: delete it to get a new one.")
    return key
