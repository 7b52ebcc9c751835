"""The format of a token: `ptl_<8 public>_<40 secret><6 checksum>`.

The prefix and the checksum (CRC-32 in base 62, as in GitHub's tokens) let secret scanners recognize a leaked token
offline. 40 characters of base 62 are 238 bits, so a plain SHA-256 of them is as safe as a slow hash.
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
    """A token in plain text, as its user holds it."""

    text: str
    public_id: str

    @property
    def hash(self) -> bytes:
        """Return what the database stores: 32 bytes."""
        return hashlib.sha256(self.text.encode("ascii")).digest()

    def matches(self, stored: bytes) -> bool:
        """Return whether `stored` is the hash of this token. The comparison takes constant time."""
        return hmac.compare_digest(self.hash, stored)


def generate() -> Secret:
    """Generate a random token."""
    public_id, secret = _random(8), _random(40)
    body = f"{PREFIX}{public_id}_{secret}"
    return Secret(body + _checksum(body), public_id)


def parse(text: str) -> Secret | None:
    """Return the token that a caller presents, or None if it is malformed."""
    match = PATTERN.fullmatch(text)
    if match is None or not hmac.compare_digest(_checksum(text[:-6]), match[3]):
        return None
    return Secret(text, match[1])


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode("ascii")), ""
    for _ in range(6):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
