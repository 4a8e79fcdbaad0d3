"""moto's S3 server, as a process of its own.

As a thread of the tests it would hang them now and then: where Python frees a stream of pyarrow's that was never
closed, pyarrow closes it, which waits for the server and holds the interpreter's lock.
"""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def started(url: str, log: Path) -> Iterator[None]:
    """The server at an address of this machine, until it is left; it prints into a file."""
    host, _, port = url.removeprefix("http://").partition(":")
    with log.open("w") as out:
        command = [sys.executable, "-m", "moto.server", "--host", host, "--port", port]
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait(lambda: _answers(url), server, log, 60)
        yield
    finally:
        server.terminate()
        server.wait(30)


def wait(holds: Callable[[], bool], process: subprocess.Popen[Any], log: Path, seconds: float) -> None:
    """Waits until something holds, for as long as a process runs."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None, log.read_text()[-6000:]
        assert time.monotonic() < deadline, log.read_text()[-6000:]
        time.sleep(0.3)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
