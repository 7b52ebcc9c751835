"""Coroutines in a test."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def in_a_loop_of_its_own(work: Coroutine[Any, Any, Any]) -> Any:
    """Run it in another thread: this one has the loop of the browser tests, if they ran before."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
