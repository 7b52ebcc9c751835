"""Run coroutines in a test. An event loop of the browser tests may already run in the thread of the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.db import connections

T = TypeVar("T")


def in_a_loop_of_its_own(work: Coroutine[Any, Any, Any]) -> Any:
    """Run the coroutine in a new event loop in another thread and return its result."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def in_a_thread_beside(work: Callable[[], T]) -> T:
    """Run code that starts its own event loop (async_to_sync, a request to an async view) in another thread.

    It uses this thread's database connection, and so the transaction of the test.
    """
    connection = connections["default"]

    def run() -> T:
        connections["default"] = connection
        return work()

    connection.inc_thread_sharing()
    try:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(run).result()
    finally:
        connection.dec_thread_sharing()
