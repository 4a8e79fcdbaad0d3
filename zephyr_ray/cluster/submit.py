"""Submits a command as a job to a Ray cluster and follows it to its end: `zephyr-ray submit`.

It is `ray job submit` with what can go wrong told first, in one line: an address that cannot be reached, a token that
is missing or wrong, a cluster of another Ray version, a variable that is not set. The cluster's token is read from
RAY_AUTH_TOKEN_PATH (a file) or RAY_AUTH_TOKEN, with RAY_AUTH_MODE=token. Ctrl-C leaves the job running, and says how
to follow it and how to stop it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zephyr_ray.errors import UserError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

_NO_AGENT = "No available agent to submit job"  # right after the start of a head node: its agent comes later
_AGENT_S = 60.0
_SETTLED_S = 30.0  # from the end of the log to that of the job
_EXCLUDES = ["runs", "*.egg-info", ".*_cache", ".hypothesis"]  # beside .gitignore's, which Ray can be told to pass over


def submit(
    command: Sequence[str],
    *,
    address: str | None = None,
    variables: Sequence[str] = (),
    name: str | None = None,
    working_dir: str | None = None,
    wait: bool = True,
) -> int:
    """Runs a command on a cluster.

    Args:
        command: The command and its arguments.
        address: Ray's API server, http://host:port; None: RAY_API_SERVER_ADDRESS, or RAY_ADDRESS where it is a URL.
        variables: Names of environment variables of this process that the job gets.
        name: The job's id; None: one that Ray makes.
        working_dir: A folder that is uploaded, for the job to run in a copy of it.
        wait: Follow the log to the job's end.

    Returns:
        The exit status: the job's own; 130 after Ctrl-C.

    Raises:
        UserError: The job was not submitted.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell started it in the background
    values = _values(variables)
    if working_dir is not None and not os.path.isdir(working_dir):
        raise UserError(f"--working-dir {working_dir} is not a folder")
    client = _client(_address(address))
    job = _submit(client, command, values, name, working_dir)
    known = f"{job} --address {client.get_address()}"
    then = f"  follow  ray job logs --follow {known}\n  stop    ray job stop {known}"
    print(f"submitted {job}\n{then}", flush=True)
    return _wait(client, job, then) if wait else 0


def _wait(client: JobSubmissionClient, name: str, then: str) -> int:
    """Follows the job to its end, or to Ctrl-C, which does not reach it."""
    import aiohttp
    import requests

    try:
        asyncio.run(_follow(client, name))
        return _status(_ended(client, name))
    except KeyboardInterrupt:
        print(f"\n{name} goes on\n{then}")
        return 130
    except (RuntimeError, aiohttp.ClientError, requests.RequestException) as error:  # the server, or the way to it
        print(f"error: lost sight of {name}, which may go on: {_cause(error)}\n{then}", file=sys.stderr)
        return 1


def _address(given: str | None) -> str:
    if given:
        return given.rstrip("/")
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        address = os.environ.get(name, "")
        if address.startswith(("http://", "https://")):
            return address.rstrip("/")
    raise UserError("no cluster to submit to; give --address http://host:port or RAY_API_SERVER_ADDRESS")


def _values(names: Sequence[str]) -> dict[str, str]:
    """The values of these variables here; no message shows one."""
    for name in names:
        if "=" in name:
            raise UserError(f"--env {name.split('=')[0]}: give the name alone; its value is read from the environment")
        if name not in os.environ:
            raise UserError(f"--env {name}: it is not set here; export it, or leave it out")
    return {name: os.environ[name] for name in names}


def _client(address: str) -> JobSubmissionClient:
    from zephyr_ray.cluster.preflight import check_api

    check_api(address)
    from ray.job_submission import JobSubmissionClient

    logging.disable(logging.WARNING)  # at every upload Ray warns that it leaves .git out
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # which Ray prefers to the argument
    return JobSubmissionClient(address)


def _submit(
    client: JobSubmissionClient,
    command: Sequence[str],
    variables: dict[str, str],
    name: str | None,
    working_dir: str | None,
) -> str:
    import requests

    until = time.monotonic() + _AGENT_S
    runtime_env: dict[str, Any] = {"env_vars": variables}
    if working_dir is not None:
        runtime_env |= {"working_dir": working_dir, "excludes": _EXCLUDES}
    while True:
        try:
            return client.submit_job(entrypoint=shlex.join(command), runtime_env=runtime_env, submission_id=name)
        except (RuntimeError, ValueError, requests.RequestException) as error:  # what the server or the upload refuses
            if _NO_AGENT not in str(error) or time.monotonic() > until:
                raise UserError(_cause(error)) from None
        time.sleep(2)


def _cause(error: Exception) -> str:
    """What an error says in the end: the server's are tracebacks."""
    return (str(error).rstrip(". \n") or type(error).__name__).splitlines()[-1]


async def _follow(client: JobSubmissionClient, name: str) -> None:
    async for lines in client.tail_job_logs(name):
        print(lines, end="", flush=True)


def _ended(client: JobSubmissionClient, name: str) -> JobDetails:
    """The job as it ended, which the server knows a little after its last line."""
    until = time.monotonic() + _SETTLED_S
    while True:
        job = client.get_job_info(name)
        if job.status.is_terminal() or time.monotonic() > until:
            return job
        time.sleep(0.2)


def _status(job: JobDetails) -> int:
    print(f"job {job.submission_id}: {job.status.lower()}", file=sys.stderr)
    if job.status == "SUCCEEDED":
        return 0
    if job.driver_exit_code is None:  # it never came to run, or was stopped
        print(job.message, file=sys.stderr)
        return 1
    return job.driver_exit_code if job.driver_exit_code > 0 else 128 - job.driver_exit_code
