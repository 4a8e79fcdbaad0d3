"""Writes preferences, real or made up, and a tokenizer as the stages of a run, for benchmarks/tokenization.py."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def prepare(work: Path, data: str | None, copies: int, count: int) -> None:
    """A run's preferences, those of a file so many times or `count` made-up ones, and a tokenizer."""
    import pyarrow as pa

    from zephyr_ray.schemas import PREFERENCES

    make_tokenizer(work / "tokenizer")
    rows = list(real(data)) * copies if data else [kept(row, "synthetic") for row in synthetic(count)]
    write_preferences(work / "run", "preferences", pa.Table.from_pylist(rows, schema=PREFERENCES))


def write_preferences(root: Path, stage: str, table: Any, files: int = 4) -> None:
    import pyarrow.parquet as pq

    from zephyr_ray.pipeline.artifacts import Run

    artifact = Run(str(root)).artifact(stage)
    Path(artifact.path, "data").mkdir(parents=True)
    size = -(-table.num_rows // files)
    names = [f"data/{number:06d}-000.parquet" for number in range(files)]
    for number, name in enumerate(names):
        pq.write_table(table.slice(number * size, size), Path(artifact.path, name))
    finish(artifact, names)


def finish(artifact: Any, files: Iterable[str]) -> None:
    artifact.finish({"fingerprint": "benchmark", "files": list(files)})


def real(path: str) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    from zephyr_ray.data.io import readers, rows, sources
    from zephyr_ray.schemas import Dropped

    for part in sources.parts_of(path):
        for chunk in readers.read_part(pa.Table.from_pylist([part])):
            for where, value in rows.raw_rows(readers.split_lines(chunk)):
                try:
                    yield kept(rows.decode(value), where)
                except Dropped:  # rows that the preferences stage drops
                    continue


def kept(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    from zephyr_ray.data.formats.layouts import preference

    return {**preference(raw), "source": where}


def synthetic(count: int) -> Iterator[dict[str, Any]]:
    """Pairs of made-up words, about 60 tokens of prompt and 40 of each answer, no two alike."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlucmfwypvbgk", k=rng.randint(2, 9))) for _ in range(2_000)]
    for number in range(count):
        parts = [" ".join(rng.choices(words, k=rng.randint(*size))) for size in ((10, 40), (5, 30), (5, 30))]
        yield {
            "prompt": f"{number} {parts[0]}",
            "chosen": f"{number} {parts[1]}",
            "rejected": f"not {number} {parts[2]}",
        }


def make_tokenizer(folder: Path) -> None:
    """A byte-level BPE tokenizer of 8,000 entries, trained on made-up words and this repository's own text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    root = Path(__file__).resolve().parents[1]
    own = [path.read_text(encoding="utf-8") for path in sorted(root.glob("zephyr_ray/**/*.py"))]
    texts = [text for row in synthetic(3_000) for text in row.values()] + own
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8_000,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
