"""Prompts and dialogues without those of benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from zephyr_ray.config.data import Dialogues
from zephyr_ray.config.feedback import Prompts
from zephyr_ray.config.section import semantic
from zephyr_ray.data import dialogues, prompts
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.status import changes

BENCH = "Why do veins appear blue?\nWhere was the file_name of it?\n"


def files(folder: Path) -> tuple[str, str]:
    rows, bench = folder / "rows.jsonl", folder / "my_bench.txt"
    asked = ["Why do ve\u00adins really appear blue?", "Hi", "Why do bones bend?"]
    rows.write_text("\n".join(json.dumps({"prompt": each, "completion": "Light."}) for each in asked))
    bench.write_text(BENCH)
    return str(rows), str(bench)


@pytest.mark.usefixtures("ray_cluster")
def test_contaminated_rows_are_left_out_and_counted_by_file(tmp_path: Path) -> None:
    rows, bench = files(tmp_path)
    for name, make in (
        ("prompts", lambda to: prompts.make_prompts(Prompts(train=rows, decontaminate=(bench,)), 0, to)),
        ("dialogues", lambda to: dialogues.make_dialogues(Dialogues(train=rows, decontaminate=(bench,)), 0, to)),
    ):
        artifact = Run(str(tmp_path)).artifact(name)
        report = make(artifact)
        assert (report.rows_out, report.dropped) == (2, {"contaminated": 1})
        assert report.noted == {"contaminated_by my_bench.txt": 1}
        (dropped,) = pq.read_table(f"{artifact.path}/dropped").to_pylist()
        assert dropped["detail"] == "my_bench.txt:1: Why do veins appear blue?"


@pytest.mark.parametrize(("module", "section"), [(prompts, Prompts), (dialogues, Dialogues)])
def test_the_fingerprint_has_the_files_content_and_old_runs_are_not_stale(module, section, tmp_path: Path) -> None:
    rows, bench = files(tmp_path)
    field = f"{section.__name__.lower()}.decontaminate"
    plain, checked = (module.stage(section(train=rows, decontaminate=named), 0) for named in ((), (bench,)))
    assert set(checked.outside()) - set(plain.outside()) == {"decontaminate"}
    before = checked.outside()
    Path(bench).write_text(BENCH + "Another prompt of a benchmark\n")
    assert checked.outside() != before
    with pytest.raises(UserError, match=rf"^{field}: .*nowhere\.txt cannot be read"):
        module.stage(section(train=rows, decontaminate=(f"{tmp_path}/nowhere.txt",)), 0).outside()
    now = {"section": semantic(section(train=rows))}
    earlier = {name: value for name, value in now["section"].items() if not name.startswith("decontaminate")}
    assert changes({"config": {"section": earlier}, "inputs": {}}, now, {}) == []
