"""Progress of stages: a board actor that tasks and workers report to and that a screen reads."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from zephyr_ray.cluster import connect


class _Board:
    """Holds the progress of each stage."""

    def __init__(self) -> None:
        self.stages: defaultdict[str, dict[str, Any]] = defaultdict(
            lambda: {"done": 0, "total": None, "metrics": {}, "failure": None}
        )

    def add(self, stage: str, rows: int) -> None:
        self.stages[stage]["done"] += rows

    def set(self, stage: str, done: int, total: int | None, metrics: dict[str, float] | None) -> None:
        self.stages[stage]["done"] = done
        if total is not None:
            self.stages[stage]["total"] = total
        if metrics is not None:
            self.stages[stage]["metrics"] = metrics

    def show(self, stage: str, metrics: dict[str, float]) -> None:
        self.stages[stage]["metrics"] = metrics

    def fail(self, stage: str, message: str) -> None:
        self.stages[stage]["failure"] = self.stages[stage]["failure"] or message

    def read(self, stage: str) -> dict[str, Any]:
        return self.stages[stage]


def start_board() -> Any:
    """Starts a board on the command's own machine, so that losing another machine loses no report."""
    import ray

    here = connect.this_node()
    return ray.remote(_Board).options(num_cpus=0, max_concurrency=4, scheduling_strategy=here).remote()


@dataclass(frozen=True)
class Progress:
    """A handle for reporting on a stage from anywhere in the cluster; reports do not block."""

    board: Any
    stage: str

    def add(self, rows: int) -> None:
        self.board.add.remote(self.stage, rows)

    def set(self, done: int, total: int | None = None, metrics: dict[str, float] | None = None) -> None:
        self.board.set.remote(self.stage, done, total, metrics)

    def show(self, metrics: dict[str, float]) -> None:
        """Shows metrics beside the count."""
        self.board.show.remote(self.stage, metrics)

    def fail(self, message: str) -> None:
        """Leaves an error line that the stage reads at its end; waits until the line has arrived."""
        import ray

        ray.get(self.board.fail.remote(self.stage, message))

    def read(self) -> dict[str, Any]:
        import ray

        return ray.get(self.board.read.remote(self.stage))
