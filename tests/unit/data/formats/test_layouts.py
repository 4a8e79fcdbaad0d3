"""Every layout by an example of its own, every reason by a row that earns it."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr_ray import schemas
from zephyr_ray.data.formats.layouts import dialogue, preference, prompt
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.schemas import Dropped, Reason


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


Q, A, B = user("2 + 2?"), assistant("4"), assistant("5")
SHAREGPT = [{"from": "human", "value": "2 + 2?"}]

SAME_PAIR: dict[str, dict[str, Any]] = {
    "trl_implicit": {"chosen": [Q, A], "rejected": [Q, B]},
    "trl_explicit": {"prompt": [Q], "chosen": [A], "rejected": [B]},
    "trl_explicit_whole": {"prompt": [Q], "chosen": [Q, A], "rejected": [Q, B]},
    "trl_plain": {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"},
    "ultrafeedback_binarized": {"prompt": "2 + 2?", "chosen": [Q, A], "rejected": [Q, B], "messages": [Q, A]},
    "completions": {
        "instruction": "2 + 2?",
        "completions": [{"response": "5", "overall_score": 1}, {"response": "4", "overall_score": 9}],
    },
    "completions_of_ours": {
        "messages": [Q],
        "completions": [{"content": "4", "overall_score": 9.0}, {"content": "5", "overall_score": 1.0}],
    },
    "hh_rlhf": {
        "chosen": "\n\nHuman: 2 + 2?\n\nAssistant: 4",
        "rejected": "\n\nHuman: 2 + 2?\n\nAssistant: 5",
    },
    "hh_prompt": {"prompt": "\n\nHuman: 2 + 2?\n\nAssistant:", "chosen": "4", "rejected": "5"},
    "sharegpt": {
        "conversations": SHAREGPT,
        "chosen": {"from": "gpt", "value": "4"},
        "rejected": {"from": "gpt", "value": "5"},
    },
    "alpaca": {"instruction": "2 + 2?", "input": "", "chosen": "4", "rejected": "5"},
    "alpaca_output": {"instruction": "2 + 2?", "output": ["4", "5"]},
    "pandalm": {
        "instruction": "2 + 2?",
        "input": "",
        "response1": "5",
        "response2": "4",
        "annotator1": 2,
        "annotator2": 1,
        "annotator3": 2,
    },
}


@pytest.mark.parametrize("layout", SAME_PAIR)
def test_every_layout_gives_the_same_pair(layout: str) -> None:
    row = preference(SAME_PAIR[layout])
    assert (row["prompt"], row["chosen"], row["rejected"]) == ([Q], [A], [B])
    assert row["pair_id"] == content_id([Q], [A], [B])


@pytest.mark.parametrize("layout", SAME_PAIR)
def test_nulls_of_missing_keys_are_stripped(layout: str) -> None:
    def with_nulls(value: Any) -> Any:
        if isinstance(value, dict):
            return {**{key: with_nulls(item) for key, item in value.items()}, "name": None, "tool_calls": None}
        return [with_nulls(item) for item in value] if isinstance(value, list) else value

    assert preference(with_nulls(SAME_PAIR[layout]) | {"system": None}) == preference(SAME_PAIR[layout])


def test_scores_and_models_come_along() -> None:
    row = preference({**SAME_PAIR["trl_plain"], "score_chosen": 8, "score_rejected": 7.5, "chosen_model": "m"})
    assert (row["score_chosen"], row["score_rejected"]) == (8.0, 7.5)
    assert (row["chosen_model"], row["rejected_model"]) == ("m", None)
    row = preference({**SAME_PAIR["trl_plain"], "metadata": {"score_chosen": 8, "score_rejected": 9}})
    assert (row["score_chosen"], row["score_rejected"]) == (8.0, 9.0)


def test_system_prompts_stay_where_they_are_and_are_never_invented() -> None:
    system = {"role": "system", "content": "Be brief."}
    assert preference({"chosen": [system, Q, A], "rejected": [system, Q, B]})["prompt"] == [system, Q]
    assert preference({**SAME_PAIR["alpaca"], "system": "Be brief."})["prompt"] == [system, Q]
    assert preference({**SAME_PAIR["alpaca"], "system": ""})["prompt"] == [Q]
    blank = {"role": "system", "content": ""}
    assert preference({"chosen": [blank, Q, A], "rejected": [blank, Q, B]})["prompt"] == [Q]


def test_several_turns_are_one_prompt() -> None:
    turns = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: 2 + 2?\n\nAssistant:"
    row = preference({"chosen": f"{turns} 4", "rejected": f"{turns} 5"})
    assert row["prompt"] == [user("Hi"), assistant("Hello!"), Q]
    assert preference({"chosen": [*row["prompt"], A], "rejected": [*row["prompt"], B]})["pair_id"] == row["pair_id"]
    history = {"instruction": "2 + 2?", "history": [["Hi", "Hello!"]], "output": ["4", "5"]}
    assert preference(history)["pair_id"] == row["pair_id"]


def test_a_seed_task_of_self_instruct_is_a_prompt_with_its_first_input() -> None:
    task = {"instruction": "Add.", "instances": [{"input": "2 2", "output": "4"}, {"input": "1 1", "output": "2"}]}
    assert prompt(task)["messages"] == [user("Add.\n\n2 2")]
    assert prompt({"instruction": "Sing.", "instances": [{"input": "", "output": "La"}]})["messages"] == [user("Sing.")]


def test_alpacas_input_follows_after_an_empty_line() -> None:
    row = preference({"instruction": "Add.", "input": "2 2", "chosen": "4", "rejected": "5"})
    assert row["prompt"] == [user("Add.\n\n2 2")]


def _reason(row: dict[str, Any], make: Any = preference) -> Reason:
    with pytest.raises(Dropped) as caught:
        make(row)
    return caught.value.reason


PLAIN = {"prompt": "Q", "chosen": "4", "rejected": "5"}
PANDALM = SAME_PAIR["pandalm"]


@pytest.mark.parametrize(
    ("reason", "row"),
    [
        (Reason.UNKNOWN_LAYOUT, {}),
        (Reason.UNKNOWN_LAYOUT, {"text": "Q", "label": 1}),
        (Reason.UNKNOWN_LAYOUT, {"prompt": "Q", "chosen": "4"}),
        (Reason.UNPAIRED, {"prompt": "Q", "chosen": "4", "rejected": None}),
        (Reason.UNPAIRED, {"prompt": [Q], "chosen": None, "rejected": [A], "score_chosen": None, "score_rejected": 0}),
        (Reason.UNKNOWN_LAYOUT, {"prompt": "Q", "chosen": None, "rejected": None}),
        (Reason.UNKNOWN_LAYOUT, {"chosen": "the sky is blue", "rejected": "the sky is red"}),
        (Reason.UNKNOWN_LAYOUT, {"completions": [{"response": "4", "overall_score": 1}]}),
        (Reason.UNKNOWN_LAYOUT, {**SAME_PAIR["alpaca"], "history": ["Hi"]}),
        (Reason.NOT_TEXT, {**PLAIN, "chosen": 4}),
        (Reason.NOT_TEXT, {**PLAIN, "prompt": 4}),
        (Reason.NOT_TEXT, {**PLAIN, "prompt": "half a pair: \ud83d"}),
        (Reason.NOT_TEXT, {"chosen": [Q, {"role": "assistant", "content": [{"type": "image"}]}], "rejected": [Q, B]}),
        (Reason.NOT_TEXT, {"chosen": [Q, {"role": "assistant", "content": None}], "rejected": [Q, B]}),
        (Reason.NOT_TEXT, {**PANDALM, "response1": False}),
        (Reason.EMPTY, {**PLAIN, "chosen": " \n"}),
        (Reason.EMPTY, {**PLAIN, "rejected": ""}),
        (Reason.EMPTY, {**PLAIN, "prompt": ""}),
        (Reason.EMPTY, {"chosen": "\n\nHuman: Q\n\nAssistant:", "rejected": "\n\nHuman: Q\n\nAssistant: 5"}),
        (Reason.EMPTY, {"instruction": "Q", "completions": [{"response": "", "overall_score": 3}]}),
        (Reason.WRONG_ROLES, {"chosen": [Q, A, Q], "rejected": [Q, B, Q]}),
        (Reason.WRONG_ROLES, {"chosen": [A], "rejected": [B]}),
        (Reason.WRONG_ROLES, {"chosen": [A, Q, A], "rejected": [A, Q, B]}),
        (Reason.WRONG_ROLES, {"chosen": [Q, A, A], "rejected": [Q, A, B]}),
        (Reason.WRONG_ROLES, {"prompt": [Q], "chosen": [A, Q, A], "rejected": [A, Q, B]}),
        (Reason.WRONG_ROLES, {"prompt": [{"role": "tool", "content": "x"}], "chosen": [A], "rejected": [B]}),
        (Reason.WRONG_ROLES, {"prompt": [Q, {"role": "system", "content": "x"}, Q], "chosen": [A], "rejected": [B]}),
        (Reason.WRONG_ROLES, {"prompt": [Q, A], "chosen": [A], "rejected": [B]}),
        (Reason.NO_SHARED_PROMPT, {"chosen": [Q, A], "rejected": [user("3 + 3?"), B]}),
        (Reason.NO_SHARED_PROMPT, {"chosen": [Q, A, Q, A], "rejected": [Q, B]}),
        (Reason.NO_SHARED_PROMPT, {"prompt": "another", "chosen": [Q, A], "rejected": [Q, B]}),
        (Reason.NO_SHARED_PROMPT, {"prompt": [user("another")], "chosen": [Q, A], "rejected": [Q, B]}),
        (Reason.IDENTICAL_PAIR, {**PLAIN, "rejected": "4"}),
        (Reason.IDENTICAL_PAIR, {**PLAIN, "rejected": "4", "score_chosen": 3, "score_rejected": 3}),
        (Reason.TIE, {**PLAIN, "score_chosen": 3, "score_rejected": 3.0}),
        (Reason.TIE, {**PANDALM, "annotator1": 0}),
        (Reason.TIE, {**PANDALM, "annotator1": 0, "annotator2": 0}),
    ],
)
def test_dropped_preferences(reason: Reason, row: dict[str, Any]) -> None:
    assert _reason(row) == reason


def completions(*scores: Any, key: str = "overall_score") -> dict[str, Any]:
    answers = [{"model": f"m{n}", "response": f"answer {n}", key: score} for n, score in enumerate(scores)]
    return {"instruction": "Q", "completions": answers}


def test_the_best_answer_is_chosen_and_a_strictly_lower_one_rejected() -> None:
    for seed in range(50):
        row = preference(completions(3, 9, None, 5, 9), seed=seed)
        assert row["score_chosen"] == 9
        assert row["score_rejected"] in (3, 5)
        assert row["chosen_model"] in ("m1", "m4")
        assert row["chosen"] == [assistant(f"answer {row['chosen_model'][1:]}")]


def test_the_draw_reaches_every_lower_answer_about_equally() -> None:
    drawn = Counter(preference(completions(9, 1, 2, 3), seed=seed)["rejected_model"] for seed in range(3000))
    assert set(drawn) == {"m1", "m2", "m3"}
    assert all(900 < count < 1100 for count in drawn.values())  # 1000 each; four standard deviations are 103


def test_lowest() -> None:
    for seed in range(20):
        assert preference(completions(3, 9, None, 5), seed=seed, rejected="lowest")["rejected_model"] == "m0"


@pytest.mark.parametrize(
    ("reason", "row"),
    [
        (Reason.TIE, completions(7, 7, 7)),
        (Reason.TIE, completions(7, None)),
        (Reason.TIE, completions("N/A", 7)),
        (Reason.UNSCORED, completions(None, None)),
        (Reason.UNSCORED, completions("N/A", float("nan"))),
        (Reason.UNSCORED, completions(True, False)),
        (Reason.TIE, completions(True, True, key="is_correct")),
        (Reason.NOT_TEXT, {"instruction": "Q", "completions": [{"response": 3, "overall_score": 1}]}),
        (
            Reason.IDENTICAL_PAIR,
            {
                "instruction": "Q",
                "completions": [{"response": "4", "overall_score": 1}, {"response": "4", "overall_score": 2}],
            },
        ),
    ],
)
def test_dropped_completions(reason: Reason, row: dict[str, Any]) -> None:
    assert _reason(row) == reason


def test_kinds_of_scores() -> None:
    assert preference(completions("3", "9.5"))["score_chosen"] == 9.5
    assert preference(completions(2.5, 3.25, key="fine-grained_score"))["score_rejected"] == 2.5
    assert preference(completions(False, True, key="is_correct"))["chosen_model"] == "m1"
    ratings = [{"help": {"rating": 5}, "truth": {"rating": None}}, {"help": {"Rating": "2"}, "truth": {"Rating": "5"}}]
    row = preference(completions(*ratings, key="annotations"))
    assert (row["score_chosen"], row["score_rejected"]) == (5.0, 2.0)  # by the aspect in which both are rated


def test_two_kinds_of_score_are_never_compared() -> None:
    row = completions(4, None, 6)
    row["completions"][1]["fine-grained_score"] = 99
    assert preference(row)["chosen_model"] == "m2"


@given(st.lists(st.one_of(st.none(), st.integers(1, 10)), min_size=1, max_size=6), st.integers(0, 1000))
def test_a_null_never_wins_or_loses(scores: list[int | None], seed: int) -> None:
    known = [score for score in scores if score is not None]
    if len(set(known)) < 2:
        assert _reason(completions(*scores)) == (Reason.TIE if known else Reason.UNSCORED)
    else:
        row = preference(completions(*scores), seed=seed)
        assert row["score_chosen"] == max(known) > row["score_rejected"]


@given(st.randoms(use_true_random=False), st.integers(0, 100))
def test_the_pair_depends_on_nothing_but_the_row_and_the_seed(rng: random.Random, seed: int) -> None:
    rows = [completions(*(rng.randint(1, 3) for _ in range(4))) | {"instruction": f"Q{n}"} for n in range(8)]
    shuffled = rng.sample(rows, len(rows))

    def pairs(rows: list[dict[str, Any]]) -> set[str]:
        found = set()
        for row in rows:
            with contextlib.suppress(Dropped):
                found.add(preference(row, seed=seed)["pair_id"])
        return found

    assert pairs(rows) == pairs(shuffled)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.just("\ud83d"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["prompt", "chosen", "rejected", "completions", "messages", "role", "content", "instruction"]
            )
            | st.sampled_from(
                ["conversations", "from", "value", "output", "input", "completion", "response", "metadata"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def _paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, item in inner for path in _paths(item, (*at, key)))]


def _replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copied = value.copy()
    copied[path[0]] = _replaced(value[path[0]], path[1:], new)
    return copied


@given(st.sampled_from(sorted(SAME_PAIR)), st.data(), JSON)
def test_a_layout_with_one_thing_wrong_in_it_is_dropped_or_still_a_pair(layout: str, data: Any, new: Any) -> None:
    row = {**SAME_PAIR[layout], "metadata": {"score_chosen": 2, "chosen_model": "m"}, "history": [["a", "b"]]}
    path = data.draw(st.sampled_from(_paths(row)[1:]))
    with contextlib.suppress(Dropped):
        made = preference(_replaced(row, path, new))
        pa.Table.from_pylist([made], schema=schemas.PREFERENCES)


@given(st.dictionaries(st.sampled_from(["prompt", "chosen", "rejected", "completions", "instruction", "output"]), JSON))
def test_any_row_is_a_pair_or_dropped_with_a_reason(row: dict[str, Any]) -> None:
    with contextlib.suppress(Dropped):  # any other error fails the test
        made = preference(row)
        assert made["chosen"] != made["rejected"]
        assert made["prompt"][-1]["role"] == "user"


DIALOGUE_KEYS = ("prompt", "completion", "messages", "conversations", "instruction", "response", "instances", "data")


@given(st.dictionaries(st.sampled_from(DIALOGUE_KEYS), JSON))
def test_any_row_is_a_dialogue_or_dropped_with_a_reason(row: dict[str, Any]) -> None:
    with contextlib.suppress(Dropped):
        made = dialogue(row)
        assert made["messages"][-1]["role"] == "assistant"


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [Q, A]},
        {"conversations": [*SHAREGPT, {"from": "gpt", "value": "4"}]},
        {"instruction": "2 + 2?", "input": "", "output": "4"},
        {"prompt": "2 + 2?", "completion": "4"},
        {"prompt": "2 + 2?", "completion": "4<|endoftext|>"},
        {"prompt": [Q], "completion": [A]},
        {"question": "2 + 2?", "response": "4", "system_prompt": ""},
        {"question": "2 + 2?", "answer": "4"},
        {"user_query": "2 + 2?", "chatgpt_response": "4", "hallucination": "no"},
        {"instruction": "2 + 2?", "context": "", "response": "4"},
        {"instruction": "2 + 2?", "instances": [{"input": "", "output": "4"}, {"input": "", "output": "5"}]},
        {"instruction": "2 +", "instances": [{"input": "2?", "output": "4"}]},
        {"id": "0", "data": ["2 + 2?", "4"]},
        {"conversation": [Q, A], "toxic": False},
    ],
)
def test_every_dialogue_layout_gives_the_same_dialogue(row: dict[str, Any]) -> None:
    made = dialogue(row)
    assert " ".join(made["messages"][0]["content"].split()) == Q["content"]
    assert made["messages"][1:] == [A]
    assert made["dialogue_id"] == content_id(made["messages"])


@pytest.mark.parametrize(
    ("reason", "row"),
    [
        (Reason.UNKNOWN_LAYOUT, {"user_query": "Q", "answer": "A"}),
        (Reason.UNKNOWN_LAYOUT, {"instruction": "Q", "instances": []}),
        (Reason.NOT_TEXT, {"instruction": "Q", "instances": [{"input": "I"}]}),
        (Reason.WRONG_ROLES, {"data": ["Q", "A", "Q"]}),
        (Reason.WRONG_ROLES, {"messages": [Q]}),
        (Reason.WRONG_ROLES, {"messages": [A]}),
        (Reason.NOT_TEXT, {"messages": []}),
        (Reason.NOT_TEXT, {"instruction": "Q", "output": ["a", "b"]}),
        (Reason.EMPTY, {"prompt": "Q", "completion": "<|endoftext|>"}),
        (Reason.EMPTY, {"messages": [Q, assistant(""), Q, A]}),
    ],
)
def test_dropped_dialogues(reason: Reason, row: dict[str, Any]) -> None:
    assert _reason(row, dialogue) == reason
