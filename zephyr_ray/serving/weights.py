"""Copy a model from its URI into the cache of each node of a replica, before the engine starts.

Ray Serve awaits a replica's constructor without a time limit. Until the weights are here the replica counts as
starting, and does not replace an old one.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from typing import TYPE_CHECKING, Any

import ray
from ray.util import get_current_placement_group, placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.storage import is_uri

if TYPE_CHECKING:
    from ray.serve.llm import LLMConfig


async def fetch_weights(config: LLMConfig) -> str:
    """Makes the engine load a local copy if `model_source` is a URI, and returns the local folder, or the hub id.

    Ray Serve LLM's own support for URIs needs further packages, and keeps one folder per model name, whatever its
    checkpoint. Its download task on each node runs only for hub ids: for a local folder it would load vLLM and find
    nothing to do while the replica waits.

    Raises:
        UserError: The folder is missing, or its store refuses.
    """
    loading: Any = config.model_loading_config
    source = ModelSource(loading.model_source, fingerprint=config.engine_kwargs["fingerprint_value"])
    folder, *_ = await asyncio.gather(
        asyncio.to_thread(source.local), *(_fetch_on(node, source) for node in _other_nodes())
    )
    if is_uri(source.path):
        engine: Any = config.get_engine_config()
        engine.hf_model_id, engine.mirror_config = folder, None
    callback: Any = config.get_or_create_callback()
    callback.ctx = dataclasses.replace(callback.ctx, run_init_node=not os.path.isdir(folder))
    return folder


def _other_nodes() -> set[str]:
    """The ids of the other nodes of an engine with several GPUs."""
    group = get_current_placement_group()
    nodes = set(placement_group_table(group)["bundles_to_node_id"].values()) if group else set()
    return nodes - {ray.get_runtime_context().get_node_id()}


async def _fetch_on(node: str, source: ModelSource) -> str:
    fetch: Any = ray.remote(ModelSource.local)
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    folder: str = await fetch.options(num_cpus=0, scheduling_strategy=there).remote(source)
    return folder
