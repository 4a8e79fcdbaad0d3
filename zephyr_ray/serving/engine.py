"""vLLM's engine in Ray Serve LLM, in one process instead of two on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup
    from vllm import AsyncEngineArgs
    from vllm.config import VllmConfig
    from vllm.engine.protocol import EngineClient


class Engine(VLLMEngine):
    """Ray Serve LLM's engine, except that on a CPU its only worker runs in the engine's process.

    Otherwise the engine starts the worker as a second process, which loads vLLM again: eight seconds of a core. vLLM
    does so to bind the worker's threads to cores by OpenMP's variables; here the engine's process starts with them.
    """

    def _start_async_llm_engine(
        self,
        vllm_engine_args: AsyncEngineArgs,
        vllm_engine_config: VllmConfig,
        placement_group: PlacementGroup,
    ) -> EngineClient:
        from vllm.platforms import current_platform
        from vllm.utils.ompmultiprocessing import OMPProcessManager

        start = super()._start_async_llm_engine
        parallel = vllm_engine_config.parallel_config
        if not current_platform.is_cpu() or parallel.world_size > 1:
            return start(vllm_engine_args, vllm_engine_config, placement_group)
        parallel.distributed_executor_backend = "uni"
        with OMPProcessManager(vllm_engine_config).configure_omp_envs(rank=0, local_rank=0):
            return start(vllm_engine_args, vllm_engine_config, placement_group)
