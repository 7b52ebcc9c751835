#!/usr/bin/env python3
"""Run the commands of Portal, which `manage.py help` lists."""

# ruff: noqa: E402 - until a command runs, Ctrl-C ends the process without a traceback of half an import
import signal

WAS_INTERRUPTIBLE = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not under nohup, for example
if WAS_INTERRUPTIBLE:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

VENV = Path(__file__).resolve().parent / ".venv" / "bin" / "python"
INTERRUPTED = 130


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

    from portal import streams

    streams.prepare()
    interrupts = _count_interrupts()
    try:
        try:
            execute_from_command_line(sys.argv)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        _stop()
    except streams.OutputError as error:
        sys.exit(str(error))
    except (ImproperlyConfigured, OperationalError) as error:
        if "--traceback" in sys.argv:
            raise
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        sys.exit(2)
    except Exception:
        if not interrupts:
            raise
        _stop()  # an interrupted import may end in any exception


def _count_interrupts() -> list[int]:
    """Raise KeyboardInterrupt on Ctrl-C from now on. Return a list that is empty until then."""
    interrupts: list[int] = []

    def interrupt(number: int, frame: object) -> NoReturn:
        interrupts.append(number)
        raise KeyboardInterrupt

    if WAS_INTERRUPTIBLE:
        signal.signal(signal.SIGINT, interrupt)
    return interrupts


def _stop() -> NoReturn:
    if WAS_INTERRUPTIBLE:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.stderr.write("Stopped.\n")
    sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
