"""Reads made-up prompts -> what candidates, judgments and preferences cost beside the servers that they ask.

    python benchmarks/feedback.py --json feedback.json

The server is a process of its own that answers at once, or after a fixed time. Two parts, each also alone (--part):

overhead: the three stages with a server that answers at once, at two numbers of rows, a fresh cluster for each: rows/s,
CPU time of a row, and peak memory of the driver, the ledger, the actor that asks, all tasks and the largest one, which
must not grow with the rows once there are as many tasks as CPUs.
ideal: candidates and judgments with a server that takes 200 ms, beside requests x latency / concurrency and beside a
bare asyncio loop with the openai client, a semaphore and no Ray, which sends the same requests. Contenders take turns,
figures are medians. The start of Ray does not count; that of the stage does, and is shown apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from feedback_memory import KINDS, summary, watch
from feedback_rows import SAMPLES, made_rows, write_prompts, write_source
from feedback_server import ask_server, server
from processes import QUIET
from ray_cluster import start_ray

PARTS = ("overhead", "ideal")
CONTENDERS = {"ours": "ours: Ray Data, ledger", "bare": "bare: asyncio, semaphore, openai client"}
ASKING = ("candidates", "judgments")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, help="only one of the two")
    parser.add_argument("--rows", default="10000,100000", help="of the overhead part, the smaller number first")
    parser.add_argument("--ideal-rows", type=int, default=6000, help="requests of the ideal part, one for each row")
    parser.add_argument("--latency", type=float, default=0.2, help="of the ideal part's server, in seconds")
    parser.add_argument("--in-flight", type=int, default=32, help="requests open at a time")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each contender in the ideal part")
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--child", choices=list(CHILDREN), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--stage", choices=ASKING, help="only one of the ideal part's two")
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage and not args.child and args.part != "ideal":
        parser.error("--stage goes with --part ideal")
    if args.child:
        CHILDREN[args.child](args)
    else:
        measure(args)


def measure(args: argparse.Namespace) -> None:
    result: dict[str, Any] = {"settings": {name: getattr(args, name) for name in SETTINGS}}
    work = Path(tempfile.mkdtemp(prefix="feedback-"))
    try:
        for part, run in (("overhead", measure_overhead), ("ideal", measure_ideal)):
            if args.part in (None, part):
                result[part] = run(work, args)
    finally:
        shutil.rmtree(work)
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")


SETTINGS = ("rows", "ideal_rows", "latency", "in_flight", "repeats")


# --- what is measured: each run in a process of its own


def run_overhead(args: argparse.Namespace) -> None:
    """The three stages, one after the other; when each was called and done."""
    start_ray(object_store_memory=512 << 20)
    rows, stages = int(args.rows), {}
    files = write_prompts(args.work, rows)
    for stage in ("candidates", "judgments", "preferences"):
        called = time.time()
        counts = make(stage, args)
        stages[stage] = {"called": called, "ended": time.time(), **counts}
    tell(args.work, {"stages": stages, "prompt_files": files})


def run_ours(args: argparse.Namespace) -> None:
    start_ray(object_store_memory=512 << 20)
    write_source(args.work, args.stage, args.ideal_rows)
    called = time.time()
    counts = make(args.stage, args)
    tell(args.work, {"called": called, "ended": time.time(), **counts})


def run_bare(args: argparse.Namespace) -> None:
    """What anybody would write who needs it once: every request a task, a semaphore, replies in a list."""
    import openai

    bodies = list(requests(args))

    async def ask_all() -> list[str]:
        client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{args.port}/v1", api_key="none", max_retries=0)
        turn = asyncio.Semaphore(args.in_flight)

        async def ask(body: dict[str, Any]) -> str:
            async with turn:
                reply = await client.chat.completions.create(model="m", **body)
            return reply.choices[0].message.content or ""

        return await asyncio.gather(*map(ask, bodies))

    called = time.time()
    used = time.process_time()
    replies = asyncio.run(ask_all())
    cpu_ms = (time.process_time() - used) * 1e3 / len(bodies)
    if not all(replies):
        raise SystemExit("a reply is empty")
    tell(args.work, {"called": called, "ended": time.time(), "rows": len(replies), "cpu_ms": cpu_ms})


CHILDREN: dict[str, Callable[[argparse.Namespace], None]] = {
    "overhead": run_overhead,
    "ours": run_ours,
    "bare": run_bare,
}


def make(stage: str, args: argparse.Namespace) -> dict[str, int]:
    """Makes a stage, as a job does; rows that went in and came out."""
    from zephyr_ray import zephyr
    from zephyr_ray.pipeline.artifacts import Run
    from zephyr_ray.pipeline.stage import StageContext

    run = Run(str(args.work / "run"))
    artifact = run.artifact(stage)
    artifact.begin("benchmark")
    (chosen,) = [each for each in zephyr.stages(recipe(args)) if each.name == stage]
    made = chosen.make(StageContext(chosen, run, artifact, None))
    artifact.finish({"fingerprint": "benchmark", **made})
    counts, dropped = made["counts"], made["counts"]["dropped"]
    if dropped.keys() - ({"tie"} if stage == "preferences" else set()):
        raise SystemExit(f"{stage} dropped rows: {dropped}")
    data = [name for name in made["files"] if name.startswith("data/")]
    return {"rows": counts["in"], "kept": counts["out"], "files": len(data)}


def recipe(args: argparse.Namespace) -> Any:
    from zephyr_ray.config.data import Preferences
    from zephyr_ray.config.feedback import Judging, Sampling
    from zephyr_ray.config.model import ModelSection
    from zephyr_ray.config.recipe import Recipe

    server = {
        "type": "endpoint",
        "name": "m",
        "model": "m",
        "base_url": f"http://127.0.0.1:{args.port}/v1",
        "max_in_flight": args.in_flight,
    }
    judge = {"type": "language_models", "models": [server], "aspects": ["overall"], "position_check": 0}
    return Recipe(
        model=ModelSection(path="none"),
        sampling=Sampling.model_validate({"pool": [server], "samples": 1 if args.stage else SAMPLES}),
        judging=Judging.model_validate({"judge": judge}),
        preferences=Preferences(train="judgments"),
    )


def requests(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The requests of a stage of the ideal part, made without the stage."""
    from zephyr_ray.inference.request_plan import messages_of, plan
    from zephyr_ray.judging import prompt

    chosen = recipe(args)
    for row in made_rows(args.ideal_rows, with_answers=args.stage == "judgments"):
        if args.stage == "candidates":
            (request,) = plan(chosen.sampling, 0, row["prompt_id"])
            section, more = chosen.sampling, {"top_p": chosen.sampling.top_p}
            body = {"messages": messages_of(request, row["messages"]), "seed": request.seed, **more}
        else:
            (question,) = prompt.questions_of(row, chosen.judging.judge, 0)
            section, more = chosen.judging.judge, {"response_format": prompt.response_format_of(question)}
            seed = prompt.question_seed(0, row["prompt_id"], question, 0)
            body = {"messages": prompt.messages_of(question, row), "seed": seed, **more}
        yield {**body, "temperature": section.temperature, "max_tokens": section.max_tokens}


