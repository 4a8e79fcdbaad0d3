"""Sampling that the seed decides and the batch does not; rates and differences with hand-worked intervals."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zephyr_ray.embedded import held_out, world
from zephyr_ray.embedded import model as tiny_model

TINY = tiny_model.Sizes(dialogues=300, vocab_size=320, hidden_size=16, layers=2, heads=2)
PROMPTS = list(world.prompts("held_out", 7, 0))


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_model.train_tokenizer(TINY, 0)


@pytest.fixture(scope="module")
def model(tokenizer):
    """Random weights, sharpened so that answers differ in length: an end-of-sequence token comes every few tokens."""
    built = tiny_model.init_model(TINY, tokenizer, 0)
    with torch.no_grad():
        built.model.embed_tokens.weight.mul_(3)
    return built


def _sample(model, tokenizer, instructions, **changed):
    settings = {"samples": 3, "temperature": 1.0, "max_new_tokens": 8, "batch_size": 4, "seed": 0}
    return held_out.sample(model, tokenizer, instructions, **settings | changed)


def test_pass_rate_hand_worked() -> None:
    # By prompt 1, 1/2, 0, 1/2: mean 1/2, variance (1/4 + 0 + 1/4 + 0) / 3 = 1/6, half width 1.96 sqrt(1/24) = 0.4001.
    rate = held_out.pass_rate([[1, 1], [1, 0], [0, 0], [0, 1]])
    assert rate.mean == 0.5
    assert (rate.low, rate.high) == pytest.approx((0.0999, 0.9001), abs=1e-4)


def test_pass_rate_is_cut_to_a_share() -> None:
    # Rates 1, 1, 0: mean 2/3, variance (1/9 + 1/9 + 4/9) / 2 = 1/3, half width 1.96 / 3 = 0.653; 2/3 + 0.653 > 1.
    rate = held_out.pass_rate([[1], [1], [0]])
    assert (rate.low, rate.high) == pytest.approx((0.0133, 1.0), abs=1e-4)


def test_pass_rate_counts_prompts_not_samples() -> None:
    passed = np.array([[1], [0], [1], [1]])
    assert held_out.pass_rate(passed.repeat(10, axis=1)) == pytest.approx(held_out.pass_rate(passed))


def test_difference_hand_worked() -> None:
    # By prompt 1 - 1/2, 1 - 0, 1/2 - 0, 0 - 0: mean 1/2, variance (0 + 1/4 + 0 + 1/4) / 3 = 1/6, half width 0.4001.
    gain = held_out.difference([[1, 1], [1, 1], [1, 0], [0, 0]], [[1, 0], [0, 0], [0, 0], [0, 0]])
    assert gain == pytest.approx((0.5, 0.0999, 0.9001), abs=1e-4)


def test_difference_is_paired() -> None:
    hard_and_easy = np.array([[1, 1], [0, 0]] * 10)
    assert held_out.difference(hard_and_easy, hard_and_easy) == (0, 0, 0)


matrices = st.lists(st.lists(st.booleans(), min_size=2, max_size=2), min_size=5, max_size=5)


@given(matrices, matrices)
def test_difference_is_that_of_the_rates_and_antisymmetric(a: list[list[bool]], b: list[list[bool]]) -> None:
    gain = held_out.difference(a, b)
    assert gain.mean == pytest.approx(held_out.pass_rate(a).mean - held_out.pass_rate(b).mean)
    assert held_out.difference(b, a) == pytest.approx((-gain.mean, -gain.high, -gain.low))


@pytest.mark.parametrize("passed", [[[1, 0]], [1, 0], [[], []]])
def test_refuses_what_has_no_interval(passed) -> None:
    with pytest.raises(ValueError, match="shape"):
        held_out.pass_rate(passed)


def test_difference_refuses_other_prompts() -> None:
    with pytest.raises(ValueError, match="a has 2 prompts and b 3"):
        held_out.difference([[1], [0]], [[1], [0], [1]])


def test_same_seed_same_answers_whatever_the_batch(model, tokenizer) -> None:
    together = _sample(model, tokenizer, PROMPTS, batch_size=7)
    assert together == _sample(model, tokenizer, PROMPTS, batch_size=2)
    assert together[::-1] == _sample(model, tokenizer, PROMPTS[::-1], batch_size=3)
    assert [row[:2] for row in together] == _sample(model, tokenizer, PROMPTS, samples=2)
    assert [len(row) for row in together] == [3] * 7


def test_another_seed_and_another_sample_give_other_answers(model, tokenizer) -> None:
    answers = _sample(model, tokenizer, PROMPTS)
    assert answers != _sample(model, tokenizer, PROMPTS, seed=1)
    assert any(len(set(row)) > 1 for row in answers)


def test_temperature_zero_is_transformers_greedy_search(model, tokenizer) -> None:
    answers = _sample(model, tokenizer, PROMPTS, temperature=0, samples=2)
    for instruction, row in zip(PROMPTS, answers, strict=True):
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": instruction}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        output = model.generate(**inputs, do_sample=False, max_new_tokens=8)
        new = [token for token in output[0, inputs["input_ids"].shape[1] :].tolist() if token != tokenizer.eos_token_id]
        assert row == [tokenizer.decode(new)] * 2


def test_an_answer_ends_at_the_end_of_sequence_token_or_the_limit(model, tokenizer) -> None:
    uniform = tiny_model.init_model(TINY, tokenizer, 0)  # all logits are 0: each token is as likely as the others
    uniform.lm_head.weight = torch.nn.Parameter(torch.zeros_like(uniform.lm_head.weight))
    limited = _sample(uniform, tokenizer, PROMPTS, max_new_tokens=1, temperature=0)
    assert limited == [["<unk>"] * 3] * 7  # the first token of all, once
    with torch.no_grad():
        uniform.lm_head.weight = torch.nn.Parameter(torch.zeros(TINY.vocab_size, TINY.hidden_size))
        uniform.lm_head.bias = torch.nn.Parameter(torch.zeros(TINY.vocab_size))
        uniform.lm_head.bias[tokenizer.eos_token_id] = 50.0
    assert _sample(uniform, tokenizer, PROMPTS) == [[""] * 3] * 7


@pytest.mark.parametrize(("number", "token"), [(0.0, 0), (0.24, 0), (0.26, 1), (0.99, 2)])
def test_choose_hand_worked(number: float, token: int) -> None:
    # Odds 1 : 2 : 1, so that the cumulative probability is 1/4, 3/4, 1.
    logits = torch.tensor([[1.0, 2.0, 1.0]]).log()
    assert held_out._choose_tokens(logits, torch.tensor([number]), temperature=1.0).tolist() == [token]


def test_choose_divides_by_the_temperature() -> None:
    # At temperature 1/2 odds 1 : 2 become 1 : 4, and the first token has 1/5.
    logits = torch.tensor([[1.0, 2.0]]).log().repeat(2, 1)
    assert held_out._choose_tokens(logits, torch.tensor([0.19, 0.21]), temperature=0.5).tolist() == [0, 1]
