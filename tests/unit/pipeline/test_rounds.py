"""The stages of several rounds: what each reads, what stays as it was, and what is refused."""

from __future__ import annotations

import pytest

from zephyr_ray import zephyr
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.rounds import in_folder
from zephyr_ray.pipeline.stage import Stage, identities
from zephyr_ray.training.methods import load_recipe

POOL = "sampling.pool=[{type: deployment, name: mine, model: policy}]"
RECIPE = (
    "sft.base={function: 'zephyr_ray.embedded.model:base'}",
    "dialogues.train={type: function, function: 'zephyr_ray.embedded.sources:dialogues', options: {count: 4}}",
    "prompts.train={type: function, function: 'zephyr_ray.embedded.sources:prompts', options: {count: 4}}",
    "judging.judge={type: function, function: 'zephyr_ray.embedded.world:judge'}",
    "preferences.train=judgments",
    "sampling.samples=2",
    POOL,
)
HELD_OUT = (
    "preferences.held_out={type: function, function: 'zephyr_ray.embedded.sources:held_out_preferences', "
    "options: {count: 4}}"
)


def stages(*overrides: str) -> dict[str, Stage]:
    recipe = load_recipe([], [*RECIPE, *overrides])
    return {stage.name: stage for stage in zephyr.stages(recipe)}


def reads(found: dict[str, Stage], name: str) -> dict[str, str]:
    return {key: stage.name for key, stage in found[name].inputs.items()}


def test_each_round_goes_on_from_the_model_of_the_one_before() -> None:
    found = stages("rounds=3")
    assert reads(found, "candidates") == {"prompts": "prompts", "sft": "sft"}
    assert reads(found, "round_2/candidates") == {"prompts": "prompts", "dpo": "dpo"}
    assert reads(found, "round_3/candidates") == {"prompts": "prompts", "round_2/dpo": "round_2/dpo"}
    assert reads(found, "round_3/judgments") == {"candidates": "round_3/candidates"}
    assert reads(found, "round_3/preferences") == {"judgments": "round_3/judgments"}
    assert reads(found, "round_3/tokenized") == {"preferences": "round_3/preferences", "sft": "sft"}
    assert reads(found, "round_3/dpo") == {
        "tokenized": "round_3/tokenized",
        "reference_logps": "round_3/reference_logps",
        "dpo": "round_2/dpo",
    }
    assert "round_3/prompts" not in found
    assert zephyr.final_stages(load_recipe([], [*RECIPE, "rounds=3"])) == ["dpo", "round_2/dpo", "round_3/dpo"]


@pytest.mark.parametrize(("reference", "read"), [("previous", {"dpo": "dpo"}), ("first", {"sft": "sft"})])
def test_the_reference(reference: str, read: dict[str, str]) -> None:
    found = stages("rounds=2", f"each_round.reference={reference}", HELD_OUT)
    assert reads(found, "round_2/reference_logps") == {"tokenized": "round_2/tokenized", **read}
    assert reads(found, "round_2/held_out_reference") == {"held_out_tokenized": "round_2/held_out_tokenized", **read}
    assert reads(found, "round_2/held_out_policy")["dpo"] == "round_2/dpo"


def test_the_first_round_is_that_of_a_recipe_without_rounds() -> None:
    """So a run goes on with more rounds, and `policy` is what it says: the model that training starts from."""
    alone = stages(POOL.replace("policy", "sft"))
    more = stages("rounds=3", "each_round.replay=0.5", "each_round.reference=first")
    known = {stage.name: each.fingerprint for stage, each in identities([*more.values()]).items()}
    before = {stage.name: each.fingerprint for stage, each in identities([*alone.values()]).items()}
    assert len(before) > 10
    assert {name: known[name] for name in before} == before
    assert len({*known.values()}) == len(known)


def test_a_share_of_the_prompts_for_each_round() -> None:
    found = stages("rounds=2", "each_round.prompts=share")
    assert reads(found, "candidates")["prompts"] == "round_prompts"
    assert reads(found, "round_2/candidates")["prompts"] == "round_2/round_prompts"
    assert reads(found, "round_2/round_prompts") == {"prompts": "prompts"}
    assert "round_prompts" not in stages("each_round.prompts=share")


def test_replayed_and_held_out_pairs_know_those_of_all_rounds() -> None:
    found = stages("rounds=3", "each_round.replay=0.5", HELD_OUT)
    pairs = {
        "preferences": "round_3/preferences",
        "preferences of round 1": "preferences",
        "preferences of round 2": "round_2/preferences",
    }
    assert reads(found, "round_3/replayed_preferences") == pairs
    assert reads(found, "round_3/tokenized")["replayed_preferences"] == "round_3/replayed_preferences"
    assert reads(found, "round_3/held_out_pairs") == pairs
    assert "replayed_preferences" not in found


