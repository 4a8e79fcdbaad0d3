"""Our chat endpoint against the bare vLLM API server: same model, same machine, same requests, in turns.

    python benchmarks/serving.py --json serving.json

Two models: a random one of about 90 million parameters, where decoding is the work, and the embedded world's (1.6
million), where HTTP is. Streams of 32 tokens from one client and from 16 at once; both servers are up all the time and
take turns, so that whatever else the machine does hits both. Prints medians over the turns and their ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

REPOSITORY = Path(__file__).resolve().parents[1]
TOKENS = 32
PROMPTS = (
    "Sort these words: pear, apple, fig",
    "Reverse the word: tree",
    "Answer in capitals: what is the first vowel?",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("--turns", type=int, default=7, help="turns of each server (default: 7)")
    parser.add_argument("--models", nargs="+", choices=("90m", "tiny"), default=["90m", "tiny"])
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.models:
            folder = make_model(name, os.path.join(scratch, name))
            with bare_server(folder) as bare, our_server(folder) as ours:
                results += compare(name, {"vllm": bare, "ours": ours}, options.turns)
    print_table(results)
    if options.json:
        Path(options.json).write_text(json.dumps({"turns": options.turns, "results": results}, indent=2) + "\n")


def make_model(name: str, folder: str) -> str:
    """A folder with random weights and the embedded world's tokenizer."""
    from zephyr_ray import chat_template
    from zephyr_ray.config.model import Chat
    from zephyr_ray.embedded import model

    if name == "tiny":
        model.make_base(folder, model.Sizes(), 0)
        return folder
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    tokenizer = model.train_tokenizer(model.Sizes(), 0)
    tokenizer.chat_template = chat_template.template_text(Chat())
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=12,
        head_dim=64,
        max_position_embeddings=2048,
        sliding_window=None,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    untrained: Any = MistralForCausalLM(config)
    untrained.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@contextmanager
def bare_server(folder: str) -> Iterator[str]:
    port = _free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--port", str(port)]
    command += ["--served-model-name", "m", "--host", "127.0.0.1", "--max-model-len", "1024", "--enforce-eager"]
    command += ["--disable-uvicorn-access-log", "--no-enable-chunked-prefill"]
    with _process(command, {"VLLM_CPU_KVCACHE_SPACE": "1"}, f"http://127.0.0.1:{port}") as url:
        yield url


@contextmanager
def our_server(folder: str) -> Iterator[str]:
    port = _free_port()
    command = [sys.executable, str(REPOSITORY / "serve" / "app.py"), "--model", f"m={folder}", "--port", str(port)]
    command += ["--open", "--max-model-len", "1024"]
    with _process(command, {}, f"http://127.0.0.1:{port}") as url:
        yield url


@contextmanager
def _process(command: list[str], variables: dict[str, str], url: str) -> Iterator[str]:
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryFile("w+") as log:
        environment = {**os.environ, **quiet, **variables}
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 300
            while asyncio.run(_is_up(url)) is False:
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    sys.exit(f"the server did not start: {' '.join(command)}\n{log.read()[-3000:]}")
                time.sleep(1)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


async def _is_up(url: str) -> bool:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    try:
        async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/chat/completions", json=body) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


def compare(name: str, servers: dict[str, str], turns: int) -> list[dict[str, Any]]:
    """Medians over the turns, for each number of clients and each server."""
    results = []
    for clients, requests in ((1, 16), (16, 96)):
        for url in servers.values():
            asyncio.run(load(url, clients, requests))  # connections, caches and code paths warm
        measured: dict[str, list[dict[str, float]]] = {server: [] for server in servers}
        for turn in range(turns):
            order = list(servers) if turn % 2 == 0 else list(servers)[::-1]
            for server in order:
                measured[server].append(asyncio.run(load(servers[server], clients, requests)))
        row: dict[str, Any] = {"model": name, "clients": clients}
        for server, each in measured.items():
            row[server] = {key: statistics.median(one[key] for one in each) for key in each[0]}
        row["ratio"] = {key: row["ours"][key] / row["vllm"][key] for key in row["ours"]}
        row["turns"] = measured
        results.append(row)
    return results


async def load(url: str, clients: int, requests: int) -> dict[str, float]:
    """Streams from so many clients at once: milliseconds to the first token, tokens per second of them all."""
    firsts: list[float] = []
    waiting = iter(range(requests))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def client() -> None:
            for index in waiting:
                firsts.append(await _stream(session, url, PROMPTS[index % len(PROMPTS)], index))

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        seconds = time.perf_counter() - began
    firsts.sort()
    return {
        "first_token_ms_p50": 1000 * firsts[len(firsts) // 2],
        "first_token_ms_p95": 1000 * firsts[int(0.95 * (len(firsts) - 1))],
        "tokens_per_s": requests * TOKENS / seconds,
    }


async def _stream(session: aiohttp.ClientSession, url: str, prompt: str, seed: int) -> float:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": TOKENS,
        "min_tokens": TOKENS,
        "ignore_eos": True,
        "seed": seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began, first, tokens = time.perf_counter(), 0.0, 0
    async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
        if answer.status != 200:
            sys.exit(f"{url} answered {answer.status}: {await answer.text()}")
        async for line in answer.content:
            if not first and line.startswith(b"data: ") and b'"content":' in line and b'"role"' not in line:
                first = time.perf_counter() - began
            if b'"usage":{' in line:
                tokens = json.loads(line[6:])["usage"]["completion_tokens"]
    if tokens != TOKENS:
        sys.exit(f"{url} gave {tokens} tokens, not {TOKENS}")
    return first


def print_table(results: list[dict[str, Any]]) -> None:
    head = ("model", "clients", "figure", "vllm", "ours", "ours / vllm", "difference")
    print("{:<6} {:>7}  {:<20} {:>9} {:>9} {:>12} {:>11}".format(*head))
    for row in results:
        for key, bare in row["vllm"].items():
            ours = row["ours"][key]
            line = f"{row['model']:<6} {row['clients']:>7}  {key:<20} {bare:>9.1f} {ours:>9.1f}"
            print(f"{line} {ours / bare:>12.3f} {ours - bare:>+11.1f}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
