"""`zephyr-ray serve`: the chat endpoint."""

from __future__ import annotations

import os
from typing import Annotated

import typer

Run = Annotated[
    str | None,
    typer.Option(metavar="ROOT", help="serve the last checkpoint of this run, and keep feedback in it"),
]
OfRun = Annotated[
    str | None,
    typer.Option(
        help="the stage of the run whose checkpoint is served: base, sft, dpo, round_2/dpo ... (default: last)"
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME=PATH",
        help="serve a Hugging Face folder or hub id under this name; may be repeated",
    ),
]
Adapters = Annotated[
    list[str] | None,
    typer.Option("--adapter", metavar="NAME=FOLDER@MODEL", help="a LoRA adapter of a served model"),
]
Host = Annotated[str, typer.Option(help="interface to listen on")]
Port = Annotated[int, typer.Option(help="port to listen on")]
Keys = Annotated[str | None, typer.Option(metavar="FILE", help="API keys' hashes, written by `zephyr-ray keys`")]
Open = Annotated[bool, typer.Option("--open", help="ask for no API key; only with a host on loopback")]
Feedback = Annotated[
    str | None,
    typer.Option(metavar="PLACE", help="folder or URI of people's choices (default: ROOT/feedback)"),
]
Replicas = Annotated[int, typer.Option(help="replicas of each model at most")]
MaxModelLen = Annotated[int | None, typer.Option(help="longest prompt and answer together, in tokens")]
RequestsPerMinute = Annotated[int, typer.Option(help="per key; 0 for no limit")]
LogText = Annotated[bool, typer.Option("--log-text", help="write the requests' bodies to the access log")]


def serve(
    run: Run = None,
    stage: OfRun = None,
    model: Models = None,
    adapter: Adapters = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    keys: Keys = None,
    open_: Open = False,
    feedback: Feedback = None,
    replicas: Replicas = 1,
    max_model_len: MaxModelLen = None,
    requests_per_minute: RequestsPerMinute = 0,
    log_text: LogText = False,
) -> int:
    """Serves chat models over OpenAI's API and on a chat page.

        zephyr-ray serve --run runs/tiny --open
        zephyr-ray serve --model zephyr=HuggingFaceH4/zephyr-7b-beta --model mine=runs/mine/dpo/checkpoint --keys FILE

    It starts Ray on this machine, or joins the cluster of RAY_ADDRESS, and runs until Ctrl-C. For an endpoint that
    stays, deploy a Ray Serve config like serve/config.yaml to a cluster whose nodes were started with
    RAY_SERVE_ENABLE_HA_PROXY=1 and RAY_SERVE_THROUGHPUT_OPTIMIZED=1.
    """
    from zephyr_ray.cluster.connect import FAST_PATH

    os.environ.update(FAST_PATH)  # before Ray is imported, which reads them then

    from zephyr_ray.serving.gateway.launch import serve_until_stopped
    from zephyr_ray.serving.gateway.options import EndpointOptions

    serve_until_stopped(
        EndpointOptions(
            run=run,
            stage=stage,
            models=model or (),
            adapters=adapter or (),
            host=host,
            port=port,
            keys=keys,
            open=open_,
            feedback=feedback,
            replicas=replicas,
            max_model_len=max_model_len,
            requests_per_minute=requests_per_minute,
            log_text=log_text,
        )
    )
    return 0
