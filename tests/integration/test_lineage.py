"""A real checkpoint, its rows and their fingerprints are followed back to what they came from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.integration.jobs import REPO, manifest

pytestmark = pytest.mark.timeout(600)


def lineage(*arguments: str) -> Any:
    command = [sys.executable, "-m", "zephyr_ray", "lineage", *arguments, "--json"]
    return json.loads(subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout)


def test_a_trained_model_knows_its_stages_wherever_it_lies(undisturbed: Path, base_model: Path) -> None:
    told = lineage(str(undisturbed))
    by_name = {each["stage"]: each for each in told["stages"]}
    assert list(by_name) == ["preferences", "tokenized", "reference_logps", "dpo"]
    for name, each in by_name.items():
        made = manifest(undisturbed, name)
        assert each["fingerprint"] == made["fingerprint"]
        assert (each["begun"], each["ended"]) == (made["begun"], made["ended"])
        assert each["uncommitted"] == made.get("uncommitted")  # a copy without .git does not know
        assert each["finished"]
        assert each["versions"]["trl"]
    assert {each["stage"] for each in by_name["dpo"]["inputs"]} == {"tokenized", "reference_logps", None}
    assert by_name["dpo"]["models"][0]["model"] == str(base_model)
    counts = by_name["preferences"]["counts"]
    assert counts["rows_in"] == counts["rows_out"] + sum(counts["dropped"].values())
    in_its_folder = lineage(str(undisturbed / "dpo" / "checkpoint"))
    assert in_its_folder["stages"] == told["stages"]
    assert in_its_folder["fingerprint"] == told["fingerprint"]


def test_a_pair_by_its_id_or_its_source_leads_to_the_model_and_how_often_that_saw_it(undisturbed: Path) -> None:
    pair = pq.read_table(undisturbed / "preferences" / "data").slice(0, 1).to_pylist()[0]
    told = lineage(str(undisturbed), "--row", pair["pair_id"])
    assert told["sources"] == [pair["source"]]
    assert [each["stage"] for each in told["kept"]] == ["preferences", "tokenized", "reference_logps"]
    assert [(each["stage"], each["times"]) for each in told["models"]] == [("dpo", 2)]  # dpo.epochs=2
    by_source = lineage(str(undisturbed), "--row", pair["source"])
    assert by_source | {"asked": pair["pair_id"]} == told


def test_the_fingerprint_of_an_answer_leads_to_the_model_and_to_what_has_changed(undisturbed: Path) -> None:
    served = lineage(str(undisturbed))["fingerprint"]
    told = lineage(str(undisturbed), "--fingerprint", served)
    assert told["match"] == {"fingerprint": served, "what": "served model", "stage": "dpo"}
    assert told["changed"]["differences"] == []
