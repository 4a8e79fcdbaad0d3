"""The byte tokenizer of conftest makes ids that can be counted: </s> is 2, a byte b is 3 + b."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.making import make_pairs
from tests.oracles import old_trl
from tests.oracles.encoding import encode_dialogue, encode_pair
from zephyr_ray import schemas
from zephyr_ray.chat_template import (
    EncodedPair,
    encode_pairs,
    load_tokenizer,
)
from zephyr_ray.config.data import Dialogues, Preferences, RowFunction, Tokenized
from zephyr_ray.config.model import Chat
from zephyr_ray.config.recipe import Recipe, RunSection
from zephyr_ray.config.training import SFT
from zephyr_ray.data import tokenized
from zephyr_ray.data.dialogues import make_dialogues
from zephyr_ray.data.formats.layouts import preference
from zephyr_ray.data.io.rows import mixed_schema
from zephyr_ray.data.tokenized import make_tokenized, tokenize_rows, truncate
from zephyr_ray.data.tokenized_dialogues import make_tokenized_dialogues
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.pipeline.tokenizer import TokenizerSource
from zephyr_ray.schemas import Dropped

EOS = 2


def test_truncation_by_hand() -> None:
    pair = EncodedPair([11, 12, 13, 14, 15], [21, 22, 23, EOS], [31, EOS])
    cut = truncate(pair, max_length=6, max_prompt_length=3, tokenization="modern")
    assert cut.pair == EncodedPair(
        [13, 14, 15], [21, 22, 23], [31, EOS]
    )  # the prompt's end, the completion's beginning
    assert (cut.prompt, cut.chosen, cut.rejected) == (2, 1, 0)
    assert truncate(pair, max_length=9, max_prompt_length=5, tokenization="modern") == (pair, 0, 0, 0)


def test_legacy_truncation_by_hand() -> None:
    pair = EncodedPair([11, 12, 13, 14, 15], [21, 22, 23, EOS], [31, EOS])
    assert truncate(pair, 9, 3, "zephyr_legacy") == (pair, 0, 0, 0)  # it fits: the prompt may be longer than 3
    prompt_alone = truncate(pair, 8, 3, "zephyr_legacy")
    assert prompt_alone == (EncodedPair([13, 14, 15], [21, 22, 23, EOS], [31, EOS]), 2, 0, 0)
    both = truncate(EncodedPair([11, 12], [21, 22, 23, EOS], [31, 32, EOS]), 5, 3, "zephyr_legacy")
    assert both.pair == EncodedPair([11, 12], [21, 22], [31, 32])  # of a room of three, two are taken


IDS = st.lists(st.integers(3, 300), max_size=30)


@given(prompt=IDS, answers=st.tuples(IDS, IDS), max_prompt=st.integers(1, 20), room=st.integers(1, 20))
def test_truncation_never_exceeds_the_lengths_and_counts_every_token(
    prompt: list[int], answers: tuple[list[int], list[int]], max_prompt: int, room: int
) -> None:
    pair = EncodedPair(prompt, *([*ids, EOS] for ids in answers))
    cut, *lost = truncate(pair, max_prompt + room, max_prompt, "modern")
    assert len(cut.prompt_ids) <= max_prompt
    assert pair.prompt_ids[len(pair.prompt_ids) - len(cut.prompt_ids) :] == cut.prompt_ids
    assert [len(before) - len(after) for before, after in zip(pair, cut, strict=True)] == lost
    for before, after, gone in zip(pair[1:], cut[1:], lost[1:], strict=True):
        assert after
        assert len(cut.prompt_ids) + len(after) <= max_prompt + room
        assert before[: len(after)] == after
        assert (after[-1] == EOS) == (gone == 0)
        assert not gone or len(cut.prompt_ids) + len(after) == max_prompt + room


@given(prompt=IDS, answers=st.tuples(IDS, IDS), max_prompt=st.integers(1, 20), room=st.integers(1, 20))
def test_legacy_truncation_is_old_trls(
    prompt: list[int], answers: tuple[list[int], list[int]], max_prompt: int, room: int
) -> None:
    pair = EncodedPair(prompt, *([*ids, EOS] for ids in answers))
    cut, *lost = truncate(pair, max_prompt + room, max_prompt, "zephyr_legacy")
    assert cut == old_trl.cut(*pair, max_prompt + room, max_prompt)
    assert lost == [len(before) - len(after) for before, after in zip(pair, cut, strict=True)]


def test_how_many_real_pairs_the_two_ways_cut_differently(byte_tokenizer: str, outside_data: Path) -> None:
    """Lengths of Zephyr's recipes times four, as a token of its tokenizer is about four bytes."""
    lines = (outside_data / "preferences" / "ultrafeedback_binarized_eval.jsonl").read_text().splitlines()
    raw = [preference(json.loads(line)) for line in lines if _is_read(line)]
    tokenizer = load_tokenizer(byte_tokenizer, Chat(tokenization="zephyr_legacy"))
    rows = [(row["prompt"], row["chosen"], row["rejected"]) for row in raw]
    pairs = encode_pairs(tokenizer, rows, "zephyr_legacy")
    legacy, modern = ([truncate(pair, 4096, 2048, how).pair for pair in pairs] for how in ("zephyr_legacy", "modern"))
    assert legacy == [old_trl.cut(*pair, 4096, 2048) for pair in pairs]
    assert (len(pairs), sum(a != b for a, b in zip(legacy, modern, strict=True))) == (175, 17)


