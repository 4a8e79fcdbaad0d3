"""What every test shares: a closed network, one Ray cluster, no deadlines, a tokenizer that a person can count with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from pytest_socket import socket_allow_hosts

# Before anything imports ray or a Hugging Face library: no usage reports, no network. Lanes share the cores, so that a
# process has one thread. Engines on a CPU get no cores of their own: by vLLM's default each would take the same ones.
# And an engine's one worker is part of the engine's own process, as it is on a GPU; on a CPU it would be one more that
# loads everything.
os.environ.update(
    OMP_NUM_THREADS="1",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    VLLM_CPU_OMP_THREADS_BIND="nobind",
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
)

settings.register_profile("zephyr", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("zephyr")


# Files that share what is slow to start, so that one lane of a parallel run has them; those that take longest first.
GROUPS = (
    ("integration/chat/test_chat_page", "integration/chat/test_chat_two"),
    ("integration/test_pipeline", "integration/test_s3", "integration/test_two_drivers"),
    ("integration/chat/",),
    ("integration/test_autoscaling",),
    (
        "integration/test_feedback",
        "integration/test_sampling",
        "integration/test_generation",
        "integration/test_evaluation",
        "integration/test_versus",
    ),
    ("integration/test_submit",),
    ("integration/test_resume",),
    ("integration/test_elastic",),
    ("unit/training/test_bf16", "unit/training/test_packed_workers", "unit/training/test_zero_resharding"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the groups that take longest first."""
    items.sort(key=lambda item: _group(item.nodeid)[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Gives each lane of a parallel run one group after the other."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)[1]

    return Groups(config, log)


def _group(nodeid: str) -> tuple[int, str]:
    """The number and name of a test's group; a file of no group is one of its own."""
    file = nodeid.split("::")[0]
    for number, places in enumerate(GROUPS):
        if file.removeprefix("tests/").startswith(places):
            return number, places[0]
    return len(GROUPS) + ("/unit/" in file), file


def pytest_runtest_setup() -> None:
    """Opens sockets to this machine only."""
    socket_allow_hosts(["127.0.0.1", "::1"], allow_unix_socket=True)


@pytest.fixture(scope="session")
def outside_data() -> Path:
    """The folder of data that is not part of the project."""
    folder = os.environ.get("ZEPHYR_TEST_DATA")
    if not folder:
        pytest.skip("ZEPHYR_TEST_DATA names no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def outside_model() -> str:
    """The folder of a real chat model, which is not part of the project."""
    folder = os.environ.get("ZEPHYR_TEST_MODEL")
    if not folder:
        pytest.skip("ZEPHYR_TEST_MODEL names no model's folder")
    return folder


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One Ray cluster for the whole session, with four logical CPUs at least, whose workers are forked."""
    import ray.data

    from zephyr_ray.cluster import connect, preload

    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "_node_ip_address": "127.0.0.1"}
    with connect.started(preload.ROWS, object_store_memory=512 << 20, **options):
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield


@pytest.fixture(scope="session")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tokenizer that a person can count with.

    <unk>, <s> and </s> are 0, 1 and 2, and every byte b of the text is token 3 + b.
    """
    return save_byte_tokenizer(tmp_path_factory.mktemp("byte-tokenizer"))


def save_byte_tokenizer(folder: Path, merges: tuple[tuple[str, str], ...] = ()) -> str:
    """Saves a byte-level BPE tokenizer; the n-th merge of two characters (in the byte alphabet) is token 259 + n."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    control = ["<unk>", "<s>", "</s>"]
    vocab = {name: index for index, name in enumerate(control)}
    vocab |= {character: 3 + byte for byte, character in _byte_alphabet().items()}
    vocab |= {first + second: 259 + index for index, (first, second) in enumerate(merges)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=list(merges), unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in control])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    return str(folder)


def _byte_alphabet() -> dict[int, str]:
    """GPT-2's printable stand-in for every byte: itself where it is printable, else 256 and up, in order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + index) for index, byte in enumerate(others)}
