"""Which artifact has a fingerprint, and what changed since."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import small_run
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.lineage.changed import (
    as_json,
    as_recipe,
    changed_since,
    find_fingerprint,
    lines_of,
    recorded,
)
from zephyr_ray.pipeline.lineage.facts import StageFacts
from zephyr_ray.pipeline.lineage.reading import stages_of
from zephyr_ray.pipeline.stage import identities
from zephyr_ray.pipeline.status import Difference


@pytest.fixture
def stages(tmp_path: Path) -> dict[str, StageFacts]:
    return stages_of(small_run.make(str(tmp_path / "run")))


def test_a_prefix_names_an_artifact_weights_a_served_model_or_an_input(stages: dict[str, StageFacts]) -> None:
    dpo = stages["dpo"]
    given = [stages["prompts"].fingerprint, "e" * 32, dpo.served_as, "0" * 32]
    found = [find_fingerprint(stages, str(each)[:12].upper()) for each in given]
    assert [each.fingerprint for each in found] == given
    assert [(each.what, each.stage) for each in found] == [
        ("artifact", "prompts"),
        ("weights", "dpo"),
        ("served model", "dpo"),
        ("input prompts", "prompts"),
    ]


def test_a_prefix_of_nothing_of_several_or_too_short_is_refused(stages: dict[str, StageFacts]) -> None:
    with pytest.raises(UserError, match=r"--fingerprint abc: give at least 4 digits"):
        find_fingerprint(stages, "abc")
    with pytest.raises(
        UserError, match=r"--fingerprint zzzz: nothing in this run has it; it has .*prompts [0-9a-f]{12}"
    ):
        find_fingerprint(stages, "zzzz")
    twins = {name: StageFacts(name, True, f"abcd{name}") for name in ("one", "two")}
    with pytest.raises(UserError, match=r"abcd is that of several: abcdone \(artifact of one\), abcdtwo .*more digits"):
        find_fingerprint(twins, "abcd")


def test_what_changed_is_told_with_both_values_up_to_its_cause(stages: dict[str, StageFacts]) -> None:
    now = {stage.name: (stage.config, known) for stage, known in identities(small_run.stages(0.5, 0.7)).items()}
    changed = changed_since(stages, "dpo", as_recipe(now), "the recipe")
    assert changed.differences[0] == Difference("dpo.beta", 0.1, 0.5)
    at, path = changed, ["dpo"]
    while at.upstream:
        (at,) = at.upstream
        path.append(at.stage)
    assert path == ["dpo", "tokenized", "preferences", "judgments", "candidates"]
    assert at.differences == (Difference("sampling.temperature", 1.0, 0.7),)
    said = lines_of(changed)
    assert said[0] == f"dpo, against the recipe ({str(changed.fingerprint)[:12]}):"
    assert said[1] == "    dpo.beta: 0.1 -> 0.5"
    assert said[-1].strip() == "sampling.temperature: 1.0 -> 0.7"
    told = as_json(find_fingerprint(stages, str(stages["dpo"].fingerprint)), changed)
    assert told["changed"]["differences"][0] == {"field": "dpo.beta", "before": 0.1, "after": 0.5}
    assert told["changed"]["upstream"][0]["stage"] == "tokenized"


def test_another_run_is_compared_by_what_it_recorded(stages: dict[str, StageFacts], tmp_path: Path) -> None:
    same = recorded(stages_of(small_run.make(str(tmp_path / "same"))))
    assert lines_of(changed_since(stages, "dpo", same, "same")) == ["dpo: nothing has changed; same makes the same"]
    other = recorded(stages_of(small_run.make(str(tmp_path / "other"), beta=0.3)))
    assert changed_since(stages, "dpo", other, "other").differences == (Difference("dpo.beta", 0.1, 0.3),)
    short = recorded(stages_of(small_run.make(str(tmp_path / "short"), until="prompts")))
    assert lines_of(changed_since(stages, "dpo", short, "short")) == ["dpo: short has no such stage"]
