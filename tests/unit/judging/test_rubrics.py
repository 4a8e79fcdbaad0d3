"""The texts that judges are sent, and the fingerprint that follows them."""

import re

import pytest

from zephyr_ray.judging import rubrics
from zephyr_ray.schemas import ASPECTS


@pytest.mark.parametrize("aspect", ASPECTS)
def test_an_aspect_describes_each_of_its_five_levels(aspect: str) -> None:
    assert rubrics.scale_of(aspect) == (1, 5)
    assert re.findall(r"^(\d+):", rubrics.rubric(aspect), re.MULTILINE) == ["1", "2", "3", "4", "5"]


def test_the_overall_rubric_covers_one_to_ten_and_asks_for_a_critique() -> None:
    assert rubrics.scale_of("overall") == (1, 10)
    levels = re.findall(r"^(\d+)(?: to (\d+))?:", rubrics.rubric("overall"), re.MULTILINE)
    assert [number for low, high in levels for number in range(int(low), int(high or low) + 1)] == [*range(1, 11)]
    assert "critique" in rubrics.rubric("overall")


def test_what_is_filled_in_is_not_looked_at_again() -> None:
    assert "$mark $$ ${x}" in rubrics.fill("complaint", complaint="$mark $$ ${x}")


def test_every_text_and_the_version_are_in_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {rubrics.rubric_fingerprint()}
    for name in rubrics.texts():
        changed = {**rubrics.texts(), name: rubrics.texts()[name] + "."}
        with monkeypatch.context() as patch:
            patch.setattr(rubrics, "texts", lambda changed=changed: changed)
            seen.add(rubrics.rubric_fingerprint())
    monkeypatch.setattr(rubrics, "PROMPT_VERSION", -1)
    seen.add(rubrics.rubric_fingerprint())
    assert len(seen) == 2 + len(rubrics.texts()) == 2 + 8
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in seen)
