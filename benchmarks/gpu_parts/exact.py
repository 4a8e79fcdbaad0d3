"""Parts 2 and 3: whether log-probs and gradients are right, and how far bfloat16 lets two packings differ."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from gpu_parts.bench import Bench, Pairs, Record, release, round_all
from gpu_parts.models import (
    Scored,
    make_model,
    packed,
    packed_scores,
    padded_scores,
    pair_row,
    plain_scores,
    row_scores,
)

from zephyr_ray.training.packed.attention import Backend
from zephyr_ray.training.packed.blocks import BLOCK
from zephyr_ray.training.token_batching import partition

BETA = 0.1
LOGITS_SCALE = 2.5
"""A random head of 4,096 inputs gives logits with a standard deviation of 1.3; trained models' have about 3."""
Way = Callable[[Any, Pairs], Scored]


def model_way(bench: Bench, backend: Backend) -> Way:
    """Our scores by one backend."""

    def score(model: Any, pairs: Pairs) -> Scored:
        with packed(model, backend):
            yield from packed_scores(model, pairs, bench.sizes.budget, backend)

    return score


def exactness(bench: Bench) -> Iterator[Record]:
    """Log-probs and gradients of one DPO loss, four ways, in float32 and in bfloat16 of the same weights."""
    from trl.trainer.utils import add_fused_lm_head

    pairs = bench.pairs[: bench.sizes.exact_pairs]
    ways: dict[str, Way] = {"plain": plain_scores, "sdpa": model_way(bench, "sdpa"), "padded": padded_scores}
    if bench.flex or not bench.on_gpu:
        ways["flex"] = model_way(bench, "flex")
    model = make_model(bench, bench.sizes.exact_layers, torch.bfloat16).float()
    add_fused_lm_head(model)
    exact = Scores(model, plain_scores, pairs, None)
    exact.gradients = Scores(model, plain_scores, pairs, exact.margins).gradients
    distances: dict[str, Record] = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = model.to(dtype)
        for name, way in ways.items():
            reference = exact.margins if bench.on_gpu or name != "flex" else None
            about = {"way": name, "dtype": str(dtype)}
            try:
                record = Scores(model, way, pairs, reference).against(exact)
            except Exception:  # the other ways go on
                yield about | {"error": traceback.format_exc()[-2000:]}
            else:
                distances[f"{name} {dtype}"] = record
                yield about | round_all(record, 8)
            release()
    yield judged(distances, [name for name in ways if name not in ("plain", "padded")])


def judged(distances: dict[str, Record], ours: list[str]) -> Record:
    """In neither dtype is ours further from plain sequences than TRL's is, a fifth allowed, or 0.001 in float32."""
    checks = {}
    wide, trl = distances[f"padded {torch.float32}"], distances[f"padded {torch.bfloat16}"]
    # a sum of 1,000 log-probs is near -10,000, where float32's numbers are 0.001 apart
    bound = max(1e-3, 1.2 * wide["sequence_max"])
    for name in ours:
        exact, narrow = (distances.get(f"{name} {dtype}") for dtype in (torch.float32, torch.bfloat16))
        checks[f"{name} float32 log-probs"] = exact is not None and exact["sequence_max"] <= bound
        checks[f"{name} float32 gradient"] = exact is not None and exact.get("cosine", 1.0) > 0.9999
        checks[f"{name} bfloat16 log-probs"] = narrow is not None and narrow["token_rms"] <= 1.2 * trl["token_rms"]
        if narrow is not None and "cosine" in narrow:
            checks[f"{name} bfloat16 gradient"] = 1 - narrow["cosine"] <= 1.2 * (1 - trl["cosine"])
    return {"checks": checks, "passed": all(checks.values())}


class Scores:
    """Log-probs of all pairs one way and, with the reference's margins, the gradients of the DPO loss."""

    def __init__(self, model: Any, way: Way, pairs: Pairs, reference: torch.Tensor | None):
        tokens: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        model.zero_grad(set_to_none=True)
        with torch.set_grad_enabled(reference is not None):
            for indices, found in way(model, pairs):
                if reference is not None:
                    margins = torch.stack([chosen.sum() - rejected.sum() for chosen, rejected in found])
                    delta = margins - reference[indices]
                    (torch.nn.functional.softplus(-BETA * delta).sum() / len(pairs)).backward()
                tokens |= {i: (one.detach(), other.detach()) for i, (one, other) in zip(indices, found, strict=True)}
        self.sequences = [sequence for index in range(len(pairs)) for sequence in tokens[index]]
        sums = torch.stack([sequence.sum() for sequence in self.sequences])
        self.margins = sums[::2] - sums[1::2]
        self.gradients: list[torch.Tensor] | None = None
        if reference is not None:
            self.gradients = [weight.grad for weight in model.parameters()]
            model.zero_grad(set_to_none=True)

    def against(self, exact: Scores) -> Record:
        tokens = torch.cat(self.sequences) - torch.cat(exact.sequences)
        sums = [one.sum() - other.sum() for one, other in zip(self.sequences, exact.sequences, strict=True)]
        record = {
            "sequence_max": float(torch.stack(sums).abs().max()),
            "sequence_mean": float(torch.stack(sums).abs().mean()),
            "token_rms": float(tokens.pow(2).mean().sqrt()),
        }
        if self.gradients is None or exact.gradients is None:
            return record
        products = torch.zeros(3, dtype=torch.float64)
        for one, other in zip(self.gradients, exact.gradients, strict=True):
            ours, theirs = one.float(), other.float()
            sums3 = [(a * b).sum(dtype=torch.float64) for a, b in ((ours, theirs), (ours, ours), (theirs, theirs))]
            products += torch.stack(sums3).cpu()
        both, own, others = products.tolist()
        return record | {"cosine": both / math.sqrt(own * others), "norm_ratio": math.sqrt(own / others)}


