"""`import zephyr_ray`: what it offers, and that it loads nothing before it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import zephyr_ray
from zephyr_ray import Rule, binarize, load_scorer
from zephyr_ray.data.formats.messages import Dropped

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
ANSWERS = [
    {"content": "best", "overall_score": 9},
    {"content": "worst", "overall_score": 2},
    {"content": "middle", "overall_score": 7},
]


def test_the_import_loads_nothing_of_the_package() -> None:
    script = "import sys, zephyr_ray; print([name for name in sys.modules if name.startswith('zephyr_ray')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['zephyr_ray']"


def test_every_name_is_there_and_on_the_page() -> None:
    assert all(callable(getattr(zephyr_ray, name)) for name in zephyr_ray.__all__)
    assert set(zephyr_ray.__all__) <= set(dir(zephyr_ray))
    assert [name for name in zephyr_ray.__all__ if f"`{name}" not in PAGE] == []


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'zephyr_ray' has no attribute 'nothing'"):
        _ = zephyr_ray.nothing


def test_binarize_takes_the_best_answer_and_one_that_loses_by_the_rule() -> None:
    def texts(rule: Rule) -> list[tuple[str, str]]:
        return [(chosen.text, rejected.text) for chosen, rejected in binarize(ANSWERS, rule)]

    assert texts(Rule(rejected="lowest")) == [("best", "worst")]
    assert texts(Rule(rejected="lowest", margin=6.5)) == [("best", "worst")]
    assert sorted(texts(Rule(rejected="every_pair", margin=3))) == [("best", "worst"), ("middle", "worst")]
    with pytest.raises(Dropped):
        binarize(ANSWERS, Rule(rejected="lowest", margin=7))


def test_a_scorer_gives_the_sums_of_plain_sequences(tmp_path: Path) -> None:
    """A completion's log-probs, one sequence at a time, without packing."""
    import torch
    from transformers import AutoModelForCausalLM

    from zephyr_ray.embedded.model import Sizes, make_base

    make_base(tmp_path, Sizes(hidden_size=64, layers=2), seed=0)
    pairs = [
        {"prompt_ids": [1, 5, 6, 7], "chosen_ids": [8, 9, 2], "rejected_ids": [10, 2]},
        {"prompt_ids": [1, 11], "chosen_ids": [12, 2], "rejected_ids": [13, 14, 15, 2]},
    ]
    chosen, rejected = load_scorer(str(tmp_path))(pairs)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()

    def plain(prompt: list[int], completion: list[int]) -> float:
        ids = torch.tensor([prompt + completion])
        with torch.no_grad():
            logps = model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])
        return float(logps[len(prompt) - 1 :].sum())

    for found, name in ((chosen, "chosen_ids"), (rejected, "rejected_ids")):
        np.testing.assert_allclose(found, [plain(pair["prompt_ids"], pair[name]) for pair in pairs], atol=1e-4)
