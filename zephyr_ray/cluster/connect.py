"""Join the Ray cluster that RAY_ADDRESS names, or start one on this machine."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from zephyr_ray.cluster import fork_server
from zephyr_ray.errors import UserError

if TYPE_CHECKING:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from zephyr_ray.cluster.preload import Preload

_QUIET = {
    # Turn off usage reports of Ray, the Hugging Face hub (TRL reports through it) and vLLM.
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # Silence messages that say nothing about the run.
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "warning",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_LOCAL = {
    # A local cluster has no API server. At the end of a training Ray Train asks it whether the controller is alive and
    # would search for 12 s; this address refuses the connection at once.
    "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9",
    # Ray Train polls its workers this often, and they wait for it at every checkpoint; the default is 2.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
}
_ARROW_POOL = ("ARROW_DEFAULT_MEMORY_POOL", "system")
"""Of a local cluster's workers: what one of them has freed in Arrow, its next NumPy array takes. Arrow's own pool keeps
some 50 MiB of each."""
ONE_MACHINE = "ZEPHYR_RAY_ONE_MACHINE"
"""Set in the environment of a cluster whose nodes are all on one machine, so that its workers are forked too."""
FAST_PATH = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
}
"""The environment that the nodes of a chat endpoint are started with: requests go past Ray Serve's own proxy, and a
line of the access log is written when the request ends, not with a thousand others."""
_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray for the command of a submitted job
_SETUP_WORKER = Path(__file__).with_name("setup_worker.py")
_FOR_READERS = 0.5  # of the logical CPUs: two of `data.io.sources`' readers
_LOCAL_CPUS = 4  # logical: stages wait for I/O, and with fewer the operators of a Ray Data pipeline would starve


def set_environment() -> None:
    """Turns off usage reports and noise in this process; call it before heavy imports."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # warns about a CPU kernel that it could not load
    # The driver's machine often has no GPU, and DeepSpeed warns about it.
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())


def this_node() -> NodeAffinitySchedulingStrategy:
    """Pins an actor to the node where the command runs, so that the loss of another node does not end it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def cores() -> int:
    """Number of this machine's cores."""
    return os.cpu_count() or 1


def local_cpus() -> int:
    """Number of logical CPUs of a cluster on this machine."""
    return max(_LOCAL_CPUS, cores())


def busy_cpus() -> float:
    """Logical CPUs that a task asks for which keeps a core busy. On this machine no more of them run at once than it
    has cores, for each takes memory and none would end sooner; where it has more logical CPUs than cores, half a one is
    left for those that read."""
    return 1.0 if is_joined() else max(1.0, (local_cpus() - _FOR_READERS) / cores())


def is_submitted() -> bool:
    """Whether this process is a job submitted to a cluster."""
    return _SUBMITTED in os.environ


def check_root(root: str) -> None:
    """Refuses a relative root in a submitted job, which runs in a working directory that Ray deletes afterwards.

    Raises:
        UserError: The run's root lies in that directory.
    """
    from zephyr_ray.storage import is_uri

    if is_submitted() and not is_uri(root) and not os.path.isabs(os.path.expanduser(root)):
        raise UserError(
            f"run.root={root} lies in the job's own copy of the repository, which goes with the job; "
            "give a path that every node sees, or a URI: --set run.root=s3://..."
        )


def is_joined() -> bool:
    """Whether commands join a cluster instead of starting one: RAY_ADDRESS is set, as in every submitted job."""
    return bool(os.environ.get("RAY_ADDRESS"))


@contextlib.contextmanager
def connected(preload: Preload) -> Iterator[None]:
    """Joins the cluster of RAY_ADDRESS or starts one on this machine; disconnects at the end of the block.

    Args:
        preload: What the workers import, if they run on this machine.
    """
    with _connected_to_existing(preload) if is_joined() else _started_quietly(preload):
        import ray.data

        ray.data.DataContext.get_current().enable_progress_bars = False
        yield


@contextlib.contextmanager
def _connected_to_existing(preload: Preload) -> Iterator[None]:
    import ray

    job = json.loads(os.environ.get(_SUBMITTED, "{}")).get("runtime_env", {})
    given = job.get("env_vars", {})  # Ray refuses a variable that is set twice
    runtime_env: dict[str, Any] = {"env_vars": {name: os.environ[name] for name in _QUIET if name not in given}}
    with contextlib.ExitStack() as stack:
        if os.environ.get(ONE_MACHINE):
            runtime_env["py_executable"] = fork_server.client(
                stack.enter_context(fork_server.started(preload.libraries, preload.on_ray))
            )
        stack.enter_context(ray.init(runtime_env=runtime_env))
        yield


@contextlib.contextmanager
def _started_quietly(preload: Preload) -> Iterator[None]:
    os.environ.update(_LOCAL)
    with started(preload, runtime_env={"worker_process_setup_hook": "zephyr_ray.cluster.worker_log.quiet"}):
        yield


@contextlib.contextmanager
def started(preload: Preload, *, runtime_env: Mapping[str, Any] | None = None, **options: Any) -> Iterator[None]:
    """Starts a cluster on this machine; it ends with the block.

    Args:
        preload: What its workers import; loaded once for all of them.
        runtime_env: Further fields of the driver's runtime_env.
        options: Further arguments of `ray.init`.
    """
    os.environ.setdefault(*_ARROW_POOL)
    with fork_server.started(preload.libraries, preload.on_ray) as path:
        import ray

        with _light_processes():
            context = ray.init(
                address="local",
                num_cpus=local_cpus(),
                include_dashboard=False,
                runtime_env={**(runtime_env or {}), "py_executable": fork_server.client(path)},
                _system_config={
                    # Prestarted workers have no runtime_env, so no worker here could use them.
                    "prestart_worker_first_driver": False,
                    # Idle workers beyond those that tasks keep busy end after a second.
                    "num_workers_soft_limit": cores(),
                },
                **options,
            )
        with context:
            yield


@contextlib.contextmanager
def _light_processes() -> Iterator[None]:
    """Within the block, makes Ray nodes start their workers by a script that does not load Ray first, and none of the
    processes that a cluster on one machine has no use for: no autoscaler's monitor and no API server."""
    from ray._private import node, parameter

    light = functools.partial(parameter.RayParams, setup_worker_path=str(_SETUP_WORKER), no_monitor=True)
    with mock.patch.object(parameter, "RayParams", light), mock.patch.object(node.Node, "start_api_server"):
        yield


def selector(labels: Mapping[str, str]) -> dict[str, str]:
    """The node labels to ask Ray for; none if this command started the cluster, whose only node is every group."""
    return dict(labels) if is_joined() else {}
