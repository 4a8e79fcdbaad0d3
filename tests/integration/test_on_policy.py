"""GRPO's job on two workers: one is killed, and the training goes on as one that nothing disturbed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import embedded_world
from tests.integration.jobs import kill_and_finish, manifest, metrics
from zephyr_ray.training.prompt_plan import PromptPlan

pytestmark = pytest.mark.timeout(600)

SECTION = (
    "{completions: 4, max_new_tokens: 12, global_batch: 4, max_steps: 6, learning_rate: 1.0e-3, "
    "training: {workers: 2, zero_stage: 2, micro_batch: 8, checkpoint_steps: 1, logging_steps: 1}}"
)


def test_a_lost_worker_is_replaced(base_model: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    given = (f"model.path={base_model}", f"prompts.train={embedded_world.rows('prompts', 30)}", f"grpo={SECTION}")

    def begun() -> bool:
        return any((root / "grpo" / "training_state").glob("*/checkpoint_*/trainer_state.json"))

    status, seen = kill_and_finish("grpo", root, *given, when=begun, victim="RayTrainWorker")
    assert status == 0, seen
    rows = metrics(root, "grpo")
    assert [row["step"] for row in rows] == list(range(1, 7))
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert all(0 <= row["reward"] <= 10 and row["entropy"] > 0 for row in rows)
    prompts = manifest(root, "prompts")["counts"]["out"]
    times = PromptPlan(prompts, 4, 1, 0, max_steps=6).times_seen()
    trained = manifest(root, "grpo")["trained"]
    assert trained == {"rows": prompts, "fewest_times": int(times.min()), "most_times": int(times.max())}
    assert (root / "grpo" / "checkpoint" / "model.safetensors").is_file()
    assert "Reward of own completions" in (root / "report.html").read_text()
