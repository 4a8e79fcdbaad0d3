"""Makes synthetic rows -> how time and memory of what a stage does beside its own work grow with the number of rows.

    python benchmarks/scale.py --rows 1e5,1e6 --json scale.json
    python benchmarks/scale.py --rows 1e6,1e7 --phases resume,count,dedup,fingerprint

Phases, each in a process of its own with a fresh cluster, on artifacts that are written in bulk:

resume: candidates of which every second file is there go on: `ids` reads the ids of the written rows, `left` streams
    the other prompts and writes a row for each (no server, no ledger), with the report on all rows, `check` holds what
    is written against the source.
count: rows of an artifact by its manifest, and by the files' footers (`footers`), as where a manifest does not say.
dedup: a tenth of the rows are repeats (`repeats`), or none is (`distinct`).
fingerprint: JSON lines on this disk, for the first time (`first`) and again (`again`).
lineage: a pair (`pair`) and a prompt (`prompt`) are followed through a run of prompts, judgments, pairs and a model.
ask: the stage `candidates` itself with a server that answers at once; it is killed when half of the requests are
    answered (`killed`), and goes on (`resumed`). The server and the client bound this one.

Memory is the largest RSS of the driver within a step, and of the ledger's actor in its try. Exponents are
log(s2 / s1) / log(n2 / n1) of the last two numbers of rows; the last column continues them to 10^8 rows.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from feedback_memory import MIB, watch
from feedback_server import ask_server, server
from processes import QUIET
from ray_cluster import start_ray

PHASES = ("resume", "count", "dedup", "fingerprint", "lineage", "ask")
FAR = 1e8
IN_FLIGHT = 64

Steps = dict[str, dict[str, float]]
"""{step: figures}."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1e4,1e5", help="numbers of rows, the smaller first")
    parser.add_argument("--phases", default=",".join(PHASES), help="some of them")
    parser.add_argument("--work", type=Path, help="folder for the rows (400 bytes a row); default: a temporary one")
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--child", choices=[*CHILDREN], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        CHILDREN[args.child](args)
    else:
        measure(args)


def measure(args: argparse.Namespace) -> None:
    phases, sizes = args.phases.split(","), [int(float(each)) for each in args.rows.split(",")]
    if unknown := {*phases} - {*PHASES}:
        raise SystemExit(f"--phases: there is no {', '.join(sorted(unknown))}; known are {', '.join(PHASES)}")
    found: dict[str, dict[int, Steps]] = {}
    for phase in phases:
        for rows in sizes:
            work = Path(tempfile.mkdtemp(prefix="scale-", dir=args.work))
            try:
                found.setdefault(phase, {})[rows] = MEASURES.get(phase, run_alone)(work, phase, rows, args)
            finally:
                shutil.rmtree(work)
            print(f"{phase}, {rows:,} rows: {found[phase][rows]}", file=sys.stderr, flush=True)
    figures = {phase: by_step(sizes, each) for phase, each in found.items()}
    print_table(figures)
    if args.json:
        Path(args.json).write_text(json.dumps({"rows": sizes, "phases": figures}, indent=2) + "\n")


# --- what is measured: each phase in a process of its own


def run_resume(args: argparse.Namespace) -> None:
    from scale_rows import candidates, finish, write_half_of_candidates, write_prompts

    from zephyr_ray.data.io import lengths, resume, writer
    from zephyr_ray.data.io.rows import mixed_schema
    from zephyr_ray.pipeline.artifacts import Run
    from zephyr_ray.schemas import CANDIDATES

    def sample(prompts: Any) -> Any:
        import pyarrow as pa

        columns, schema = candidates(prompts), mixed_schema(CANDIDATES)
        return pa.table([columns.get(each.name, pa.nulls(len(prompts), each.type)) for each in schema], schema.names)

    run, rows = Run(str(args.work / "run")), int(args.rows)
    source, artifact = run.artifact("prompts"), run.artifact("candidates")
    finish(source, write_prompts(source, rows))
    write_half_of_candidates(artifact, rows)
    artifact = run.artifact("candidates")
    assert artifact.begin("benchmark")
    start_ray(object_store_memory=2 << 30)
    steps: Steps = {}
    with step(steps, "ids"):
        done = writer.written_ids(artifact, "prompt_id")
    with step(steps, "left"):
        left = resume.rows_left(source, done, "prompt_id").map_batches(sample, batch_format="pyarrow", batch_size=None)
        measured = functools.partial(lengths.characters, columns=("messages",))
        per_file = writer.rows_per_file(rows)
        report = writer.write(left, artifact, CANDIDATES, measure=measured, keep=True, rows_per_file=per_file)
    with step(steps, "check"):
        resume.check_exactly_once(source, artifact, report, "prompt_id")
    assert report.rows_out == rows > len(done)
    tell(args.work, steps)


