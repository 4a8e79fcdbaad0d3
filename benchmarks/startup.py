"""How long commands take to start, beside `import torch`: medians of alternating runs, and ratios to it.

    python benchmarks/startup.py --json startup.json

It makes a run of its own in a temporary folder first: the embedded world's pairs, tokenized, and a random model of the
demo's size. Then, in turns: `import torch`; `--help`; `--dry-run`; a run in which all is done; a DPO job of two steps
on two workers under ZeRO-3, its reference log-probs included; the chat endpoint until it says that it is up.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TORCH = "import torch"
_LONGEST_S = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="names of commands, `import torch` beside them")
    parser.add_argument("--json", type=Path, help="write every time here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="startup-") as folder:
        world = World(Path(folder))
        measured = {
            TORCH: lambda: seconds([sys.executable, "-c", "import torch"]),
            "--help": lambda: seconds(world.job("--help")),
            "zephyr-ray --help": lambda: seconds([sys.executable, "-m", "zephyr_ray", "--help"]),
            "--dry-run": lambda: seconds(world.job("--dry-run")),
            "all done": lambda: seconds(world.job()),
            "DPO, two steps": world.train_anew,
            "chat endpoint": world.serve,
        }
        names = [name for name in measured if name == TORCH or not options.only or name in options.only]
        times: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(options.repeats):
            for name in names:
                times[name].append(measured[name]())
                print(f"turn {turn + 1}: {name} {times[name][-1]:.2f} s", file=sys.stderr, flush=True)
    print(table(times))
    if options.json:
        options.json.write_text(json.dumps(times, indent=1) + "\n")


def table(times: dict[str, list[float]]) -> str:
    """A row for each command: median, least and most seconds, and the median of its ratios to `import torch`."""
    lines = ["| command | median, s | from | to | / import torch |", "| --- | --- | --- | --- | --- |"]
    for name, found in times.items():
        ratio = statistics.median(mine / torch for mine, torch in zip(found, times[TORCH], strict=True))
        lines.append(f"| {name} | {statistics.median(found):.2f} | {min(found):.2f} | {max(found):.2f} | {ratio:.2f} |")
    return "\n".join(lines)


def seconds(command: list[str]) -> float:
    """Of wall time, from the command's start to its good end."""
    begun = time.perf_counter()
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, timeout=_LONGEST_S)
    return time.perf_counter() - begun


class World:
    """A run of the embedded world in a folder."""

    def __init__(self, folder: Path):
        from zephyr_ray.embedded.model import Sizes, make_base

        make_base(folder / "model", Sizes(), seed=0)
        pairs = "{type: function, function: 'zephyr_ray.embedded.sources:preferences', options: {count: 151}}"
        self.root = folder / "run"
        self.settings = [
            *("--recipe", "recipes/tiny.yaml", "--set", f"run.root={self.root}"),
            *("--set", f"model.path={folder / 'model'}", "--set", f"preferences.train={pairs}"),
            *("--set", "preferences.max_dropped=0.9"),
            *("--set", "dpo.global_batch=16", "--set", "dpo.max_steps=2"),
        ]
        seconds(self.job())

    def job(self, *options: str) -> list[str]:
        return [sys.executable, "jobs/dpo.py", *self.settings, *options]

    def train_anew(self) -> float:
        """The reference log-probs and the training, of pairs that are tokenized."""
        for stage in ("reference_logps", "dpo"):
            shutil.rmtree(self.root / stage)
        return seconds(self.job())

    def serve(self) -> float:
        """Until the endpoint says that it answers."""
        command = [sys.executable, "serve/app.py", "--run", str(self.root), "--open", "--port", str(free_port())]
        begun = time.perf_counter()
        with subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as server:
            assert server.stdout is not None
            said = until(server.stdout.readline, lambda line: "OpenAI API" in line or not line)
            took = time.perf_counter() - begun
            server.send_signal(signal.SIGINT)
        if not said:
            raise SystemExit("the chat endpoint did not start")
        return took


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(read: Callable[[], str], holds: Callable[[str], bool]) -> str:
    """The first line that does."""
    while not holds(line := read()):
        pass
    return line


if __name__ == "__main__":
    main()
