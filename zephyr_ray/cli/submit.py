"""`zephyr-ray submit`: a command as a job on a Ray cluster."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from zephyr_ray.errors import UserError

Command = Annotated[list[str], typer.Argument(metavar="COMMAND", help="the command and its arguments")]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Ray's API server, http://host:port (default: RAY_API_SERVER_ADDRESS, or RAY_ADDRESS where it is a URL)",
    ),
]
Local = Annotated[bool, typer.Option("--local", help="submit to the cluster of `zephyr-ray up`")]
WorkingDir = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="upload this folder; the job runs in a copy of it (default: upload nothing)"),
]
Variables = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        metavar="NAME",
        help="pass this variable of yours on to the job (HF_TOKEN, OPENAI_API_KEY, AWS_...); may be repeated",
    ),
]
Name = Annotated[str | None, typer.Option(metavar="ID", help="the job's id (default: one that Ray makes)")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="do not follow the log to the job's end")]


def submit(
    command: Command,
    address: Address = None,
    local: Local = False,
    working_dir: WorkingDir = None,
    env: Variables = None,
    name: Name = None,
    no_wait: NoWait = False,
) -> int:
    """Submits a command as a job to a Ray cluster.

        zephyr-ray submit --address http://HEAD:8265 -- zephyr-ray run tiny --set run.root=s3://BUCKET/RUN
        zephyr-ray submit --address http://HEAD:8265 --working-dir . -- python jobs/dpo.py --recipe FILE
        zephyr-ray submit --local -- zephyr-ray run tiny --set run.root=/a/folder

    It ends with the job's exit status. The cluster's token is read from RAY_AUTH_TOKEN_PATH (a file) or RAY_AUTH_TOKEN,
    with RAY_AUTH_MODE=token. Ctrl-C leaves the job running, and says how to follow it and how to stop it.
    """
    if local:
        if address:
            raise UserError("--local and --address name two clusters; give one of them")
        address = _address_of_local_cluster()

    from zephyr_ray.cluster.submit import submit as submit_job

    return submit_job(
        command, address=address, variables=env or (), name=name, working_dir=working_dir, wait=not no_wait
    )


def _address_of_local_cluster() -> str:
    """The API server of this machine's cluster, which this process's environment then reaches.

    Raises:
        UserError: None is up.
    """
    from zephyr_ray.cluster import local_cluster

    folder = local_cluster.state_folder()
    head = local_cluster.running(folder)
    if head is None:
        raise UserError("no cluster to submit to is up; start it with zephyr-ray up")
    reaching = local_cluster.environment(folder, local_cluster.LOOPBACK)
    os.environ.clear()
    os.environ.update(reaching)
    return head.api