def run_count(args: argparse.Namespace) -> None:
    from scale_rows import finish, write_prompts

    from zephyr_ray.data.io import sources
    from zephyr_ray.pipeline.artifacts import Run

    steps: Steps = {}
    for name, with_rows in (("manifest", True), ("footers", False)):
        source = Run(str(args.work / name)).artifact("prompts")
        finish(source, write_prompts(source, int(args.rows)), with_rows=with_rows)
        with step(steps, name):
            assert sources.count_rows(source) == int(args.rows)
    tell(args.work, steps)


def run_dedup(args: argparse.Namespace) -> None:
    from scale_rows import write_prompts

    from zephyr_ray.data.cleaning.dedup import drop_repeated
    from zephyr_ray.data.io.writer import Report
    from zephyr_ray.pipeline.artifacts import Run

    rows = int(args.rows)
    start_ray(object_store_memory=2 << 30)
    steps: Steps = {}
    for name, distinct in (("distinct", rows), ("repeats", rows - rows // 10)):
        artifact = Run(str(args.work / name)).artifact("prompts")
        report = Report(rows_in=rows, rows_out=rows, files=write_prompts(artifact, rows, distinct))
        with step(steps, name):
            assert drop_repeated(artifact, report, "prompt_id").rows_out == distinct
    tell(args.work, steps)


def run_fingerprint(args: argparse.Namespace) -> None:
    from scale_rows import write_lines

    from zephyr_ray.data.io.sources import describe_source
    from zephyr_ray.pipeline import digest_cache

    os.environ["ZEPHYR_RAY_CACHE"] = str(args.work / "cache")
    (args.work / "data").mkdir()
    for number in range(8):
        write_lines(args.work / "data" / f"{number}.jsonl", int(args.rows) // 8)
    time.sleep(digest_cache.SETTLED_NS / 1e9)
    steps: Steps = {}
    told = []
    for name in ("first", "again"):
        with step(steps, name):
            told.append(describe_source(str(args.work / "data")))
    assert told[0] == told[1]
    tell(args.work, steps)


def run_lineage(args: argparse.Namespace) -> None:
    from scale_rows import write_trained_run

    from zephyr_ray.data.row_lineage.trace import trace
    from zephyr_ray.pipeline.artifacts import Run
    from zephyr_ray.pipeline.lineage.reading import stages_of

    run = Run(str(args.work / "run"))
    asked = dict(zip(("pair", "prompt"), write_trained_run(run, int(args.rows)), strict=True))
    steps: Steps = {}
    for name, row_id in asked.items():
        with step(steps, name):
            found = trace(run, stages_of(run), row_id)
        assert [each.stage for each in found.models] == ["dpo"]
        assert {each.stage for each in found.kept} == {"prompts", "judgments", "preferences", "tokenized"}
    tell(args.work, steps)


def run_ask(args: argparse.Namespace) -> None:
    """One try of the stage; the parent kills the first."""
    from scale_rows import finish, write_prompts

    from zephyr_ray import zephyr
    from zephyr_ray.config.feedback import Sampling
    from zephyr_ray.config.model import ModelSection
    from zephyr_ray.config.recipe import Recipe
    from zephyr_ray.pipeline.artifacts import Run
    from zephyr_ray.pipeline.stage import StageContext

    run = Run(str(args.work / "run"))
    source, artifact = run.artifact("prompts"), run.artifact("candidates")
    if source.manifest() is None:
        finish(source, write_prompts(source, int(args.rows)))
    pool = [{"type": "endpoint", "name": "m", "model": "m", "base_url": f"http://127.0.0.1:{args.port}/v1"}]
    sampling = Sampling.model_validate({"pool": [{**pool[0], "max_in_flight": IN_FLIGHT}], "samples": 1})
    stages = zephyr.stages(Recipe(model=ModelSection(path="none"), sampling=sampling))
    (chosen,) = [each for each in stages if each.name == "candidates"]
    start_ray(object_store_memory=2 << 30)
    steps: Steps = {}
    artifact.begin("benchmark")
    with step(steps, "try"):
        made = chosen.make(StageContext(chosen, run, artifact, None))
    artifact.finish({"fingerprint": "benchmark", **made})
    assert made["counts"]["out"] == int(args.rows)
    tell(args.work, steps)


CHILDREN: dict[str, Callable[[argparse.Namespace], None]] = {
    "resume": run_resume,
    "count": run_count,
    "dedup": run_dedup,
    "fingerprint": run_fingerprint,
    "lineage": run_lineage,
    "ask": run_ask,
}


@contextmanager
def step(steps: Steps, name: str) -> Iterator[None]:
    """Measures what is within: seconds, and the largest RSS of this process meanwhile."""
    Path("/proc/self/clear_refs").write_text("5")  # the largest RSS starts anew (proc(5))
    started = time.perf_counter()
    yield
    seconds = time.perf_counter() - started
    status = Path("/proc/self/status").read_text()
    (peak,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    steps[name] = {"seconds": seconds, "driver_mib": int(peak) / 1024}


def tell(work: Path, steps: Steps) -> None:
    (work / "result.json").write_text(json.dumps(steps))


# --- how it is measured


def run_alone(work: Path, phase: str, rows: int, args: argparse.Namespace, port: int = 0) -> Steps:
    """What a child tells of its steps."""
    child = start_child(work, phase, rows, args, port)
    ledger = ledger_peak(watch(child))
    if child.returncode:
        raise SystemExit(f"{phase} failed:\n{(work / 'child.log').read_text()[-3000:]}")
    steps: Steps = json.loads((work / "result.json").read_text())
    for each in steps.values():
        each |= {"ledger_mib": ledger} if ledger else {}
    return steps


def run_ask_twice(work: Path, phase: str, rows: int, args: argparse.Namespace) -> Steps:
    """A try that is killed when half of the rows are answered, and one that goes on."""
    with server(work, 0.0) as port:
        child = start_child(work, phase, rows, args, port)
        started, answered = 0.0, 0
        while answered < rows // 2:
            if child.poll() is not None:
                raise SystemExit(f"{phase} ended early:\n{(work / 'child.log').read_text()[-3000:]}")
            time.sleep(0.2)
            now = ask_server(port)
            answered += int(now["requests"]) if now else 0
            started = started or (time.perf_counter() if answered else 0.0)
        killed = {"seconds": time.perf_counter() - started, "rows": float(answered)}
        kill_all(child)
        ask_server(port)
        resumed = run_alone(work, phase, rows, args, port)["try"]
        again = ask_server(port)
    assert again is not None
    return {"killed": killed, "resumed": resumed | {"rows": float(again["requests"])}}


MEASURES: dict[str, Callable[[Path, str, int, argparse.Namespace], Steps]] = {"ask": run_ask_twice}


def start_child(work: Path, phase: str, rows: int, args: argparse.Namespace, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, os.path.abspath(__file__), "--child", phase, "--work", str(work), "--rows", str(rows)]
    command += ["--port", str(port)]
    with (work / "child.log").open("w") as log:
        return subprocess.Popen(command, env={**os.environ, **QUIET}, stdout=log, stderr=log)


def ledger_peak(samples: Iterator[dict[str, Any]]) -> float:
    """The largest RSS of the actor that keeps replies, in MiB; 0 where there was none."""
    seen = [process[2] for each in samples for process in each["processes"] if "Ledger" in process[1]]
    return max(seen, default=0) / MIB


def kill_all(child: subprocess.Popen[bytes]) -> None:
    """Kills the driver, as a lost node does, and then what it has started."""
    import psutil
    from processes import family

    processes = family(child)[::-1]
    for process in [child, *processes]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    child.wait(30)
    psutil.wait_procs(processes, 30)


def by_step(sizes: list[int], found: dict[int, Steps]) -> dict[str, dict[str, Any]]:
    """The figures of each step by rows, with the exponent and where it leads."""
    steps: dict[str, dict[str, Any]] = {}
    for name in found[sizes[0]]:
        measured = {str(rows): found[rows][name] for rows in sizes}
        steps[name] = {"rows": measured}
        if len(sizes) > 1:
            (few, first), (many, last) = [(rows, found[rows][name]) for rows in sizes[-2:]]
            exponent = math.log(last["seconds"] / first["seconds"]) / math.log(many / few)
            steps[name] |= {"exponent": exponent, "far_s": last["seconds"] * (FAR / many) ** max(exponent, 1.0)}
    return steps


def print_table(figures: dict[str, dict[str, dict[str, Any]]]) -> None:
    print(
        f"{'phase':12}{'step':10}{'rows':>12}{'seconds':>10}{'rows/s':>16}{'driver MiB':>12}{'ledger MiB':>12}"
        f"{'exponent':>10}{'at 10^8':>10}"
    )
    for phase, steps in figures.items():
        for name, each in steps.items():
            for rows, seen in each["rows"].items():
                rate = seen.get("rows", int(rows)) / seen["seconds"]
                print(
                    f"{phase:12}{name:10}{int(rows):12,}{seen['seconds']:10.2f}{rate:16,.0f}"
                    f"{seen.get('driver_mib', 0):12,.0f}{seen.get('ledger_mib', 0):12,.0f}",
                    end="",
                )
                last = rows == [*each["rows"]][-1] and "exponent" in each
                print(f"{each['exponent']:10.2f}{each['far_s'] / 3600:8.2f} h" if last else "")


if __name__ == "__main__":
    main()
