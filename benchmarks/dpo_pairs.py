"""Reads preference pairs, real ones or drawn lengths -> their token ids, for benchmarks/dpo_engine.py.

Real ones are UltraFeedback's, binarized, or with a file *.jsonl.gz hh-rlhf's whole dialogues, whose prompt is all they
share up to the last answer. They are tokenized by a byte-level BPE of 4,096 entries trained on them, prompts cut to 512
tokens and sequences to 1,024. Where no file was asked for and ZEPHYR_TEST_DATA has none, lengths are drawn: prompts
from exp(N(4.8, 0.9)), completions from exp(N(5.5, 0.7)), cut to 8 .. 512.

Prompts with more than two completions are made of these: each has its own two, and those of the rows behind it.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(os.environ.get("ZEPHYR_TEST_DATA", "")) / "preferences/ultrafeedback_binarized_train.jsonl"
VOCAB, MAX_PROMPT, MAX_LENGTH = 4096, 512, 1024


def make_pairs(data: Path, count: int) -> list[dict[str, list[int]]]:
    if data == DATA and not data.exists():
        return drawn_pairs(count)
    rows = read_rows(data)
    encode = train_tokenizer([row[name] for row in rows for name in ("prompt", "chosen", "rejected")])
    pairs = []
    for row in rows[:count]:
        prompt = encode(f"<|user|>\n{row['prompt']}</s>\n<|assistant|>\n")[-MAX_PROMPT:]
        sides = {side: [*encode(row[side]), 2][: MAX_LENGTH - len(prompt)] for side in ("chosen", "rejected")}
        pairs.append({"prompt_ids": prompt} | {f"{side}_ids": ids for side, ids in sides.items()})
    return pairs


def make_groups(pairs: list[dict[str, list[int]]], completions: int) -> list[dict[str, Any]]:
    """The pairs' prompts with so many completions each, and every two of these as a pair (`schemas.GROUPS`)."""
    answers = [pair[side] for pair in pairs for side in ("chosen_ids", "rejected_ids")]
    two = list(itertools.combinations(range(completions), 2))
    sides = {"chosen": [first for first, _ in two], "rejected": [second for _, second in two]}
    groups = []
    for number, pair in enumerate(pairs):
        room = MAX_LENGTH - len(pair["prompt_ids"])
        own = [answers[(2 * number + which) % len(answers)][:room] for which in range(completions)]
        groups.append({"prompt_ids": pair["prompt_ids"], "completions": own, **sides})
    return groups


def pairs_of(groups: list[dict[str, Any]]) -> list[dict[str, list[int]]]:
    """The groups' pairs one by one, each with the prompt."""
    return [
        {"prompt_ids": each["prompt_ids"], "chosen_ids": each["completions"][a], "rejected_ids": each["completions"][b]}
        for each in groups
        for a, b in zip(each["chosen"], each["rejected"], strict=True)
    ]


def read_rows(data: Path) -> list[dict[str, str]]:
    packed = data.suffix == ".gz"
    raw = data.read_bytes()
    rows = [json.loads(line) for line in (gzip.decompress(raw) if packed else raw).splitlines()]
    if not packed:
        return rows
    answer = "\n\nAssistant:"
    cut = [(row["chosen"].rpartition(answer), row["rejected"].rpartition(answer)) for row in rows]
    return [{"prompt": c[0], "chosen": c[2], "rejected": r[2]} for c, r in cut if c[0] == r[0] and c[2] and r[2]]


def drawn_pairs(count: int) -> list[dict[str, list[int]]]:
    rng = np.random.default_rng(0)

    def tokens(mean: float, deviation: float) -> list[int]:
        return rng.integers(3, VOCAB, size=int(np.clip(rng.lognormal(mean, deviation), 8, 512))).tolist()

    sides = {"prompt_ids": (4.8, 0.9), "chosen_ids": (5.5, 0.7), "rejected_ids": (5.5, 0.7)}
    return [{name: tokens(*shape) for name, shape in sides.items()} for _ in range(count)]


def train_tokenizer(texts: list[str]) -> Any:
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    special = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>"]
    tokenizer.train_from_iterator(texts, vocab_size=VOCAB, special_tokens=special, show_progress=False)
    return lambda text: tokenizer.encode(text).ids
