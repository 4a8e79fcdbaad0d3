"""Licences that models and data state."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zephyr_ray.pipeline.licences import licences, stated


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: mit\ntags: [a]\n---\n# A model\n", "mit"),
        ("---\nlicense: [mit, cc-by-4.0]\n---\n", "mit, cc-by-4.0"),
        ("---\nlicense: other\nlicense_name: gemma\n---\n", "gemma"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\ntags: [a]\n---\nlicense: mit\n", None),
        ("# A model\n---\nlicense: mit\n---\n", None),
        ("---\nlicense: [\n---\n", None),
        ("---\n- mit\n---\n", None),
        ("", None),
    ],
)
def test_a_readmes_metadata_state_it(readme: str, licence: str | None) -> None:
    assert stated(readme) == licence


def test_a_folder_or_the_folder_of_a_file_states_it(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "silent").mkdir()
    given = [("preferences.train", str(tmp_path / "rows.jsonl")), ("model.path", str(tmp_path / "silent"))]
    assert licences(given, {}) == {str(tmp_path / "rows.jsonl"): "mit"}


def test_the_hub_states_it_of_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model or a dataset, whichever has the commit; a hub that fails costs nothing but the licence."""

    class Hub:
        def repo_info(self, hub_id: str, *, revision: str, repo_type: str, timeout: float) -> Any:
            if hub_id == "owner/lost" or (repo_type, revision) == ("model", "2"):
                raise RuntimeError("no answer")
            found = {"license": {"1": "apache-2.0", "2": "cc-by-4.0"}.get(revision)}
            return SimpleNamespace(card_data=SimpleNamespace(to_dict=lambda: found) if revision != "3" else None)

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    commits = {"owner/model": "1", "owner/data": "2", "owner/bare": "3", "owner/lost": "1"}
    assert licences([], commits) == {"owner/model": "apache-2.0", "owner/data": "cc-by-4.0"}
