"""Test that passwords are hashed one after the other, at a low priority, and as Django does it."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from django.contrib.auth.hashers import PBKDF2PasswordHasher, check_password
from django.test import override_settings

from portal.hashers import NICENESS, QueuedPBKDF2PasswordHasher

PASSWORD, SALT = "correct-horse-battery", "pepper-and-salt-pepper"
ITERATIONS = 1000


def niceness_of_threads() -> dict[str, int]:
    """Return the niceness of each thread of this process, by its id."""
    stats = {task.name: (task / "stat").read_text() for task in Path("/proc/self/task").iterdir()}
    return {thread: int(stat.rpartition(")")[2].split()[16]) for thread, stat in stats.items()}


def test_one_thread_of_low_priority_hashes_everything() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with ThreadPoolExecutor(8) as callers:
        list(callers.map(lambda _: QueuedPBKDF2PasswordHasher().encode(PASSWORD, SALT, ITERATIONS), range(40)))
    after = niceness_of_threads()
    assert list(after.values()).count(before + NICENESS) == 1
    assert after[str(threading.get_native_id())] == before


def test_the_result_is_that_of_django() -> None:
    mine = QueuedPBKDF2PasswordHasher().encode(PASSWORD, SALT, ITERATIONS)
    assert mine == PBKDF2PasswordHasher().encode(PASSWORD, SALT, ITERATIONS)
    with override_settings(PASSWORD_HASHERS=["portal.hashers.QueuedPBKDF2PasswordHasher"]):
        assert check_password(PASSWORD, mine)
        assert not check_password("wrong", mine)


def test_a_forked_process_hashes_too() -> None:
    QueuedPBKDF2PasswordHasher().encode(PASSWORD, SALT, ITERATIONS)
    child = multiprocessing.get_context("fork").Process(
        target=QueuedPBKDF2PasswordHasher().encode, args=(PASSWORD, SALT, ITERATIONS)
    )
    child.start()
    child.join(20)
    try:
        assert child.exitcode == 0
    finally:
        child.kill()
