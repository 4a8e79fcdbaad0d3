"""Check that this process can reach a cluster: address, token and versions.

Without it Ray would fail only after minutes, with a traceback, or hang.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from zephyr_ray.errors import UserError

if TYPE_CHECKING:
    import grpc

_ANSWER_S = 10.0  # for one request
_RESTART_S = 5.0  # how long a restarting GCS may refuse connections
_NODE_S = 5.0
_NO_GRPC = "HTTP/2"  # part of gRPC's message about a server that does not speak it
_HTTP = ("http://", "https://")
_REACH = "check the address, that the cluster runs, and that this machine can reach it"
_TOKEN = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH (a file) or RAY_AUTH_TOKEN to the cluster's token"


def check_driver() -> None:
    """Checks that this process can join the cluster of RAY_ADDRESS as a driver, or start its own. Takes 25 s at most.

    Raises:
        UserError: The cluster does not answer, expects another token, has another version of Ray or Python, or has no
            node on this machine.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        _check_token_file()
        return
    gcs = _gcs_address(address)
    name = f"RAY_ADDRESS={address}" + (f" ({gcs})" if gcs != address else "")  # what Ray resolves auto or localhost to
    _check_versions(name, _cluster_versions(name, gcs))
    _check_node(name, gcs)


def check_api(address: str) -> None:
    """Checks that the API server at `http://host:port` accepts jobs from this process. Takes seconds.

    Raises:
        UserError: It does not answer, expects another token, is not Ray's, or has another version.
    """
    import ray
    import requests

    headers = token_header()
    try:
        answer = requests.get(f"{address}/api/version", headers=headers, timeout=_ANSWER_S)
    except requests.Timeout:
        raise UserError(f"{address}: no answer within {_ANSWER_S:g} s; {_REACH}") from None
    except requests.ConnectionError as error:
        said = _system_error(error)
        raise UserError(f"{address}: {said}; {_REACH}") if said else _not_an_api_server(address) from None
    except requests.RequestException:
        raise UserError(f"{address}: give the address of Ray's API server, http://host:port") from None
    if answer.status_code in (401, 403):
        raise _token_error(address, bool(headers))
    try:
        version = answer.json()["ray_version"]
    except (requests.JSONDecodeError, KeyError, TypeError):
        raise _not_an_api_server(address) from None
    if version != ray.__version__:
        raise _version_error(address, f"Ray {version}", f"Ray {ray.__version__}")


def token_header() -> dict[str, str]:
    """The HTTP header with the token; empty if RAY_AUTH_MODE is not `token`.

    Raises:
        UserError: A token is required and there is none.
    """
    from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
    from ray.exceptions import AuthenticationError

    try:
        return get_auth_headers_if_auth_enabled({})
    except AuthenticationError as error:
        raise UserError(f"RAY_AUTH_MODE=token without a token: {str(error).split('. ')[0]}; {_TOKEN}") from None


def _check_token_file() -> None:
    """Checks the token file; if none is named, a cluster on this machine makes its own token."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not path or os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return
    try:
        with open(path) as stream:
            said = "" if stream.read().strip() else "it is empty"
    except OSError as error:
        said = str(error.strerror)
    if said:
        raise UserError(f"RAY_AUTH_TOKEN_PATH={path}: {said}; give a file with a token, or unset it")


def _gcs_address(address: str) -> str:
    from ray._private import services
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    if address.startswith("ray://"):
        raise UserError(
            f"RAY_ADDRESS={address}: a job cannot run through Ray Client; "
            "submit it: zephyr-ray submit --address http://HOST:8265 -- zephyr-ray run ..."
        )
    if address.startswith(_HTTP):
        raise UserError(
            f"RAY_ADDRESS={address} is an API server's, which takes jobs: zephyr-ray submit --address {address} "
            "-- zephyr-ray run ...; to run here instead, unset RAY_ADDRESS"
        )
    if address == "local":
        raise UserError("RAY_ADDRESS=local: unset it; without it a command starts a cluster of its own")
    if address == "auto":
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)  # as ray.init does
    try:
        gcs = services.canonicalize_bootstrap_address(address)
    except ConnectionError:
        raise UserError("RAY_ADDRESS=auto: no Ray runs on this machine; give host:port, or unset it") from None
    except (ValueError, OSError):
        raise UserError(f"RAY_ADDRESS={address}: give host:port of the cluster's GCS (port 6379 by default)") from None
    assert gcs is not None  # it is None for `local` only
    return gcs


def _cluster_versions(name: str, gcs: str) -> dict[str, str]:
    """The cluster's versions of Ray and Python."""
    import json

    import grpc

    token = token_header()
    until = time.monotonic() + _RESTART_S
    while True:
        late = time.monotonic() > until
        try:
            value = _read_cluster_metadata(gcs)
        except grpc.RpcError as error:
            if late or error.code() != grpc.StatusCode.UNAVAILABLE or _NO_GRPC in (error.details() or ""):
                raise _gcs_error(name, error, bool(token)) from None
        else:
            if value:
                return json.loads(value)
            if late:
                raise UserError(f"{name}: the cluster has not finished starting; try again")
        time.sleep(1)


