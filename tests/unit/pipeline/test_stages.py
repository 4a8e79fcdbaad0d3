"""The order of stages, and what makes a stage stale."""

from dataclasses import replace

import pytest

from tests import embedded_world
from tests.making import stage_of
from zephyr_ray import zephyr
from zephyr_ray.config import loader
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.model_source import external_model
from zephyr_ray.pipeline.stage import identities, up_to

SOURCES = (
    f"sft.base={embedded_world.base()}",
    f"dialogues.train={embedded_world.rows('dialogues', 24_000)}",
    f"prompts.train={embedded_world.rows('prompts', 1_600)}",
    f"preferences.train={embedded_world.rows('preferences', 1_600)}",
)
HELD_OUT_PAIRS = f"preferences.held_out={embedded_world.rows('held_out_preferences', 300)}"
EVALUATION = f"evaluation.functions={embedded_world.held_out(samples=1)}"
FEEDBACK = (
    "preferences.train=judgments",
    "sampling.pool=[{type: deployment, name: sft, model: sft}]",
    "sampling.samples=2",
    "judging.judge={type: function, function: zephyr_ray.embedded.world:judge}",
)
SCORED = {"held_out_tokenized", "held_out_reference", "held_out_policy", "evaluation/preferences"}
HELD_OUT = {"held_out_pairs", *SCORED}
ALL = {"base", "dialogues", "tokenized_dialogues", "sft", "prompts", "candidates", "judgments", "preferences"}
ALL |= {"tokenized", "reference_logps", "dpo"}
AFTER_JUDGMENTS = {"preferences", "tokenized", "reference_logps", "dpo"}


def plan(*overrides: str, targets: tuple[str, ...] = ("dpo",)) -> dict[str, str]:
    recipe = loader.load([], [*SOURCES, *FEEDBACK, *overrides])
    return {stage.name: known.fingerprint for stage, known in identities(zephyr.select(recipe, targets)).items()}


def test_each_stage_comes_after_what_it_reads() -> None:
    recipe = loader.load([], [*SOURCES, HELD_OUT_PAIRS, EVALUATION, *FEEDBACK])
    seen: set[str] = set()
    for stage in zephyr.select(recipe, ("evaluation/preferences", "dpo", "held_out")):
        assert {each.name for each in stage.inputs.values()} <= seen
        seen.add(stage.name)
    assert seen == {*ALL, *HELD_OUT, "held_out"} == {stage.name for stage in zephyr.stages(recipe)}


def test_a_stage_stands_in_a_pipeline_twice() -> None:
    """A second round: answers of what the first one trained, and a policy that is trained on their pairs."""
    recipe = loader.load([], [*SOURCES, *FEEDBACK])
    first = {stage.name: stage for stage in zephyr.stages(recipe)}
    again = replace(first["candidates"], round=2, inputs={"prompts": first["prompts"], "sft": first["dpo"]})
    judged = replace(first["judgments"], round=2, inputs={"candidates": again})
    stages = [*first.values(), again, judged]
    assert [stage.name for stage in up_to(stages, ["round_2/judgments"])][-3:] == [
        "dpo",
        "round_2/candidates",
        "round_2/judgments",
    ]
    known = identities(stages)
    assert known[again].fingerprint != known[first["candidates"]].fingerprint
    assert known[judged].inputs["candidates"] == known[again].fingerprint


def test_a_given_model_needs_no_sft(tmp_path) -> None:
    recipe = loader.load([], [*SOURCES, "model.path=somewhere"])
    assert [stage.name for stage in zephyr.select(recipe, ("dpo",))] == [
        "preferences",
        "tokenized",
        "reference_logps",
        "dpo",
    ]


