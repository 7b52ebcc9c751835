#!/usr/bin/env python3
"""Portal's commands: `manage.py help` lists them."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

VENV = Path(__file__).resolve().parent / ".venv" / "bin" / "python"


def main() -> None:
    """Run a command; a wrong setting or a database that does not answer is one line on standard error, and status 2."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    if find_spec("django") is None and VENV.exists() and sys.executable != str(VENV):
        # ./manage.py from a shell or cron: use what `make` installed.
        os.execv(VENV, [str(VENV), *sys.argv])  # noqa: S606 no shell is meant
    if find_spec("django") is None:
        sys.exit("Portal is not installed here yet: `make up` does that.")
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
