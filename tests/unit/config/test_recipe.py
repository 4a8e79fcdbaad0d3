"""The one config: merging, overrides, what is refused and how it is said."""

import re
from pathlib import Path

import pytest
import yaml

from zephyr_ray import zephyr
from zephyr_ray.config import loader
from zephyr_ray.config import recipe as recipes
from zephyr_ray.config.section import Section, semantic
from zephyr_ray.config.unions import sections_in
from zephyr_ray.errors import UserError
from zephyr_ray.training.methods import load_recipe

RECIPES = sorted((Path(__file__).parents[3] / "recipes").rglob("*.yaml"))


def load(*overrides: str) -> recipes.Recipe:
    return loader.load([], ["sft.base=/raw", *overrides])


def test_recipes_merge_left_to_right_and_overrides_win(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("sft: {base: /raw}\ndpo: {beta: 0.5, epochs: 2}\n")
    (tmp_path / "b.yaml").write_text("dpo: {beta: 0.2}\n")
    merged = loader.load([str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")], ["dpo.epochs=7"])
    assert (merged.dpo.beta, merged.dpo.epochs) == (0.2, 7)


@pytest.mark.parametrize(("text", "value"), [("5e-7", 5e-7), ("1", 1.0), ("5.0e-7", 5e-7)])
def test_numbers_in_overrides_are_read_as_python_reads_them(text: str, value: float) -> None:
    assert load(f"dpo.learning_rate={text}").dpo.learning_rate == value


def test_an_unknown_key_names_the_file_the_field_and_what_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("sft: {base: /raw}\ndpo: {betta: 1}\n")
    with pytest.raises(
        UserError, match=r"wrong\.yaml: unknown key dpo\.betta; did you mean beta\? allowed here: .*loss_type"
    ):
        loader.load([str(path)])


def test_an_unknown_stage_is_an_unknown_key() -> None:
    with pytest.raises(UserError, match=r"--set dop\.beta=1: unknown key dop; did you mean dpo\?"):
        load("dop.beta=1")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dpo.beta=strong", r"dpo\.beta: Input should be a valid number.*'strong'"),
        ("dpo.beta=-1", r"dpo\.beta: Input should be greater than 0"),
        ("dpo.training.zero_stage=4", r"dpo\.training\.zero_stage: Input should be 0, 1, 2 or 3"),
        ("dpo.training.workers=33", r"workers=33 for global_batch=32: a worker without a row"),
        ("dpo.training.workers=[2, 1]", r"workers=\[2, 1\]: write a number, or \[fewest, most\]"),
        ("dpo.training.workers=0", r"workers=0: write a number, or \[fewest, most\], of at least 1"),
        ("tokenized.max_prompt_length=1024", r"leaves no room for a completion"),
        ("dpo.loss_weights=[1, 2]", r"2 entries for 1 loss types"),
        ("dpo.label_smoothing=0.1", r"label_smoothing=0\.1 does nothing with loss_type=sigmoid; set loss_type=robust"),
        ("dpo.loss_type=exo_pair", r"loss_type=exo_pair needs label_smoothing over 0"),
        (
            "dpo.training.gradient_checkpointing=-1",
            r"gradient_checkpointing.*: Input should be .*greater than",
        ),
        ("dpo", r"write section\.field=value"),
    ],
)
def test_a_wrong_value_is_one_line(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(override)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("dpo.training.compile=true", "dpo.training.engine=padded"), r"compile=true needs engine=packed"),
        (("dpo.training.compile=true", "dpo.training.zero_stage=3"), r"compile=true needs zero_stage 0, 1 or 2: "),
        (
            ("sft.training.compile=true", "model.lora.load_in_4bit=true"),
            r"sft\.training\.compile=true needs model\.lora\.load_in_4bit=false",
        ),
        (
            (
                "dpo.training.gradient_checkpointing=2",
                "dpo.training.trl.gradient_checkpointing_kwargs.every_n_layers=2",
            ),
            r"gradient_checkpointing=2 counts the layers that recompute, and so does trl",
        ),
    ],
)
def test_fields_that_exclude_each_other_are_named(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(*overrides)
    for each in overrides:
        load(each)


WRAPPED = ("sft.packing_strategy=wrapped", "sft.training.engine=padded")


def test_dialogues_that_see_each_other_are_asked_for_with_the_engine_that_they_need() -> None:
    sft = load(*WRAPPED).sft
    assert sft
    assert (sft.packing_strategy, sft.training.engine) == ("wrapped", "padded")
    with pytest.raises(UserError, match=r"packing_strategy=wrapped needs training\.engine=padded"):
        load("sft.packing_strategy=wrapped")
    with pytest.raises(UserError, match=r"packing_strategy=wrapped needs loss_on=all"):
        load(*WRAPPED, "sft.loss_on=assistant")
    with pytest.raises(UserError, match=r"sft\.packing_strategy: Input should be 'isolated' or 'wrapped'"):
        load("sft.packing_strategy=bfd")
    with pytest.raises(UserError, match=r"unknown key sft\.packing; did you mean packing_strategy\?"):
        load("sft.packing=true")


@pytest.mark.parametrize(("written", "layers"), [("true", None), ("false", None), ("1", 1), ("8", 8)])
def test_layers_that_recompute_are_all_none_or_a_number(written: str, layers: int | None) -> None:
    training = load(f"dpo.training.gradient_checkpointing={written}").dpo.training
    assert training.recomputed_layers == layers
    assert bool(training.gradient_checkpointing) == (written != "false")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"- a list", "mapping of sections"), (b"a: [", "not valid YAML"), (b"\xff\xfe", "not UTF-8")],
)
def test_a_broken_recipe_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        loader.load([str(path)])


