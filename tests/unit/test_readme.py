"""README's table of what holds names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

REPO = Path(__file__).parents[2]


def rows() -> list[tuple[str, list[str]]]:
    """The claims and their tests."""
    text = (REPO / "README.md").read_text()
    table = text[text.index("| claim | test |") :].split("\n\n")[0].splitlines()[2:]
    return [(line.split(" | ")[0], re.findall(r"`(tests/\S+?\.py)`", line)) for line in table]


def test_every_claim_has_tests_that_are_there() -> None:
    assert len(rows()) > 25
    assert [claim for claim, tests in rows() if not tests] == []
    named = {test for _, tests in rows() for test in tests}
    assert [test for test in sorted(named) if not list(REPO.glob(test))] == []


def test_every_integration_test_holds_a_claim() -> None:
    named = {path for _, tests in rows() for test in tests for path in REPO.glob(test)}
    files = set((REPO / "tests" / "integration").rglob("test_*.py")) - {REPO / "tests" / "integration" / "test_soak.py"}
    assert sorted(str(path.relative_to(REPO)) for path in files - named) == []
