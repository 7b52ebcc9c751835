"""What tells two states of one thing apart."""

from __future__ import annotations

import hashlib
import json


def version_of(*facts: object) -> str:
    """A short fingerprint of what can be edited: it changes with every edit, not when an audit looks."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:20]
