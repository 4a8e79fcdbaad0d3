"""Which pool members complete a prompt, and the seed of each request: pure functions of the run's seed and names.

They do not depend on partitions, retries or the order of replies, so completions do not either.
"""

from __future__ import annotations

from collections.abc import Sequence

from zephyr_ray.config.member_seeds import hash_64, member_bits
from zephyr_ray.inference.principles import PRINCIPLES

SEED_BITS = 53  # a JSON number holds them exactly in every parser
_SAMPLE_BITS = 12
_ODD = 0x9E3779B97F4A7C15  # 2^64 / golden ratio; multiplication by an odd number is invertible modulo a power of two


def request_seed(run_seed: int, prompt_id: str, member: str, sample: int) -> int:
    """The seed of one request, in [0, 2^53).

    Two requests for one prompt never share a seed, nor its lower 32 bits, which is all that torch's CPU generator uses:
    member and sample have separate bits of a 32-bit number, an odd factor permutes the numbers modulo 2^32 and modulo
    2^53, and adding the prompt's number keeps them distinct. `find_clash` finds two names with the same member bits.

    Args:
        run_seed: The run's seed.
        prompt_id: Hash of the prompt's messages.
        member: Name in the pool.
        sample: Number of the completion among this member's for the prompt, below 4096.
    """
    if not 0 <= sample < 1 << _SAMPLE_BITS:
        raise ValueError(f"sample {sample} is not in [0, {1 << _SAMPLE_BITS})")
    place = member_bits(member) << _SAMPLE_BITS | sample
    return (hash_64("seed", run_seed, prompt_id) + place * _ODD) % (1 << SEED_BITS)


def draw_members(run_seed: int, prompt_id: str, members: Sequence[str], count: int) -> list[str]:
    """Draws `count` distinct members for a prompt, each equally likely, in the order of the pool.

    Each member gets a random number from its own name, and the lowest numbers win. So the order of the pool does not
    matter, and a new member changes a prompt's draw only if it wins itself.
    """
    ranked = sorted(members, key=lambda member: hash_64("draw", run_seed, prompt_id, member))
    chosen = set(ranked[:count])
    return [member for member in members if member in chosen]


def draw_principle(run_seed: int, prompt_id: str, member: str, sample: int) -> str:
    """Draws the principle of one completion."""
    kinds = list(PRINCIPLES.values())
    number = hash_64("principle", run_seed, prompt_id, member, sample)
    texts = kinds[number % len(kinds)]
    return texts[number // len(kinds) % len(texts)]
