"""Alarms at hand-worked numbers, on both sides of their limits."""

from __future__ import annotations

import pytest

from zephyr_ray.reporting import alarms
from zephyr_ray.reporting.evaluations import Estimate
from zephyr_ray.reporting.row_flow import Arrow
from zephyr_ray.reporting.text_form import form


@pytest.mark.parametrize(
    ("chosen", "rejected", "raised"),
    [(110.0, 100.0, True), (109.0, 100.0, False), (100.0, 0.0, False), (None, 5.0, False)],
)
def test_chosen_answers_a_tenth_longer_raise(chosen: float | None, rejected: float, raised: bool) -> None:
    found = alarms.length_bias(chosen, rejected)
    assert bool(found) is raised
    if raised:
        assert "110 characters on average and rejected ones 100: 1.10 times as many (limit 1.1)" in found[0].said


@pytest.mark.parametrize(("letters", "raised"), [(12, True), (11, False)])
def test_answers_that_grow_by_a_fifth_raise(letters: int, raised: bool) -> None:
    found = alarms.growing_answers(form(["a" * letters]), form(["a" * 10]), "dpo", "sft")
    assert [alarm.about for alarm in found] == (["dpo"] if raised else [])


def rewards(*values: tuple[float, float]) -> list[dict[str, float]]:
    return [{"rewards/chosen": chosen, "rewards/rejected": rejected} for chosen, rejected in values]


def test_chosen_completions_that_fall_with_the_rejected_ones() -> None:
    """Eight rows: the last quarter is two, with means -0.3 and -0.9. At beta 0.1 these are -3 and -9 nats."""
    rows = rewards(*[(0.0, 0.0)] * 6, (-0.2, -0.8), (-0.4, -1.0))
    (found,) = alarms.falling_chosen(rows, 0.1)
    assert "3.0 nats below the reference's (limit 1), that of rejected ones 9.0 nats" in found.said
    assert alarms.falling_chosen(rewards((0.2, -0.9)), 0.1) == []  # the chosen ones rise
    assert alarms.falling_chosen(rewards((-0.05, -0.9)), 0.1) == []  # half a nat
    assert alarms.falling_chosen(rewards((-0.3, 0.1)), 0.1) == []  # the rejected ones do not fall
    assert alarms.falling_chosen([], 0.1) == alarms.falling_chosen(rows, None) == []


def test_form_that_is_rewarded() -> None:
    """60 of 100 against 40 of 100: 20 points, and 1.96 sqrt(0.24 / 100 + 0.24 / 100) is 13.6 of them."""
    bold, plain = "**yes** it is", "yes it is"
    first, second = form([bold] * 60 + [plain] * 40), form([bold] * 40 + [plain] * 60)
    (found,) = alarms.form_rewarded(first, second, "chosen answers", "rejected ones", "preferences")
    assert found.said.startswith("bold: in 60.0 % of chosen answers and 40.0 % of rejected ones, +20.0 points")
    assert "(95 % interval +6.4 to +33.6; limit 10)" in found.said
    assert alarms.form_rewarded(second, first, "a", "b", "c") == []
    few = form([bold] * 3 + [plain] * 2), form([bold] * 2 + [plain] * 3)
    assert alarms.form_rewarded(*few, "a", "b", "c") == []  # as large a gap, and an interval that contains 0


def test_rows_that_are_dropped() -> None:
    arrow = Arrow("dialogues", 100, 0, 79, [("refusal", 15), ("empty", 6)])
    (found,) = alarms.many_dropped(arrow)
    assert found.said == "21 of 100 rows were dropped, 21.0 % (limit 20 %); most, 15, as refusal"
    assert alarms.many_dropped(Arrow("dialogues", 100, 0, 80, [("refusal", 20)])) == []
    assert alarms.many_dropped(Arrow("selected_dialogues", 100, 0, 10, [("not_selected", 90)])) == []


def test_rows_that_do_not_add_up() -> None:
    assert alarms.lost_rows(Arrow("tokenized", 10, 2, 11, [("empty", 1)])) == []
    (found,) = alarms.lost_rows(Arrow("tokenized", 10, 0, 8, [("empty", 1)]))
    assert found.said == "10 rows in, 8 out and 1 dropped do not add up"


def test_contamination_is_a_note() -> None:
    assert alarms.contamination("dialogues", {"empty": 3}, {}) == []
    (found,) = alarms.contamination("dialogues", {"contaminated": 7}, {"contaminated_by mt.jsonl": 7, "other": 1})
    assert found.level == "note"
    assert found.said == "7 rows held prompts of a benchmark and were left out (mt.jsonl 7)"


def test_a_judge_that_contradicts_itself() -> None:
    figures = {"overall": {"same_order": 0.69, "pairs": 200, "alpha": 0.4}, "honesty": {"same_order": 0.7, "pairs": 9}}
    (found,) = alarms.judge_inconsistency({"orders": figures, "judges": figures}, "judgments")
    assert found.said.startswith("shown in the other order, a judge puts 69.0 % of 200 pairs of answers")
    assert alarms.judge_inconsistency({"repeats": {"overall": {"same_order": None, "pairs": 0}}}, "judgments") == []
    assert alarms.judge_inconsistency({"disagreement": {"answers": {}, "gross": {}}}, "judgments") == []


def test_what_a_stage_told_itself() -> None:
    (found,) = alarms.told_by_stage("sft", ["ALARM: the held-out loss rose: it fits; try fewer epochs"])
    assert (found.said, found.do) == ("the held-out loss rose: it fits", "try fewer epochs")


def rate(model: str, value: float, low: float, high: float, neutral: float | None = None) -> Estimate:
    return Estimate("held_out", "pass rate", value, low, high, model, neutral, is_share=True)


def test_differences_that_are_not_shown() -> None:
    (found,) = alarms.not_shown([rate("", 0.01, -0.02, 0.04, 0.0), rate("", 0.03, 0.01, 0.05, 0.0), rate("a", 0, 0, 1)])
    assert "+1.0 %, 95 % interval -2.0 % to +4.0 %, which contains +0.0 %: no difference is shown" in found.said


def test_a_model_that_got_worse() -> None:
    """Where the whole interval of a difference to its start lies below 0; other measures may be below it for other
    reasons, as a reward model's overconfidence is where it is too careful."""

    def difference(what: str, value: float, low: float, high: float) -> Estimate:
        return Estimate("held_out", what, value, low, high, "", 0.0, is_share=True)

    (found,) = alarms.got_worse(
        [
            difference("dpo minus sft", -0.03, -0.05, -0.01),
            difference("policy minus reference", -0.03, -0.07, 0.01),
            difference("overconfidence", -0.2, -0.25, -0.15),
        ]
    )
    assert "dpo minus sft: -3.0 %, 95 % interval -5.0 % to -1.0 %: the training made the model worse here" in found.said


def test_intervals_that_overlap() -> None:
    """The two best of three are compared: 0.60 to 0.70 and 0.55 to 0.61 share 0.60 to 0.61."""
    models = [rate("dpo", 0.65, 0.6, 0.7), rate("sft", 0.58, 0.55, 0.61), rate("base", 0.0, 0.0, 0.0)]
    (found,) = alarms.overlapping(models)
    assert "dpo 65.0 % (60.0 % to 70.0 %) and sft 58.0 % (55.0 % to 61.0 %)" in found.said
    assert alarms.overlapping([models[0], models[2]]) == alarms.overlapping(models[:1]) == []