@pytest.mark.parametrize("stage", ["dpo", "tokenized", "reference_logps"])
def test_dpo_needs_a_model_to_start_from(stage: str) -> None:
    rows_alone = loader.load([], ["dialogues.train=FILE"])
    assert [each.name for each in zephyr.stages(rows_alone)] == ["dialogues", "prompts", "preferences"]
    with pytest.raises(UserError, match=r"no model to start from: set model\.path, or give it an sft section"):
        zephyr.select(rows_alone, [stage])


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().dpo.beta = 1.0  # type: ignore[misc]


def test_compute_fields_are_no_part_of_what_the_experiment_is() -> None:
    small = load("dpo.training.workers=1", "dpo.training.micro_batch=1", "dpo.training.zero_stage=0")
    large = load("dpo.training.workers=8", "dpo.training.micro_batch=4", "dpo.training.zero_stage=3")
    assert semantic(small.dpo) == semantic(large.dpo)
    assert semantic(small.dpo) != semantic(load("dpo.beta=0.2").dpo)
    assert semantic(small.dpo) != semantic(load("dpo.training.trl.weight_decay=0.1").dpo)


@pytest.mark.parametrize(("written", "fewest", "most"), [("3", 3, 3), ("[1, 4]", 1, 4), ("[2, 2]", 2, 2)])
def test_workers_are_a_number_or_the_fewest_and_the_most(written: str, fewest: int, most: int) -> None:
    training = load(f"dpo.training.workers={written}").dpo.training
    assert (training.fewest_workers, training.most_workers) == (fewest, most)


def test_the_resolved_recipe_reads_back_equal(tmp_path: Path) -> None:
    resolved = load("dpo.beta=0.3", "model.lora.r=4", "dpo.training.workers=[1, 2]")
    path = tmp_path / "recipe.yaml"
    path.write_text(loader.to_yaml(resolved))
    assert loader.load([str(path)]) == resolved


