"""What the serve command asks for, checked before Ray starts: models, address, keys, and where feedback is kept."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zephyr_ray.errors import UserError

if TYPE_CHECKING:
    from pydantic import ValidationError

    from zephyr_ray.serving.gateway.settings import GatewaySettings, ModelApplication


@dataclass(frozen=True)
class EndpointOptions:
    """The options of the serve command.

    Attributes:
        run: Root of a run whose last checkpoint is served.
        stage: The stage whose checkpoint is served (`base`, `sft`, `dpo`, `round_2/dpo` ...); None: the last.
        models: Further models, `NAME=PATH` each, of a Hugging Face folder or hub id.
        adapters: LoRA adapters of served models, `NAME=FOLDER@MODEL` each.
        host: Interface to listen on.
        port: Port to listen on.
        keys: File of API keys' hashes.
        open: Ask for no API key.
        feedback: Folder or URI of people's choices; None: `feedback` in the run.
        replicas: Replicas of each model at most.
        max_model_len: Longest prompt and answer together, in tokens; None: the model's own.
        requests_per_minute: Per key; 0 for no limit.
        log_text: Write the requests' bodies to the access log.
    """

    run: str | None = None
    stage: str | None = None
    models: Sequence[str] = ()
    adapters: Sequence[str] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    keys: str | None = None
    open: bool = False
    feedback: str | None = None
    replicas: int = 1
    max_model_len: int | None = None
    requests_per_minute: int = 0
    log_text: bool = False


def check_address(options: EndpointOptions) -> None:
    """Sees that there are API keys, or openly none on loopback, and that the port can be had."""
    from zephyr_ray.serving import keys

    if not 1 <= options.port <= 65535:
        raise UserError(f"--port {options.port}: give 1 to 65535")
    loopback = options.host in ("127.0.0.1", "localhost", "::1")
    if options.open and not loopback:
        raise UserError(f"--open goes with a host on loopback, not {options.host}; make keys with zephyr-ray keys")
    if not options.open and keys.read(options.keys) is None:
        raise UserError(f"give API keys: --keys FILE (zephyr-ray keys makes them) or {keys.VARIABLE}; or --open")
    with socket.socket(socket.AF_INET6 if ":" in options.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((options.host, options.port))
        except OSError as error:
            raise UserError(
                f"cannot listen on {options.host}:{options.port}: {error.strerror}; choose --port"
            ) from None


def served_models(options: EndpointOptions) -> list[dict[str, Any]]:
    """What the command line asks for, one dictionary of ServedModel's fields each; checked before Ray starts."""
    from zephyr_ray.pipeline.artifacts import Run
    from zephyr_ray.serving.model_spec import trained_stage

    found: list[dict[str, Any]] = []
    if options.stage and not options.run:
        raise UserError(f"--stage {options.stage} goes with --run")
    if options.run:
        stage = trained_stage(options.run, options.stage)
        found.append({"name": _name_of_run(options.run), "run": Run(options.run).root, "stage": stage})
    for given in options.models:
        name, equals, path = given.partition("=")
        if not equals or not name or not path:
            raise UserError(f"--model {given}: give NAME=PATH")
        if path.startswith(("/", ".", "~")) and not os.path.isdir(path):
            raise UserError(f"--model {given}: {path} is not a folder")
        found.append({"name": name, "path": path})
    if not found:
        raise UserError("nothing to serve; give --run ROOT or --model NAME=PATH")
    names = [each["name"] for each in found]
    for name in names:
        if names.count(name) > 1 or name == "chat":
            raise UserError(f"--model {name}: the name is taken; choose another")
    adapters: set[str] = set()
    for given in options.adapters:
        name, _, rest = given.partition("=")
        folder, _, base = rest.rpartition("@")
        if not name or not folder or base not in names:
            raise UserError(f"--adapter {given}: give NAME=FOLDER@MODEL, where MODEL is one of {', '.join(names)}")
        if name in adapters or name in names:
            raise UserError(f"--adapter {given}: the name is taken; choose another")
        if not os.path.isdir(folder):
            raise UserError(f"--adapter {given}: {folder} is not a folder")
        adapters.add(name)
        found[names.index(base)].setdefault("adapters", {})[name] = os.path.abspath(folder)
    return found


def _name_of_run(root: str) -> str:
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in Path(root).resolve().name)
    return name.strip("._-")[:96] or "model"


def model_application(options: EndpointOptions, fields: dict[str, Any]) -> ModelApplication:
    from pydantic import ValidationError

    from zephyr_ray.serving.gateway.settings import ModelApplication

    try:
        return ModelApplication(
            **fields,
            max_model_len=options.max_model_len,
            max_replicas=options.replicas,
            keys=os.path.abspath(options.keys) if options.keys else None,
            open=options.open,
        )
    except ValidationError as error:
        raise _wrong(error) from None


def _wrong(error: ValidationError) -> UserError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return UserError(f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}")


def gateway_settings(options: EndpointOptions, found: list[dict[str, Any]]) -> GatewaySettings:
    from pydantic import ValidationError

    from zephyr_ray.serving.gateway.settings import GatewaySettings

    feedback = _feedback_place(options)
    try:
        return GatewaySettings(
            models={each["name"]: list(each.get("adapters", {})) for each in found},
            feedback=feedback,
            keys=os.path.abspath(options.keys) if options.keys else None,
            open=options.open,
            limits={"requests_per_minute": options.requests_per_minute},
            log_text=options.log_text,
        )
    except ValidationError as error:
        raise _wrong(error) from None


def _feedback_place(options: EndpointOptions) -> str | None:
    """The folder or URI of people's choices, which can be written."""
    from zephyr_ray.serving.gateway.feedback import open_feedback
    from zephyr_ray.storage import is_uri, refusal

    place = options.feedback or (os.path.join(options.run, "feedback") if options.run else None)
    if place is None:
        return None
    try:
        open_feedback(place).check_writable()
    except OSError as error:
        if is_uri(place):
            raise refusal(f"--feedback {place}", error) from None
        raise UserError(f"feedback cannot be kept in {place}: {error.strerror}; choose --feedback") from None
    return place if is_uri(place) else os.path.abspath(place)
