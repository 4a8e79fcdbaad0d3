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
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTS = ("overhead", "ideal")
CONTENDERS = {"ours": "ours: Ray Data, ledger", "bare": "bare: asyncio, semaphore, openai client"}
ASKING = ("candidates", "judgments")
SAMPLES = 2
MIB = 1 << 20
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
OF_RAY = ("_StatsActor", "AutoscalingCoordinator", "DashboardAgent", "RuntimeEnvAgent", "DashboardHead", "LoggerHead")
"""Ray's own actors, which are there whatever runs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, help="only one of the two")
    parser.add_argument("--rows", default="10000,100000", help="of the overhead part, the smaller number first")
    parser.add_argument("--ideal-rows", type=int, default=6000, help="requests of the ideal part, one for each row")
    parser.add_argument("--latency", type=float, default=0.2, help="of the ideal part's server, in seconds")
    parser.add_argument("--in-flight", type=int, default=32, help="requests open at a time")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each contender in the ideal part")
    parser.add_argument("--cpus", type=int, default=4, help="logical CPUs of the Ray cluster (as `cluster.connect`)")
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--child", choices=[*CHILDREN, "server"], help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--stage", choices=ASKING, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child == "server":
        asyncio.run(serve(args.port, args.latency))
    elif args.child:
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


SETTINGS = ("rows", "ideal_rows", "latency", "in_flight", "repeats", "cpus")


# --- the server


async def serve(port: int, latency_s: float) -> None:
    """Answers chat requests after a fixed time. GET says when the first and the last came, since the last GET."""
    from aiohttp import web

    seen: dict[str, Any] = {}

    def reset() -> None:
        seen.update(requests=0, first=None, last=None, open=0, most_open=0)

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.method == "GET":
            told = dict(seen)
            reset()
            return web.json_response(told)
        seen["first"] = seen["first"] or time.time()
        seen["requests"] += 1
        seen["open"] += 1
        seen["most_open"] = max(seen["most_open"], seen["open"])
        body = json.loads(await request.read())
        if latency_s:
            await asyncio.sleep(latency_s)
        seen["open"] -= 1
        seen["last"] = time.time()
        return web.Response(body=reply_to(body), content_type="application/json")

    reset()
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


def reply_to(body: dict[str, Any]) -> bytes:
    """A whole reply: ratings that follow the schema where there is one, drawn by the seed."""
    seed = body.get("seed") or 0
    content = f"answer {seed} " + "of some length " * 20
    if body.get("response_format"):
        ratings = {}
        for place, (key, verdict) in enumerate(body["response_format"]["json_schema"]["schema"]["properties"].items()):
            scale = verdict["properties"]["rating"]["enum"]
            reason = next(name for name in verdict["properties"] if name != "rating")
            ratings[key] = {reason: "as it is", "rating": scale[(seed >> (8 * place)) % len(scale)]}
        content = json.dumps(ratings)
    reply = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 50, "completion_tokens": 10, "total_tokens": 60},
    }
    return json.dumps(reply).encode()


@contextmanager
def server(work: Path, latency_s: float) -> Iterator[int]:
    """The port of a running server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, os.path.abspath(__file__), "--child", "server", "--port", str(port)]
    with (work / "server.log").open("w") as log:
        process = subprocess.Popen([*command, "--latency", str(latency_s)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while ask_server(port) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server did not come up:\n{(work / 'server.log').read_text()[-2000:]}")
            time.sleep(0.2)
        yield port
    finally:
        process.kill()
        process.wait(30)


def ask_server(port: int) -> dict[str, Any] | None:
    """What the server saw since it was last asked; None while it is not up."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as reply:
            return json.loads(reply.read())
    except (urllib.error.URLError, ConnectionError):
        return None


# --- what is measured: each run in a process of its own


def run_overhead(args: argparse.Namespace) -> None:
    """The three stages, one after the other; when each was called and done."""
    start_ray(args)
    rows, stages = int(args.rows), {}
    files = write_prompts(args.work, rows)
    for stage in ("candidates", "judgments", "preferences"):
        called = time.time()
        counts = make(stage, args)
        stages[stage] = {"called": called, "ended": time.time(), **counts}
    tell(args.work, {"stages": stages, "prompt_files": files})


def run_ours(args: argparse.Namespace) -> None:
    start_ray(args)
    write_source(args)
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


def start_ray(args: argparse.Namespace) -> None:
    import ray

    ray.init(
        address="local",
        num_cpus=args.cpus,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=512 << 20,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False


def make(stage: str, args: argparse.Namespace) -> dict[str, int]:
    """Makes a stage, as a job does; rows that went in and came out."""
    from zephyr_ray.artifacts import Run
    from zephyr_ray.data.candidates import make_candidates
    from zephyr_ray.data.judgments import make_judgments
    from zephyr_ray.data.preferences import make_preferences

    run, chosen = Run(str(args.work / "run")), recipe(args)
    artifact = run.artifact(stage)
    artifact.begin("benchmark")
    match stage:
        case "candidates":
            report, _ = make_candidates(chosen, run.artifact("prompts"), artifact)
        case "judgments":
            report, _, _ = make_judgments(chosen, run.artifact("candidates"), artifact)
        case _:
            report = make_preferences(chosen, artifact, run.artifact("judgments"))
    artifact.finish({"fingerprint": "benchmark", "files": report.files})
    ties = {"tie": report.dropped.get("tie", 0)} if stage == "preferences" else {}
    if report.dropped != {name: count for name, count in ties.items() if count}:
        raise SystemExit(f"{stage} dropped rows: {report.dropped}")
    data = [name for name in report.files if name.startswith("data/")]
    return {"rows": report.rows_in, "kept": report.rows_out, "files": len(data)}


def recipe(args: argparse.Namespace) -> Any:
    from zephyr_ray.recipe import ModelSection, Preferences, Recipe
    from zephyr_ray.recipe_feedback import Judging, Sampling

    server = {
        "name": "m",
        "model": "m",
        "base_url": f"http://127.0.0.1:{args.port}/v1",
        "max_in_flight": args.in_flight,
    }
    return Recipe(
        model=ModelSection(path="none"),
        sampling=Sampling.model_validate({"endpoints": [server], "samples": 1 if args.stage else SAMPLES}),
        judging=Judging.model_validate({"judges": [server], "aspects": ["overall"], "position_check": 0}),
        preferences=Preferences(train="judgments"),
    )


def requests(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The requests of a stage of the ideal part, made without the stage."""
    from zephyr_ray.inference.answers import messages_of, plan
    from zephyr_ray.judging import presentation

    chosen = recipe(args)
    for row in made_rows(args.ideal_rows, with_answers=args.stage == "judgments"):
        if args.stage == "candidates":
            (request,) = plan(chosen.sampling, 0, row["prompt_id"])
            section, more = chosen.sampling, {"top_p": chosen.sampling.top_p}
            body = {"messages": messages_of(request, row["messages"]), "seed": request.seed, **more}
        else:
            (question,) = presentation.questions_of(row, chosen.judging, 0)
            section, more = chosen.judging, {"response_format": presentation.response_format_of(question)}
            seed = presentation.question_seed(0, row["prompt_id"], question, 0)
            body = {"messages": presentation.messages_of(question, row), "seed": seed, **more}
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
        for stage in ASKING:
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
    command += ["--ideal-rows", str(args.ideal_rows), "--in-flight", str(args.in_flight), "--cpus", str(args.cpus)]
    command += ["--rows", str(rows)] if rows else []
    command += ["--stage", args.stage] if args.stage else []
    with (work / "child.log").open("w") as log:
        child = subprocess.Popen(command, env={**os.environ, **QUIET}, stdout=log, stderr=log)
        samples = list(watch(child))
    if child.returncode:
        raise SystemExit(f"{name} failed:\n{(work / 'child.log').read_text()[-3000:]}")
    return samples, json.loads((work / "result.json").read_text())


KINDS = {"driver": 8, "ledger": 8, "actor": 8, "tasks": 8, "sum": 8, "a task": 8}
"""Kinds of processes, and the widths of their columns."""


def watch(child: subprocess.Popen[bytes], every_s: float = 0.5) -> Iterator[dict[str, Any]]:
    """The driver and every Ray worker under it, until it ends: [pid, title, RSS, RSS less shared, CPU seconds]."""
    import psutil

    top = psutil.Process(child.pid)
    while child.poll() is None:
        seen = []
        try:
            family = [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        for process in family:
            try:
                title = "driver" if process.pid == child.pid else " ".join(process.cmdline()).strip()
                if title != "driver" and (not title.startswith("ray::") or any(own in title for own in OF_RAY)):
                    continue
                memory, cpu = process.memory_info(), process.cpu_times()
            except psutil.Error:  # it has just ended
                continue
            seen.append([process.pid, title, memory.rss, memory.rss - memory.shared, cpu.user + cpu.system])
        yield {"time": time.time(), "processes": seen}
        time.sleep(every_s)


def summary(samples: list[dict[str, Any]], told: dict[str, Any]) -> dict[str, Any]:
    """Peaks and CPU time of the processes that worked for one stage. Idle ones that Ray keeps ready do not count."""
    during = [each for each in samples if told["called"] <= each["time"] <= told["ended"]]
    busy = {pid for each in during for pid, title, *_ in each["processes"] if title == "driver" or "IDLE" not in title}
    ledgers = {pid for each in during for pid, title, *_ in each["processes"] if "Ledger" in title}
    actors = {pid for each in during for pid, title, *_ in each["processes"] if "Pool" in title}
    peaks = {key: dict.fromkeys(KINDS, 0.0) for key in ("rss_mib", "own_mib")}
    used: dict[int, list[float]] = {}
    for each in during:
        for place, key in ((2, "rss_mib"), (3, "own_mib")):
            now = dict.fromkeys(KINDS, 0.0)
            for process in each["processes"]:
                if process[0] in busy:
                    kind = "driver" if process[1] == "driver" else "ledger" if process[0] in ledgers else "tasks"
                    kind = "actor" if process[0] in actors else kind
                    now[kind] += process[place] / MIB
                    now["sum"] += process[place] / MIB
                    if kind == "tasks":
                        now["a task"] = max(now["a task"], process[place] / MIB)
            peaks[key] = {kind: max(peaks[key][kind], now[kind]) for kind in KINDS}
        for pid, _, _, _, cpu in each["processes"]:
            used.setdefault(pid, []).append(cpu)
    quarters = []
    for number in range(4):
        part = during[len(during) * number // 4 : len(during) * (number + 1) // 4]
        seen = [memory for each in part for pid, _, _, memory, _ in each["processes"] if pid in actors]
        quarters.append(statistics.fmean(seen) / MIB if seen else 0.0)
    seconds = told["ended"] - told["called"]
    cpu_s = sum(times[-1] - times[0] for pid, times in used.items() if pid in busy)
    return {
        **told,
        "seconds": seconds,
        "rows_per_s": told["rows"] / seconds,
        "cpu_ms_per_row": cpu_s * 1e3 / told["rows"],
        "processes": max(sum(process[0] in busy for process in each["processes"]) for each in during),
        "actor_own_mib_by_quarter": quarters,
        **peaks,
    }


# --- what it is measured on


def write_source(args: argparse.Namespace) -> None:
    """What the stage of the ideal part reads."""
    if args.stage == "candidates":
        write_prompts(args.work, args.ideal_rows)
        return
    import pyarrow as pa

    from zephyr_ray.schemas import CANDIDATES

    rows = [{**row, "error": None} for row in made_rows(args.ideal_rows, with_answers=True)]
    table = pa.Table.from_pylist([{key: row[key] for key in CANDIDATES.names} for row in rows], schema=CANDIDATES)
    write_artifact(args.work, "candidates", [table])


def write_prompts(work: Path, count: int) -> int:
    """Prompts in files of 10,000, about what the prompts stage writes; returns how many files."""
    import pyarrow as pa

    from zephyr_ray.schemas import PROMPTS

    table = pa.Table.from_pylist(list(made_rows(count)), schema=PROMPTS)
    tables = [table.slice(start, 10_000) for start in range(0, count, 10_000)]
    write_artifact(work, "prompts", tables)
    return len(tables)


def write_artifact(work: Path, stage: str, tables: list[Any]) -> None:
    import pyarrow.parquet as pq

    from zephyr_ray.artifacts import Run

    artifact = Run(str(work / "run")).artifact(stage)
    artifact.begin("benchmark")
    Path(artifact.path, "data").mkdir(parents=True, exist_ok=True)
    names = [f"data/{number:06d}-000.parquet" for number in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        pq.write_table(table, Path(artifact.path, name), compression="zstd")
    artifact.finish({"fingerprint": "benchmark", "files": names})


def made_rows(count: int, *, with_answers: bool = False) -> Iterator[dict[str, Any]]:
    """Prompts of 60 made-up words, no two alike; with answers, two of the length that the server writes."""
    from zephyr_ray.artifacts import content_id

    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 8))) for _ in range(500)]
    for number in range(count):
        messages = [{"role": "user", "content": f"{number} " + " ".join(rng.choices(words, k=60))}]
        row = {"prompt_id": content_id(messages), "messages": messages, "source": f"made:{number}"}
        if with_answers:
            row["completions"] = [
                {"model": "m", "content": f"answer {number} {each} " + "of some length " * 20, "seed": each}
                for each in range(SAMPLES)
            ]
        yield row


if __name__ == "__main__":
    main()