def test_every_field_has_a_description() -> None:
    def walk(section: type[Section]) -> list[str]:
        bare = []
        for name, field in section.model_fields.items():
            nested = list(sections_in(field.annotation))
            if nested:
                bare += [inner for each in nested for inner in walk(each)]
            elif not field.description and section is not recipes.Recipe:
                bare.append(f"{section.__name__}.{name}")
        return bare

    assert set(walk(recipes.Recipe)) <= {"SFT.learning_rate", "DPO.learning_rate"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_recipe_is_parsed_and_says_what_it_is(path: Path) -> None:
    load_recipe([str(path)])
    assert path.read_text().startswith("# ")


def test_the_published_hyper_parameters() -> None:
    folder = Path(__file__).parents[3] / "recipes" / "zephyr-7b-beta"
    paper, later, qlora = (
        loader.load([str(folder / name)]) for name in ("paper.yaml", "handbook.yaml", "handbook-qlora.yaml")
    )
    assert paper.sft is not None
    assert later.sft is not None
    sft = paper.sft
    assert (
        sft.learning_rate,
        sft.lr_scheduler,
        sft.global_batch,
        sft.packing_strategy,
        sft.max_length,
        sft.epochs,
    ) == ((2e-5, "cosine", 512, "wrapped", 2048, 1))
    assert (paper.dpo.beta, paper.dpo.learning_rate, paper.dpo.lr_scheduler, paper.dpo.warmup_ratio) == (
        0.1,
        5e-7,
        "linear",
        0.1,
    )
    assert (
        paper.dpo.global_batch,
        paper.dpo.epochs,
        paper.tokenized.max_length,
        paper.tokenized.max_prompt_length,
    ) == (32, 3, 1024, 512)
    assert (
        later.sft.global_batch,
        later.dpo.beta,
        later.dpo.lr_scheduler,
        later.dpo.global_batch,
        later.dpo.epochs,
    ) == (128, 0.01, "cosine", 128, 1)
    assert [(r.dpo.training.zero_stage, r.dpo.training.gradient_checkpointing) for r in (paper, later, qlora)] == [
        (2, False),
        (2, False),
        (0, True),
    ]
    assert qlora.model.lora is not None
    assert (qlora.model.lora.r, qlora.model.lora.alpha, qlora.dpo.learning_rate, qlora.model.lora.load_in_4bit) == (
        128,
        128,
        5e-6,
        True,
    )


def test_recipes_are_plain_mappings() -> None:
    assert all(isinstance(yaml.safe_load(path.read_text()), dict) for path in RECIPES)


@pytest.mark.parametrize(
    ("target", "overrides", "says"),
    [
        ("sft", [], "dialogues.train is not set; name files"),
        ("sft", ["dialogues.train=x.jsonl"], "sft.base is not set; name a folder"),
        ("candidates", ["sampling.pool=[{type: deployment, name: a, model: /m}]"], "prompts.train is not set"),
        ("tokenized", [], "preferences.train is not set"),
        ("nothing", [], "this recipe has no stage nothing; it has dialogues, "),
    ],
)
def test_no_default_stands_for_data_or_a_model(target: str, overrides: list[str], says: str) -> None:
    recipe = loader.load([], ["model.path=/m", "sft.epochs=1", *overrides])
    with pytest.raises(UserError, match=f"^{re.escape(says)}"):
        zephyr.select(recipe, [target])


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("dpo.training.engine=padded", "dpo.training.engine=padded: with preferences.rejected=every_pair "),
        ("dpo.training.trl.ld_alpha=0.5", "dpo.training.trl.ld_alpha: with preferences.rejected=every_pair "),
    ],
)
def test_what_several_completions_of_a_prompt_cannot_be_trained_by(override: str, says: str) -> None:
    recipe = loader.load(
        [], ["model.path=/m", "preferences.train=x.jsonl", "preferences.rejected=every_pair", override]
    )
    zephyr.select(recipe, ["tokenized_groups"])  # a stage that is not asked for is not looked at
    for target in ("reference_logps", "dpo"):
        with pytest.raises(UserError, match=f"^{re.escape(says)}"):
            zephyr.select(recipe, [target])


def test_the_best_of_a_prompt_needs_its_other_completions() -> None:
    with pytest.raises(UserError, match=r"dpo\.best_nll=0\.1 needs preferences\.rejected=every_pair"):
        loader.load([], ["dpo.best_nll=0.1"])


def test_a_run_has_a_place_of_its_own() -> None:
    with pytest.raises(UserError, match=r"^run\.root is not set; "):
        zephyr.open_run(loader.load([], ["model.path=/m"]))


def test_a_function_is_written_with_its_options() -> None:
    function = "{type: function, function: 'a.b:c', options: {count: 3}}"
    recipe = loader.load([], ["model.path=/m", f"preferences.train={function}"])
    assert loader.load([], ["model.path=/m", f"preferences={recipe.preferences.model_dump_json()}"]) == recipe
    with pytest.raises(UserError, match=r"a\.b\.c"):
        loader.load([], ["model.path=/m", "preferences.train={type: function, function: a.b.c}"])
