"""The licences that models and data state of themselves: in the metadata of README.md, beside them or on the hub."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

_TIMEOUT_S = 10
_logger = logging.getLogger(__name__)


def licences(local_files: Iterable[tuple[str, str]], commits: Mapping[str, str]) -> dict[str, str]:
    """The licence of each file, folder or hub id that states one.

    Args:
        local_files: (recipe field, path) of models and data on this machine.
        commits: The commits of models and datasets of the hub, by id.
    """
    local = {path: _of_folder(path if os.path.isdir(path) else os.path.dirname(path)) for _, path in local_files}
    hub = {hub_id: _of_hub(hub_id, commit) for hub_id, commit in commits.items()}
    return {name: licence for name, licence in (local | hub).items() if licence}


def stated(readme: str) -> str | None:
    """The licence in the YAML at the beginning of a README.md (the hub's `license`, and `license_name` of others)."""
    begin, _, rest = readme.partition("---\n")
    if begin.strip() or "\n---" not in rest:
        return None
    try:
        metadata = yaml.safe_load(rest[: rest.index("\n---")])
    except yaml.YAMLError:  # a person's file, which need not be metadata
        return None
    return _name_of(metadata) if isinstance(metadata, dict) else None


def _name_of(metadata: Mapping[str, Any]) -> str | None:
    found = metadata.get("license")
    if found == "other":
        found = metadata.get("license_name", found)
    names = found if isinstance(found, list) else [found]
    return ", ".join(str(name) for name in names if name) or None


def _of_folder(folder: str) -> str | None:
    try:
        with open(os.path.join(folder, "README.md"), encoding="utf-8") as stream:
            return stated(stream.read())
    except (OSError, UnicodeDecodeError):  # most folders have none
        return None


def _of_hub(hub_id: str, commit: str) -> str | None:
    """That of a model or dataset; the commit tells which of the two an id is. None where the hub does not answer."""
    from huggingface_hub import HfApi

    for kind in ("model", "dataset"):
        try:
            info: Any = HfApi().repo_info(hub_id, revision=commit, repo_type=kind, timeout=_TIMEOUT_S)
        except Exception as error:  # huggingface_hub raises its own, those of its HTTP client, and OSError
            _logger.info("the hub does not tell the licence of %s as a %s: %s", hub_id, kind, error)
            continue
        return _name_of(info.card_data.to_dict()) if info.card_data else None
    return None
