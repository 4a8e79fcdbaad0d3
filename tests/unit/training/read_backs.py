"""Counts what would make a GPU stand idle: numbers and sizes that the program asks the device for."""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

aten = torch.ops.aten
# A number for Python (`item`, `bool`, `float`), and operators whose result's size is a number of the data.
_OPERATORS = {
    aten._local_scalar_dense,
    aten.is_nonzero,
    aten.equal,
    aten.nonzero,
    aten.nonzero_numpy,
    aten.masked_select,
    aten.unique_dim,
    aten.unique_consecutive,
    aten._unique,
    aten._unique2,
    aten.bincount,
}
_METHODS = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu}
_INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}


class ReadBacks:
    """Inside, counts read-backs of this thread by the line that asks. Every tensor counts, as if it were on a GPU."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self.modes = contextlib.ExitStack()

    def __enter__(self) -> ReadBacks:
        self.modes.enter_context(_Operators(self))
        self.modes.enter_context(_Methods(self))
        return self

    def __exit__(self, *error: Any) -> None:
        self.modes.close()

    def add(self, what: Any) -> None:
        frames = [frame for frame in traceback.extract_stack() if "/torch/" not in frame.filename]
        line = next(frame for frame in reversed(frames) if frame.filename != __file__)
        self.found[f"{what} at {line.filename}:{line.lineno}: {line.line}"] += 1


class _Operators(TorchDispatchMode):
    def __init__(self, counter: ReadBacks):
        super().__init__()
        self.counter = counter

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        masked = packet in _INDEXED and any(index is not None and index.dtype == torch.bool for index in args[1])
        if packet in _OPERATORS or masked or func is aten.repeat_interleave.Tensor:
            self.counter.add(packet)
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    """What is no operator where a tensor is on the CPU anyway."""

    def __init__(self, counter: ReadBacks):
        super().__init__()
        self.counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _METHODS:
            self.counter.add(func.__name__)
        return func(*args, **(kwargs or {}))


class ReadBacksOfSteps(TrainerCallback):
    """Counts the read-backs of each step of a trainer's own loop: from its begin to the next one's, with its log."""

    def __init__(self) -> None:
        self.steps: list[Counter[str]] = []
        self.counter = ReadBacks()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.counter.__enter__()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append(self.counter.found)
        self.counter.found = Counter()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps = [*self.steps[1:], self.counter.found]
        self.counter.__exit__(None, None, None)
