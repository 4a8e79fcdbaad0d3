"""Free ports for the servers that are started on this machine."""

from __future__ import annotations

import contextlib
import random
import socket


def free_port() -> int:
    """A port below those that Linux gives to outgoing connections, which Ray opens many of before this one is used."""
    while True:
        port = random.randint(20_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return port
