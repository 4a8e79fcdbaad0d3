"""Arrow schemas of all datasets, and the reasons for dropping rows. A table that does not fit cannot be written."""

from enum import StrEnum

import pyarrow as pa

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
IDS = pa.list_(pa.int32())

PROMPTS = pa.schema([("prompt_id", pa.string()), ("messages", MESSAGES), ("source", pa.string())])
"""`prompt_id` is a hash of the messages; `source` names where the row came from (file:line)."""

_COMPLETION = [
    ("model", pa.string()),
    ("content", pa.string()),
    ("finish_reason", pa.string()),
    ("tokens", pa.int32()),
    ("seed", pa.int64()),
    ("principle", pa.string()),
]
COMPLETION = pa.struct(_COMPLETION)
"""A completion. `model` is its name in the pool; `tokens` counts the generated tokens, null if the server does not
report them; `principle` is the added system message, null if there was none."""

CANDIDATES = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("messages", MESSAGES),
        ("completions", pa.list_(COMPLETION)),
        ("error", pa.string()),
    ]
)
"""A prompt and its completions. `error` says which requests failed and why; it is null if none did."""

ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")
"""What a language model rates from 1 to 5, beside the overall score from 1 to 10."""

_RATING = pa.struct([("rating", pa.float64()), ("spread", pa.float64()), ("rationale", pa.string())])
"""Mean of the judges' ratings, null without any; their standard deviation (n), null below two; the first rationale."""

OPINION = pa.struct(
    [
        ("judge", pa.string()),
        ("repeat", pa.int32()),
        ("is_reversed", pa.bool_()),
        ("position", pa.int32()),
        ("aspect", pa.string()),
        ("rating", pa.float64()),
        ("rationale", pa.string()),
    ]
)
"""One judge's rating of one completion, shown as number `position` (from 0). `is_reversed` marks the position check,
which no mean includes. `rating` is null if no reply could be read."""

JUDGED_COMPLETION = pa.struct(
    [
        *_COMPLETION,
        ("annotations", pa.struct([(aspect, _RATING) for aspect in ASPECTS])),
        ("overall_score", pa.float64()),
        ("overall_spread", pa.float64()),
        ("critique", pa.string()),
        ("opinions", pa.list_(OPINION)),
    ]
)

JUDGE_REPLY = pa.struct(
    [
        ("judge", pa.string()),
        ("repeat", pa.int32()),
        ("is_reversed", pa.bool_()),
        ("aspect", pa.string()),
        ("order", pa.list_(pa.int32())),
        ("attempt", pa.int32()),
        ("raw", pa.string()),
        ("complaint", pa.string()),
    ]
)
"""A raw reply: `order` has the completions' numbers in the order shown; `complaint` says why the reply cannot be read,
null if it can."""

JUDGMENTS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("messages", MESSAGES),
        ("completions", pa.list_(JUDGED_COMPLETION)),
        ("replies", pa.list_(JUDGE_REPLY)),
        ("error", pa.string()),
    ]
)
"""Candidates with ratings, and every raw reply. `error` says which requests failed and why; null if none did."""

DIALOGUES = pa.schema([("dialogue_id", pa.string()), ("messages", MESSAGES), ("source", pa.string())])
"""`dialogue_id` is a hash of the messages; the last message is the assistant's."""

EMBEDDINGS = pa.schema([("dialogue_id", pa.string()), ("embedding", pa.list_(pa.float32()))])
"""A vector of length 1 that stands for a dialogue."""

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
        ("chosen_cut", pa.bool_()),
        ("rejected_cut", pa.bool_()),
        ("source", pa.string()),
    ]
)
"""TRL's conversational preference format. `pair_id` is a hash of prompt, chosen and rejected; `chosen_cut` and
`rejected_cut` say that a completion ends at the maximum of tokens, and not of itself."""

