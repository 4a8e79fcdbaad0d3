"""What differs between recipes: members of lists by their names, and versions that know other fields."""

from zephyr_ray.reporting.settings import differences, recipe_fields


def of(text: str, other: str) -> dict[str, list[str]]:
    return {each.field: each.values for each in differences([recipe_fields(text), recipe_fields(other)])}


def test_members_of_a_list_are_compared_by_name() -> None:
    first = "sampling: {pool: [{name: a, model: x, engine: {n: 1}}, {name: b, model: y}]}"
    other = "sampling: {pool: [{name: a, model: x, engine: {n: 2}}]}"
    assert of(first, other) == {"sampling.pool.a.engine.n": ["1", "2"], "sampling.pool.b.model": ["y", "\u2013"]}


def test_a_field_that_an_earlier_version_did_not_have_has_its_default() -> None:
    assert of("dpo: {beta: 0.1}", "rounds: 1\ndpo: {beta: 0.1, best_nll: 0.0}\nexpo: null\norpo: null") == {}
    assert of("dpo: {beta: 0.1}", "rounds: 2\ndpo: {beta: 0.5}") == {"dpo.beta": ["0.1", "0.5"], "rounds": ["1", "2"]}


def test_where_the_runs_lie_is_no_difference_and_values_are_as_a_recipe_has_them() -> None:
    assert of("run: {root: a}\nexpo: null\npreferences: {train: null}", "run: {root: b}\npreferences: {train: x}") == {
        "preferences.train": ["null", "x"]
    }
