"""README's tables name what is there: tests, stages, jobs, recipes, and make's targets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zephyr_ray import zephyr
from zephyr_ray.config.recipe import Recipe
from zephyr_ray.training.methods import load_recipe, methods

REPO = Path(__file__).parents[2]
PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]


def table(header: str, page: str = "README.md") -> list[list[str]]:
    """The cells of each row of the table with this header."""
    text = (REPO / page).read_text()
    lines = text[text.index(header) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def claims() -> list[tuple[str, list[str]]]:
    """The claims and their tests."""
    return [(claim, re.findall(r"`(tests/\S+?\.py)`", tests)) for claim, tests in table("| claim | test |")]


def test_every_claim_has_tests_that_are_there() -> None:
    assert len(claims()) > 25
    assert [claim for claim, tests in claims() if not tests] == []
    named = {test for _, tests in claims() for test in tests}
    assert [test for test in sorted(named) if not list(REPO.glob(test))] == []


def test_every_integration_test_holds_a_claim() -> None:
    named = {path for _, tests in claims() for test in tests for path in REPO.glob(test)}
    files = set((REPO / "tests" / "integration").rglob("test_*.py")) - {REPO / "tests" / "integration" / "test_soak.py"}
    assert sorted(str(path.relative_to(REPO)) for path in files - named) == []


def test_every_stage_has_a_row() -> None:
    named = [name for names, *_ in table("| stage | reads |") for name in names.split(", ")]
    files = [str(REPO / "recipes" / name) for name in ("tiny.yaml", "generation.yaml")]
    given = ["preferences.held_out=FILE", "dialogues.held_out=FILE", "generation.seeds=FILE", "embeddings.model=DIR"]
    given.append("generation.methods=[{type: simulated_user, dialogues: 1}]")
    model = "{type: endpoint, name: NAME, model: m, base_url: 'http://h/v1'}"
    other = model.replace("NAME", "OTHER")
    given += [f"evaluation.models=[{model}, {other}]", f"evaluation.judge={model}"]
    given.append("evaluation.mt_bench={questions: FILE, references: null}")
    given.append("evaluation.alpaca_eval={instructions: FILE, baseline: FILE}")
    given += ["evaluation.versus={prompts: FILE, a: NAME, b: OTHER}", "evaluation.judge_agreement={pairs: FILE}"]
    given += ["evaluation.held_out_models=[{name: mine, model: DIR}]", "expo.alpha=0.3"]
    given += ["rounds=2", "each_round.prompts=share", "each_round.replay=1"]
    given.append("sampling.pool=[{type: deployment, name: policy, model: policy}]")
    given.append("preferences.rejected=every_pair")
    ways = [f"dialogues.select={{n: 1, by: {by}}}" for by in ("quality", "diversity")]
    given += [f"{method}={{}}" for method in methods() if method not in Recipe.model_fields]
    stages = {
        re.sub("/(OTHER|orpo|expo|mine)$", "/NAME", stage.kind)
        for way in ways
        for stage in zephyr.stages(load_recipe(files, [*given, way]))
    }
    assert sorted(named) == sorted(stages)


def test_what_a_stage_reads_and_writes_is_named_as_the_stages_are() -> None:
    """`reads` names stages beside plain words; `writes` is a folder of the first of the row's stages."""
    for names, _, writes, job in table("| stage | reads |"):
        first = names.split(", ")[0]
        assert re.match(rf"`{re.escape(first)}/", writes), f"{names} writes {writes}"
        assert all((REPO / path).is_file() for path in re.findall(r"`(\S+)`", job)), job


def test_every_job_is_named_and_every_one_that_is_named_is_there() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"\bjobs/(\w+\.(?:py|yaml))", text))
    assert named == {path.name for path in (REPO / "jobs").iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("page", "header"), [("README.md", "| recipe | what it is |"), ("recipes/README.md", "| recipe | hardware |")]
)
def test_every_recipe_has_a_row(page: str, header: str) -> None:
    linked = [re.search(r"\]\((\S+)\)", cells[0]) for cells in table(header, page)]
    named = [(REPO / page).parent / match[1] for match in linked if match]
    assert sorted(named) == sorted((REPO / "recipes").rglob("*.yaml"))


def targets() -> dict[str, str]:
    """Make's targets that `make help` shows, with what it says of them."""
    return dict(re.findall(r"^([a-z-]+):.*?## (.+)$", (REPO / "Makefile").read_text(), re.MULTILINE))


def test_make_help_shows_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.+)$", (REPO / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert sorted(targets()) == sorted(phony[1].split())


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_make_command_that_a_page_names_is_a_target(page: Path) -> None:
    commands = re.findall(r"(?:^    |[`(]|&& )make\s([a-z-]+)", page.read_text(), re.MULTILINE)
    assert [name for name in commands if name not in targets()] == []


def test_the_table_of_folders_names_what_is_there() -> None:
    """CONTRIBUTING's: a name without a folder lies beside the one before it."""
    for cell, _ in table("| folder | what |", "CONTRIBUTING.md"):
        folder = REPO
        for name in re.findall(r"`([^`]+)`", cell):
            path = REPO / name if (REPO / name).exists() else folder / name
            assert path.exists(), name
            folder = path.parent
