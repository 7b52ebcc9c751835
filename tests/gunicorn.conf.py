# ruff: noqa: N999 - gunicorn expects this name
"""The settings of gunicorn in tests, which may run as root: those of Portal, but for the refusal to serve as root."""

from pathlib import Path

_file = Path(__file__).resolve().parent.parent / "portal" / "gunicorn.conf.py"
__file__ = str(_file)
exec(compile(_file.read_text(), _file, "exec"))  # noqa: S102 it is our own file
preload_app = True  # the workers start sooner
del on_starting  # type: ignore[name-defined]  # noqa: F821
