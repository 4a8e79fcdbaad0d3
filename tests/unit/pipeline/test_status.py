"""How a stage stands beside what the recipe would make now."""

from pathlib import Path

from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.pipeline.status import Status, status_of

CONFIG = {"sampling": {"temperature": 1.0, "stop": []}, "seed": 0}
INPUTS = {"prompts": "1", "sft": "2"}


def made(tmp_path: Path, *, finished: bool) -> Artifact:
    artifact = Run(str(tmp_path)).artifact("candidates")
    artifact.begin("fingerprint")
    if finished:
        artifact.finish({"fingerprint": "fingerprint", "config": CONFIG, "inputs": INPUTS})
    return artifact


def test_done_unfinished_and_to_do(tmp_path: Path) -> None:
    nothing = Run(str(tmp_path / "none")).artifact("candidates")
    assert status_of(nothing, "fingerprint", CONFIG, INPUTS) == Status("to do")
    artifact = made(tmp_path, finished=False)
    assert status_of(artifact, "fingerprint", CONFIG, INPUTS) == Status("unfinished")
    assert status_of(artifact, "another", CONFIG, INPUTS) == Status("to do")
    artifact = made(tmp_path, finished=True)
    assert status_of(artifact, "fingerprint", CONFIG, INPUTS) == Status("done")


def test_what_changed_is_named(tmp_path: Path) -> None:
    now = {"sampling": {"temperature": 0.5, "stop": [], "top_p": 0.9}, "seed": 0}
    status = status_of(made(tmp_path, finished=True), "another", now, {"prompts": "1", "sft": "3"})
    assert str(status) == "stale (sampling.temperature, sampling.top_p, input sft)"
