"""Reads preference pairs -> rows/s and memory of our Ray Data tokenization beside `datasets.map` on the same rows.

    python benchmarks/tokenization.py --data ultrafeedback_binarized_train.jsonl --copies 5
    python benchmarks/tokenization.py --memory --rows 1000000

Each run is a process of its own, contenders take turns, and figures are medians. Rows/s are without the start of
workers and the loading of their tokenizers: ours runs once before, and `datasets.map`, which starts new workers in
every call, counts from the moment the first of them is ready. The seconds of the whole call stand beside them, and
rows per second of CPU time of the whole process tree (Ray's own processes included), which other load on the machine
does not change much. Memory is that of the whole tree, in PSS: pages that processes share are counted once.
Not named tokenize.py: Python's own library has a module of that name.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from processes import QUIET, family
from ray_cluster import start_ray
from tokenization_rows import finish, make_tokenizer, prepare, synthetic

from zephyr_ray.cluster.preload import TOKENS

CONTENDERS = {
    "ours": "ours: Ray Data, streaming",
    "datasets_same": "datasets.map, our batch function",
    "datasets_plain": "datasets.map, template + tokenizer",
}
PROCESSES = 2
MAX_LENGTH, MAX_PROMPT_LENGTH = 1024, 512
MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000, help="synthetic pairs, where there is no --data")
    parser.add_argument("--data", help="a preference file in any known layout instead")
    parser.add_argument("--copies", type=int, default=1, help="how often to repeat the file's rows")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each contender")
    parser.add_argument("--memory", action="store_true", help="our two stages on JSON lines, memory against rows done")
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        CHILDREN[args.child](Path(args.work), args)
        return
    work = Path(tempfile.mkdtemp(prefix="tokenization-"))
    try:
        result = measure_memory(work, args) if args.memory else compare(work, args)
    finally:
        shutil.rmtree(work)
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")


# --- what is measured: contenders, each in a process of its own


def run_ours(work: Path, args: argparse.Namespace) -> None:
    from zephyr_ray.data.tokenized import make_tokenized
    from zephyr_ray.pipeline.artifacts import Run

    start_ray(TOKENS)
    run = Run(str(work / "run"))
    chosen = recipe()
    tokenize = functools.partial(make_tokenized, chosen.tokenized, source(str(work / "tokenizer")))
    tokenize(run.artifact("preferences"), run.artifact("warmed"))  # every worker process up, its tokenizer loaded
    called = time.time()
    report = tokenize(run.artifact("preferences"), run.artifact("tokenized"), progress=Log(work / "progress"))
    tell(work, called, report.rows_out, sum_tokens(report.stats))


def sum_tokens(stats: dict[str, Any]) -> int:
    return int(sum(stat["sum"] for name, stat in stats.items() if name.endswith("_tokens")))


def run_datasets(work: Path, args: argparse.Namespace) -> None:
    import datasets

    datasets.disable_progress_bars()
    files = [str(path) for path in (work / "run" / "preferences" / "data").iterdir()]
    rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(work / "cache"))
    encode = {"datasets_same": encode_same, "datasets_plain": encode_plain}[args.child]
    function = functools.partial(log_start, encode=encode, path=str(work / "tokenizer"), log=str(work / "progress"))
    called = time.time()
    made = rows.map(
        function,
        batched=True,
        batch_size=512,
        num_proc=PROCESSES,
        remove_columns=rows.column_names,
        load_from_cache_file=False,
    )
    ended = time.time()
    made = made.with_format("arrow")
    tokens = sum(len(made[:][name].combine_chunks().flatten()) for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
    tell(work, called, len(made), tokens, ended)


def log_start(batch: dict[str, list[Any]], *, encode: Any, path: str, log: str) -> dict[str, list[Any]]:
    source(path).load()
    Log(Path(log)).add(len(batch["pair_id"]))
    return encode(batch, path)


def encode_same(batch: dict[str, list[Any]], path: str) -> dict[str, list[Any]]:
    from zephyr_ray.chat_template import encode_pairs
    from zephyr_ray.data.tokenized import truncate

    triples = list(zip(batch["prompt"], batch["chosen"], batch["rejected"], strict=True))
    pairs = encode_pairs(source(path).load(), triples, "modern")
    cut = [truncate(pair, MAX_LENGTH, MAX_PROMPT_LENGTH, "modern").pair for pair in pairs]
    return {"pair_id": batch["pair_id"]} | {name: [getattr(pair, name) for pair in cut] for name in cut[0]._fields}


def encode_plain(batch: dict[str, list[Any]], path: str) -> dict[str, list[Any]]:
    """As one would write it: the template and the tokenizer on the prompt and on both conversations, whole."""
    tokenizer = source(path).load()

    def ids(conversations: list[Any], more: bool) -> list[list[int]]:
        texts = tokenizer.apply_chat_template(conversations, tokenize=False, add_generation_prompt=more)
        return tokenizer(texts, add_special_tokens=False)["input_ids"]

    prompts = ids(batch["prompt"], True)
    made: dict[str, list[Any]] = {"pair_id": batch["pair_id"], "prompt_ids": [p[-MAX_PROMPT_LENGTH:] for p in prompts]}
    for name in ("chosen", "rejected"):
        whole = ids([[*p, *c] for p, c in zip(batch["prompt"], batch[name], strict=True)], False)
        made[f"{name}_ids"] = [
            answer[len(prompt) : -1][: MAX_LENGTH - len(cut)]  # the template's last token is a newline
            for answer, prompt, cut in zip(whole, prompts, made["prompt_ids"], strict=True)
        ]
    return made


def run_memory(work: Path, args: argparse.Namespace) -> None:
    from zephyr_ray.data.preferences import make_preferences
    from zephyr_ray.data.tokenized import make_tokenized
    from zephyr_ray.pipeline.artifacts import Run

    start_ray(TOKENS)
    run = Run(str(work / "run"))
    chosen = recipe(str(work / "rows.jsonl"))
    progress = Log(work / "preferences.progress")
    report = make_preferences(chosen.preferences, chosen.run.seed, run.artifact("preferences"), progress=progress)
    finish(run.artifact("preferences"), report.files)
    (work / "preferences.done").touch()
    made = make_tokenized(
        chosen.tokenized,
        source(str(work / "tokenizer")),
        run.artifact("preferences"),
        run.artifact("tokenized"),
        progress=Log(work / "tokenized.progress"),
    )
    (work / "result.json").write_text(json.dumps({"preferences": report.rows_out, "tokenized": made.rows_out}))


CHILDREN = {
    "ours": run_ours,
    "datasets_same": run_datasets,
    "datasets_plain": run_datasets,
    "memory": run_memory,
}


def recipe(train: str | None = None) -> Any:
    from zephyr_ray.config.data import Preferences, Tokenized
    from zephyr_ray.config.recipe import Recipe
    from zephyr_ray.config.training import SFT

    lengths = Tokenized(max_length=MAX_LENGTH, max_prompt_length=MAX_PROMPT_LENGTH)
    return Recipe(sft=SFT(), preferences=Preferences(train=train), tokenized=lengths)


def source(path: str) -> Any:
    from zephyr_ray.config.model import Chat
    from zephyr_ray.pipeline.model_source import ModelSource
    from zephyr_ray.pipeline.tokenizer import TokenizerSource

    return TokenizerSource(ModelSource(path), Chat())


class Log:
    """A progress handle: a line with the time and the rows for each batch. Small appends of one file do not mix."""

    def __init__(self, path: Path):
        self.path = str(path)

    def add(self, rows: int) -> None:
        with open(self.path, "a", encoding="ascii") as stream:
            stream.write(f"{time.time()} {rows}\n")

    def read(self) -> list[tuple[float, int]]:
        if not os.path.exists(self.path):
            return []
        with open(self.path, encoding="ascii") as stream:
            lines = [line.split() for line in stream if line.endswith("\n")]
        return [(float(when), int(rows)) for when, rows in lines]


def tell(work: Path, called: float, rows: int, tokens: int, ended: float | None = None) -> None:
    result = {"called": called, "ended": ended or time.time(), "rows": rows, "tokens": tokens}
    (work / "result.json").write_text(json.dumps(result))


# --- how it is measured


def compare(work: Path, args: argparse.Namespace) -> dict[str, Any]:
    prepare(work, args.data, args.copies, args.rows)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for number in range(args.repeats):
        for name in CONTENDERS:
            runs[name].append(run_once(work, name, args))
            print(f"run {number + 1}: {name} {runs[name][-1]['rows_per_s']:,.0f} rows/s", file=sys.stderr)
    keys = ("rows_per_s", "tokens_per_s", "rows_per_cpu_s", "seconds", "total_mib", "driver_mib", "workers_mib")
    medians = {name: {key: statistics.median(run[key] for run in runs[name]) for key in keys} for name in CONTENDERS}
    print_table(medians, runs)
    return {"rows": runs["ours"][0]["rows"], "repeats": args.repeats, "medians": medians, "runs": runs}


def print_table(medians: dict[str, dict[str, float]], runs: dict[str, list[dict[str, float]]]) -> None:
    first = runs["ours"][0]
    print(f"{first['rows']:,} pairs, {first['tokens']:,} tokens, medians of {len(runs['ours'])}; peaks in MiB of PSS")
    columns = f"{'rows/s':>9}{'ours is':>9}{'rows/CPU s':>12}{'ours is':>9}{'call s':>8}"
    print(f"{'':36}{columns}{'driver':>8}{'workers':>9}{'all':>8}")
    for name, median in medians.items():
        speed, work = (
            statistics.median(ours[key] / other[key] for ours, other in zip(runs["ours"], runs[name], strict=True))
            for key in ("rows_per_s", "rows_per_cpu_s")
        )
        print(
            f"{CONTENDERS[name]:36}{median['rows_per_s']:9,.0f}{speed:8.2f}x"
            f"{median['rows_per_cpu_s']:12,.0f}{work:8.2f}x{median['seconds']:8.1f}{median['driver_mib']:8,.0f}{median['workers_mib']:9,.0f}{median['total_mib']:8,.0f}"
        )


def run_once(work: Path, name: str, args: argparse.Namespace) -> dict[str, float]:
    for leftover in ("progress", "result.json"):
        (work / leftover).unlink(missing_ok=True)
    for folder in (work / "cache", work / "run" / "tokenized", work / "run" / "warmed"):
        shutil.rmtree(folder, ignore_errors=True)
    samples = list(watch(start_child(work, name, args)))
    result = json.loads((work / "result.json").read_text())
    begun = first_taken(name, Log(work / "progress").read(), result["called"])
    during = [sample for sample in samples if sample["time"] >= result["called"]]
    peaks = {f"{key}_mib": max(sample[key] for sample in during) / MIB for key in ("total", "driver", "workers")}
    taken = result["ended"] - begun
    return {
        "rows": result["rows"],
        "tokens": result["tokens"],
        "rows_per_s": result["rows"] / taken,
        "tokens_per_s": result["tokens"] / taken,
        "rows_per_cpu_s": result["rows"] / cpu_seconds(samples, begun, result["ended"]),
        "seconds": result["ended"] - result["called"],
        **peaks,
    }


def first_taken(name: str, log: list[tuple[float, int]], called: float) -> float:
    """When the first worker was ready. Those of ours were before the call, so all of it counts."""
    return called if name == "ours" else min(when for when, _ in log)


def cpu_seconds(samples: list[dict[str, float]], begun: float, ended: float) -> float:
    """CPU time of the whole process tree in between: what a busy machine does not change, as it does seconds."""
    during = [sample["cpu"] for sample in samples if begun <= sample["time"] <= ended]
    return max(during) - during[0]


def start_child(work: Path, name: str, args: argparse.Namespace) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        os.path.abspath(__file__),
        "--child",
        name,
        "--work",
        str(work),
    ]
    with open(work / "child.log", "ab") as log:
        return subprocess.Popen(command, env={**os.environ, **QUIET}, stdout=log, stderr=log)


def watch(child: subprocess.Popen[bytes], every_s: float = 0.5) -> Iterator[dict[str, float]]:
    """Memory of a process and all that come from it, until it ends."""
    import psutil

    while child.poll() is None:
        total = driver = workers = 0
        cpu = 0.0
        for process in family(child):
            try:
                pss, line = process.memory_full_info().pss, process.cmdline()
                times = process.cpu_times()
            except psutil.Error:  # it has just ended
                continue
            total += pss
            cpu += times.user + times.system
            if process.pid == child.pid:
                driver = pss
            elif line and (line[0].startswith("ray::") or "--child" in line):
                workers += pss
        yield {"time": time.time(), "total": total, "driver": driver, "workers": workers, "cpu": cpu}
        time.sleep(every_s)
    if child.returncode:
        raise SystemExit(f"a contender failed: {' '.join(map(str, child.args))}")  # type: ignore[arg-type]


def measure_memory(work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Both stages on JSON lines; what the process tree holds at a quarter of the rows and at the end."""
    make_tokenizer(work / "tokenizer")
    with open(work / "rows.jsonl", "w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in synthetic(args.rows))
    size = (work / "rows.jsonl").stat().st_size
    samples = list(watch(start_child(work, "memory", args)))
    result: dict[str, Any] = {"rows": args.rows, "jsonl_mib": size / MIB, "stages": {}}
    print(f"{args.rows:,} pairs, {size / MIB:,.0f} MiB of JSON lines; MiB of PSS of the whole tree, Ray included")
    print(f"{'':14}{'rows/s':>9}{'at 25 %':>9}{'at 100 %':>10}{'ratio':>7}{'MiB per 100k rows':>19}{'peak':>7}")
    for stage in ("preferences", "tokenized"):
        result["stages"][stage] = row = memory_of(Log(work / f"{stage}.progress").read(), samples)
        print(
            f"{stage:14}{row['rows_per_s']:9,.0f}{row['at_25']:9,.0f}{row['at_100']:10,.0f}"
            f"{row['at_100'] / row['at_25']:7.2f}{row['slope_per_100k']:19,.1f}{row['peak']:7,.0f}"
        )
    return result


def memory_of(log: list[tuple[float, int]], samples: list[dict[str, float]]) -> dict[str, float]:
    """Means of the memory around a quarter and around the end of a stage's rows, and its slope from a quarter on."""
    log = sorted(log)
    begun, ended = log[0][0], log[-1][0]
    total = sum(rows for _, rows in log)
    done: list[tuple[float, float]] = []
    for sample in samples:
        if begun <= sample["time"] <= ended:
            done.append((sum(rows for when, rows in log if when <= sample["time"]), sample["total"] / MIB))

    def mean(low: float, high: float) -> float:
        return statistics.fmean(memory for rows, memory in done if low * total <= rows <= high * total)

    late = [(rows, memory) for rows, memory in done if rows >= 0.25 * total]
    slope = statistics.linear_regression(*zip(*late, strict=True)).slope
    return {
        "rows_per_s": total / (ended - begun),
        "at_25": mean(0.2, 0.3),
        "at_100": mean(0.9, 1.0),
        "slope_per_100k": slope * 1e5,
        "peak": max(memory for _, memory in done),
    }


if __name__ == "__main__":
    main()
