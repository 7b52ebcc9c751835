"""Run a real gunicorn on the test database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.conf import settings
from django.db import connection


@contextmanager
def gunicorn(
    port: int,
    *,
    workers: int = 2,
    anonymous_read: bool = False,
    pool: int = 0,
    rate_limit: int = 600,
    descriptors: int | None = None,
    max_requests: int | None = None,
    end: signal.Signals = signal.SIGINT,
) -> Iterator[str]:
    """Serve Portal until the end of the block, and provide its base URL.

    Args:
        port: the port to serve on, at 127.0.0.1.
        workers: the number of worker processes.
        anonymous_read: whether requests without a login may read everything.
        pool: the maximum number of connections in the connection pool of each worker; 0 means no pool.
        rate_limit: the requests per minute that each caller may make.
        descriptors: how many files each process may open; by default as many as this process.
        max_requests: after how many requests a worker is replaced; by default as in production.
        end: the signal that ends it. SIGTERM waits for requests, SIGINT does not.
    """
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.served",
        "SERVED_DATABASE": connection.settings_dict["NAME"],
        "SERVED_ANONYMOUS_READ": str(int(anonymous_read)),
        "SERVED_POOL": str(pool),
        "SERVED_RATE_LIMIT": str(rate_limit),
        "PORTAL_PORT": str(port),
        "PORTAL_WORKERS": str(workers),
    }
    command = [sys.executable, "-m", "gunicorn", "-c", str(settings.BASE_DIR / "tests" / "gunicorn.conf.py")]
    if max_requests is not None:
        command += ["--max-requests", str(max_requests), "--max-requests-jitter", "0"]
    if descriptors is not None:
        command = ["prlimit", f"--nofile={descriptors}:{descriptors}", *command]
    log = settings.PORTAL_HOME / f"served-{port}.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=settings.BASE_DIR, env=environment, stdout=output, stderr=output)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/healthz", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(end)
        process.wait(30)


def wait_until(condition: Callable[[], bool]) -> bool:
    """Return whether the condition holds within 5 s."""
    for _ in range(50):
        if condition():
            return True
        time.sleep(0.1)
    return False


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: os.PathLike[str]) -> None:
    """Wait until a server answers, and fail if it ends before."""
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=5)  # noqa: S310 always http to this machine
            return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, f"gunicorn has exited, see {log}"
            time.sleep(0.1)
    raise AssertionError(f"gunicorn does not respond, see {log}")
