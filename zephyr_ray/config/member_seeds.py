"""The part of a request's seed that a pool member's name decides, and the check that two members do not share it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

MEMBER_BITS = 20


def member_bits(member: str) -> int:
    """The part of a seed that a member's name decides, in [0, 2^20)."""
    return hash_64("member", member) % (1 << MEMBER_BITS)


def find_clash(members: Sequence[str]) -> tuple[str, str] | None:
    """Two members with the same name or the same seeds, or None."""
    seen: dict[int, str] = {}
    for member in members:
        bits = member_bits(member)
        if bits in seen:
            return seen[bits], member
        seen[bits] = member
    return None


def hash_64(*parts: str | int) -> int:
    """A 64-bit hash of the parts, the same in every process."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        raw = str(part).encode()
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return int.from_bytes(digest.digest(), "big")
