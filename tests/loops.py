"""Coroutines in a test. Its own thread has the loop of the browser tests, if they ran before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.db import connections

T = TypeVar("T")


def in_a_loop_of_its_own(work: Coroutine[Any, Any, Any]) -> Any:
    """Run it in another thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def in_a_thread_beside(work: Callable[[], T]) -> T:
    """Run what begins a loop of its own (async_to_sync, a request to an async view) in another thread.

    It reads and writes over this thread's connection, inside the test's transaction.
    """
    here = connections["default"]

    def run() -> T:
        connections["default"] = here
        return work()

    here.inc_thread_sharing()
    try:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(run).result()
    finally:
        here.dec_thread_sharing()