def test_a_judge_may_be_the_newest_model() -> None:
    judge = "judging.judge={type: language_models, models: [{type: deployment, name: j, model: policy}]}"
    found = stages("rounds=2", judge)
    assert reads(found, "judgments") == {"candidates": "candidates", "sft": "sft"}
    assert reads(found, "round_2/judgments") == {"candidates": "round_2/candidates", "dpo": "dpo"}


def test_a_policy_from_outside_is_deployed_with_its_revision() -> None:
    found = stages("model.path=owner/model", "model.revision=v1", "rounds=2")
    member = found["candidates"].config["sampling"]["pool"][0]
    assert (member["model"], member["revision"]) == ("owner/model", "v1")
    assert found["round_2/candidates"].config["sampling"]["pool"][0]["model"] == "dpo"
    assert reads(found, "round_2/dpo")["dpo"] == "dpo"


def test_one_method_goes_on() -> None:
    found = stages("rounds=2", "orpo={}", "each_round.method=orpo")
    assert {"dpo", "orpo", "round_2/orpo"} <= {*found}
    assert "round_2/dpo" not in found
    assert reads(found, "round_2/candidates")["orpo"] == "orpo"
    assert reads(found, "round_2/orpo") == {"tokenized": "round_2/tokenized", "orpo": "orpo"}


def test_expo_goes_beyond_each_rounds_dpo() -> None:
    found = stages("rounds=3", "expo.alpha=0.3")
    assert reads(found, "expo") == {"sft": "sft", "dpo": "dpo"}
    assert reads(found, "round_3/expo") == {"dpo": "round_2/dpo", "round_3/dpo": "round_3/dpo"}
    assert zephyr.final_stages(load_recipe([], [*RECIPE, "rounds=2", "expo.alpha=0.3"])) == [
        "dpo",
        "expo",
        "round_2/dpo",
        "round_2/expo",
    ]
    assert "round_2/expo" not in stages("rounds=2", "expo.alpha=0.3", "orpo={}", "each_round.method=orpo")


def test_evaluations_know_the_rounds_models() -> None:
    function = "evaluation.functions=[{name: mine, function: 'a:b', models: [dpo, round_2/dpo]}]"
    assert reads(stages("rounds=2", function), "mine") == {"dpo": "dpo", "round_2/dpo": "round_2/dpo"}
    with pytest.raises(UserError, match=r"models=round_2/dpo: this recipe has no such stage"):
        stages(function)


def test_the_round_of_a_folder() -> None:
    assert in_folder("round_12/held_out_policies/mine") == (12, "held_out_policies/mine")
    assert in_folder("evaluation/preferences") == (1, "evaluation/preferences")
    assert in_folder("round_0/dpo") == (1, "round_0/dpo")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["sampling=null"], "rounds=2: this recipe has no sampling section"),
        (["judging=null"], "rounds=2: this recipe has no judging section"),
        (["preferences.train=rows.jsonl"], "rounds=2: every round would have the same pairs"),
        ([POOL.replace("policy", "sft")], "rounds=2: sampling.pool deploys no model=policy"),
        (["sft=null"], "sampling.pool mine: model=policy: this recipe has no model to start from"),
        (["each_round.method=sft"], "each_round.method=sft: this recipe trains no such policy on pairs; it trains dpo"),
        (
            ["reward_model={}", "each_round.method=reward_model"],
            "each_round.method=reward_model: this recipe trains no such policy on pairs; it trains dpo",
        ),
        (["rounds=0"], "rounds: Input should be greater than or equal to 1"),
        (["sampling.samples=1"], "sampling asks for one completion of a prompt, and a pair takes two"),
    ],
)
def test_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        zephyr.select(load_recipe([], [*RECIPE, "rounds=2", *overrides]), ["round_2/preferences"])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("round_3/dpo", "this recipe has rounds=2, and no round 3; set rounds=3"),
        ("round_2/orpo", "this recipe has each_round.method=dpo, which trains in round 2, and not orpo"),
        ("round_2/prompts", "this recipe has no stage round_2/prompts; it has "),
    ],
)
def test_a_stage_that_no_round_has(stage: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        zephyr.select(load_recipe([], [*RECIPE, "rounds=2", "orpo={}"]), [stage])
