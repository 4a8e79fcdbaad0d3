"""Reads made-up prompts -> tokens/s of the sampling pool through a vLLM server beside `vllm.LLM.chat` in one process.

    python benchmarks/sampling.py --model DIR --json sampling.json

Both generate the same requests with the same seeds and engine options, and go on to the token limit (`ignore_eos`).
Each run is a process of its own, contenders take turns, and figures are medians. The start of the engine is not
counted: both answer a few requests before. The start of Ray Data's actor counts.
"""

from __future__ import annotations

import argparse
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
from pathlib import Path
from typing import Any

from ray_cluster import start_ray

CONTENDERS = {"pool": "ours: Ray Data, openai client, vLLM server", "offline": "vllm.LLM.chat, one process"}
ENV = {
    "HF_HUB_OFFLINE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_NO_USAGE_STATS": "1",
}
WARM_PROMPTS = 8
MAX_MODEL_LEN = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a Hugging Face folder with a chat template")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument(
        "--max-num-seqs", type=int, default=256, help="of the engine, and requests in flight of the pool"
    )
    parser.add_argument("--repeats", type=int, default=3, help="runs of each contender")
    parser.add_argument("--port", type=int, default=0, help="of the server; 0: any free one")
    parser.add_argument("--kv-gib", type=int, default=1, help="the engine's key-value cache, on a CPU")
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        {"pool": run_pool, "offline": run_offline}[args.child](Path(args.work), args)
        return
    work = Path(tempfile.mkdtemp(prefix="sampling-"))
    try:
        result = compare(work, args)
    finally:
        shutil.rmtree(work)
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")


# --- what is measured: contenders, each in a process of its own


