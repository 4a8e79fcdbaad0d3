"""The documentation is built as a site: no page is missing, no link leads nowhere, and every field is explained."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from docs import pages, reference
from zephyr_ray.config import loader
from zephyr_ray.config.recipe import Recipe
from zephyr_ray.config.section import Section
from zephyr_ray.config.training import DPO
from zephyr_ray.schemas import Reason

REPO = Path(__file__).parents[2]


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Builds folder/pages into folder/site, as `make docs` does."""
    config = folder / "mkdocs.yml"
    config.write_text(f"INHERIT: {REPO}/mkdocs.yml\ndocs_dir: {folder}/pages\nsite_dir: {folder}/site\n")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config)]
    return subprocess.run(
        command, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    pages.write(folder / "pages")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_every_page_is_there(site: Path) -> None:
    guides = {path.stem for path in (REPO / "docs").glob("*.md")}
    assert {path.stem for path in site.glob("*.html")} >= guides | {
        "index",
        "CONTRIBUTING",
        "recipe-fields",
        "functions",
    }


def test_links_out_of_docs_lead_to_files_of_the_site(site: Path) -> None:
    page = (site / "cluster.html").read_text()
    assert 'href="jobs/rayjob.yaml"' in page
    assert (site / "jobs" / "rayjob.yaml").read_text() == (REPO / "jobs" / "rayjob.yaml").read_text()
    assert 'href="../index.html#benchmarks"' in (site / "recipes" / "index.html").read_text()


def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    links = ("nowhere.md", "engine.md#nothing", "../zephyr_ray/nothing.py")
    pages.write(tmp_path / "pages")
    text = "".join(f"\n[a link]({link})\n" for link in links)
    (tmp_path / "pages" / "data.md").write_text("# Data\n" + pages.relinked(text, "docs/data.md"))
    done = build(tmp_path)
    assert done.returncode == 1
    assert [link for link in links if f"'{link}'" not in done.stderr] == []


def test_links_follow_their_files() -> None:
    page = "[a](docs/engine.md#memory) [b](LICENSE) [c](https://example.org/docs/x.md) [d](#here) [e](docs/nothing.md)"
    moved = "[a](engine.md#memory) [b](LICENSE) [c](https://example.org/docs/x.md) [d](#here) [e](docs/nothing.md)"
    assert pages.relinked(page, "README.md") == moved
    assert pages.relinked("[a](../README.md#x) [b](data.md)", "docs/engine.md") == "[a](index.md#x) [b](data.md)"
    assert (
        pages.relinked("[a](../docs/data.md) [b](tiny.yaml)", "recipes/README.md") == "[a](../data.md) [b](tiny.yaml)"
    )


@cache
def lines() -> list[str]:
    return reference.recipe_fields().splitlines()


def row(field: str) -> list[str]:
    """The cells of a field's row, by its whole path."""
    (line,) = (line for line in lines() if f'<span id="{field}">' in line)
    return [re.sub(r"<span.*</span>", "", cell).strip() for cell in line.strip("| ").split(" | ")]


def test_every_field_has_a_row_with_its_kind_and_text() -> None:
    def walk(section: type[Section], path: str) -> list[str]:
        names = []
        for name, field in section.model_fields.items():
            nested = list(reference.places_in(f"{path}{name}", field.annotation))
            names += [inner for place, each in nested for inner in walk(each, f"{place}.")]
            names += [] if nested else [f"{path}{name}"]
        return names

    named = walk(Recipe, "")
    assert len(named) > 150
    rows = {name: row(name) for name in named}
    assert [name for name, cells in rows.items() if len(cells) != 5 or len(cells[4]) < 8] == []
    assert {cells[3] for cells in rows.values()} == {"semantic", "compute"}


def test_what_a_row_says() -> None:
    beta = DPO.model_fields["beta"].description
    assert row("dpo.beta") == ["`beta`", "number, > 0", "`0.1`", "semantic", beta]
    assert row("dpo.learning_rate")[2:] == ["`5e-07`", "semantic", "Peak learning rate."]  # Optimisation's own words
    assert row("sft.training.workers")[1:4] == ["whole number or [whole number, whole number]", "`1`", "compute"]
    assert row("dpo.training.gradient_checkpointing")[1] == "`true`, `false` or whole number, ≥ 1"
    assert row("model.lora.target_modules")[1] == "list of text or `all-linear`"
    assert row("sampling.pool.endpoint.base_url")[2:4] == ["required", "compute"]
    assert row("judging.judge.function.type")[1:3] == ["`function`", "required"]
    assert row("judging.judge")[1] == (
        "[`judging.judge.language_models`](#judging.judge.language_models) or "
        "[`judging.judge.function`](#judging.judge.function) or "
        "[`judging.judge.reward_model`](#judging.judge.reward_model) or "
        "[`judging.judge.delta`](#judging.judge.delta)"
    )
    assert row("dialogues.train")[1].startswith("text or list of text or [`dialogues.train.files`]")
    assert "[engine.md](engine.md)" in row("dpo.training.engine")[4]


def recipes_of_the_guides() -> list[tuple[str, str]]:
    """The YAML blocks of docs/*.md that are sections of a recipe, each with its page."""
    found = []
    for path in sorted((REPO / "docs").glob("*.md")):
        blocks = re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL)
        found += [(path.name, block) for block in blocks if set(yaml.safe_load(block)) <= set(Recipe.model_fields)]
    return found


def test_every_recipe_of_a_guide_is_one(tmp_path: Path) -> None:
    recipes = recipes_of_the_guides()
    assert {page for page, _ in recipes} >= {"data.md", "extending.md", "feedback.md", "judging.md", "sampling.md"}
    for page, block in recipes:
        (tmp_path / page).write_text(block)
        loader.load([str(tmp_path / page)], ["model.path=/m"])


def test_functions_are_shown_as_they_are_written() -> None:
    page = reference.functions()
    assert "async def ask(\n    question: Question,\n    row: Mapping[str, Any]," in page
    assert "- `files`: Paths of YAML files, or names of recipes that ship (`zephyr-7b-beta/paper`); a mapping" in page
    assert page.count("```python") == sum(map(len, reference.FUNCTIONS.values()))


def test_every_reason_for_dropping_a_row_is_explained() -> None:
    rows = re.findall(r"^\| (`.+?) \|", (REPO / "docs" / "data.md").read_text(), re.MULTILINE)
    explained = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(name for name in explained if name in {*map(str, Reason)}) == sorted(map(str, Reason))
