"""The client of `fork_server`: runs in Python's place, requests a worker and exits, or starts the worker itself.

    python -S -E fork_worker.py SOCKET PYTHON SCRIPT ARGUMENT...

It is run by its path and without site-packages, and takes 20 ms.
"""

import array
import json
import os
import signal
import socket
import sys


def main() -> None:
    path, python, *command = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(path)
        except OSError:  # the server has gone
            os.execv(python, [python, *command])
        _send(server, json.dumps(_describe(command)).encode() + b"\n")
        reply = server.recv(32)
    if reply == b"no":
        os.execv(python, [python, *command])
    if not reply:  # the server died and may have forked: two workers with one id would be worse than none
        sys.exit("the fork server went away")


def _describe(command: list[str]) -> dict[str, object]:
    """This process's command, environment and limits, which the worker takes over."""
    with open("/proc/self/oom_score_adj") as file:
        oom_score_adj = file.read()
    return {
        "command": command,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "signal_mask": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "oom_score_adj": oom_score_adj,
    }


def _send(server: socket.socket, text: bytes) -> None:
    """Sends the text together with this process's standard streams."""
    streams = array.array("i", [0, 1, 2])
    sent = server.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
    if sent < len(text):
        server.sendall(text[sent:])


main()
