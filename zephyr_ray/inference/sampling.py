"""Reads prompts -> `candidates`: answers of the recipe's pool, one row for every prompt whatever fails."""

from __future__ import annotations

import ray.data
from ray.data import ActorPoolStrategy

from zephyr_ray.inference.endpoints import EndpointPool, prompts_ahead
from zephyr_ray.recipe import Recipe, Sampling

_BATCHES_PER_CALL = 4  # Ray Data runs so many batches of a block side by side in an async actor
_CALLS = 4  # blocks that an actor takes side by side, so that small ones keep it busy
_MAX_BATCH = 256


def sample_candidates(recipe: Recipe, prompts: ray.data.Dataset) -> ray.data.Dataset:
    """Answers to prompts (`schemas.PROMPTS`) as rows of `schemas.CANDIDATES`, as they stream through.

    Args:
        recipe: With a `sampling` section.
        prompts: Each prompt once.

    Raises:
        ValueError: The recipe has no `sampling` section.
    """
    if recipe.sampling is None:
        raise ValueError("the recipe has no sampling section")
    if recipe.sampling.offline:
        from zephyr_ray.inference.offline import sample_offline

        return sample_offline(recipe, recipe.sampling, prompts)
    return _sample_endpoints(recipe.sampling, recipe.run.seed, prompts)


def _sample_endpoints(sampling: Sampling, run_seed: int, prompts: ray.data.Dataset) -> ray.data.Dataset:
    """Fixed actors: each has its share of every member's bound, so there are never more of them than shares."""
    return prompts.map_batches(
        EndpointPool,
        fn_constructor_kwargs={"sampling": sampling, "run_seed": run_seed},
        batch_format="pyarrow",
        batch_size=_batch_size(sampling),
        compute=ActorPoolStrategy(
            size=sampling.workers,
            max_tasks_in_flight_per_actor=2 * _CALLS,
            max_concurrent_calls_per_actor=_CALLS,
        ),
        num_cpus=sampling.cpus_per_worker,
    )


def _batch_size(sampling: Sampling) -> int:
    """Prompts per batch: the batches of one block hold twice what keeps the members busy, so that none runs dry."""
    return max(1, min(_MAX_BATCH, -(-2 * prompts_ahead(sampling) // _BATCHES_PER_CALL)))
