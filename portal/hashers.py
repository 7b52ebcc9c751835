"""Hash passwords one after the other, so that everything else stays fast."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.contrib.auth.hashers import PBKDF2PasswordHasher

NICENESS = 10
_queue: ThreadPoolExecutor


def _start_queue() -> None:
    """Make the queue. A forked process has that of its parent, but not its thread, so it makes its own."""
    global _queue
    _queue = ThreadPoolExecutor(1, "hashing", initializer=_yield_to_others)


def _yield_to_others() -> None:
    if sys.platform == "linux":  # where each thread has a priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


_start_queue()
os.register_at_fork(after_in_child=_start_queue)


class QueuedPBKDF2PasswordHasher(PBKDF2PasswordHasher):
    """Django's hasher, with one hash at a time in each process.

    A hash keeps a processor busy for a third of a second. Without a queue, 40 logins at once would slow down all pages.
    """

    def encode(self, *args: Any, **kwargs: Any) -> str:
        encoded: str = _queue.submit(super().encode, *args, **kwargs).result()
        return encoded
