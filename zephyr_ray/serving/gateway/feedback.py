"""Keeps people's choices on the chat page as preference rows, in <run>/feedback/, which the DPO stage reads."""

import json
import os
import posixpath
import threading
import time
import uuid
from typing import Annotated, Any, Literal

import pyarrow.fs as pafs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from zephyr_ray.serving.gateway.request_models import Text, load_json, refusal
from zephyr_ray.storage import is_uri, open_filesystem, write_bytes


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Message(_Part):
    role: Literal["system", "user", "assistant"]
    content: Text


class _Answer(_Part):
    model: Annotated[str, Field(min_length=1, max_length=256)]
    fingerprint: Annotated[str, Field(max_length=256)] | None = None
    content: Text


class _Settings(_Part):
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1, le=2**31)
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)] | None], Field(max_length=2)] | None = None


class FeedbackBody(_Part):
    """The body of POST /feedback."""

    id: uuid.UUID
    """Made by the client, so that a choice which is sent twice counts once."""
    kind: Literal["compare", "thumb", "thumb_pair"]
    messages: Annotated[list[_Message], Field(min_length=1, max_length=2000)]
    """The prompt, ending with the user's turn."""
    answers: Annotated[list[_Answer], Field(min_length=1, max_length=2)]
    """In the order in which they were shown; one for a thumb, else two."""
    choice: Literal[0, 1, "tie", "up", "down"]
    """compare: index of the better answer, or tie. thumb: up or down. thumb_pair: index of the one rated up."""
    settings: _Settings | None = None

    @model_validator(mode="after")
    def _check(self) -> "FeedbackBody":
        if len(self.answers) != (1 if self.kind == "thumb" else 2):
            raise ValueError(f"answers: a {self.kind} has {1 if self.kind == 'thumb' else 2}")
        allowed = {"compare": (0, 1, "tie"), "thumb": ("up", "down"), "thumb_pair": (0, 1)}[self.kind]
        if self.choice not in allowed:
            raise ValueError(f"choice: a {self.kind} takes {', '.join(map(str, allowed))}")
        if self.messages[-1].role != "user":
            raise ValueError("messages: the last one must be the user's")
        return self


def parse(data: bytes) -> FeedbackBody:
    """Raises:
    ApiError: Status 400, naming the field.
    """
    try:
        return FeedbackBody.model_validate(load_json(data))
    except ValidationError as error:
        raise refusal(error) from None


def row(body: FeedbackBody) -> dict[str, Any]:
    """The choice as a preference row, in the format of TRL with the scores and models of ours.

    A tie has equal scores; a thumb has one answer and null for the other. The preferences stage drops both and counts
    them, and they stay here for whoever wants them.
    """
    sides: list[_Answer | None] = [*body.answers, None][:2]
    better = {0: 0, 1: 1, "tie": 0, "up": 0, "down": 1}[body.choice]
    chosen, rejected = sides[better], sides[1 - better]
    scores = (0.5, 0.5) if body.choice == "tie" else (1.0, 0.0)
    return {
        "prompt": [message.model_dump() for message in body.messages],
        "chosen": _turn(chosen),
        "rejected": _turn(rejected),
        "score_chosen": scores[0] if chosen else None,
        "score_rejected": scores[1] if rejected else None,
        "chosen_model": chosen.model if chosen else None,
        "rejected_model": rejected.model if rejected else None,
        "chosen_fingerprint": chosen.fingerprint if chosen else None,
        "rejected_fingerprint": rejected.fingerprint if rejected else None,
        "feedback_id": str(body.id),
        "kind": body.kind,
        "choice": body.choice,
        "settings": body.settings.model_dump(exclude_none=True) if body.settings else None,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _turn(answer: _Answer | None) -> list[dict[str, str]] | None:
    return None if answer is None else [{"role": "assistant", "content": answer.content}]


def open_feedback(place: str) -> "Feedback | FeedbackObjects":
    """Where choices are kept: a folder, or a URI.

    Raises:
        UserError: The URI cannot be opened.
    """
    if not is_uri(place):
        return Feedback(os.path.abspath(place))
    filesystem, path = open_filesystem(place)
    return Feedback(path) if isinstance(filesystem, pafs.LocalFileSystem) else FeedbackObjects(filesystem, path)


class FeedbackObjects:
    """A folder of an object store, where nothing can be appended to: one object for each choice, named for its id.

    So a choice that is sent twice counts once, whatever gateway it reaches. An object is there whole or not at all, and
    is there before the client is told so.
    """

    def __init__(self, filesystem: pafs.FileSystem, folder: str):
        self._filesystem, self._folder = filesystem, folder

    def check_writable(self) -> None:
        """Raises OSError where the folder cannot be written."""
        probe = posixpath.join(self._folder, ".writable")
        self._filesystem.create_dir(self._folder, recursive=True)
        write_bytes(self._filesystem, probe, b"")
        self._filesystem.delete_file(probe)

    def store(self, body: FeedbackBody) -> bool:
        """Writes the choice, durably. False where this id is already there."""
        name = posixpath.join(self._folder, f"{body.id}.jsonl")
        if self._filesystem.get_file_info(name).type == pafs.FileType.File:
            return False
        write_bytes(self._filesystem, name, (json.dumps(row(body), ensure_ascii=False) + "\n").encode())
        return True


class Feedback:
    """An append-only folder of JSONL files, one per process that writes.

    A row is written with one call and is on the disk before the client is told so. A kill can cut the last line of a
    file short: no process appends to a file that it did not begin, so a cut line is always the last, and readers see it
    as one broken row.
    """

    def __init__(self, folder: str):
        self._folder, self._lock = folder, threading.Lock()
        self._file: int | None = None
        self._seen: set[str] = set()

    def check_writable(self) -> None:
        """Raises OSError where the folder cannot be made or written."""
        os.makedirs(self._folder, exist_ok=True)
        if not os.access(self._folder, os.W_OK):
            raise PermissionError(13, "Permission denied", self._folder)

    def store(self, body: FeedbackBody) -> bool:
        """Appends the choice, durably. False where this id is already there."""
        line = (json.dumps(row(body), ensure_ascii=False) + "\n").encode()
        with self._lock:
            if self._file is None:
                self._begin()
            if str(body.id) in self._seen:
                return False
            assert self._file is not None
            try:
                if os.write(self._file, line) != len(line):
                    raise OSError("the disk took only a part of a row")
                os.fsync(self._file)
            except OSError:  # nothing may follow a cut line: the next row begins another file
                file, self._file = self._file, None
                os.close(file)  # which may fail for the same reason
                raise
            self._seen.add(str(body.id))
        return True

    def _begin(self) -> None:
        os.makedirs(self._folder, exist_ok=True)
        self._seen = set(_ids(self._folder))
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}.jsonl"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
        self._file = os.open(os.path.join(self._folder, name), flags, 0o644)
        folder = os.open(self._folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def _ids(folder: str) -> list[str]:
    """The ids of the rows that are already there."""
    ids = []
    for name in sorted(os.listdir(folder)):
        if name.endswith(".jsonl"):
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as stream:
                ids += [found for line in stream if (found := _id(line))]
    return ids


def _id(line: str) -> str | None:
    try:
        found = json.loads(line)["feedback_id"]
    except (ValueError, KeyError, TypeError, RecursionError):  # a cut last line, or no row of ours
        return None
    return found if isinstance(found, str) else None
