"""Brings the model of a replica from a URI to the cache of each of its nodes, before the engine starts.

Ray Serve awaits a replica's constructor for as long as it takes: until the weights are here it is starting, and a new
one does not take an old one's place.
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


async def bring_weights(config: LLMConfig) -> None:
    """Has the engine load a local folder where `model_source` is a URI.

    Ray Serve LLM's own way with a URI needs further packages, and keeps one folder for each model name, whatever
    checkpoint it held. Its task on each node that looks for what to download is left to hub ids: where the folder is
    here, a worker would load vLLM to find nothing to do, and the replica would wait for it.

    Raises:
        UserError: The folder is not there, or its store refuses.
    """
    loading: Any = config.model_loading_config
    source = ModelSource(loading.model_source, fingerprint=config.engine_kwargs["fingerprint_value"])
    folder, *_ = await asyncio.gather(asyncio.to_thread(source.local), *(_fetch_on(node, source) for node in _others()))
    if is_uri(source.path):
        engine: Any = config.get_engine_config()
        engine.hf_model_id, engine.mirror_config = folder, None
    callback: Any = config.get_or_create_callback()
    callback.ctx = dataclasses.replace(callback.ctx, run_init_node=not os.path.isdir(folder))


def _others() -> set[str]:
    """The other nodes that an engine with several GPUs lies on."""
    group = get_current_placement_group()
    nodes = set(placement_group_table(group)["bundles_to_node_id"].values()) if group else set()
    return nodes - {ray.get_runtime_context().get_node_id()}


async def _fetch_on(node: str, source: ModelSource) -> str:
    fetch: Any = ray.remote(ModelSource.local)
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    folder: str = await fetch.options(num_cpus=0, scheduling_strategy=there).remote(source)
    return folder
