"""Separate processes for tests that look at who listens on a port."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SERVE = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
s = socket.create_server((sys.argv[2], int(sys.argv[1])), family=family)
print("up", flush=True)
sys.stdin.read()
"""


@contextmanager
def process(port: int, address: str = "127.0.0.1", **environment: str) -> Iterator[int]:
    """Run a separate process that listens on a port, and provide its pid."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(port), address],
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        yield child.pid
        child.communicate("")
