"""Reads dialogues -> how well those chosen by diversity cover them, beside as many at random and the farthest ones.

    python benchmarks/selection.py --data dialogues.jsonl --model FOLDER --n 30 100 300

Covering is measured as the mean and the largest cosine distance of a dialogue to the nearest chosen one. Random: the
mean of 20 draws. Farthest: each chosen dialogue is the farthest from those before it (k-center greedy, arXiv
1708.00489).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from zephyr_ray.data.embeddings import load_model, text_of
from zephyr_ray.data.formats.layouts import dialogue_messages
from zephyr_ray.data.selection.facility_location import SAMPLE, choose
from zephyr_ray.pipeline.model_source import ModelSource

DRAWS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="JSON lines of dialogues in a known layout")
    parser.add_argument("--model", required=True, help="folder of a sentence-embedding model")
    parser.add_argument("--n", type=int, nargs="+", default=[30, 100, 300], help="how many are chosen")
    args = parser.parse_args()
    vectors = embed(args.data, args.model)
    print(f"{len(vectors):,} dialogues; mean and largest distance to the nearest chosen one")
    for n in args.n:
        print(f"{n:6,}  " + "   ".join(f"{name} {mean:.3f} {most:.3f}" for name, mean, most in compare(vectors, n)))


def embed(data: str, model: str) -> np.ndarray:
    """[rows, width], float32, of length 1."""
    lines = Path(data).read_text(encoding="utf-8").splitlines()
    texts = [text_of(dialogue_messages(json.loads(line))) for line in lines]
    return load_model(ModelSource(model), "cpu").encode(texts, normalize_embeddings=True).astype(np.float32)


def compare(vectors: np.ndarray, n: int) -> list[tuple[str, float, float]]:
    """Each way of choosing, with the mean and the largest distance."""
    sample = vectors[np.random.default_rng(0).permutation(len(vectors))[:SAMPLE]]
    drawn = [np.random.default_rng(seed).choice(len(vectors), n, replace=False) for seed in range(DRAWS)]
    ways = {"random": drawn, "farthest": [farthest(vectors, n)], "ours": [choose(vectors, sample, n, seed=0)]}
    found = []
    for name, choices in ways.items():
        nearest = [1 - (vectors @ vectors[places].T).max(axis=1) for places in choices]
        mean, most = (float(np.mean([of(each) for each in nearest])) for of in (np.mean, np.max))
        found.append((name, mean, most))
    return found


def farthest(vectors: np.ndarray, n: int) -> np.ndarray:
    """The places of n rows, the first being nearest to the mean of all."""
    chosen = [int(np.argmax(vectors @ vectors.mean(axis=0)))]
    similarity = vectors @ vectors[chosen[0]]
    while len(chosen) < n:
        chosen.append(int(np.argmin(similarity)))
        similarity = np.maximum(similarity, vectors @ vectors[chosen[-1]])
    return np.array(chosen)


if __name__ == "__main__":
    main()
