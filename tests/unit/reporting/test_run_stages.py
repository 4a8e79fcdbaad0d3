"""The stages under a root: found, in order, with what is wrong of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.reporting.runs import counts, finish
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.reporting.row_flow import Arrow, chains
from zephyr_ray.reporting.run_stages import open_root, read_rounds


def names(root: Path) -> list[list[str]]:
    return [[stage.name for stage in each.stages] for each in read_rounds(open_root(str(root)))]


def test_stages_come_after_what_they_read_and_unfinished_ones_last(tmp_path: Path) -> None:
    finish(tmp_path, "a_last", "f3", "f2")
    finish(tmp_path, "evaluation/b_second", "f2", "f1", "outside")
    finish(tmp_path, "c_first", "f1")
    Run(str(tmp_path)).artifact("a_begun").begin("f4")
    (tmp_path / "logs").mkdir()
    finish(tmp_path, "c_first.replaced-f0-000001", "f0")
    assert names(tmp_path) == [["c_first", "evaluation/b_second", "a_last", "a_begun"]]
    begun = read_rounds(open_root(str(tmp_path)))[0].stages[-1]
    assert begun.status.startswith("unfinished, begun 2")


def test_a_later_round_is_another_one(tmp_path: Path) -> None:
    finish(tmp_path, "dpo", "f1")
    finish(tmp_path, "round_2/dpo", "f2", "f1")
    finish(tmp_path, "round_2/evaluation/preferences", "f3", "f2")
    assert names(tmp_path) == [["dpo"], ["dpo", "evaluation/preferences"]]
    assert [each.label for each in read_rounds(open_root(str(tmp_path)), "mine")] == ["mine round_1", "mine round_2"]


@pytest.mark.parametrize(("text", "said"), [("{", "is no JSON"), ("[]", "no fingerprint"), ("{}", "no fingerprint")])
def test_a_broken_manifest_is_told_and_the_others_are_read(tmp_path: Path, text: str, said: str) -> None:
    finish(tmp_path, "dialogues", "f1")
    (finish(tmp_path, "prompts", "f2") / "manifest.json").write_text(text)
    (found,) = read_rounds(open_root(str(tmp_path)))
    assert [(stage.name, stage.is_finished) for stage in found.stages] == [("dialogues", True), ("prompts", False)]
    assert said in found.stages[1].status


def test_what_is_no_run(tmp_path: Path) -> None:
    finish(tmp_path / "run", "dpo", "f1")
    with pytest.raises(UserError, match="there is no such folder; give the folder that run"):
        open_root(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"dpo is one stage of a run; give the run's root: .*/run$"):
        open_root(str(tmp_path / "run" / "dpo"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no stage of a run lies there"):
        open_root(str(tmp_path / "empty"))


def test_rows_flow_from_stage_to_stage(tmp_path: Path) -> None:
    """20 prompts become 30 pairs, of which 28 are trained on; held-out pairs are read beside them."""
    finish(tmp_path, "prompts", "f1", counts=counts(22, 20, empty=2))
    finish(tmp_path, "preferences", "f2", "f1", counts=counts(20, 30, added=15, tie=5))
    finish(tmp_path, "held_out_pairs", "f3", "f2", counts=counts(30, 9, in_training=21))
    finish(tmp_path, "tokenized", "f4", "f2", counts=counts(30, 28, prompt_too_long=2))
    finish(tmp_path, "dpo", "f5", "f4", trained={"rows": 28})
    finish(tmp_path, "evaluation/preferences", "f6", "f3", "f5", counts=counts(9, 9))
    (found,) = read_rounds(open_root(str(tmp_path)))
    flows = {chain.arrows[0].stage: chain for chain in chains(found.stages)}
    assert [arrow.stage for arrow in flows["prompts"].arrows] == ["prompts", "preferences", "tokenized"]
    assert flows["prompts"].arrows[1] == Arrow("preferences", 20, 15, 30, [("tie", 5)])
    assert (flows["prompts"].trained, flows["prompts"].widest) == (("dpo", 28), 35)
    assert [arrow.stage for arrow in flows["held_out_pairs"].arrows] == ["held_out_pairs"]
    assert flows["held_out_pairs"].trained is None
    assert all(arrow.is_balanced for chain in flows.values() for arrow in chain.arrows)
