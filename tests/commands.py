"""Run a command of manage.py in the process of the test."""

import io

from django.core.management import CommandError, call_command


def run(*words: str) -> tuple[str, str, int]:
    """Run a command, and return its standard output, its standard error and its exit status."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command(*words, stdout=out, stderr=err)
        status = 0
    except CommandError as error:
        err.write(str(error))
        status = error.returncode
    except SystemExit as system_exit:
        status = int(system_exit.code or 0)
    return out.getvalue(), err.getvalue(), status
