"""What the trainers' tests share."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.unit.training.small_models import VOCAB
from zephyr_ray.chat_template import load_tokenizer
from zephyr_ray.config.model import Chat
from zephyr_ray.embedded.model import Sizes, train_tokenizer


@pytest.fixture(scope="module", autouse=True)
def _libraries_are_no_garbage() -> Iterator[None]:
    """Each trainer collects garbage, and would look through all libraries for it: half a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For matrices so small that threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer with `VOCAB` entries."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(Sizes(vocab_size=VOCAB), seed=0).save_pretrained(folder)
    return load_tokenizer(str(folder), Chat())
