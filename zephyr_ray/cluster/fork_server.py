"""Fork server for Ray workers: a process that has loaded what they import and forks to become each of them.

Importing torch, transformers, TRL and DeepSpeed costs every worker seconds of a core. A command that starts a cluster
on its own machine therefore has Ray run a small client (`fork_worker.py`) instead of Python (`py_executable`, a field
of Ray's runtime_env). The client hands the worker's command line, environment and standard streams to the server; the
server forks, and the child continues as that worker. Python's `multiprocessing.forkserver` does the same for processes
of its own kind.

The server starts no thread and opens no CUDA context, so its children may do both. If a variable that a library may
have read at import differs between worker and server, the client starts the worker as usual.

ZEPHYR_RAY_FORK_SERVER may name the socket of a running server. A command then forks its own server from that one, so
that many commands in a row, as in the tests, load the libraries once.
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
        *("PWD", "OLDPWD", "SHLVL", "_", "PYTEST_CURRENT_TEST"),  # set by the shell or by whatever starts it
        *("COLUMNS", "LINES"),  # of its terminal: Python's readline sets them
        VARIABLE,
        *("OMP_NUM_THREADS", "PYTHONBREAKPOINT", "SPT_NOENV"),  # its resources, debugger and process title
        "ARROW_DEFAULT_MEMORY_POOL",  # decides how much memory Arrow keeps, nothing else; as the server was started
        # Ray reads these when it starts an actor, vLLM when it starts an engine.
        "PYTORCH_ALLOC_CONF",  # torch reads it with its first GPU memory
        # Set by accelerate and by torch's compiler as they are used, and read when they are.
        *("PYTORCH_NVML_BASED_CUDA_CHECK", "TORCHINDUCTOR_CACHE_DIR"),
        # By these Ray Data keeps the workers of a shuffle apart; nothing reads them.
        *("RAY_DATA_SHUFFLE_MAP_WORKER", "RAY_DATA_SHUFFLE_REDUCE_WORKER"),
        *("RAY_WARN_BLOCKING_GET_INSIDE_ASYNC", "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR", "VLLM_CPU_KVCACHE_SPACE"),
    }
)
"""Variables that may differ from worker to worker: no library reads them at import."""
_SERVER = ["-m", "zephyr_ray.cluster.fork_server"]
_OF_RAY = ("RAY_", "__RAY_")
_STREAMS = 3
_LONGEST = 96  # characters of a socket's folder; Linux allows 107 for its path
_BACKLOG = 128
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Worker:
    """A requested worker, as its client describes itself.

    Attributes:
        command: Script and arguments, or the command of another server.
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

    Workers requested while it still loads the libraries have what is loaded by then. If the first is requested later,
    it waits until all is loaded: what each would load by itself takes memory and time of its own.

    Args:
        libraries: Modules that do not import Ray, in the order of loading.
        on_ray: Modules that do; loaded after those.

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
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # as Ray sets it for a worker with one CPU
            start_new_session=True,  # Ctrl-C reaches only the command, which ends its cluster itself
        )
        listener.close()
        yield path


def client(path: str) -> str:
    """The value of `py_executable` that makes Ray use the server at this socket."""
    return shlex.join(_python_of(path))


def _python_of(path: str) -> list[str]:
    """The command that replaces Python, so that the server at this socket forks."""
    return [sys.executable, "-S", "-E", str(_CLIENT), path, sys.executable]


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Serves on the listening socket passed as standard input, until the first connection there is closed.

    In a child, runs the worker.

    Args:
        arguments: `libraries` and `on_ray` of `started`, each joined by commas.
        environment: What this process was started with.
    """
    libraries, on_ray = (modules.split(",") if modules else [] for modules in arguments)
    listener = socket.socket(fileno=os.dup(0))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    worker = Server(listener, listener.accept()[0], dict(environment), bool(on_ray)).run(libraries, on_ray)
    if worker is None:
        shutil.rmtree(os.path.dirname(listener.getsockname()), ignore_errors=True)
        os._exit(0)  # skips the libraries' exit handlers, which only print
    _run_worker(worker)


def _import_quietly(module: str) -> None:
    """Imports a module with warnings off: they belong to no worker and would appear in the command's terminal."""
    logging.disable(logging.WARNING)
    try:
        importlib.import_module(module)
    except Exception:  # a worker that needs it fails with the same error, where a person sees it
        traceback.print_exc()
    finally:
        logging.disable(logging.NOTSET)


