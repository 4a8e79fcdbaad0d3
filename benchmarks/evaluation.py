"""Asks 80 questions of two turns, as MT-Bench has -> what the stage of answers costs beside the server's own time.

    python benchmarks/evaluation.py --json evaluation.json

The server is a process of its own that answers after 200 ms; 16 requests are open at a time, and a second turn waits
for the first answer. Contenders take turns, figures are medians: the stage as a job makes it, and a bare asyncio loop
with the openai client, a semaphore and no Ray. asking: from the first request to the last reply, beside requests x
latency / concurrency; whole: from the call of the stage until its rows are there. The start of Ray counts in neither.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from feedback_server import ask_server, server
from ray_cluster import start_ray

TURNS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=80, help="each of two turns")
    parser.add_argument("--latency", type=float, default=0.2, help="of the server, in seconds")
    parser.add_argument("--in-flight", type=int, default=16, help="requests open at a time")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each contender")
    parser.add_argument("--json", help="file for the figures")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="evaluation-"))
    try:
        result = measure(work, args)
    finally:
        shutil.rmtree(work)
    show(result)
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")


def measure(work: Path, args: argparse.Namespace) -> dict[str, Any]:
    start_ray(object_store_memory=512 << 20)
    requests = args.questions * TURNS
    result: dict[str, Any] = {
        "settings": {name: getattr(args, name) for name in ("questions", "latency", "in_flight", "repeats")},
        "ideal_s": requests * args.latency / args.in_flight,
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    with server(work, args.latency) as port:
        for repeat in range(args.repeats):
            for name in list(CONTENDERS)[:: 1 if repeat % 2 == 0 else -1]:
                ask_server(port)
                called = time.time()
                CONTENDERS[name](work / f"run-{repeat}", args, port)
                ended, seen = time.time(), ask_server(port)
                assert seen is not None
                if seen["requests"] != requests or seen["most_open"] > args.in_flight:
                    raise SystemExit(f"{name}: {seen['requests']} requests, {seen['most_open']} open at a time")
                runs[name].append({"whole_s": ended - called, "asking_s": seen["last"] - seen["first"]})
    medians = {
        name: {key: statistics.median(run[key] for run in each) for key in each[0]} for name, each in runs.items()
    }
    return {**result, "medians": medians, "runs": runs}


def run_ours(root: Path, args: argparse.Namespace, port: int) -> None:
    """The stage of a model's answers, in a run of its own."""
    from zephyr_ray import zephyr
    from zephyr_ray.config import loader
    from zephyr_ray.pipeline.artifacts import Run
    from zephyr_ray.pipeline.stage import StageContext

    root.mkdir()
    (root / "question.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions(args)))
    model = {
        "type": "endpoint",
        "name": "m",
        "model": "m",
        "base_url": f"http://127.0.0.1:{port}/v1",
        "max_in_flight": args.in_flight,
    }
    bench = {"questions": str(root / "question.jsonl"), "references": None}
    evaluation = {"models": [model], "judge": model | {"name": "judge"}, "mt_bench": bench}
    recipe = loader.load([], [f"evaluation={json.dumps(evaluation)}"])
    name = "evaluation/mt_bench_answers/m"
    (chosen,) = [each for each in zephyr.stages(recipe) if each.name == name]
    run = Run(str(root / "run"))
    artifact = run.artifact(name)
    artifact.begin("benchmark")
    made = chosen.make(StageContext(chosen, run, artifact, None))
    if made["counts"]["out"] != args.questions:
        raise SystemExit(f"rows are missing: {made['counts']}")


def run_bare(root: Path, args: argparse.Namespace, port: int) -> None:
    """What anybody would write who needs it once: every question a task, a semaphore, answers in a list."""
    import openai

    async def ask_all() -> list[list[str]]:
        client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
        turn = asyncio.Semaphore(args.in_flight)

        async def ask(row: dict[str, Any]) -> list[str]:
            messages: list[Any] = []
            for number, text in enumerate(row["turns"]):
                messages.append({"role": "user", "content": text})
                async with turn:
                    reply = await client.chat.completions.create(
                        model="m", messages=messages, seed=number, temperature=0.7, max_tokens=1024
                    )
                messages.append({"role": "assistant", "content": reply.choices[0].message.content or ""})
            return [each["content"] for each in messages[1::2]]

        return await asyncio.gather(*map(ask, questions(args)))

    if not all(all(answers) for answers in asyncio.run(ask_all())):
        raise SystemExit("an answer is empty")


CONTENDERS: dict[str, Callable[[Path, argparse.Namespace, int], None]] = {"ours": run_ours, "bare": run_bare}
LABELS = {"ours": "ours: Ray Data, ledger", "bare": "bare: asyncio, semaphore, openai client"}


def questions(args: argparse.Namespace) -> list[dict[str, Any]]:
    return [
        {"question_id": number, "category": "writing", "turns": [f"Write about {number}.", "Now in verse."]}
        for number in range(args.questions)
    ]


def show(result: dict[str, Any]) -> None:
    settings, ideal = result["settings"], result["ideal_s"]
    what = f"{settings['questions'] * TURNS} requests of {settings['latency'] * 1e3:.0f} ms"
    print(f"\n{what}, {settings['in_flight']} at a time; medians of {settings['repeats']}, seconds")
    print(f"{'contender':42}{'asking':>8}{'/ ideal':>9}{'whole':>8}")
    print(f"{'requests x latency / concurrency':42}{ideal:8.2f}{1:9.2f}")
    for name, each in result["medians"].items():
        print(f"{LABELS[name]:42}{each['asking_s']:8.2f}{each['asking_s'] / ideal:9.2f}{each['whole_s']:8.2f}")


if __name__ == "__main__":
    main()
