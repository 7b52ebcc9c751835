"""A real gunicorn with its workers before the test's database."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.db import connection


@contextmanager
def gunicorn(
    port: int, *, workers: int = 2, anybody: bool = False, pool: int = 0, rate_limit: int = 600
) -> Iterator[str]:
    """Serve on that port of this machine, and say where; ends with the block."""
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.served",
        "SERVED_DATABASE": connection.settings_dict["NAME"],
        "SERVED_TO_ANYBODY": str(int(anybody)),
        "SERVED_POOL": str(pool),
        "SERVED_RATE_LIMIT": str(rate_limit),
        "PORTAL_PORT": str(port),
        "PORTAL_WORKERS": str(workers),
    }
    command = [sys.executable, "-m", "gunicorn", "-c", str(settings.BASE_DIR / "portal" / "gunicorn.conf.py")]
    log = settings.PORTAL_HOME / f"served-{port}.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=settings.BASE_DIR, env=environment, stdout=output, stderr=output)
    try:
        _wait(f"http://127.0.0.1:{port}/healthz", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _wait(address: str, process: subprocess.Popen[bytes], log: os.PathLike[str]) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(address, timeout=5)  # noqa: S310 http, on this machine
            return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, f"gunicorn ended: see {log}"
            time.sleep(0.1)
    raise AssertionError(f"gunicorn does not answer: see {log}")
