"""The row of every dataset, as Arrow schemas. Writing is strict: a table that does not fit is an error."""

import pyarrow as pa

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
IDS = pa.list_(pa.int32())

PROMPTS = pa.schema([("prompt_id", pa.string()), ("messages", MESSAGES), ("source", pa.string())])
"""`prompt_id` is a hash of the messages; `source` names where the row came from (file:line)."""

COMPLETION = pa.struct(
    [
        ("model", pa.string()),
        ("content", pa.string()),
        ("finish_reason", pa.string()),
        ("tokens", pa.int32()),
        ("seed", pa.int64()),
    ]
)
"""An answer. `model` is its name in the pool; `tokens` counts what was generated, null where a server does not say."""

CANDIDATES = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("messages", MESSAGES),
        ("completions", pa.list_(COMPLETION)),
        ("error", pa.string()),
    ]
)
"""A prompt and the answers to it. `error` says which requests failed and why; it is null where none did."""

DIALOGUES = pa.schema([("dialogue_id", pa.string()), ("messages", MESSAGES), ("source", pa.string())])
"""`dialogue_id` is a hash of the messages; the last message is the assistant's."""

PREFERENCES = pa.schema(
    [
        ("pair_id", pa.string()),
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("score_chosen", pa.float64()),
        ("score_rejected", pa.float64()),
        ("chosen_model", pa.string()),
        ("rejected_model", pa.string()),
        ("source", pa.string()),
    ]
)
"""TRL's conversational preference format. `pair_id` is a hash of prompt, chosen and rejected."""

DROPPED = pa.schema([("source", pa.string()), ("reason", pa.string()), ("detail", pa.string())])
"""A row that was left out: where it stood, a reason from a short list, and the start of what it said."""

TOKENIZED_DIALOGUES = pa.schema(
    [
        ("dialogue_id", pa.string()),
        ("input_ids", IDS),
        ("assistant_mask", pa.list_(pa.int8())),
        ("truncated", pa.int32()),
    ]
)
"""`assistant_mask` is 1 on tokens that the assistant wrote; `truncated` counts the tokens cut off the end."""

TOKENIZED = pa.schema(
    [
        ("pair_id", pa.string()),
        ("prompt_ids", IDS),
        ("chosen_ids", IDS),
        ("rejected_ids", IDS),
        ("prompt_truncated", pa.int32()),
        ("chosen_truncated", pa.int32()),
        ("rejected_truncated", pa.int32()),
    ]
)
"""Token ids of a pair; the three counts are the tokens that were cut off."""

REFERENCE_LOGPS = pa.schema(
    [("pair_id", pa.string()), ("ref_chosen_logps", pa.float32()), ("ref_rejected_logps", pa.float32())]
)
"""Sums of the frozen reference model's log-probabilities over the completion's tokens, in nats."""