Rows = list[list[int]]


def packing_noise(bench: Bench) -> Iterator[Record]:
    """A bfloat16 model's log-probs against its own of another packing, and of rows whose pairs begin at a block; then
    what a check of the first step has to let pass, and what it has to refuse."""
    flex: Backend = "flex" if bench.flex or not bench.on_gpu else "sdpa"
    longest = 2 * bench.sizes.budget + bench.sizes.budget // 2
    layouts: list[tuple[str, Backend, int, int]] = [
        (flex, flex, 1, BLOCK),
        (f"{flex}, pairs from a block on", flex, BLOCK, BLOCK),
        (f"{flex}, pairs from a block on, rows of one length", flex, BLOCK, longest),
        ("sdpa", "sdpa", 1, 1),
    ]
    model, reference = noise_model(bench), None
    for name, backend, align, multiple in layouts:
        rows = rows_of(bench)
        if multiple == longest:
            del rows["a pair a row"]  # most of it would be filler
        with packed(model, backend):
            scored = {way: score_rows(model, bench.pairs, parts, align, multiple) for way, parts in rows.items()}
        first = scored.pop("first")
        reference = first if reference is None else reference
        for way, sums in scored.items():
            yield {"attention": name, "packing": way, **deviation(sums, first, bench.pairs)}
    assert reference is not None
    del model
    release()
    wide, parts = noise_model(bench).float(), rows_of(bench)["first"]
    with packed(wide, flex), torch.autocast(bench.device, dtype=torch.bfloat16):
        sums = score_rows(wide, bench.pairs, parts, 1, BLOCK)
    yield {"against": "float32 weights in autocast", **deviation(sums, reference, bench.pairs)}
    del wide
    release()
    other = noise_model(bench, seed=1)
    with packed(other, flex):
        sums = score_rows(other, bench.pairs, parts, 1, BLOCK)
    yield {"against": "another model", **deviation(sums, reference, bench.pairs)}


def noise_model(bench: Bench, seed: int = 0) -> Any:
    from trl.trainer.utils import add_fused_lm_head

    model = make_model(bench, bench.sizes.noise_layers, torch.bfloat16, seed)
    with torch.no_grad():
        model.lm_head.weight.mul_(LOGITS_SCALE)
    add_fused_lm_head(model)
    return model


def rows_of(bench: Bench) -> dict[str, Rows]:
    """The same pairs in different rows; `first` is what the others are compared with."""
    lengths = [sum(map(len, pair.values())) for pair in bench.pairs]
    budget, everyone = bench.sizes.budget, range(len(lengths))
    return {
        "first": partition(lengths, 1, budget)[0],
        "the same again": partition(lengths, 1, budget)[0],
        "twice the budget": partition(lengths, 1, 2 * budget)[0],
        "the reverse order": [part[::-1] for part in partition(lengths, 1, budget)[0]],
        "a pair a row": [[index] for index in everyone],
    }


@torch.no_grad()
def score_rows(model: Any, pairs: Pairs, rows: Rows, align: int, multiple: int) -> np.ndarray:
    """float64 [2, pairs]: the chosen and the rejected completions' sums."""
    sums = np.empty((2, len(pairs)))
    for indices in rows:
        found = row_scores(model, pair_row([pairs[index] for index in indices], multiple, align))
        both = torch.stack([torch.stack([side.double().sum() for side in pair]) for pair in found])
        sums[:, indices] = both.T.cpu().numpy()
    return sums


def deviation(policy: np.ndarray, reference: np.ndarray, pairs: Pairs) -> Record:
    """The margins' spread, and how far from ln 2 the loss of the first step is for each 32 pairs."""
    difference = policy - reference
    margins = difference[0] - difference[1]
    tokens = np.array([[len(pair[side]) for pair in pairs] for side in ("chosen_ids", "rejected_ids")])
    record: Record = {
        "margin_sd": float(margins.std()),
        "margin_mean": float(margins.mean()),
        "rms_per_root_token": float(np.sqrt((difference**2 / tokens).mean())),
    }
    for beta in (0.1, 0.01):
        losses = np.logaddexp(0, -beta * margins) - math.log(2)
        record[f"loss_less_ln2 beta={beta}"] = [round(float(part.mean()), 7) for part in chunks(losses, 32)]
    return round_all(record)


def chunks(values: np.ndarray, size: int) -> list[np.ndarray]:
    return [values[start : start + size] for start in range(0, len(values), size)]
