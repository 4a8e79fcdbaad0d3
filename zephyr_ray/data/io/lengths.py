"""Lengths of kept rows, to keep histograms of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def characters(table: pa.Table, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Characters of a row's messages, for each column of message lists."""
    return {f"{name}_characters": message_characters(table[name]) for name in columns}


def tokens(table: pa.Table, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Tokens of a row, for each column of token ids (`prompt_ids` -> `prompt_tokens`)."""
    return {name.removesuffix("_ids") + "_tokens": pc.list_value_length(table[name]).to_numpy() for name in columns}


def completions(table: pa.Table) -> dict[str, np.ndarray]:
    """Answers of a row."""
    return {"completions": pc.list_value_length(table["completions"]).to_numpy()}


def message_characters(messages: pa.ChunkedArray) -> np.ndarray:
    """Characters of each row's messages."""
    messages = messages.combine_chunks()
    content = pc.struct_field(pc.list_flatten(messages), "content")
    lengths = pc.utf8_length(content).to_numpy(zero_copy_only=False)
    parents = pc.list_parent_indices(messages).to_numpy(zero_copy_only=False)
    return np.bincount(parents, weights=lengths, minlength=len(messages)).astype(np.int64)