@pytest.mark.parametrize(
    ("override", "stale"),
    [
        ("dpo.beta=0.2", {"dpo"}),
        ("dpo.training.workers=2", set()),
        ("dpo.training.trl.ld_alpha=0.5", {"reference_logps", "dpo"}),
        ("tokenized.max_length=600", {"tokenized", "reference_logps", "dpo"}),
        ("preferences.rejected=lowest", {"preferences", "tokenized", "reference_logps", "dpo"}),
        ("preferences.rejected=every_pair", {"preferences", "tokenized", "reference_logps", "dpo"}),
        ("sft.learning_rate=1e-3", {"sft", "candidates", "judgments", *AFTER_JUDGMENTS}),
        ("run.root=elsewhere", set()),
        ("run.seed=1", ALL),
        ("prompts.max_dropped=0.9", ALL - {"base", "dialogues", "tokenized_dialogues", "sft"}),
        ("sampling.temperature=0.5", {"candidates", "judgments", *AFTER_JUDGMENTS}),
        (
            "sampling.pool=[{type: deployment, name: sft, model: sft, max_in_flight: 4, engine: {max_num_seqs: 4}}]",
            set(),
        ),
        ("sampling.principles=true", {"candidates", "judgments", *AFTER_JUDGMENTS}),
        ("sampling.max_failed=0.5", set()),
        ("judging.judge.function=zephyr_ray.embedded.world:passes", {"judgments", *AFTER_JUDGMENTS}),
        (
            "judging.judge={type: language_models, models: [{type: endpoint, name: a, model: m, base_url: 'http://h'}]}",
            {"judgments", *AFTER_JUDGMENTS},
        ),
        ("judging.workers=2", set()),
        ("preferences.margin=1", AFTER_JUDGMENTS),
    ],
)
def test_what_a_change_makes_stale(override: str, stale: set[str]) -> None:
    before, after = plan(), plan(override)
    assert {name for name in before if before[name] != after[name]} == stale


def test_dialogues_to_evaluate_on_change_nothing_that_is_trained() -> None:
    """They are read before, so that a wrong file stops the job early, and make nothing stale."""
    given = f"dialogues.held_out={embedded_world.rows('dialogues', 9)}"
    before, after = plan(), plan(given)
    assert {name for name in before if before[name] != after[name]} == set()
    assert after.keys() - before.keys() == {"held_out_dialogues", "held_out_tokenized_dialogues"}
    assert [*after].index("held_out_tokenized_dialogues") < [*after].index("sft")
    other = plan(given.replace("9", "10"), "sft.eval_steps=3")
    changed = {name for name in after if after[name] != other[name]}
    assert changed == {"held_out_dialogues", "held_out_tokenized_dialogues"}
    longer = plan(given, "sft.max_length=77")
    assert longer["held_out_tokenized_dialogues"] != after["held_out_tokenized_dialogues"]


POLICY = {"dpo", "held_out_policy", "evaluation/preferences"}


@pytest.mark.parametrize(
    ("override", "stale"),
    [
        ("dpo.beta=0.2", POLICY),
        ("dpo.learning_rate=1e-3", POLICY),
        ("dpo.training.workers=2", set()),
        ("dpo.training.trl.ld_alpha=0.5", {"reference_logps", *POLICY}),  # no part of an implicit reward
        ("model.dtype=bfloat16", {"sft", "tokenized", "reference_logps", "dpo", *SCORED}),
        ("tokenized.max_length=600", {"tokenized", "reference_logps", "dpo", *SCORED}),
        ("chat.template=model", {"tokenized_dialogues", "sft", "tokenized", "reference_logps", "dpo", *SCORED}),
        ("sft.learning_rate=1e-3", {"sft", "tokenized", "reference_logps", "dpo", *SCORED}),
        (f"preferences.train={embedded_world.rows('preferences', 7)}", {*AFTER_JUDGMENTS, *HELD_OUT}),
        (
            "sft.base.options.layers=1",
            {*ALL, *HELD_OUT} - {"dialogues", "prompts", "candidates", "judgments", "preferences", "held_out_pairs"},
        ),
        ("preferences.rejected=lowest", {"preferences", "tokenized", "reference_logps", "dpo", *HELD_OUT}),
        ("preferences.rejected=every_pair", {"preferences", "tokenized", "reference_logps", "dpo", *HELD_OUT}),
        ("preferences.held_out=FILE", HELD_OUT),
    ],
)
def test_what_a_change_makes_stale_of_held_out_pairs(override: str, stale: set[str], tmp_path) -> None:
    (tmp_path / "pairs.jsonl").write_text("{}")
    targets, given = ("evaluation/preferences", "dpo"), (*SOURCES, HELD_OUT_PAIRS)
    before = plan(*given, targets=targets)
    after = plan(*given, override.replace("FILE", str(tmp_path / "pairs.jsonl")), targets=targets)
    assert {name for name in before if before[name] != after[name]} == stale


