"""A process that has loaded what Ray workers import, and becomes each of them by a fork.

Torch, transformers, TRL and DeepSpeed cost a worker seconds of a core, and on one machine every worker pays them anew.
A command that starts a cluster on its own machine therefore gives Ray a small client (`fork_worker.py`) to run in
Python's place (`py_executable`, a field of Ray's runtime_env). The client hands the worker's command line, environment
and standard streams to the server; the server forks, and the child goes on as that worker. Python's
`multiprocessing.forkserver` does the same for processes of its own kind.

The server starts no thread and opens no CUDA context, so its children are free to. A worker whose environment is
another than the server's, in what a library may have read while it was loaded, is started by the client as usual.

With ZEPHYR_RAY_FORK_SERVER, the socket of a server that runs already, a command's server is itself forked from that
one: many commands in a row, as the tests' are, load the libraries once.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import logging
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

VARIABLE = "ZEPHYR_RAY_FORK_SERVER"
_CLIENT = Path(__file__).with_name("fork_worker.py")
_OF_ONE_WORKER = frozenset(
    {
        *("PWD", "OLDPWD", "SHLVL", "_", "PYTEST_CURRENT_TEST"),  # of what starts it
        *("COLUMNS", "LINES"),  # of its terminal: Python's readline sets them
        VARIABLE,
        *("OMP_NUM_THREADS", "PYTHONBREAKPOINT", "SPT_NOENV"),  # of its resources, its debugger, its title
        # Ray reads these when it starts an actor, vLLM when it starts an engine.
        "PYTORCH_ALLOC_CONF",  # torch reads it with its first GPU memory
        # Set by accelerate and by torch's compiler as they are used, and read when they are.
        *("PYTORCH_NVML_BASED_CUDA_CHECK", "TORCHINDUCTOR_CACHE_DIR"),
        *("RAY_WARN_BLOCKING_GET_INSIDE_ASYNC", "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR", "VLLM_CPU_KVCACHE_SPACE"),
    }
)
"""Variables that may differ from worker to worker: nothing reads them while it is imported."""
_SERVER = ["-m", "zephyr_ray.cluster.fork_server"]
_OF_RAY = ("RAY_", "__RAY_")
_STREAMS = 3
_LONGEST = 96  # characters of a socket's folder: Linux takes 107 of its path
_BACKLOG = 128
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Worker:
    """A worker that is asked for, as its client tells of itself.

    Attributes:
        command: Script and arguments; or a server's own command.
        environment: All variables.
        folder: Working directory.
        signal_mask: Blocked signals.
        niceness: As `os.nice` has it.
        oom_score_adj: As `/proc/self/oom_score_adj` has it.
        streams: Descriptors of its standard streams, in this process.
    """

    command: list[str]
    environment: dict[str, str]
    folder: str
    signal_mask: list[int]
    niceness: int
    oom_score_adj: str
    streams: tuple[int, ...]


@contextlib.contextmanager
def started(libraries: Sequence[str], on_ray: Sequence[str]) -> Iterator[str]:
    """Starts a server; it ends with the block, or with this process.

    Workers that are asked for while it still loads get what is loaded by then.

    Args:
        libraries: Modules that do not import Ray; loaded from now on, in this order.
        on_ray: Modules that do, loaded after those.

    Yields:
        Its socket's path.
    """
    folder = tempfile.mkdtemp(prefix="zephyr-fork-")
    if len(folder) > _LONGEST:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="zephyr-fork-", dir="/tmp")
    path = os.path.join(folder, "socket")
    running = os.environ.get(VARIABLE)
    python = _python_of(running) if running else [sys.executable]
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as lifeline:
        listener.bind(path)
        listener.listen(_BACKLOG)
        lifeline.connect(path)
        subprocess.Popen(
            [*python, *_SERVER, *map(",".join, (libraries, on_ray))],
            stdin=listener.fileno(),
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # what Ray gives a worker of one CPU
            start_new_session=True,  # Ctrl-C is for the command, which ends its cluster itself
        )
        listener.close()
        yield path


def client(path: str) -> str:
    """What to give Ray as `py_executable`."""
    return shlex.join(_python_of(path))


def _python_of(path: str) -> list[str]:
    """What stands in Python's place in a command, for the server at this socket to fork."""
    return [sys.executable, "-S", "-E", str(_CLIENT), path, sys.executable]


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Serves on the listening socket that is its standard input, for as long as the first connection there is open.

    In a child, runs the worker.

    Args:
        arguments: `libraries` and `on_ray` of `started`, each joined by commas.
        environment: What this process was started with.
    """
    libraries, on_ray = (modules.split(",") if modules else [] for modules in arguments)
    listener = socket.socket(fileno=os.dup(0))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are nobody's to wait for
    worker = Server(listener, listener.accept()[0], dict(environment), bool(on_ray)).run(libraries, on_ray)
    if worker is None:
        shutil.rmtree(os.path.dirname(listener.getsockname()), ignore_errors=True)
        os._exit(0)  # the libraries' own ends have nothing to do, and much to say
    _become(worker)


def _load(module: str) -> None:
    """Imports it. What it logs meanwhile is no worker's, and would stand in the command's terminal."""
    logging.disable(logging.WARNING)
    try:
        importlib.import_module(module)
    except Exception:  # a worker that needs it says so itself, where it can be seen
        traceback.print_exc()
    finally:
        logging.disable(logging.NOTSET)


@dataclass
class Server:
    """Answers clients.

    Attributes:
        listener: Where they connect.
        lifeline: A connection whose other end the command that started this holds.
        environment: Of every worker that may be forked, but for what is set for each.
        loads_ray: Whether it loads Ray, which reads a worker's job and raylet from the environment as it is imported.
        knows_ray: Whether the first worker was asked for, which is what tells these.
        is_wanted: Whether that command still runs.
        may_fork: Whether children draw ids of their own.
    """

    listener: socket.socket
    lifeline: socket.socket
    environment: dict[str, str]
    loads_ray: bool
    knows_ray: bool = False
    is_wanted: bool = True
    may_fork: bool = True

    def run(self, libraries: Sequence[str], on_ray: Sequence[str]) -> Worker | None:
        """Loads, and serves meanwhile and until nobody wants it any more; in a child, returns its worker."""
        for module in libraries:
            _load(module)
            if (worker := self.serve(wait=False)) or not self.is_wanted:
                return worker
        if self.loads_ray and not self.knows_ray and ((worker := self.serve(wait=True)) or not self.is_wanted):
            return worker
        for module in on_ray:
            with _own_actor_class_ids():
                _load(module)
            self.may_fork = self.may_fork and _children_draw_apart()
            if (worker := self.serve(wait=False)) or not self.is_wanted:
                return worker
        gc.collect()
        gc.freeze()  # else the first collection of every child would copy all of it
        worker = None
        while self.is_wanted and worker is None:
            worker = self.serve(wait=True)
        return worker

    def serve(self, wait: bool) -> Worker | None:
        """Forks a child for each worker that is asked for, until none is.

        Args:
            wait: Whether to wait for a first one.

        Returns:
            In a child its worker, in the server nothing.
        """
        while True:
            ready, _, _ = select.select([self.listener, self.lifeline], [], [], None if wait else 0)
            wait = False
            self.is_wanted = self.lifeline not in ready
            if not self.is_wanted or not ready:
                return None
            connection, _ = self.listener.accept()
            with connection:
                worker = self._answer(connection)
            if worker is not None:
                return worker

    def _answer(self, connection: socket.socket) -> Worker | None:
        worker = _receive(connection)
        if worker is None:
            return None
        if self.loads_ray and not self.knows_ray:
            self._meet_ray(worker.environment)
        different = _different(worker.environment, self.environment)
        if not self.loads_ray:
            different = {name for name in different if not name.startswith(_OF_RAY)}
        if different or not self.may_fork:
            why = ", ".join(sorted(different)) or "children would draw the same ids"
            print(f"a worker is started without a fork: {why}", file=sys.stderr)
            child = None
        else:
            child = os.fork()
        if child == 0:
            self.listener.close()
            self.lifeline.close()
            return worker
        connection.sendall(str(child or "no").encode())
        for stream in worker.streams:
            os.close(stream)
        return None

    def _meet_ray(self, environment: Mapping[str, str]) -> None:
        """Takes over Ray's variables of the first worker: those here are the driver's."""
        told = {name: value for name, value in environment.items() if name.startswith(_OF_RAY)}
        for variables in (self.environment, os.environ):
            for name in [name for name in variables if name.startswith(_OF_RAY) and name not in told]:
                del variables[name]
            variables.update(told)
        self.knows_ray = True
        _load("ray")


@contextlib.contextmanager
def _own_actor_class_ids() -> Iterator[None]:
    """Ids of actor classes from the system's generator meanwhile.

    A decorated class draws one when its module is imported, from a generator in Ray's core that is seeded at its first
    use: all children would go on with one sequence and give their objects the same ids.
    """
    import ray.actor

    real = ray.actor.ActorClassID

    class Drawn:
        @staticmethod
        def from_random() -> Any:
            return real(os.urandom(real.size()))

    with mock.patch.object(ray.actor, "ActorClassID", Drawn):
        yield


def _children_draw_apart() -> bool:
    """Whether two children of this process draw different ids."""
    drawn = set()
    for _ in range(2):
        reader, writer = os.pipe()
        if os.fork() == 0:
            from ray._raylet import ObjectRef

            os.write(writer, ObjectRef.from_random().binary())
            os._exit(0)
        os.close(writer)
        with open(reader, "rb") as stream:
            drawn.add(stream.read())
    return len(drawn) == 2


def _different(wanted: Mapping[str, str], loaded_with: Mapping[str, str]) -> set[str]:
    """Variables with other values, of those that a library may have read while it was loaded."""
    names = {*wanted, *loaded_with} - _OF_ONE_WORKER
    return {name for name in names if wanted.get(name) != loaded_with.get(name)}


def _receive(connection: socket.socket) -> Worker | None:
    """What a client asks for; None where it has gone."""
    data, ancillary, _, _ = connection.recvmsg(_CHUNK, socket.CMSG_SPACE(_STREAMS * array.array("i").itemsize))
    streams = array.array("i")
    for _, _, passed in ancillary:
        streams.frombytes(passed)
    while data and not data.endswith(b"\n"):
        more = connection.recv(_CHUNK)
        data = data + more if more else b""
    return Worker(**json.loads(data), streams=tuple(streams)) if data else None


def _become(worker: Worker) -> None:
    """Runs the worker's command as if this process had been started for it."""
    os.setpgid(0, 0)  # Ray ends the process group of a worker with it
    with contextlib.suppress(PermissionError):  # to go below the server's own takes a privilege
        os.setpriority(os.PRIO_PROCESS, 0, worker.niceness)
        Path("/proc/self/oom_score_adj").write_text(worker.oom_score_adj)
    for number, stream in enumerate(worker.streams):
        os.dup2(stream, number)
        os.close(stream)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, worker.signal_mask)
    os.environ.update(worker.environment)
    for name in _OF_ONE_WORKER - worker.environment.keys():
        os.environ.pop(name, None)
    os.chdir(worker.folder)
    _draw_anew()
    if worker.command[:2] == _SERVER:
        return main(worker.command[2:], worker.environment)
    sys.argv = worker.command
    sys.path[0] = os.path.dirname(worker.command[0])
    runpy.run_path(worker.command[0], run_name="__main__")


def _draw_anew() -> None:
    """NumPy's global generator would be the same in every child. (Python seeds its own after a fork.)"""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