def _read_cluster_metadata(gcs: str) -> bytes:
    from ray._common.usage.usage_constants import CLUSTER_METADATA_KEY
    from ray._private.grpc_utils import init_grpc_channel
    from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
    from ray.core.generated.gcs_service_pb2 import InternalKVGetRequest  # type: ignore[attr-defined]
    from ray.core.generated.gcs_service_pb2_grpc import InternalKVGcsServiceStub

    request = InternalKVGetRequest(namespace=KV_NAMESPACE_CLUSTER, key=CLUSTER_METADATA_KEY)
    channel = init_grpc_channel(
        gcs, options=[("grpc.enable_http_proxy", 0)]
    )  # Ray's own connections use no proxy either
    try:
        return InternalKVGcsServiceStub(channel).InternalKVGet(request, timeout=_ANSWER_S).value
    finally:
        channel.close()


def _gcs_error(name: str, error: grpc.Call, with_token: bool) -> UserError:
    import grpc

    code, details = error.code(), error.details() or ""
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return _token_error(name, with_token)
    if _NO_GRPC in details or code == grpc.StatusCode.UNIMPLEMENTED:
        return UserError(
            f"{name}: what answers there is not the cluster's GCS; give host:port of it (port 6379 by default)"
        )
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        said = f"no answer within {_ANSWER_S:g} s"
    else:
        said = details.rstrip("]").rsplit(": ", 1)[-1]
    return UserError(f"{name}: {said}; {_REACH}")


def _token_error(name: str, with_token: bool) -> UserError:
    if with_token:
        return UserError(f"{name}: the cluster takes another token; {_TOKEN}")
    return UserError(f"{name}: the cluster wants a token; {_TOKEN}")


def _check_versions(name: str, cluster: dict[str, str]) -> None:
    from ray._private.utils import check_version_info, compute_version_info

    try:
        check_version_info(cluster, "this machine")
    except RuntimeError:
        own_ray, own_python = compute_version_info()
        theirs = f"Ray {cluster['ray_version']} on Python {cluster['python_version']}"
        raise _version_error(name, theirs, f"Ray {own_ray} on Python {own_python}") from None


def _version_error(name: str, theirs: str, ours: str) -> UserError:
    return UserError(f"{name}: the cluster has {theirs}, this command {ours}; use an image or an environment of one")


def _check_node(name: str, gcs: str) -> None:
    """Checks that this machine is a node of the cluster: a driver talks to the raylet of its own machine."""
    from ray._private.services import get_node_to_connect_for_driver
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    try:
        get_node_to_connect_for_driver(GcsClient(address=gcs), timeout_seconds=int(_NODE_S))
    except RuntimeError:
        raise UserError(
            f"{name}: this machine is no node of that cluster, where a driver has to run; "
            "submit the job: zephyr-ray submit --address http://HOST:8265 -- zephyr-ray run ..."
        ) from None


def _not_an_api_server(address: str) -> UserError:
    return UserError(
        f"{address}: what answers there is not Ray's API server; give http://host:port of it (port 8265 by default)"
    )


def _system_error(error: BaseException) -> str:
    """The operating system's message about a connection, without the libraries' wrapping; empty if there is none."""
    while error.__context__ is not None:
        error = error.__context__
    return (error.strerror or "") if isinstance(error, OSError) else ""