def tell(work: Path, figures: dict[str, Any]) -> None:
    (work / "result.json").write_text(json.dumps(figures))


# --- how it is measured


def measure_overhead(work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """A fresh cluster for each number of rows."""
    made: dict[str, dict[str, Any]] = {}
    counts = [int(number) for number in args.rows.split(",")]
    with server(work, 0.0) as port:
        for rows in counts:
            shutil.rmtree(work / "run", ignore_errors=True)
            samples, told = run_child(work, "overhead", args, port, rows=rows)
            made[str(rows)] = {stage: summary(samples, each) for stage, each in told["stages"].items()}
            for stage, each in made[str(rows)].items():
                print(f"{rows:,} rows, {stage}: {each['rows_per_s']:,.0f} rows/s", file=sys.stderr, flush=True)
        args.stage = "candidates"
        _, bare = run_child(work, "bare", args, port)
        args.stage = None
    bare["requests_per_s"] = bare["rows"] / (bare["ended"] - bare["called"])
    print_overhead(made, bare)
    return {"stages": made, "bare_instant": bare}


def print_overhead(made: dict[str, dict[str, Any]], bare: dict[str, Any]) -> None:
    counts = list(made)
    print(f"\nserver that answers at once; {SAMPLES} answers to a prompt, one aspect; MiB of RSS less what is shared")
    titles = "".join(f"{kind:>{width}}" for kind, width in KINDS.items()) + f"{'processes':>11}"
    print(f"{'stage':12}{'rows':>9}{'rows/s':>9}{'CPU ms/row':>12}" + titles)
    for stage in made[counts[0]]:
        for rows in counts:
            each = made[rows][stage]
            peaks = "".join(f"{each['own_mib'][kind]:{width},.0f}" for kind, width in KINDS.items())
            print(
                f"{stage:12}{int(rows):9,}{each['rows_per_s']:9,.0f}{each['cpu_ms_per_row']:12.2f}{peaks}{each['processes']:11}"
            )
            if any(each["actor_own_mib_by_quarter"]):
                quarters = ", ".join(f"{mean:,.0f}" for mean in each["actor_own_mib_by_quarter"])
                print(f"{'':12}actor, means of the four quarters of the stage's time: {quarters}")
        if len(counts) > 1:
            first, last = made[counts[0]][stage], made[counts[-1]][stage]
            for name, key in (("own", "own_mib"), ("RSS", "rss_mib")):
                ratios = {kind: last[key][kind] / first[key][kind] for kind in KINDS if first[key][kind]}
                told = ", ".join(f"{kind} {ratio:.2f}" for kind, ratio in ratios.items())
                print(f"{'':12}{name}, {int(counts[-1]):,} rows / {int(counts[0]):,}: {told}")
    print(
        f"bare loop, same server: {bare['requests_per_s']:,.0f} requests/s, {bare['cpu_ms']:.2f} ms of CPU a request "
        f"in the client alone"
    )


def measure_ideal(work: Path, args: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {}
    ideal = args.ideal_rows * args.latency / args.in_flight
    with server(work, args.latency) as port:
        for stage in [args.stage] if args.stage else ASKING:
            args.stage = stage
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
            for repeat in range(args.repeats):
                for name in list(CONTENDERS)[:: 1 if repeat % 2 == 0 else -1]:
                    runs[name].append(run_ideal(work, name, args, port))
                    print(
                        f"{stage} {name} {repeat + 1}: {runs[name][-1]['seconds']:.1f} s", file=sys.stderr, flush=True
                    )
            keys = ("seconds", "start_s", "asking_s", "end_s", "most_open")
            result[stage] = {
                name: {key: statistics.median(run[key] for run in runs[name]) for key in keys} for name in CONTENDERS
            }
            result[stage]["ideal_s"], result[stage]["runs"] = ideal, runs
            pairs = zip(runs["ours"], runs["bare"], strict=True)
            result[stage]["ours_by_bare"] = [ours["seconds"] / bare["seconds"] for ours, bare in pairs]
    print_ideal(result, args)
    return result


def print_ideal(result: dict[str, Any], args: argparse.Namespace) -> None:
    print(
        f"\n{args.ideal_rows:,} requests of {args.latency * 1e3:.0f} ms, {args.in_flight} at a time; "
        f"medians of {args.repeats}, seconds"
    )
    print(f"{'stage':12}{'contender':44}{'whole':>8}{'/ ideal':>9}{'start':>7}{'asking':>8}{'/ ideal':>9}{'end':>6}")
    for stage, medians in result.items():
        ideal = medians["ideal_s"]
        print(f"{stage:12}{'requests x latency / concurrency':44}{ideal:8.1f}{1:9.2f}")
        for name, label in CONTENDERS.items():
            each = medians[name]
            print(
                f"{'':12}{label:44}{each['seconds']:8.1f}{each['seconds'] / ideal:9.2f}{each['start_s']:7.1f}"
                f"{each['asking_s']:8.1f}{each['asking_s'] / ideal:9.2f}{each['end_s']:6.1f}"
            )
        ratio = medians["ours"]["seconds"] / medians["bare"]["seconds"]
        pairs = ", ".join(f"{each:.2f}" for each in medians["ours_by_bare"])
        print(f"{'':12}ours / bare {ratio:.2f}, by pair of runs {pairs}")


def run_ideal(work: Path, name: str, args: argparse.Namespace, port: int) -> dict[str, float]:
    """start: from the call to the first request; asking: to the last reply; end: until the rows are there."""
    shutil.rmtree(work / "run", ignore_errors=True)
    ask_server(port)
    _, told = run_child(work, name, args, port)
    seen = ask_server(port)
    assert seen is not None
    if seen["requests"] != args.ideal_rows or told["rows"] != args.ideal_rows:
        raise SystemExit(f"{name}: {seen['requests']} requests and {told['rows']} rows of {args.ideal_rows}")
    return {
        "seconds": told["ended"] - told["called"],
        "start_s": seen["first"] - told["called"],
        "asking_s": seen["last"] - seen["first"],
        "end_s": told["ended"] - seen["last"],
        "most_open": seen["most_open"],
    }


def run_child(
    work: Path, name: str, args: argparse.Namespace, port: int, rows: int | None = None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What was seen of its processes, and what it told."""
    (work / "result.json").unlink(missing_ok=True)
    command = [sys.executable, os.path.abspath(__file__), "--child", name, "--work", str(work), "--port", str(port)]
    command += ["--ideal-rows", str(args.ideal_rows), "--in-flight", str(args.in_flight)]
    command += ["--rows", str(rows)] if rows else []
    command += ["--stage", args.stage] if args.stage else []
    with (work / "child.log").open("w") as log:
        child = subprocess.Popen(command, env={**os.environ, **QUIET}, stdout=log, stderr=log)
        samples = list(watch(child))
    if child.returncode:
        raise SystemExit(f"{name} failed:\n{(work / 'child.log').read_text()[-3000:]}")
    return samples, json.loads((work / "result.json").read_text())


if __name__ == "__main__":
    main()