def _is_read(line: str) -> bool:
    try:
        preference(json.loads(line))
    except Dropped:
        return False
    return True


def preference_rows(rows: list[tuple[str, str, str]]) -> pa.Table:
    def one(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    return pa.Table.from_pylist(
        [
            {
                "pair_id": str(index),
                "prompt": one("user", prompt),
                "chosen": one("assistant", chosen),
                "rejected": one("assistant", rejected),
                "source": f"f:{index}",
            }
            for index, (prompt, chosen, rejected) in enumerate(rows)
        ],
        schema=schemas.PREFERENCES,
    )


def test_rows_equal_the_row_function(byte_tokenizer: str) -> None:
    table = preference_rows([("Hi", "Yes", "No"), ("Hi", "</s>", "é" * 40), ("x" * 40, "a", "b")])
    source = TokenizerSource(ModelSource(byte_tokenizer), Chat())
    made = tokenize_rows(table, source=source, max_length=60, max_prompt_length=30)
    assert made.schema == mixed_schema(schemas.TOKENIZED)
    tokenizer = load_tokenizer(byte_tokenizer, Chat())
    for raw, row in zip(table.to_pylist(), made.to_pylist(), strict=True):
        pair = encode_pair(tokenizer, raw["prompt"], raw["chosen"], raw["rejected"], "modern")
        cut, *lost = truncate(pair, 60, 30, "modern")
        assert [row[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")] == list(cut)
        assert [row[name] for name in ("prompt_truncated", "chosen_truncated", "rejected_truncated")] == lost
        assert (row["pair_id"], row["source"], row["reason"]) == (raw["pair_id"], raw["source"], None)


def test_messages_that_the_template_refuses_are_dropped(byte_tokenizer: str, tmp_path: Path) -> None:
    template = tmp_path / "strict.jinja"
    template.write_text(
        "{% for m in messages %}{% if 'bad' in m.content %}{{ raise_exception('no bad ones') }}{% endif %}"
        "{{ m.role + m.content + eos_token }}{% endfor %}{% if add_generation_prompt %}assistant{% endif %}"
    )
    source = TokenizerSource(ModelSource(byte_tokenizer), Chat(template=str(template)))
    table = preference_rows([("Hi", "Yes", "No"), ("bad", "Yes", "No"), ("Hi", "Yes", "No")])
    made = tokenize_rows(table, source=source, max_length=60, max_prompt_length=30).to_pylist()
    assert [row["reason"] for row in made] == [None, "wrong_roles", None]
    assert "no bad ones" in made[1]["detail"]
    assert made[0]["prompt_ids"] == made[2]["prompt_ids"]


def test_a_pair_without_tokens_on_one_side_is_dropped() -> None:
    raw = {"pair_id": "1", "source": "f:1"}
    cut = functools.partial(truncate, max_length=10, max_prompt_length=5, tokenization="modern")
    row = tokenized._row(raw, EncodedPair([5], [6, EOS], []), cut)
    assert (row["reason"], row["detail"]) == ("empty", "no tokens in rejected_ids")
    assert tokenized._row(raw, EncodedPair([], [6], [7]), cut)["reason"] == "empty"


# --- whole stages on Ray


def finish(artifact: Artifact, files: dict[str, int]) -> None:
    artifact.run.filesystem.create_dir(artifact.path, recursive=True)
    artifact.finish({"fingerprint": "f", "files": [*files]})


def table_of(artifact: Artifact) -> list[dict[str, Any]]:
    return [row for name in artifact.files() for row in pq.read_table(name).to_pylist()]


@pytest.mark.usefixtures("ray_cluster")
def test_from_files_to_tokens_whatever_the_partitioning(byte_tokenizer: str, tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": f"Q{n}", "chosen": "a" * (n % 50 + 1), "rejected": f"b{n}"}) for n in range(300)]
    lines[7], lines[8] = "not json", json.dumps({"prompt": "Q", "chosen": "same", "rejected": "same"})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder, size in ((whole, 300), (parts, 90)):
        folder.mkdir()
        for start in range(0, 300, size):
            (folder / f"{start:03d}.jsonl").write_text("\n".join(lines[start : start + size]))
    outcomes = []
    for folder in (whole, parts):
        run = Run(str(tmp_path / "run" / folder.name))
        recipe = Recipe(
            sft=SFT(),
            preferences=Preferences(train=str(folder)),
            tokenized=Tokenized(max_length=60, max_prompt_length=30),
        )
        report = make_pairs(recipe, run.artifact("preferences"))
        assert (report.rows_in, report.rows_out) == (300, 298)
        assert report.dropped == {"identical_pair": 1, "undecodable_line": 1}
        finish(run.artifact("preferences"), report.files)
        tokenizer = TokenizerSource(ModelSource(byte_tokenizer), recipe.chat)
        made = make_tokenized(recipe.tokenized, tokenizer, run.artifact("preferences"), run.artifact("tokenized"))
        assert (made.rows_in, made.rows_out, made.dropped) == (298, 298, {})
        finish(run.artifact("tokenized"), made.files)
        rows = sorted(table_of(run.artifact("tokenized")), key=lambda row: row["pair_id"])
        assert made.stats["chosen_truncated"]["sum"] == sum(row["chosen_truncated"] for row in rows)
        assert made.stats["chosen_tokens"]["sum"] == sum(len(row["chosen_ids"]) for row in rows)
        outcomes.append((rows, made.stats))
        (dropped,) = pq.read_table(f"{run.path}/preferences/dropped").sort_by("source").to_pylist()[:1]
        assert dropped["source"].endswith(".jsonl:8")
        assert dropped["reason"] == "undecodable_line"
        assert "not json" in dropped["detail"]
    assert outcomes[0] == outcomes[1]


def rows_of(name: str, count: int) -> RowFunction:
    return RowFunction(type="function", function=f"zephyr_ray.embedded.sources:{name}", options={"count": count})


@pytest.mark.usefixtures("ray_cluster")
def test_the_embedded_world(byte_tokenizer: str, tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    recipe = Recipe(
        run=RunSection(seed=3),
        sft=SFT(max_length=64),
        dialogues=Dialogues(train=rows_of("dialogues", 200)),
        preferences=Preferences(train=rows_of("preferences", 60)),
    )
    report = make_pairs(recipe, run.artifact("preferences"))
    assert report.rows_in == 60 == report.rows_out + sum(report.dropped.values())
    assert set(report.dropped) <= {"tie", "identical_pair"}
    assert make_pairs(recipe, run.artifact("again")).stats == report.stats

    report = make_dialogues(recipe.dialogues, recipe.run.seed, run.artifact("dialogues"))
    assert (report.rows_in, report.rows_out) == (200, 200)
    finish(run.artifact("dialogues"), report.files)
    source = TokenizerSource(ModelSource(byte_tokenizer), recipe.chat)
    made = make_tokenized_dialogues(source, run.artifact("dialogues"), run.artifact("tokenized"), 64)
    finish(run.artifact("tokenized"), made.files)
    raw = {row["dialogue_id"]: row["messages"] for row in table_of(run.artifact("dialogues"))}
    tokenizer = load_tokenizer(byte_tokenizer, recipe.chat)
    assert made.rows_in == 200 == made.rows_out + made.dropped.get("prompt_too_long", 0)
    assert made.dropped.get("prompt_too_long", 0) > 0  # 64 bytes are less than some instructions
    rows = table_of(run.artifact("tokenized"))
    for row in rows:  # of one question and one answer each
        whole = encode_dialogue(tokenizer, raw[row["dialogue_id"]], "modern")
        assert row["input_ids"] == whole.input_ids[:64]
        assert row["assistant_mask"] == whole.assistant_mask[:64]
        assert row["truncated"] == max(0, len(whole.input_ids) - 64)
        assert (row["turns_cut"], row["answer_cut"]) == (0, row["truncated"] > 0)
    assert made.noted == {"dialogues cut within their first answer": sum(row["answer_cut"] for row in rows)}
    assert made.stats.keys() == {"input_tokens", "truncated"}


def test_a_missing_tokenizer_fails_before_any_work(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    nowhere = TokenizerSource(ModelSource(str(tmp_path / "nowhere")), Chat())
    with pytest.raises(UserError, match="nowhere is not there on "):
        make_tokenized(Tokenized(), nowhere, run.artifact("preferences"), run.artifact("t"))


def test_the_process_loads_its_tokenizer_once(byte_tokenizer: str) -> None:
    assert (
        TokenizerSource(ModelSource(byte_tokenizer), Chat()).load()
        is TokenizerSource(ModelSource(byte_tokenizer), Chat()).load()
    )


@pytest.mark.parametrize("tokenization", ["modern", "zephyr_legacy"])
def test_a_completion_that_was_cut_is_not_learnt_to_end(byte_tokenizer: str, tokenization: Any) -> None:
    source = TokenizerSource(ModelSource(byte_tokenizer), Chat(tokenization=tokenization))
    rows = preference_rows([("1", "2", "3"), ("1", "2", "3")]).to_pylist()
    rows[1] |= {"chosen_cut": False, "rejected_cut": True}
    table = pa.Table.from_pylist(rows, schema=schemas.PREFERENCES)
    plain, cut = tokenize_rows(table, source=source, max_length=99, max_prompt_length=50).to_pylist()
    assert plain["rejected_ids"][-1] == EOS
    assert cut["rejected_ids"] == plain["rejected_ids"][: plain["rejected_ids"].index(EOS)]
    assert cut["chosen_ids"] == plain["chosen_ids"]


def test_completions_that_are_the_same_once_they_are_cut_are_no_pair(byte_tokenizer: str) -> None:
    source = TokenizerSource(ModelSource(byte_tokenizer), Chat())
    table = preference_rows([("1", "222", "223")])
    (whole,) = tokenize_rows(table, source=source, max_length=99, max_prompt_length=50).to_pylist()
    for room, dropped in ((3, None), (2, "identical_pair")):
        longest = len(whole["prompt_ids"]) + room
        (row,) = tokenize_rows(table, source=source, max_length=longest, max_prompt_length=50).to_pylist()
        assert row["reason"] == dropped
