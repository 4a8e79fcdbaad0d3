"""A replica ends with its engine, and not before."""

import subprocess
import sys

WATCH = """
import asyncio
from zephyr_ray.serving.engine_watch import end_with

class Engine:
    errored = False

async def serve():
    engine = Engine()
    watch = asyncio.create_task(end_with(engine))
    await asyncio.sleep(0.3)
    print("alive", flush=True)
    engine.errored = True
    await asyncio.sleep(10)
    print("still here", flush=True)

asyncio.run(serve())
"""


def test_the_process_ends_once_the_engine_is_dead() -> None:
    done = subprocess.run([sys.executable, "-c", WATCH], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "alive\n")
    assert "the engine died" in done.stderr
