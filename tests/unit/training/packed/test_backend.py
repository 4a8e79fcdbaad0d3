"""A FlexAttention that does not compile is found before training, and all ranks take the same way around it.

There is no GPU here. A real failure stands for one that a GPU's machine would have: on a CPU torch has no backward of
FlexAttention, and compiling it needs a C++ compiler.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._inductor import config as inductor
from torch.nn.attention.flex_attention import flex_attention

from tests.unit.training.small_models import make_model
from zephyr_ray.errors import UserError
from zephyr_ray.training.packed import attention, backend
from zephyr_ray.training.packed.backend import why_flex_fails, working_backend


def with_another_rank(monkeypatch: pytest.MonkeyPatch, works: bool) -> None:
    """A process group with a rank for which FlexAttention works, or not."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda mine, least: mine.mul_(int(works)))


def on_a_gpu(monkeypatch: pytest.MonkeyPatch, reason: str | None) -> Callable[[Any], str]:
    """`working_backend` as it were on a GPU where FlexAttention works, or not for this reason."""
    monkeypatch.setattr(backend, "why_flex_fails", lambda *arguments: reason)
    monkeypatch.setattr(backend, "choose_backend", lambda wanted, device: "flex")
    return lambda wanted: working_backend(wanted, "cpu", None, torch.bfloat16)


def test_the_reason_is_torchs_own() -> None:
    reason = why_flex_fails(make_model("mistral").config, torch.float32, "cpu")
    assert reason is not None
    assert reason.startswith("NotImplementedError: ")
    assert "backward" in reason
    assert "\n" not in reason


@inductor.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True})
def test_a_missing_compiler_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention compiled, as on a GPU, by a compiler that is not there."""
    compiled = torch.compile(flex_attention, dynamic=True)

    def forward(*states: torch.Tensor, **how: Any) -> torch.Tensor:
        return compiled(*(each.detach() for each in states), **how)

    monkeypatch.setattr(attention, "_plain_flex", lambda: forward)
    reason = why_flex_fails(make_model("mistral").config, torch.float32, "cpu")
    assert reason is not None
    assert "InvalidCxxCompiler: No working C++ compiler" in reason


def test_what_works_is_taken(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    backend = on_a_gpu(monkeypatch, None)
    assert backend("auto") == backend("flex") == "flex"
    with_another_rank(monkeypatch, True)
    assert backend("auto") == "flex"
    assert not caplog.records


@pytest.mark.parametrize(("mine", "other_works"), [("no gcc", True), (None, False), ("no gcc", False)])
def test_where_one_rank_cannot_all_take_sdpa_and_say_so_in_a_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, mine: str | None, other_works: bool
) -> None:
    backend = on_a_gpu(monkeypatch, mine)
    with_another_rank(monkeypatch, other_works)
    with caplog.at_level(logging.WARNING):
        assert backend("auto") == "sdpa"
    (line,) = caplog.messages
    assert (mine or "on another worker") in line
    with pytest.raises(UserError, match=r"training\.packed_attention=flex does not compile .*; auto takes sdpa"):
        backend("flex")


def test_on_a_cpu_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(backend, "why_flex_fails")
    assert working_backend("auto", "cpu", None, torch.float32) == "sdpa"