def test_held_out_pairs_change_nothing_of_training() -> None:
    without, with_them = plan(), plan(HELD_OUT_PAIRS, targets=("evaluation/preferences", "dpo"))
    assert with_them.keys() - without.keys() == HELD_OUT
    assert {name: with_them[name] for name in without} == without


def test_held_out_pairs_are_no_part_of_the_fingerprint_of_preferences() -> None:
    """A finished run gets them without being stale."""
    recipe = loader.load([], [*SOURCES])
    fields: tuple[str, ...] = ("train", "split", "score", "rejected", "margin", "disagreement")
    fields += ("decontaminate", "decontaminate_words", "max_dropped", "cut_answers")
    assert set(stage_of(recipe, "preferences").config["preferences"]) == set(fields)


def test_held_out_pairs_that_are_not_there_are_one_error() -> None:
    with pytest.raises(UserError, match=r"nowhere\.jsonl is not there"):
        plan("preferences.held_out=nowhere.jsonl", targets=("evaluation/preferences",))
    with pytest.raises(UserError, match=r"this recipe has no preferences\.held_out"):
        plan(targets=("evaluation/preferences",))
    with pytest.raises(UserError, match=r"preferences\.held_out: the run's own judgments are trained on"):
        plan("preferences.held_out=judgments")


def test_held_out_pairs_are_read_before_anything_is_trained() -> None:
    recipe = loader.load([], [*SOURCES, "model.path=somewhere", HELD_OUT_PAIRS])
    order = [stage.name for stage in zephyr.select(recipe, ("evaluation/preferences", "dpo"))]
    assert order.index("held_out_tokenized") < order.index("dpo") < order.index("held_out_policy")


def test_a_model_folder_is_its_content(tmp_path) -> None:
    for name, weights in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "tokenizer.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(weights)
    a, b, c = (external_model("model.path", str(tmp_path / name), None).fingerprint for name in "abc")
    assert a == b != c
    with pytest.raises(UserError, match=r"model\.path=.*is not a folder"):
        external_model("model.path", str(tmp_path / "nowhere"), None)


@pytest.mark.parametrize(("name", "value"), [("HF_HUB_OFFLINE", True), ("ENDPOINT", "http://127.0.0.1:9")])
def test_a_hub_id_that_cannot_be_had_is_named(monkeypatch, name: str, value: object) -> None:
    """With the hub switched off, and where nothing answers."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    with pytest.raises(
        UserError, match=r"model\.path=nobody/nothing is not a folder here, and the hub cannot be reached"
    ):
        external_model("model.path", "nobody/nothing", None)


def test_held_out_pairs_of_models_from_outside(tmp_path) -> None:
    """They have stages of their own beside DPO's, which stay as they are, and are scored like these."""
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_bytes(b"{}")
    given = f"evaluation.held_out_models=[{{name: other, model: {tmp_path}}}]"
    theirs = {"held_out_policies/other", "evaluation/preferences_of/other"}
    targets = ("evaluation/preferences", "dpo")
    before, after = plan(HELD_OUT_PAIRS, targets=targets), plan(HELD_OUT_PAIRS, given, targets=(*targets, *theirs))
    assert after.keys() - before.keys() == theirs
    assert {name: after[name] for name in before} == before
    recipe = loader.load([], [*SOURCES, HELD_OUT_PAIRS, given])
    assert set(stage_of(recipe, "evaluation/preferences_of/other").inputs) == {
        "held_out_pairs",
        "held_out_tokenized",
        "held_out_reference",
        "held_out_policies/other",
    }
    (tmp_path / "model.safetensors").write_bytes(b"2")
    other = plan(HELD_OUT_PAIRS, given, targets=(*targets, *theirs))
    assert {name for name in after if after[name] != other[name]} == theirs
    with pytest.raises(UserError, match="held_out_models dpo: this run trains a model of that name"):
        plan(HELD_OUT_PAIRS, given.replace("other", "dpo"))
    with pytest.raises(UserError, match="held_out_models: other is there twice"):
        plan(HELD_OUT_PAIRS, given.replace("[", "[{name: other, model: x}, "))
