"""Sections told apart by `type`: which one a value is, how recipes merge, and what is said of one that is none."""

import re
from pathlib import Path

import pytest

from zephyr_ray.config import loader
from zephyr_ray.config import recipe as recipes
from zephyr_ray.config.data import HubDataset, RowFunction
from zephyr_ray.config.feedback import FunctionJudge, LanguageModelJudges
from zephyr_ray.config.section import semantic
from zephyr_ray.errors import UserError


def load(*overrides: str) -> recipes.Recipe:
    return loader.load([], ["model.path=/m", *overrides])


ENDPOINT = "{type: endpoint, name: a, base_url: 'http://host/v1', model: m}"


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ("{}", r"sampling\.pool: Field required"),
        ("{pool: []}", "pool is empty; name at least one model"),
        (f"{{pool: [{ENDPOINT}, {{type: offline, name: b, model: m}}]}}", "offline models beside endpoints"),
        (f"{{pool: [{ENDPOINT}, {ENDPOINT}]}}", "members a and a would share seeds; rename one"),
        # Of these two the hash of 20 bits is the same.
        (
            f"{{pool: [{ENDPOINT}, {ENDPOINT.replace('name: a', 'name: m484656')}]}}",
            "members a and m484656 would share",
        ),
        (f"{{pool: [{ENDPOINT}], draw: 2}}", "draw=2 from a pool of 1"),
        (f"{{pool: [{ENDPOINT}], workers: 65}}", "a: max_in_flight=64 for 65 workers"),
        (f"{{pool: [{ENDPOINT}], budget_usd: 1}}", "budget_usd without a price at any endpoint"),
        (
            "{pool: [{type: offline, name: a, model: m}], principles: true}",
            "principles are for endpoints and deployments",
        ),
        (
            "{pool: [{type: endpoint, name: a, base_url: 'host:1', model: m}]}",
            r"sampling\.pool\.0\.base_url: not a URL",
        ),
        ("{pool: [{type: endpoint, name: a, base_url: 'http://u:p@host', model: m}]}", "no user or password"),
        (
            "{pool: [{type: deployment, name: a, model: m, min_replicas: 2}]}",
            "max_replicas=1 is below min_replicas=2",
        ),
        (
            "{pool: [{type: deployment, name: a, model: m, engine: {trust_remote_code: true}}]}",
            r"sampling\.pool\.0\.engine: engine\.trust_remote_code cannot be set: code that comes with a model",
        ),
    ],
)
def test_a_wrong_pool_is_refused(sampling: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(f"sampling={sampling}")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            "sampling.pool=[{name: a, base_url: 'http://host/v1', model: m}]",
            "sampling.pool.0 has no type; set sampling.pool.0.type to endpoint, deployment or offline",
        ),
        (
            "sampling.pool=[{type: endpont, name: a}]",
            "sampling.pool.0.type: there is no type endpont; did you mean endpoint? write endpoint, deployment or "
            "offline",
        ),
        ("sampling.pool={type: endpoint}", "sampling.pool: Input should be a list"),
        (
            "sampling.pool=[{type: endpoint, nam: a, base_url: 'http://host/v1', model: m}]",
            "unknown key sampling.pool.0.nam; did you mean name? allowed with type endpoint: type, name, base_url, "
            "model, api_key_env, max_in_flight, timeout_s, retries, price; sampling.pool.0.name: Field required",
        ),
        (
            "judging.judge.type=function",
            "judging.judge.function: Field required",
        ),
        (
            "judging.judge.type=[3]",
            "judging.judge.type: there is no type [3]; write language_models, function, reward_model or delta",
        ),
        (
            "judging.judge=my_package:judge",
            "judging.judge: write a mapping whose type is language_models, function, reward_model or delta "
            "(given: 'my_package:judge')",
        ),
        (
            "judging.judge={type: function, function: 'a:b', repeats: 2}",
            "unknown key judging.judge.repeats; type language_models has it; allowed with type function: type, "
            "function",
        ),
        (
            "judging.function=a:b",
            "unknown key judging.function; allowed here: workers, cpus_per_worker, labels, budget_usd, "
            "max_failed, judge; judging.judge: Field required",
        ),
        (
            "preferences.train={type: dataset, id: owner/name, splt: train}",
            "unknown key preferences.train.splt; did you mean split? allowed with type dataset: type, id, split, "
            "revision; preferences.train.split: Field required",
        ),
        (
            "preferences.train={function: 'a.b:c'}",
            "preferences.train has no type; set preferences.train.type to files, dataset or function",
        ),
    ],
)
def test_what_no_section_of_a_union_is_says_which_there_are(override: str, says: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(f'--set {override}: {says}')}$"):
        load(override)


