"""What a token is made of: `ptl_<8 public>_<40 secret><6 checksum>`.

The prefix and the checksum (CRC-32 in base 62, as GitHub's tokens have it) let secret scanners find a leaked one
without asking anybody. 40 characters of base 62 are 238 bits: a plain SHA-256 of them is as good as any slow hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass

PREFIX = "ptl_"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
PATTERN = re.compile(r"ptl_([0-9A-Za-z]{8})_([0-9A-Za-z]{40})([0-9A-Za-z]{6})")


@dataclass(frozen=True, slots=True)
class Secret:
    """A token as its owner has it."""

    text: str
    public_id: str

    @property
    def hash(self) -> bytes:
        """What is stored: 32 bytes."""
        return hashlib.sha256(self.text.encode("ascii")).digest()

    def matches(self, stored: bytes) -> bool:
        """Whether `stored` is the hash of this token, in a time that does not tell where they differ."""
        return hmac.compare_digest(self.hash, stored)


def new() -> Secret:
    """A token of chance."""
    public_id, secret = _chance(8), _chance(40)
    body = f"{PREFIX}{public_id}_{secret}"
    return Secret(body + _checksum(body), public_id)


def read(text: str) -> Secret | None:
    """What somebody presents as a token; None where it cannot be one."""
    found = PATTERN.fullmatch(text)
    if found is None or not hmac.compare_digest(_checksum(text[:-6]), found[3]):
        return None
    return Secret(text, found[1])


def _chance(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode("ascii")), ""
    for _ in range(6):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
