"""Build the parts of sentences that several modules need."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from difflib import get_close_matches


def quoted(value: object) -> str:
    """Return the value in quotes for a sentence: short, and harmless in a terminal."""
    text = json.dumps(value, default=str) if not isinstance(value, str) else json.dumps(value, ensure_ascii=True)
    if len(text) <= 80:
        return text
    return text[:77] + ('…"' if text.startswith('"') else "…")


def nearest(name: str, names: Sequence[str]) -> list[str]:
    """Return up to three of `names` that resemble `name`, the closest first."""
    return get_close_matches(name, names, n=3, cutoff=0.5)


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """Return `Did you mean a or b?` with the names that resemble `name`, or an empty string if none does."""
    return did_you_mean_one_of(nearest(name, names))


def did_you_mean_one_of(near: Sequence[str]) -> str:
    """Return `Did you mean a or b?`, or an empty string if there are no names."""
    return f"Did you mean {join_or(near)}?" if near else ""


def join_and(names: Sequence[str]) -> str:
    """Return `a`, `a and b`, or `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def join_or(names: Sequence[str]) -> str:
    """Return `a`, `a or b`, or `a, b or c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def in_directory(path: str) -> str:
    """Return ` in /srv/shop` for a sentence about a process, or an empty string if the directory says nothing.

    As with names of processes, anything that could read as prose is not repeated.
    """
    return f" in {path}" if path != "/" and re.fullmatch(r"[\w./@+-]{1,200}", path, re.ASCII) else ""


def process_name(value: object) -> str:
    """Return the name of a process for a sentence.

    Processes choose their own names, so anything that could read as prose is not repeated.
    """
    if isinstance(value, str) and re.fullmatch(r"[\w.+:@-]{1,40}", value, re.ASCII):
        return value
    return "a process whose name cannot be shown"
