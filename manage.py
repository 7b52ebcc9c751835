#!/usr/bin/env python3
"""Run the commands of Portal, which `manage.py help` lists."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

VENV = Path(__file__).resolve().parent / ".venv" / "bin" / "python"


def main() -> None:
    """Run a command.

    If a setting is invalid or the database isn't available, print one line to standard error and exit with status 2.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    if find_spec("django") is None and VENV.exists() and sys.executable != str(VENV):
        # A shell or cron runs ./manage.py with the system Python, so switch to the one that `make` installed.
        os.execv(VENV, [str(VENV), *sys.argv])  # noqa: S606 no shell is needed
    if find_spec("django") is None:
        sys.exit("Portal is not installed here yet. Run `make up` to install and start it.")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db import OperationalError

    try:
        execute_from_command_line(sys.argv)
    except (ImproperlyConfigured, OperationalError) as error:
        if "--traceback" in sys.argv:
            raise
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
