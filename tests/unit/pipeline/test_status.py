"""How a stage stands beside what the recipe would make now."""

from pathlib import Path

from zephyr_ray.config.section import Section, semantic
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.pipeline.stage import Stage, identities
from zephyr_ray.pipeline.status import Status, status_of

CONFIG = {"sampling": {"temperature": 1.0, "stop": []}, "seed": 0}
INPUTS = {"prompts": "1", "sft": "2"}


def made(tmp_path: Path, *, finished: bool) -> Artifact:
    artifact = Run(str(tmp_path)).artifact("candidates")
    artifact.begin("fingerprint", CONFIG, INPUTS)
    if finished:
        artifact.finish({"fingerprint": "fingerprint", "config": CONFIG, "inputs": INPUTS})
    return artifact


def test_done_unfinished_and_to_do(tmp_path: Path) -> None:
    nothing = Run(str(tmp_path / "none")).artifact("candidates")
    assert status_of(nothing, "fingerprint", CONFIG, INPUTS) == Status("to do")
    artifact = made(tmp_path, finished=False)
    assert status_of(artifact, "fingerprint", CONFIG, INPUTS) == Status("unfinished")
    other = status_of(artifact, "another", CONFIG | {"seed": 1}, INPUTS)
    assert other == Status("stale", ("seed",))
    artifact.finish({"fingerprint": "fingerprint", "config": CONFIG, "inputs": INPUTS})
    assert status_of(artifact, "fingerprint", CONFIG, INPUTS) == Status("done")


def test_what_changed_is_named(tmp_path: Path) -> None:
    now = {"sampling": {"temperature": 0.5, "stop": [], "top_p": 0.9}, "seed": 0}
    status = status_of(made(tmp_path, finished=True), "another", now, {"prompts": "1", "sft": "3"})
    assert str(status) == "stale (sampling.temperature, sampling.top_p, input sft)"


class Former(Section):
    """A section of a former version."""

    temperature: float = 1.0


class Present(Section):
    """The same section with a field more."""

    temperature: float = 1.0
    penalty: float = 0.0


def test_a_field_that_is_newer_than_an_artifact_is_unchanged_at_its_default(tmp_path: Path) -> None:
    artifact = Run(str(tmp_path)).artifact("candidates")
    artifact.begin("former")
    artifact.finish(
        {"fingerprint": "former", "config": {"members": [semantic(Former())]}, "inputs": INPUTS, "files": []}
    )

    def status(section: Section, **inputs: str) -> str:
        return str(status_of(artifact, "present", {"members": [semantic(section)]}, INPUTS | inputs))

    assert status(Present()) == "done"
    assert status(Present(), newer="3") == "done"
    assert status(Present(penalty=0.5)) == "stale (members.0.penalty)"
    assert status(Present(temperature=0.5)) == "stale (members.0.temperature)"
    assert status(Present(), sft="3") == "stale (input sft)"


def test_a_stage_that_is_as_good_as_done_hands_its_fingerprint_on(tmp_path: Path) -> None:
    """What was made from an artifact of a former version is not stale either."""
    run = Run(str(tmp_path))

    def stages(section: Section) -> list[Stage]:
        first = Stage("prompts", "rows", {"prompts": semantic(section)}, lambda context: {})
        return [first, Stage("candidates", "rows", {}, lambda context: {}, inputs={"prompts": first})]

    former = identities(stages(Former()), run)
    for stage, identity in former.items():
        artifact = run.artifact(stage.name)
        artifact.begin(identity.fingerprint)
        record = {"fingerprint": identity.fingerprint, "config": stage.config, "inputs": identity.inputs, "files": []}
        artifact.finish(record)
    present = stages(Present())
    assert [each.fingerprint for each in identities(present, run).values()] == [
        each.fingerprint for each in former.values()
    ]
    changed = stages(Present(penalty=1.0))
    assert not {each.fingerprint for each in identities(changed, run).values()} & {
        each.fingerprint for each in former.values()
    }