def run_pool(work: Path, args: argparse.Namespace) -> None:
    port = args.port or free_port()
    with (work / "server.log").open("w") as log:
        server = subprocess.Popen(server_command(args, port), stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(server, f"http://127.0.0.1:{port}/health", work / "server.log")
        time_pool(work, args, f"http://127.0.0.1:{port}/v1")
    finally:
        server.terminate()
        server.wait(60)


def time_pool(work: Path, args: argparse.Namespace, url: str) -> None:
    start_ray(object_store_memory=300 << 20)
    sample(rows(WARM_PROMPTS, "warm"), args, url)
    called = time.perf_counter()
    candidates = sample(rows(args.prompts), args, url)
    taken = time.perf_counter() - called
    failed = [row["error"] for row in candidates if row["error"]]
    if failed or len(candidates) != args.prompts:
        raise SystemExit(f"{len(candidates)} rows, {len(failed)} with errors, the first: {failed[:1]}")
    tell(work, sum(each["tokens"] for row in candidates for each in row["completions"]), taken)


def sample(prompts: list[dict[str, Any]], args: argparse.Namespace, url: str) -> list[dict[str, Any]]:
    import pyarrow as pa
    import ray.data

    from zephyr_ray.config.model import Chat
    from zephyr_ray.inference.sampling import sample_candidates
    from zephyr_ray.schemas import PROMPTS

    dataset = ray.data.from_arrow(pa.Table.from_pylist(prompts, schema=PROMPTS))
    return sample_candidates(section(args, url), Chat(), 0, dataset).take_all()


def section(args: argparse.Namespace, url: str) -> Any:
    from zephyr_ray.config.feedback import Sampling

    endpoint = {
        "type": "endpoint",
        "name": "m",
        "model": "m",
        "base_url": url,
        "max_in_flight": args.max_num_seqs,
        "timeout_s": 3600,
    }
    limits = {"samples": args.samples, "max_tokens": args.max_tokens, "extra": {"ignore_eos": True}}
    return Sampling.model_validate({"pool": [endpoint], **limits})


def run_offline(work: Path, args: argparse.Namespace) -> None:
    from vllm import LLM

    llm = LLM(
        model=args.model,
        enforce_eager=True,
        max_model_len=MAX_MODEL_LEN,
        max_num_seqs=args.max_num_seqs,
        enable_chunked_prefill=False,
    )
    llm.chat(*conversations(rows(WARM_PROMPTS, "warm"), args), use_tqdm=False)
    requests = conversations(rows(args.prompts), args)
    called = time.perf_counter()
    outputs = llm.chat(*requests, use_tqdm=False)
    taken = time.perf_counter() - called
    tell(work, sum(len(output.outputs[0].token_ids) for output in outputs), taken)


def conversations(prompts: list[dict[str, Any]], args: argparse.Namespace) -> tuple[list[Any], list[Any]]:
    """The pool's requests, one by one."""
    from vllm import SamplingParams

    from zephyr_ray.inference.request_plan import plan

    planned = [(row, each) for row in prompts for each in plan(section(args, "http://none/v1"), 0, row["prompt_id"])]
    params = [
        SamplingParams(temperature=1.0, max_tokens=args.max_tokens, seed=each.seed, ignore_eos=True)
        for _, each in planned
    ]
    return [row["messages"] for row, _ in planned], params


def tell(work: Path, tokens: int, seconds: float) -> None:
    figures = {"tokens": tokens, "seconds": seconds, "tokens_per_s": tokens / seconds}
    (work / "result.json").write_text(json.dumps(figures))


# --- alternating runs and what they come to


def compare(work: Path, args: argparse.Namespace) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    for repeat in range(args.repeats):
        order = list(CONTENDERS) if repeat % 2 == 0 else list(CONTENDERS)[::-1]
        for name in order:
            figures = run_child(work, name, args)
            runs[name].append(figures)
            print(f"{name} {repeat + 1}: {figures['tokens_per_s']:,.0f} tokens/s", flush=True)
    medians = {name: statistics.median(each["tokens_per_s"] for each in runs[name]) for name in CONTENDERS}
    ratios = [a["tokens_per_s"] / b["tokens_per_s"] for a, b in zip(runs["pool"], runs["offline"], strict=True)]
    print(
        f"\n{args.prompts} prompts x {args.samples} samples x {args.max_tokens} tokens, median of {args.repeats} runs"
    )
    print(f"{'':<46} {'tokens/s':>10} {'seconds':>9}")
    for name, label in CONTENDERS.items():
        seconds = statistics.median(each["seconds"] for each in runs[name])
        print(f"{label:<46} {medians[name]:>10,.0f} {seconds:>9.1f}")
    ratio = medians["pool"] / medians["offline"]
    print(f"ratio of medians {ratio:.3f}, by pair of runs {', '.join(f'{each:.3f}' for each in ratios)}")
    settings = {
        key: value for key, value in vars(args).items() if key not in ("child", "work", "json", "model", "port")
    }
    return {"settings": settings, "runs": runs, "medians": medians, "ratio": ratio, "ratios": ratios}


def run_child(work: Path, name: str, args: argparse.Namespace) -> dict[str, Any]:
    (work / "result.json").unlink(missing_ok=True)
    command = [sys.executable, os.path.abspath(__file__), "--child", name, "--work", str(work)]
    for key in ("model", "prompts", "samples", "max_tokens", "max_num_seqs", "port", "kv_gib"):
        command += [f"--{key.replace('_', '-')}", str(getattr(args, key))]
    env = {**os.environ, **ENV, "VLLM_CPU_KVCACHE_SPACE": str(args.kv_gib)}
    with (work / "child.log").open("w") as log:
        status = subprocess.run(command, env=env, stdout=log, stderr=log).returncode
    if status:
        logs = [path.read_text()[-3000:] for path in sorted(work.glob("*.log"))]
        raise SystemExit(f"{name} failed:\n" + "\n".join(logs))
    return json.loads((work / "result.json").read_text())


# --- prompts and the server


def rows(count: int, kind: str = "made") -> list[dict[str, Any]]:
    """Prompts of made-up words, about 20 of them, no two alike."""
    rng = random.Random(kind)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 8))) for _ in range(500)]
    return [
        {
            "prompt_id": f"{kind} {number}",
            "messages": [{"role": "user", "content": f"{number} " + " ".join(rng.choices(words, k=20))}],
            "source": kind,
        }
        for number in range(count)
    ]


def server_command(args: argparse.Namespace, port: int) -> list[str]:
    engine = ["--enforce-eager", "--max-model-len", str(MAX_MODEL_LEN), "--max-num-seqs", str(args.max_num_seqs)]
    engine += ["--no-enable-chunked-prefill"]  # with it, a CPU engine dies of a seeded prompt that it has to cut
    serve = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "m", "--disable-uvicorn-access-log"]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", args.model, *engine, *serve]


def wait_for(server: subprocess.Popen[bytes], url: str, log: Path, patience_s: float = 300) -> None:
    deadline = time.monotonic() + patience_s
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):  # not up yet
            time.sleep(0.5)
    raise SystemExit(f"the server did not come up:\n{log.read_text()[-2000:]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