FUNCTION_JUDGE = "{type: function, function: 'a:b'}"


def test_a_section_of_another_type_replaces_the_one_before() -> None:
    judges = f"judging.judge={{type: language_models, models: [{ENDPOINT}], repeats: 3}}"
    same = load(judges, "judging.judge.temperature=0.5").judging
    other = load(judges, f"judging.judge={FUNCTION_JUDGE}").judging
    stepwise = load(judges, "judging.judge.type=function", "judging.judge.function=a:b").judging
    named_again = load(judges, "judging.judge={type: language_models, temperature: 0.5}").judging
    assert same
    assert other
    assert isinstance(same.judge, LanguageModelJudges)
    assert (same.judge.repeats, same.judge.temperature) == (3, 0.5)
    assert other.judge == FunctionJudge(type="function", function="a:b")
    assert other == stepwise
    assert named_again == same


def test_a_file_of_another_type_replaces_and_one_of_the_same_is_merged(tmp_path: Path) -> None:
    dataset = "{type: dataset, id: owner/name, split: train}"
    (tmp_path / "a.yaml").write_text(f"model: {{path: /m}}\npreferences: {{train: {dataset}}}\n")
    (tmp_path / "b.yaml").write_text("preferences: {train: {revision: v1}}\n")
    (tmp_path / "c.yaml").write_text("preferences: {train: {type: function, function: 'a:b'}}\n")
    (tmp_path / "d.yaml").write_text("preferences: {train: {function: 'c:d', options: {type: x, n: 1}}}\n")
    (tmp_path / "e.yaml").write_text("preferences: {train: {options: {type: y}}}\n")

    def train(names: str) -> object:
        return loader.load([str(tmp_path / f"{name}.yaml") for name in names]).preferences.train

    assert train("ab") == HubDataset(type="dataset", id="owner/name", split="train", revision="v1")
    assert train("abc") == RowFunction(type="function", function="a:b")
    # `type` in what a function is called with is the function's own.
    assert train("abcde") == RowFunction(type="function", function="c:d", options={"type": "y", "n": 1})
    plain = loader.load([str(tmp_path / "a.yaml")], ["preferences.train=[x.jsonl, y.jsonl]"]).preferences.train
    assert plain == ("x.jsonl", "y.jsonl")
    with pytest.raises(UserError, match=r"split=test: unknown key preferences\.train\.split; type dataset has it; "):
        loader.load([str(tmp_path / "a.yaml"), str(tmp_path / "c.yaml")], ["preferences.train.split=test"])


def test_where_a_member_is_served_is_no_part_of_the_experiment() -> None:
    here, there, other = (
        load(f"sampling.pool=[{{type: endpoint, name: a, base_url: '{url}', model: {model}}}]").sampling
        for url, model in (("http://here/v1", "m"), ("http://there/v1", "m"), ("http://here/v1", "n"))
    )
    assert here
    assert there
    assert other
    assert semantic(here) == semantic(there) != semantic(other)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("{type: x}", r"unknown key sft\.base\.type; allowed here: function, options"),
        ("{function: 3}", r"sft\.base\.function: Input should be a valid string \(given: 3\)"),
        ("[a, b]", r"sft\.base: write text or a mapping \(given: \['a', 'b'\]\)"),
    ],
)
def test_a_raw_model_is_text_or_a_function(value: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        loader.load([], [f"sft.base={value}"])
