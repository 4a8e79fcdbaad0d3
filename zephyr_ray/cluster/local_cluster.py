"""A Ray cluster on this machine, started as `ray start` does: `zephyr-ray up`, and its end with `zephyr-ray down`.

It is the cluster way in small: token authentication, dashboard, jobs API; on 127.0.0.1 only, and on Ray's own ports
where they are free. Other Ray clusters of this machine are neither joined nor ended. Its token, address and log lie in
~/.cache/zephyr_ray/cluster (or under ZEPHYR_RAY_CACHE).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from zephyr_ray.cluster.connect import FAST_PATH, ONE_MACHINE, local_cpus
from zephyr_ray.cluster.ports import free_port
from zephyr_ray.errors import UserError
from zephyr_ray.storage import cache_root

BIN = Path(sys.executable).parent
_STARTED = "Ray runtime started"
_NO_IDLE_WORKERS = {"RAY_prestart_worker_first_driver": "0"}  # they would have no runtime_env, which every job here has
_UP_S = 120
_DOWN_S = 10
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""With it every process of a head node listens on 127.0.0.1 alone, as Ray has it on other systems than Linux."""
PORTS: dict[str, int | None] = {
    "port": 6379,
    "dashboard-port": 8265,
    "ray-client-server-port": 10001,
    "dashboard-agent-listen-port": 52365,
    "metrics-export-port": None,
}
"""What `ray start --head` listens on, by the names of its options, and its usual ports (None: any)."""


@dataclass(frozen=True)
class Head:
    """A head node that runs.

    Attributes:
        pid: Its `ray start --block`, which started everything else of it.
        born: When that began, as the system tells it: pids come again.
        api: Its API server and dashboard.
        gcs: RAY_ADDRESS for a driver on this machine.
        metrics: What Prometheus reads.
        sessions: Folder of its sockets, logs and spilled objects.
    """

    pid: int
    born: float
    api: str
    gcs: str
    metrics: str
    sessions: str


def state_folder() -> Path:
    """Where the token, the address and the log of this machine's cluster lie."""
    return Path(cache_root()) / "cluster"


def up(folder: Path) -> None:
    """Starts the cluster unless it runs, and prints how to reach it."""
    head = running(folder)
    if head is None:
        _forget(folder)
        ports = {name: _port(usual) for name, usual in PORTS.items()}
        head = start(folder, local_cpus(), ports, LOOPBACK | _serving() | {ONE_MACHINE: "1"})
        (folder / "head.json").write_text(json.dumps(asdict(head)))
        print("a Ray cluster is up on this machine")
    else:
        print("the Ray cluster is up already")
    print(_directions(head, folder / "token"))


def _directions(head: Head, token: Path) -> str:
    loopback = " ".join(f"{name}={value}" for name, value in LOOPBACK.items())
    return f"""\
dashboard  {head.api}; it asks for the token in {token}
submit     zephyr-ray submit --local -- zephyr-ray run tiny --set run.root=/a/folder, or
           export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={token}
           ray job submit --address {head.api} -- zephyr-ray run ...
join       with the same two variables: RAY_ADDRESS={head.gcs} {loopback} zephyr-ray run ...
stop       zephyr-ray down"""


def down(folder: Path) -> None:
    """Ends the cluster, running jobs too."""
    head = running(folder)
    if head is not None:
        end(head)
    _forget(folder)
    print("the Ray cluster is down" if head else "no Ray cluster of zephyr-ray up is running")


def running(folder: Path) -> Head | None:
    """The head node that this folder tells of, if it runs."""
    try:
        head = Head(**json.loads((folder / "head.json").read_text()))
        process = psutil.Process(head.pid)
        runs = process.create_time() == head.born and process.status() != psutil.STATUS_ZOMBIE
        return head if runs else None
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None


def start(folder: Path, cpus: int, ports: dict[str, int], variables: dict[str, str], *options: str) -> Head:
    """Starts a head node on loopback and waits until its API server answers.

    Args:
        folder: Keeps its token and its log.
        cpus: Its logical CPUs.
        ports: By the names in `_PORTS`.
        variables: Environment of its processes, beside what reaches it.
        options: More of `ray start`.

    Raises:
        UserError: It did not come up; with the end of its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _make_token(folder / "token")
    # Of its own: in a shared one the cluster that was started last is everybody's `auto`, and its jobs'. And short, as
    # sockets lie in it.
    sessions = tempfile.mkdtemp(prefix="ray-")
    command = [str(BIN / "ray"), "start", "--head", "--block", f"--num-cpus={cpus}", f"--temp-dir={sessions}"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"]
    command += ["--min-worker-port=0", "--max-worker-port=0"]  # any: those in Ray's own range may be another cluster's
    command += [f"--{name}={port}" for name, port in ports.items()]
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(
            [*command, *options],
            env=environment(folder, variables) | _NO_IDLE_WORKERS,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    head = Head(
        pid=process.pid,
        born=psutil.Process(process.pid).create_time(),
        api=f"http://127.0.0.1:{ports['dashboard-port']}",
        gcs=f"127.0.0.1:{ports['port']}",
        metrics=f"http://127.0.0.1:{ports['metrics-export-port']}/metrics",
        sessions=sessions,
    )
    try:
        _wait(process, head.api, folder / "head.log")
    except BaseException:
        end(head)
        raise
    return head


def end(head: Head) -> None:
    """Kills a head node, and removes its sessions."""
    end_node(head.pid)
    shutil.rmtree(head.sessions, ignore_errors=True)


def end_node(pid: int) -> None:
    """Kills a `ray start --block` and everything that came from it, and nothing else.

    At once: told to stop, it would wait half a minute for a worker that is busy, and then kill it.
    """
    with contextlib.suppress(psutil.NoSuchProcess):  # it has ended, and what it started with it
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=_DOWN_S)


def environment(folder: Path, variables: dict[str, str]) -> dict[str, str]:
    """This process's environment, made to reach the cluster whose token lies in the folder."""
    others = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN")
    inherited = {name: value for name, value in os.environ.items() if name not in others}
    places = [place for place in inherited.get("PATH", "").split(os.pathsep) if place != str(BIN)]
    return {
        **inherited,
        "PATH": os.pathsep.join([str(BIN), *places]),  # as in an activated venv
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        **variables,
    }


def _serving() -> dict[str, str]:
    """What the chat endpoint wants of the nodes it runs on."""
    haproxy = ("RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT")
    return FAST_PATH | {name: str(free_port()) for name in haproxy}


def _wait(process: subprocess.Popen[bytes], api: str, log: Path) -> None:
    deadline = time.monotonic() + _UP_S
    while not (_STARTED in log.read_text(errors="replace") and _answers(api)):
        if process.poll() is not None or time.monotonic() > deadline:
            said = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise UserError(f"Ray did not start; the end of {log}:\n{said}")
        time.sleep(0.5)


def _answers(api: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        direct.open(f"{api}/api/version", timeout=2)
    except urllib.error.HTTPError:  # it is there and asks for the token
        return True
    except OSError:
        return False
    return True


def _make_token(path: Path) -> None:
    """Once, and for its owner only."""
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(32))


def _port(usual: int | None) -> int:
    """This port, or a free one where it is taken."""
    if usual is None:
        return free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", usual))
        except OSError:
            return free_port()
    return usual


def _forget(folder: Path) -> None:
    """Removes what a cluster that does not run any more has left."""
    path = folder / "head.json"
    if path.exists():
        shutil.rmtree(json.loads(path.read_text())["sessions"], ignore_errors=True)
        path.unlink()
