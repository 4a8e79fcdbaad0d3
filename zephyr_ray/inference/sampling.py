"""Sample completions of prompts from a pool: one row for every prompt, even if requests fail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from zephyr_ray.cluster import connect
from zephyr_ray.config.feedback import Sampling
from zephyr_ray.config.model import Chat
from zephyr_ray.inference.pool import CALLS, CandidatePool, in_flight_share, rows_per_batch
from zephyr_ray.schemas import CANDIDATES
from zephyr_ray.serving.stage_deployments import Application

if TYPE_CHECKING:
    import ray.data


def sample_candidates(sampling: Sampling, chat: Chat, seed: int, prompts: ray.data.Dataset) -> ray.data.Dataset:
    """Streams completions of prompts (`schemas.PROMPTS`) as rows of `schemas.CANDIDATES`.

    Args:
        sampling: The pool, without deployments, which only a stage can start.
        chat: The chat template of offline models.
        seed: The run's seed.
        prompts: Each prompt once.

    Raises:
        ValueError: The pool has deployments.
    """
    if sampling.deployments:
        raise ValueError("the pool has deployments, which a stage starts")
    return answered(sampling, chat, seed, prompts).select_columns(CANDIDATES.names)


def answered(
    sampling: Sampling,
    chat: Chat,
    seed: int,
    prompts: ray.data.Dataset,
    *,
    applications: Mapping[str, Application] | None = None,
    ledger: Any = None,
) -> ray.data.Dataset:
    """Rows of `pool.ANSWERED`: by engines within Ray Data, or by endpoints and deployments, as the pool says.

    Args:
        sampling: The pool.
        chat: The template of offline models.
        seed: The run's.
        prompts: Each prompt once.
        applications: Of the pool's deployments, by member.
        ledger: Handle of the `Ledger` actor, where replies are kept.
    """
    if not sampling.offline:
        return _by_requests(sampling, seed, prompts, applications=applications or {}, ledger=ledger)
    from zephyr_ray.inference.offline import sample_offline

    candidates = sample_offline(sampling, chat, seed, prompts)
    return candidates.map_batches(_with_failure, batch_format="pyarrow", batch_size=None)


def _with_failure(candidates: pa.Table) -> pa.Table:
    """An engine inside of Ray Data fails for a request alone: what it will not do, it will not do another time."""
    failure = pc.if_else(pc.is_null(candidates["error"]), pa.scalar(None, pa.string()), "refused")
    return candidates.append_column("failure", failure)


def _by_requests(
    sampling: Sampling,
    seed: int,
    prompts: ray.data.Dataset,
    *,
    applications: Mapping[str, Application],
    ledger: Any,
) -> ray.data.Dataset:
    """Rows of `pool.ANSWERED`, sampled from endpoints and deployments.

    The number of actors is fixed, because each has a fixed share of every member's limit on open requests.
    """
    from ray.data import ActorPoolStrategy

    answering = (sampling.draw or len(sampling.pool)) / len(sampling.pool)
    busiest = max(in_flight_share(member, sampling.workers) for member in sampling.servers)
    return prompts.map_batches(
        CandidatePool,
        fn_constructor_kwargs={
            "sampling": sampling,
            "run_seed": seed,
            "applications": applications,
            "ledger": ledger,
        },
        batch_format="pyarrow",
        batch_size=rows_per_batch(busiest, sampling.samples * answering),
        compute=ActorPoolStrategy(
            size=sampling.workers,
            max_tasks_in_flight_per_actor=2 * CALLS,
            max_concurrent_calls_per_actor=CALLS,
        ),
        num_cpus=sampling.cpus_per_worker,
        label_selector=connect.selector(sampling.labels),
    )
