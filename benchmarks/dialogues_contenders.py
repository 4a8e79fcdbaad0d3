"""The contenders of benchmarks/dialogues.py and what they are told to do."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from zephyr_ray.data.cleaning.steps import Cleaning, NamedStep

PROCESSES = 2
SHARED: dict[str, Any] = {
    "steps": [
        {"type": "encoding"},
        {"type": "quality", "min_characters": 2, "max_characters": 1_000_000},
        {"type": "personal_data", "mask": ["email"]},
    ],
    "near_duplicates": {"threshold": 0.7, "words": 5},
}
"""Ours; exact repeats always go."""
OPERATORS: list[dict[str, dict[str, Any]]] = [
    {"fix_unicode_mapper": {"normalization": "NFC"}},
    {"text_length_filter": {"min_len": 2, "max_len": 1_000_000}},
    {"word_repetition_filter": {"rep_len": 10, "max_ratio": 0.5}},
    {"clean_email_mapper": {"repl": "<EMAIL>"}},
    {"document_deduplicator": {"lowercase": False}},
    {
        "document_minhash_deduplicator": {
            "tokenization": "space",
            "window_size": 5,
            "lowercase": True,
            "ignore_pattern": r"\p{P}",
            "num_permutations": 128,
            "jaccard_threshold": 0.7,
        }
    },
]
"""data-juicer's."""
PHASES = {
    "learning names": "_cleaning",
    "counting": "count_read",
    "repeats": "drop_repeated",
    "near duplicates": "drop_near_duplicates",
    "report": "write_report",
}
"""What a stage does beside its rows, by the functions of zephyr_ray/data/dialogues.py that do it."""


def data_juicer_config(work: Path) -> dict[str, Any]:
    """Of its settings the fastest: operators without fault tolerance, nothing kept for another run, and no process that
    watches."""
    return {
        "project_name": "benchmark",
        "dataset_path": str(work / "texts"),
        "export_path": str(work / "out" / "exported" / "texts.jsonl"),
        "work_dir": str(work / "out" / "work"),
        "temp_dir": str(work / "out" / "temporary"),
        "np": PROCESSES,
        "turbo": True,
        "use_cache": False,
        "open_monitor": False,
        "process": OPERATORS,
    }


def run_ours(work: Path, section: Any) -> None:
    """The stage, all of it."""
    from zephyr_ray.data import dialogues
    from zephyr_ray.pipeline.artifacts import Run

    start_ray_on_two_cores()
    phases: dict[str, tuple[float, float]] = {}
    section = section.model_copy(update={"train": str(work / "messages")})
    with contextlib.ExitStack() as stack:
        for phase, function in PHASES.items():
            holder = dialogues.dialogues_report if phase == "report" else dialogues
            timed = timer(getattr(holder, function), phase, phases)
            stack.enter_context(mock.patch.object(holder, function, timed))
        begun = time.time()
        report = dialogues.make_dialogues(section, 0, Run(str(work / "out")).artifact("dialogues"))
    steps = {name: asdict(count) for name, count in report.tally.steps.items()}
    tell(work, begun, report.rows_in, report.rows_out, phases=phases, steps=steps)


def timer(function: Callable[..., Any], phase: str, phases: dict[str, tuple[float, float]]) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*args: Any, **options: Any) -> Any:
        begun = time.time()
        try:
            return function(*args, **options)
        finally:
            phases[phase] = (begun, time.time())

    return timed


def run_shared(work: Path) -> None:
    from zephyr_ray.config.data import Dialogues

    run_ours(work, Dialogues.model_validate(SHARED))


def run_whole(work: Path) -> None:
    run_ours(work, recipe_section())


def recipe_section() -> Any:
    from zephyr_ray.config import loader

    return loader.load(["cleaning"]).dialogues


@dataclass(frozen=True)
class LocalCleaning(Cleaning):
    """The steps, with a lexicon that each process reads from a file: no cluster need hold it."""

    file: str = ""

    def steps(self) -> list[NamedStep]:
        return local_steps(self)


@functools.lru_cache(maxsize=1)
def local_steps(cleaning: LocalCleaning) -> list[NamedStep]:
    from zephyr_ray.data.cleaning import casing

    *others, last = cleaning.sections
    assert last.type == "casing"
    restore = functools.partial(casing.restore, lexicon=pickle.loads(Path(cleaning.file).read_bytes()))
    return [*Cleaning(tuple(others)).steps(), NamedStep("casing", restore)]


def run_rows(work: Path) -> None:
    """The row functions in Ray Data, writing what they make."""
    from zephyr_ray.cluster import connect
    from zephyr_ray.data.dialogues import to_dialogues
    from zephyr_ray.data.io import sources, writer
    from zephyr_ray.pipeline.artifacts import Run
    from zephyr_ray.schemas import DIALOGUES, DROPPED_DIALOGUES

    start_ray_on_two_cores()
    cleaning = LocalCleaning(recipe_section().steps, file=str(work / "lexicon"))
    begun, cpus = time.time(), connect.busy_cpus()
    report = writer.write(
        sources.read_rows(str(work / "messages"), num_cpus=cpus),
        Run(str(work / "out")).artifact("dialogues"),
        DIALOGUES,
        make=functools.partial(to_dialogues, cleaning=cleaning),
        dropped=DROPPED_DIALOGUES,
        num_cpus=cpus,
    )
    steps = {name: asdict(count) for name, count in report.tally.steps.items()}
    tell(work, begun, report.rows_in, report.rows_out, steps=steps)


def run_datasets(work: Path) -> None:
    """The row functions in `datasets.map`, which writes what they make as Arrow."""
    import datasets
    import pyarrow.compute as pc

    datasets.disable_progress_bars()
    files = [str(path) for path in sorted((work / "messages").iterdir())]
    lines = datasets.load_dataset(
        "text", data_files=files, split="train", cache_dir=str(work / "out"), num_proc=PROCESSES
    )
    cleaning = LocalCleaning(recipe_section().steps, file=str(work / "lexicon"))
    begun = time.time()
    made = lines.with_format("arrow").map(
        functools.partial(of_lines, cleaning=cleaning),
        with_indices=True,
        batched=True,
        num_proc=PROCESSES,
        remove_columns=lines.column_names,
        load_from_cache_file=False,
    )
    ended = time.time()
    kept = pc.sum(pc.is_null(made.data["reason"])).as_py()
    tell(work, begun, len(made), kept, ended)


def of_lines(batch: Any, numbers: list[int], *, cleaning: Cleaning) -> Any:
    import pyarrow as pa

    from zephyr_ray.data.dialogues import to_dialogues

    columns = {"source": [f"line:{number}" for number in numbers], "line": batch["text"].cast(pa.large_binary())}
    return to_dialogues(pa.table(columns), cleaning=cleaning)[0]


CHILDREN: dict[str, Callable[[Path], None]] = {
    "ours_shared": run_shared,
    "ours_whole": run_whole,
    "ours_rows": run_rows,
    "datasets_rows": run_datasets,
}


def start_ray_on_two_cores() -> None:
    from ray_cluster import start_ray

    from zephyr_ray.cluster.preload import CLEANING

    mock.patch.object(os, "cpu_count", return_value=PROCESSES).start()  # tasks ask for what is left of so many
    start_ray(CLEANING)


def tell(
    work: Path, begun: float, rows_in: int, rows_out: int, ended: float | None = None, **others: dict[str, Any]
) -> None:
    result = {"begun": begun, "ended": ended or time.time(), "rows_in": rows_in, "rows_out": rows_out, **others}
    (work / "result.json").write_text(json.dumps(result))
