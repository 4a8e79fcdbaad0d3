"""Reads the run's seed, a prompt's id and the pool's names -> who answers, and the seed of each request.

Pure functions. Nothing here depends on partitions, retries or the order in which answers come, so neither do the
answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from zephyr_ray.errors import UserError
from zephyr_ray.inference.principles import PRINCIPLES

SEED_BITS = 53  # what a JSON number holds exactly, whoever parses it
_SAMPLE_BITS = 12
_MEMBER_BITS = 20
_ODD = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: multiplying by an odd number modulo a power of two loses nothing


def request_seed(run_seed: int, prompt_id: str, member: str, sample: int) -> int:
    """The seed of one request, in [0, 2^53).

    Two requests for one prompt never share a seed, nor the lower 32 bits of one, which is all that torch's generator
    takes on a CPU: member and sample have bits of their own in a 32-bit number, an odd factor permutes the numbers
    modulo 2^32 as well as modulo 2^53, and adding the prompt's own number keeps them apart. `find_clash` tells where
    two names of a pool fall on the same member bits.

    Args:
        run_seed: Of the run.
        prompt_id: Hash of the prompt's messages.
        member: Name in the pool.
        sample: Number of the answer among this member's to this prompt, below 4096.
    """
    if not 0 <= sample < 1 << _SAMPLE_BITS:
        raise ValueError(f"sample {sample} is not in [0, {1 << _SAMPLE_BITS})")
    place = member_bits(member) << _SAMPLE_BITS | sample
    return (_hash("seed", run_seed, prompt_id) + place * _ODD) % (1 << SEED_BITS)


def member_bits(member: str) -> int:
    """The part of a seed that a member's name decides."""
    return _hash("member", member) % (1 << _MEMBER_BITS)


def find_clash(members: Sequence[str]) -> tuple[str, str] | None:
    """Two members with the same name or the same seeds, if there are any."""
    seen: dict[int, str] = {}
    for member in members:
        bits = member_bits(member)
        if bits in seen:
            return seen[bits], member
        seen[bits] = member
    return None


def check_names(members: Sequence[str]) -> None:
    """Refuses a pool whose members would not be told apart.

    Raises:
        UserError: Two members have the same name or the same seeds.
    """
    clash = find_clash(members)
    if clash:
        raise UserError(f"sampling.pool: members {clash[0]} and {clash[1]} would share seeds; rename one")


def draw_members(run_seed: int, prompt_id: str, members: Sequence[str], count: int) -> list[str]:
    """`count` distinct members for a prompt, each equally likely, in the order of the pool.

    Every member gets a random number from its own name and the lowest win: the order of the pool does not matter, and
    a member that joins changes a prompt's draw only where it wins itself.
    """
    ranked = sorted(members, key=lambda member: _hash("draw", run_seed, prompt_id, member))
    chosen = set(ranked[:count])
    return [member for member in members if member in chosen]


def draw_principle(run_seed: int, prompt_id: str, member: str, sample: int) -> str:
    """The principle of one answer."""
    kinds = list(PRINCIPLES.values())
    number = _hash("principle", run_seed, prompt_id, member, sample)
    texts = kinds[number % len(kinds)]
    return texts[number // len(kinds) % len(texts)]


def _hash(*parts: str | int) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        raw = str(part).encode()
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return int.from_bytes(digest.digest(), "big")