UNPAIRED = pa.schema(
    [
        ("completion_id", pa.string()),
        ("prompt", MESSAGES),
        ("completion", MESSAGES),
        ("label", pa.bool_()),
        ("is_cut", pa.bool_()),
        ("source", pa.string()),
    ]
)
"""TRL's conversational unpaired format: `label` says whether the completion is desirable. `completion_id` is a hash of
the other three."""

DROPPED = pa.schema([("source", pa.string()), ("reason", pa.string()), ("detail", pa.string())])
"""A dropped row: its source, a `Reason`, and the details or the start of its text."""


DROPPED_DIALOGUES = DROPPED.append(pa.field("messages", MESSAGES))
"""A dropped dialogue, with its messages as they were read; null where it could not be read as messages."""

CHANGE = pa.struct([("step", pa.string()), ("turn", pa.int32()), ("before", pa.string()), ("after", pa.string())])
CHANGED = pa.schema([("source", pa.string()), *CHANGE])
"""A turn that a step of cleaning changed: the number of its message in the dialogue (from 0), and its text before and
after; of several turns in a row, of which some went, their roles and texts."""


class Reason(StrEnum):
    """Why a row was dropped."""

    UNDECODABLE_LINE = "undecodable_line"
    """Not JSON, or not UTF-8."""
    UNKNOWN_LAYOUT = "unknown_layout"
    """The keys and types of no known layout."""
    NOT_TEXT = "not_text"
    """A value that should be text is not: a number, a list of images, half a surrogate pair."""
    EMPTY = "empty"
    """A message without a visible character, no tokens left, or no completions."""
    WRONG_ROLES = "wrong_roles"
    """An unknown role, a system message that is not the first, or no user message before the completion."""
    NO_SHARED_PROMPT = "no_shared_prompt"
    """The two conversations differ before their last message."""
    IDENTICAL_PAIR = "identical_pair"
    """Chosen and rejected are the same text, or the same tokens once they are cut."""
    PROMPT_TOO_LONG = "prompt_too_long"
    """A dialogue whose first completion begins after the last token that is kept."""
    UNCLEAR_ANSWERS = "unclear_answers"
    """A dialogue in whose text, as the chat template writes it, the assistant's answers cannot be found."""
    TIE = "tie"
    """No completion scores lower than the best one by more than the margin."""
    NO_SHARED_RATER = "no_shared_rater"
    """No two completions were rated by the same judge in the same aspect."""
    DISAGREEING = "disagreeing"
    """Fewer than two completions whose overall rating and aspects agree."""
    CONTAMINATED = "contaminated"
    """The prompt contains a benchmark's prompt or shares a long run of words with one."""
    REFUSAL = "refusal"
    """An assistant's turn refuses, or nothing of use is left of it without its disclaimer."""
    DISCLAIMER = "disclaimer"
    """An assistant's turn says what assistants lack ("As an AI language model, ...")."""
    UNSCORED = "unscored"
    """A list of completions without any score, or a dialogue without the score that it is to be selected by."""
    LOW_SCORE = "low_score"
    """The best answer to a prompt is not good enough to be learnt."""
    UNPAIRED = "unpaired"
    """A single rated completion, with none to compare it with."""
    REPEATED = "repeated"
    """The same content as another row, which is kept."""
    NEAR_DUPLICATE = "near_duplicate"
    """Almost the same words as another row, which is kept."""
    IN_TRAINING = "in_training"
    """A held-out pair or dialogue whose prompt occurs in the training data."""
    NO_INSTRUCTION = "no_instruction"
    """A teacher's reply holds no instruction, or none that is unlike those there are."""
    TEACHER_CUT = "teacher_cut"
    """A teacher's reply was cut at `max_tokens`."""
    TEACHER_REFUSED = "teacher_refused"
    """A teacher refused in words."""
    REQUEST_FAILED = "request_failed"
    """A request for the row got no reply, even after retries; the next run sends it again."""
    REQUEST_REFUSED = "request_refused"
    """Every request for the row was refused."""
    SERVER_GIVEN_UP = "server_given_up"
    """An endpoint or deployment of the row does not answer; the next run tries it again."""
    OVER_BUDGET = "over_budget"
    """The budget was spent before this row; the next run continues with it."""
    CUT_OFF = "cut_off"
    """The last answer ends in mid-sentence or in code, or every completion that could win at the maximum of tokens."""
    REPETITIVE = "repetitive"
    """An answer says the same over and over."""
    UNREADABLE = "unreadable"
    """A turn that is no language: base64, hexadecimal digits, replacement characters, mostly symbols."""
    TOO_SHORT = "too_short"
    """Fewer turns, or characters in an answer, than the recipe asks for."""
    TOO_LONG = "too_long"
    """More turns, or characters in a turn, than the recipe allows."""
    NOT_SELECTED = "not_selected"
    """A dialogue that was not chosen, a prompt that another round answers, or an earlier round's pair that is not
    replayed."""
    OTHER_LANGUAGE = "other_language"
    """A dialogue in a language that the recipe does not keep."""


