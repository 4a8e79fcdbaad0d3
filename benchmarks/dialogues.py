"""Cleans dialogues -> rows/s, CPU time and memory of our stage beside data-juicer's and `datasets.map`'s.

    python benchmarks/dialogues.py --data t0.jsonl.gz halueval.jsonl.gz --data-juicer-python VENV/bin/python
    python benchmarks/dialogues.py --rows 1000000 --only ours_shared,ours_whole --repeats 1

The dialogues are those of the files (at most five eighths of all), then made-up ones. Each run is a process of its own
on the same two cores, contenders take turns, and figures are medians.

data-juicer (`pip install py-data-juicer==1.6.1 aiohttp torch` in an environment of its own; it loads torch after each
operator) gets each dialogue as one text. Both do the steps that both have (`SHARED` and `OPERATORS` in
dialogues_contenders.py). They are not the same: ours look at turns, leave code as it is, and compare every candidate
for a near duplicate.

Rows/s are from the start of the work until its results are written. Ours counts from the call of the stage: it reads
JSON lines meanwhile, and its workers start within it. data-juicer counts from its first operator and `datasets.map`
from its call, when their rows are loaded. Seconds and CPU-seconds are of the whole process tree from its start to its
end. Memory is that of the whole tree, in PSS: pages that processes share are counted once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from dialogues_contenders import CHILDREN, OPERATORS, PROCESSES, data_juicer_config
from dialogues_rows import make_lexicon, prepare
from processes import QUIET, CpuClock, family

CONTENDERS = {
    "ours_shared": "ours, the steps that both have",
    "data_juicer": "data-juicer, the steps that both have",
    "ours_whole": "ours, all of recipes/cleaning.yaml",
    "ours_rows": "ours, its row functions alone",
    "datasets_rows": "datasets.map, the same row functions",
}
PEERS = {"data_juicer": "ours_shared", "datasets_rows": "ours_rows"}
"""What each peer is compared with."""
MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="dialogues in all")
    parser.add_argument("--data", nargs="*", default=[], help="files of real ones, in any known layout")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each contender")
    parser.add_argument("--only", default=",".join(CONTENDERS), help="some of the contenders")
    parser.add_argument("--data-juicer-python", help="the interpreter of an environment that has data-juicer")
    parser.add_argument(
        "--work", type=Path, help="folder for the rows and all that is written; default: a temporary one"
    )
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--child", choices=list(CHILDREN), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        CHILDREN[args.child](args.work)
        return
    names = args.only.split(",")
    if unknown := {*names} - {*CONTENDERS}:
        raise SystemExit(f"--only: there is no {', '.join(sorted(unknown))}; known are {', '.join(CONTENDERS)}")
    if "data_juicer" in names and not args.data_juicer_python:
        print("data-juicer is left out: --data-juicer-python does not name its interpreter")
        names.remove("data_juicer")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:PROCESSES])
    work = Path(tempfile.mkdtemp(prefix="dialogues-", dir=args.work))
    try:
        result = compare(work, names, args)
    finally:
        shutil.rmtree(work)
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")


def compare(work: Path, names: list[str], args: argparse.Namespace) -> dict[str, Any]:
    rows = prepare(work, args.data, args.rows)
    print(f"written: {rows}", file=sys.stderr)
    if {*names} & {"ours_rows", "datasets_rows"}:
        (work / "lexicon").write_bytes(pickle.dumps(make_lexicon(work / "messages")))
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(args.repeats):
        for name in names:
            runs[name].append(run_once(work, name, rows["real"] + rows["synthetic"], args))
            run = runs[name][-1]
            print(f"run {number + 1}: {name} {run['rows_per_s']:,.0f} rows/s, load {run['load']}", file=sys.stderr)
    print_tables(rows, runs)
    return {"rows": rows, "runs": runs}


def run_once(work: Path, name: str, rows: int, args: argparse.Namespace) -> dict[str, Any]:
    (work / "result.json").unlink(missing_ok=True)
    shutil.rmtree(work / "out", ignore_errors=True)
    load, started = round(os.getloadavg()[0], 1), time.time()
    with open(work / "child.log", "wb") as log:
        child = start_child(work, name, args, log)
        samples = list(watch(child))
    seconds = time.time() - started
    if child.returncode:
        raise SystemExit(f"{name} failed:\n{(work / 'child.log').read_text(errors='replace')[-3000:]}")
    result = told_by_data_juicer(work, rows) if name == "data_juicer" else read_result(work)
    begun, ended = result["begun"], result["ended"]
    middle = (begun + ended) / 2
    return {
        "rows_in": result["rows_in"],
        "rows_out": result["rows_out"],
        "rows_per_s": result["rows_in"] / (ended - begun),
        "rows_per_cpu_s": result["rows_in"] / summed_up(samples, begun, ended)["cpu_seconds"],
        "seconds": seconds,
        "cpu_seconds": samples[-1]["cpu"],
        "mib": max(sample["total"] for sample in samples) / MIB,
        "first_half_mib": summed_up(samples, begun, middle)["mean_mib"],
        "second_half_mib": summed_up(samples, middle, ended)["mean_mib"],
        "load": load,
        "phases": by_phase(samples, result),
        "steps": result.get("steps", {}),
    }


def by_phase(samples: list[dict[str, float]], result: dict[str, Any]) -> dict[str, dict[str, float]]:
    """What each phase took (`summed_up`), and the rest of the work."""
    phases = result.get("phases", {})
    taken = {phase: summed_up(samples, *between) for phase, between in phases.items()}
    if phases:
        whole = summed_up(samples, result["begun"], result["ended"])
        rest = {key: whole[key] - sum(each[key] for each in taken.values()) for key in ("seconds", "cpu_seconds")}
        outside = [each for each in samples if not any(begun <= each["time"] <= end for begun, end in phases.values())]
        taken["the rest"] = rest | {"peak_mib": max((each["total"] for each in outside), default=0.0) / MIB}
    return taken


def read_result(work: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((work / "result.json").read_text())
    return result


def summed_up(samples: list[dict[str, float]], begun: float, ended: float) -> dict[str, float]:
    """Seconds, CPU-seconds and memory in between, from the samples that are nearest."""
    during = [sample for sample in samples if begun <= sample["time"] <= ended]
    before = [sample for sample in samples if sample["time"] < begun][-1:]
    cpu = during[-1]["cpu"] - [*before, *during][0]["cpu"] if during else 0.0
    memory = [sample["total"] / MIB for sample in [*during] or before or samples[:1]]
    return {
        "seconds": ended - begun,
        "cpu_seconds": cpu,
        "mean_mib": statistics.fmean(memory),
        "peak_mib": max(memory),
    }


def start_child(work: Path, name: str, args: argparse.Namespace, log: Any) -> subprocess.Popen[bytes]:
    environment = os.environ | QUIET | {"HF_HOME": str(work / "out" / "hub"), "OMP_NUM_THREADS": "1"}
    if name == "data_juicer":
        (work / "data_juicer.json").write_text(json.dumps(data_juicer_config(work)))
        command = [args.data_juicer_python, "-m", "data_juicer.tools.process_data"]
        command += ["--config", str(work / "data_juicer.json")]
        environment.pop("PYTHONPATH", None)
    else:
        command = [sys.executable, os.path.abspath(__file__), "--child", name, "--work", str(work)]
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def told_by_data_juicer(work: Path, rows: int) -> dict[str, Any]:
    """What its log tells: when the operators began and the rows were exported, and how long each operator took."""
    log = (work / "child.log").read_text(errors="replace")
    done = re.search(r"^(\S+ \S+) .*All OPs are done in ([\d.]+)s", log, re.MULTILINE)
    exported = re.search(r"^(\S+ \S+) .*Running executor took", log, re.MULTILINE)
    operators = re.findall(r"OP \[(\w+)\] Done in ([\d.]+)s\. Left (\d+) samples", log)
    if not (done and exported and len(operators) == len(OPERATORS)):
        raise SystemExit(f"data-juicer's log does not tell what it did:\n{log[-3000:]}")
    begun = datetime.fromisoformat(done[1]).timestamp() - float(done[2])
    phases, at = {}, begun
    for name, seconds, _ in operators:
        phases[name] = (at, at + float(seconds))
        at += float(seconds)
    ended = datetime.fromisoformat(exported[1]).timestamp()
    return {"begun": begun, "ended": ended, "rows_in": rows, "rows_out": int(operators[-1][2]), "phases": phases}


def watch(child: subprocess.Popen[bytes], every_s: float = 0.5) -> Iterator[dict[str, float]]:
    """Memory (bytes) and CPU time of a process and all that come from it, until it ends."""
    import psutil

    clock = CpuClock()
    while child.poll() is None:
        processes, total = family(child), 0
        for process in processes:
            with contextlib.suppress(psutil.Error):  # it has just ended
                total += process.memory_full_info().pss
        yield {"time": time.time(), "total": total, "cpu": clock.read(processes)}
        time.sleep(every_s)


def print_tables(rows: dict[str, int], runs: dict[str, list[dict[str, Any]]]) -> None:
    repeats = len(next(iter(runs.values())))
    loads = [run["load"] for each in runs.values() for run in each]
    print(
        f"{rows['real']:,} real and {rows['synthetic']:,} synthetic dialogues, {rows['characters'] / 1e6:,.0f} million "
        f"characters; medians of {repeats}, load {min(loads)} to {max(loads)} before the runs"
    )
    columns = ("rows/s", "rows/CPU-s", "seconds", "CPU-s", "peak MiB", "1st half", "2nd half", "kept")
    keys = ("rows_per_s", "rows_per_cpu_s", "seconds", "cpu_seconds", "mib", "first_half_mib", "second_half_mib")
    print(f"{'':38}" + "".join(f"{column:>11}" for column in columns))
    for name, each in runs.items():
        figures = [statistics.median(run[key] for run in each) for key in keys]
        print(f"{CONTENDERS[name]:38}" + "".join(f"{each:11,.0f}" for each in [*figures, runs[name][0]["rows_out"]]))
    for peer, own in PEERS.items():
        if peer in runs and own in runs:
            speed, work, memory = (ratio(runs[own], runs[peer], key) for key in ("rows_per_s", "rows_per_cpu_s", "mib"))
            print(f"{own} against {peer}: {speed:.2f}x rows/s, {work:.2f}x rows/CPU-s, {memory:.2f}x memory")
    for name, each in runs.items():
        print_phases(CONTENDERS[name], each)


def ratio(ours: list[dict[str, Any]], others: list[dict[str, Any]], key: str) -> float:
    return statistics.median(own[key] / other[key] for own, other in zip(ours, others, strict=True))


def print_phases(title: str, runs: list[dict[str, Any]]) -> None:
    if phases := runs[0]["phases"]:
        print(f"\n{title}{'seconds':>{60 - len(title)}}{'CPU-s':>9}{'peak MiB':>10}")
        for phase in phases:
            peak = max(run["phases"][phase]["peak_mib"] for run in runs)
            seconds, cpu = (
                statistics.median(run["phases"][phase][key] for run in runs) for key in ("seconds", "cpu_seconds")
            )
            print(f"  {phase:48}{seconds:10.1f}{cpu:9.1f}{peak:10,.0f}")
    for name in runs[0]["steps"]:
        cpu = statistics.median(run["steps"][name]["seconds"] for run in runs)
        counts = runs[0]["steps"][name]
        counted = f"{counts['seen']:,} seen, {counts['changed']:,} changed, {counts['dropped']:,} dropped"
        print(f"  step {name:14}{counted:>53}{cpu:9.1f}")


if __name__ == "__main__":
    main()
