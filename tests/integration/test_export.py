"""Checkpoints load as they are, in transformers and vLLM; adapters are merged and keep their lineage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import embedded_world
from tests.integration.jobs import REPO, copy_run, manifest, run_job

pytestmark = pytest.mark.timeout(600)


def test_the_folder_is_complete(undisturbed: Path) -> None:
    names = {path.name for path in (undisturbed / "dpo" / "checkpoint").iterdir()}
    assert {
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "chat_template.jinja",
    } <= names
    assert "training_args.bin" not in names
    card = (undisturbed / "dpo" / "checkpoint" / "README.md").read_text()
    assert "| beta | 0.1 |" in card
    assert not (undisturbed / "dpo" / "training_state").exists()


def test_transformers_loads_it_and_knows_where_to_stop(undisturbed: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = undisturbed / "dpo" / "checkpoint"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.dtype == torch.float32


def test_a_model_beyond_it_is_made_without_training(
    undisturbed: Path, overrides: tuple[str, ...], base_model: Path, tmp_path: Path
) -> None:
    root = copy_run(undisturbed, tmp_path / "run")
    seen = run_job("dpo", root, *overrides, "expo.alpha=0.5")
    assert "dpo                    already done" in seen
    start, aligned, beyond = (
        load_file(folder / "model.safetensors")
        for folder in (base_model, root / "dpo" / "checkpoint", root / "expo" / "checkpoint")
    )
    assert beyond.keys() == aligned.keys()
    assert any(not torch.equal(start[name], weight) for name, weight in aligned.items())
    for name, weight in beyond.items():
        torch.testing.assert_close(weight, start[name] + 1.5 * (aligned[name] - start[name]), rtol=1e-5, atol=1e-6)
    assert "weights 0.5 beyond" in (root / "expo" / "checkpoint" / "README.md").read_text()
    assert json.loads((root / "expo" / "checkpoint" / "lineage.json").read_text())["of"] == ["expo"]
    assert "zephyr_ray.training.extrapolation" in manifest(root, "expo")["code"]
    assert set(manifest(root, "expo")["inputs"]) >= {"dpo", "dpo weights"}
    assert "expo                   already done" in run_job("dpo", root, *overrides, "expo.alpha=0.5")


def test_vllm_loads_it_and_builds_the_prompt_that_training_saw(undisturbed: Path) -> None:
    """In a process of its own, so that the engine's memory is given back."""
    messages = [{"role": "user", "content": "Sort these words: wolf, ant."}]
    script = f"""
import json, sys
from vllm import LLM, SamplingParams
llm = LLM({str(undisturbed / "dpo" / "checkpoint")!r}, enforce_eager=True, max_model_len=128, seed=0)
out = llm.chat({messages!r}, SamplingParams(max_tokens=4, temperature=0), use_tqdm=False)[0]
print("IDS", json.dumps({{"prompt": list(out.prompt_token_ids), "answer": list(out.outputs[0].token_ids)}}))
"""
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    import os

    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )
    line = next((line for line in done.stdout.splitlines() if line.startswith("IDS ")), None)
    assert line is not None, done.stdout[-3000:] + done.stderr[-3000:]
    ids = json.loads(line.removeprefix("IDS "))

    from zephyr_ray.chat_template import encode, load_tokenizer
    from zephyr_ray.config.model import Chat

    tokenizer = load_tokenizer(str(undisturbed / "dpo" / "checkpoint"), Chat())
    assert ids["prompt"] == encode(tokenizer, messages, add_generation_prompt=True)
    assert len(ids["answer"]) >= 1


ONE_WORKER = ("model.lora.r=4", "dpo.max_steps=3", "dpo.training.zero_stage=0", "dpo.training.workers=1")


def test_adapters_are_trained_and_merged(
    prepared: Path, overrides: tuple[str, ...], base_model: Path, tmp_path: Path
) -> None:
    """One on the model; and on it, merged into the model, one whose training had that in 4 bits."""
    root = copy_run(prepared, tmp_path / "run")
    run_job("dpo", root, *overrides, *ONE_WORKER)
    first = root / "dpo" / "checkpoint"
    _is_merged(base_model, first)

    adapter, root = first / "adapter", tmp_path / "second"
    few = (f"preferences.train={embedded_world.rows('preferences', 24)}", "model.lora.load_in_4bit=true")
    run_job("dpo", root, *overrides, *ONE_WORKER, f"model.path={adapter}", *few)
    _is_merged(first, root / "dpo" / "checkpoint")
    card = (root / "dpo" / "checkpoint" / "README.md").read_text()
    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert f"the adapter {adapter}, merged into its base model {base}" in card
    assert manifest(root, "dpo")["model"]["path"] == str(adapter)


def _is_merged(before: Path, after: Path) -> None:
    """The weights after are those before and the product of the adapter's two matrices, which was trained."""
    adapter = load_file(after / "adapter" / "adapter_model.safetensors")
    config = json.loads((after / "adapter" / "adapter_config.json").read_text())
    name = "model.layers.0.self_attn.q_proj.weight"
    old, new = (load_file(folder / "model.safetensors")[name] for folder in (before, after))
    a, b = (adapter[f"base_model.model.{name.replace('.weight', '')}.lora_{side}.weight"].float() for side in "AB")
    assert torch.allclose(new, old + b @ a * config["lora_alpha"] / config["r"], atol=1e-6)
    assert not torch.equal(new, old)
    assert "a LoRA adapter (r=4" in (after / "README.md").read_text()