def storable(text: str) -> str:
    """The text without lone surrogates, which JSON can contain and UTF-8 (Arrow, HTTP) cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


class Dropped(Exception):  # noqa: N818 (what happens to a row, not an error of the program)
    """Raised to drop a row."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


TOKENIZED_DIALOGUES = pa.schema(
    [
        ("dialogue_id", pa.string()),
        ("input_ids", IDS),
        ("assistant_mask", pa.list_(pa.int8())),
        ("truncated", pa.int32()),
        ("turns_cut", pa.int32()),
        ("answer_cut", pa.bool_()),
    ]
)
"""`assistant_mask` is 1 on tokens that the assistant wrote; `truncated` counts the tokens cut off the end, and
`turns_cut` the messages of which nothing is left; `answer_cut` says that the only answer left is cut, too."""

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

TOKENIZED_UNPAIRED = pa.schema(
    [
        ("completion_id", pa.string()),
        ("prompt_ids", IDS),
        ("completion_ids", IDS),
        ("label", pa.bool_()),
        ("prompt_truncated", pa.int32()),
        ("completion_truncated", pa.int32()),
    ]
)
"""Token ids of a completion; the two counts are the tokens that were cut off."""

UNPAIRED_LOGPS = pa.schema(
    [("completion_id", pa.string()), ("ref_logps", pa.float32()), ("ref_kl_logps", pa.list_(pa.float32()))]
)
"""As `REFERENCE_LOGPS`; `ref_kl_logps` are those of other rows' completions behind this one's prompt, one an epoch."""

GROUPS = pa.schema(
    [
        ("group_id", pa.string()),
        ("prompt_ids", IDS),
        ("completions", pa.list_(IDS)),
        ("chosen", pa.list_(pa.int32())),
        ("rejected", pa.list_(pa.int32())),
        ("pair_ids", pa.list_(pa.string())),
    ]
)
"""A prompt with the token ids of its different completions, and its pairs: `chosen` and `rejected` are numbers of
completions, one of each for each of `pair_ids`."""

GROUP_LOGPS = pa.schema([("group_id", pa.string()), ("ref_logps", pa.list_(pa.float32()))])
"""As `REFERENCE_LOGPS`, one sum for each completion of a group."""
HELD_OUT_REWARDS = pa.schema(
    [("pair_id", pa.string()), ("reward_chosen", pa.float64()), ("reward_rejected", pa.float64())]
)
"""A held-out pair under a reward model; null where a conversation is longer than the model's positions."""

IMPLICIT_REWARDS = pa.schema(
    [
        ("pair_id", pa.string()),
        ("prompt_id", pa.string()),
        ("policy_chosen_logps", pa.float32()),
        ("policy_rejected_logps", pa.float32()),
        ("ref_chosen_logps", pa.float32()),
        ("ref_rejected_logps", pa.float32()),
        ("margin", pa.float64()),
        ("source", pa.string()),
    ]
)
"""A held-out pair under policy and reference: sums of log-probabilities over a completion's tokens, in nats, and
`margin` = beta ((policy_chosen - ref_chosen) - (policy_rejected - ref_rejected))."""