@dataclass
class Server:
    """Forks workers for clients.

    Attributes:
        listener: The socket that clients connect to.
        lifeline: A connection held open by the command that started this server.
        environment: What a worker's environment must equal to be forked, apart from the variables of one worker.
        loads_ray: Whether it loads Ray, which reads the worker's job and raylet from the environment at import.
        knows_ray: Whether a first worker was requested; its environment names job and raylet.
        is_wanted: Whether the command still runs.
        may_fork: Whether children draw different ids.
    """

    listener: socket.socket
    lifeline: socket.socket
    environment: dict[str, str]
    loads_ray: bool
    knows_ray: bool = False
    is_wanted: bool = True
    may_fork: bool = True

    def run(self, libraries: Sequence[str], on_ray: Sequence[str]) -> Worker | None:
        """Loads the modules and serves until the command ends. In a child, returns its worker."""
        for module in libraries:
            _import_quietly(module)
            if (worker := self.serve(wait=False)) or not self.is_wanted:
                return worker
        first = self._first_request() if self.loads_ray and not self.knows_ray else None
        for module in on_ray if self.is_wanted else ():
            with _actor_class_ids_from_system():
                _import_quietly(module)
            self.may_fork = self.may_fork and _children_draw_different_ids()
            if first is None and ((worker := self.serve(wait=False)) or not self.is_wanted):
                return worker
        gc.collect()
        gc.freeze()  # otherwise every child's first collection would copy all of it
        worker = None
        if first is not None:
            with first[1]:
                worker = self._fork(*first)
        while self.is_wanted and worker is None:
            worker = self.serve(wait=True)
        return worker

    def _first_request(self) -> tuple[Worker, socket.socket] | None:
        """Waits for a worker to be requested and takes over Ray's variables from it; None if the command ends."""
        while (connection := self._accepted(wait=True)) is not None:
            if (worker := _read_request(connection)) is not None:
                self._adopt_ray_environment(worker.environment)
                return worker, connection
            connection.close()
        return None

    def serve(self, wait: bool) -> Worker | None:
        """Forks a child for each requested worker until no request is left.

        Args:
            wait: Whether to wait for the first request.

        Returns:
            The worker in a child, None in the server.
        """
        while (connection := self._accepted(wait)) is not None:
            wait = False
            with connection:
                worker = self._fork_for(connection)
            if worker is not None:
                return worker
        return None

    def _accepted(self, wait: bool) -> socket.socket | None:
        """A client's connection; None if there is none, or the command has ended."""
        ready, _, _ = select.select([self.listener, self.lifeline], [], [], None if wait else 0)
        self.is_wanted = self.lifeline not in ready
        return self.listener.accept()[0] if self.is_wanted and ready else None

    def _fork_for(self, connection: socket.socket) -> Worker | None:
        worker = _read_request(connection)
        if worker is None:
            return None
        if self.loads_ray and not self.knows_ray:
            self._adopt_ray_environment(worker.environment)
        return self._fork(worker, connection)

    def _fork(self, worker: Worker, connection: socket.socket) -> Worker | None:
        """Forks a child for a worker and tells its client. Returns the worker in the child."""
        different = _differing_variables(worker.environment, self.environment)
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

    def _adopt_ray_environment(self, environment: Mapping[str, str]) -> None:
        """Takes over Ray's variables from the first worker; until then the server has the driver's."""
        told = {name: value for name, value in environment.items() if name.startswith(_OF_RAY)}
        for variables in (self.environment, os.environ):
            for name in [name for name in variables if name.startswith(_OF_RAY) and name not in told]:
                del variables[name]
            variables.update(told)
        self.knows_ray = True
        _import_quietly("ray")


@contextlib.contextmanager
def _actor_class_ids_from_system() -> Iterator[None]:
    """Within the block, draws ids of actor classes from the operating system's generator.

    A decorated class draws an id at import, from a generator in Ray's core that is seeded at its first use. If that
    happened in the server, all children would continue one sequence and give their objects the same ids.
    """
    import ray.actor

    real = ray.actor.ActorClassID

    class Drawn:
        @staticmethod
        def from_random() -> Any:
            return real(os.urandom(real.size()))

    with mock.patch.object(ray.actor, "ActorClassID", Drawn):
        yield


def _children_draw_different_ids() -> bool:
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


def _differing_variables(wanted: Mapping[str, str], loaded_with: Mapping[str, str]) -> set[str]:
    """Names of variables that differ and that a library may have read at import."""
    names = {*wanted, *loaded_with} - _OF_ONE_WORKER
    return {name for name in names if wanted.get(name) != loaded_with.get(name)}


def _read_request(connection: socket.socket) -> Worker | None:
    """Reads a client's request; None if the client has gone."""
    data, ancillary, _, _ = connection.recvmsg(_CHUNK, socket.CMSG_SPACE(_STREAMS * array.array("i").itemsize))
    streams = array.array("i")
    for _, _, passed in ancillary:
        streams.frombytes(passed)
    while data and not data.endswith(b"\n"):
        more = connection.recv(_CHUNK)
        data = data + more if more else b""
    return Worker(**json.loads(data), streams=tuple(streams)) if data else None


def _run_worker(worker: Worker) -> None:
    """Runs the worker's command as if this process had been started for it."""
    os.setpgid(0, 0)  # Ray ends a worker's process group together with it
    with contextlib.suppress(PermissionError):  # a lower value than the server's takes a privilege
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
    _reseed_numpy()
    if worker.command[:2] == _SERVER:
        return main(worker.command[2:], worker.environment)
    sys.argv = worker.command
    sys.path[0] = os.path.dirname(worker.command[0])
    runpy.run_path(worker.command[0], run_name="__main__")


def _reseed_numpy() -> None:
    """Reseeds NumPy's global generator, which is the same in every child. (Python reseeds its own after a fork.)"""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
