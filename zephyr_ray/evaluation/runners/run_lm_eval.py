"""Runs lm-evaluation-harness against an endpoint: `PYTHON run_lm_eval.py JOB.json`.

It is started as a script (`evaluation.lm_eval_process`) in the environment that has `lm_eval`, and imports nothing of
zephyr_ray. JOB.json holds the arguments of `main`. Each line that it prints is an event, a JSON object with one key:
`versions`, `unknown` (task names; nothing was asked then), or `task`, the result or the error of one of the tasks. All
else that `lm_eval` and its libraries print goes to stderr.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]


class UnansweredError(ValueError):
    """The endpoint's reply lacks what the task needs; `lm_eval` itself would go on with a wrong or empty answer."""


def main(job: Json, tell: Callable[[Json], None]) -> None:
    """Evaluates task after task.

    Args:
        job: base_url, model, tokenizer (a folder or None), chat, tasks, mmlu ({subject: {split: Parquet file}}),
            include_path, folder (for files of its own), answers (a folder where replies are kept, to be used again),
            limit, num_fewshot, max_length, concurrency.
        tell: Is called with each event.
    """
    from lm_eval import evaluator
    from lm_eval.tasks import TaskManager

    evaluator.add_env_info = lambda _: None  # with each result it would ask pip and drivers what is on this machine
    tell({"versions": {name: importlib.metadata.version(name) for name in ("lm_eval", "transformers", "datasets")}})
    own = Path(job["folder"]) / "tasks"
    write_mmlu_tasks(job["mmlu"], own)
    manager = TaskManager(include_path=[place for place in (job["include_path"], str(own)) if place])
    names = list(dict.fromkeys([*job["tasks"], *(f"mmlu_{subject}" for subject in job["mmlu"])]))
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        tell({"unknown": unknown})
        return
    model = checked_model(job)
    for name in names:
        tell({"task": {"name": name, **evaluated(name, model, manager, job)}})


def evaluated(name: str, model: Any, manager: Any, job: Json) -> Json:
    """What a task, a group or a tag came to: {"results": ..., "samples": ...}, or {"error": why it has no result}."""
    import lm_eval

    model.cut = 0
    try:
        found = lm_eval.simple_evaluate(
            model=model,
            tasks=[name],
            task_manager=manager,
            limit=job["limit"],
            num_fewshot=job["num_fewshot"],
            use_cache=str(Path(job["answers"]) / name),
            apply_chat_template=job["chat"],
            fewshot_as_multiturn=job["chat"],
            log_samples=True,
        )
    except Exception as error:  # whatever a task raises, it is the lack of its result, and the others go on
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split()) or 'no text'}"}
    kept = ("results", "groups", "versions", "n-shot", "n-samples", "samples")
    return {key: found[key] for key in kept if key in found} | {"cut": model.cut}


def checked_model(job: Json) -> Any:
    """`local-completions` or `local-chat-completions`, which refuse a reply without what was asked for."""
    from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

    class Completions(LocalCompletionsAPI):
        cut = 0

        def batch_loglikelihood_requests(self, chunks: Any) -> Any:
            chunks = [list(chunk) for chunk in chunks]
            lengths = [len(context) + len(answer) for chunk in chunks for _, context, answer in chunk]
            self.cut += sum(length > self.max_length for length in lengths)
            return super().batch_loglikelihood_requests(chunks)

        def parse_logprobs(self, outputs: Any, tokens: Any = None, ctxlens: Any = None, **kwargs: Any) -> Any:
            check_logprobs(outputs, tokens)
            return LocalCompletionsAPI.parse_logprobs(outputs=outputs, tokens=tokens, ctxlens=ctxlens, **kwargs)

        def parse_generations(self, outputs: Any, **kwargs: Any) -> Any:
            check_texts(outputs, lambda choice: choice.get("text"))
            return super().parse_generations(outputs, **kwargs)

    class Chat(LocalChatCompletion):
        cut = 0

        def parse_generations(self, outputs: Any, **kwargs: Any) -> Any:
            check_texts(outputs, lambda choice: (choice.get("message") or {}).get("content"))
            return super().parse_generations(outputs, **kwargs)

    common = {"model": job["model"], "num_concurrent": job["concurrency"], "max_length": job["max_length"]}
    if job["chat"]:
        return Chat(base_url=f"{job['base_url']}/chat/completions", **common)
    return Completions(
        base_url=f"{job['base_url']}/completions",
        tokenizer=job["tokenizer"],
        tokenizer_backend="huggingface",
        add_bos_token=adds_special_tokens(job["tokenizer"]),
        **common,
    )


def adds_special_tokens(tokenizer: str) -> bool:
    """Whether the tokenizer begins a text with a token of its own, as lm_eval's `hf` model lets it by default."""
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tokenizer)
    return loaded("a").input_ids != loaded("a", add_special_tokens=False).input_ids


def check_logprobs(outputs: Json | list[Json], tokens: Sequence[Sequence[int]]) -> None:
    """Checks that there is a log-probability of each token of each prompt, and of the one token after it.

    An endpoint that does not know `echo` gives that of the new token alone. lm_eval would sum up nothing, and find all
    choices equally likely.

    Raises:
        UnansweredError: There is not.
    """
    choices = [choice for out in as_list(outputs) for choice in out["choices"]]
    if sorted(choice["index"] for choice in choices) != list(range(len(tokens))):
        raise UnansweredError(f"{len(choices)} answers to {len(tokens)} prompts")
    for choice in choices:
        found = (choice.get("logprobs") or {}).get("token_logprobs") or []
        expected = len(tokens[choice["index"]]) + 1
        if len(found) != expected:
            raise UnansweredError(
                f"log-probabilities of {len(found)} tokens, not of {expected}: the endpoint has to know `echo` with "
                "`logprobs` and prompts of token ids"
            )
        if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in found[1:]):
            raise UnansweredError("a log-probability that is no finite number")


def check_texts(outputs: Json | list[Json], text_of: Callable[[Json], object]) -> None:
    """Checks that each reply has a text; an empty one is an answer.

    Raises:
        UnansweredError: One has none.
    """
    for out in as_list(outputs):
        if not out.get("choices") or not all(isinstance(text_of(choice), str) for choice in out["choices"]):
            raise UnansweredError(f"a reply without a text: {json.dumps(out)[:200]}")


def as_list(outputs: Json | list[Json]) -> list[Json]:
    return outputs if isinstance(outputs, list) else [outputs]


def write_mmlu_tasks(subjects: Mapping[str, Mapping[str, str]], folder: Path) -> None:
    """Writes a task for each of lm_eval's subjects: its own, so with its prompt and its version, on local data."""
    import lm_eval

    folder.mkdir(parents=True)
    for subject, files in subjects.items():
        own = Path(lm_eval.__file__).parent / "tasks" / "mmlu" / "default" / f"mmlu_{subject}.yaml"
        if not own.is_file():
            continue
        task = {
            "task": f"mmlu_{subject}",
            "include": str(own),
            "dataset_path": "parquet",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": dict(files)},
        }
        (folder / own.name).write_text(yaml.safe_dump(task))


if __name__ == "__main__":
    events = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is no event
    main(
        json.loads(Path(sys.argv[1]).read_text()),
        lambda event: print(json.dumps(event, default=str), file=events, flush=True),
    )
