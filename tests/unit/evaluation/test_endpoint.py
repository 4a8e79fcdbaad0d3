"""What is asked of an endpoint before an evaluation: one line says what is wrong with it."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator

import pytest

from zephyr_ray.cluster.ports import free_port
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation import endpoint


class Models(http.server.BaseHTTPRequestHandler):
    """Lists a model to who has the key; under /none it has no such list, and under /page no JSON."""

    def do_GET(self) -> None:
        if self.path == "/page/models":
            return self._answer(200, "<html>")
        if self.path != "/v1/models":
            return self._answer(404, "{}")
        if self.headers["authorization"] != "Bearer secret":
            return self._answer(401, "{}")
        return self._answer(200, json.dumps({"data": [{"id": "zephyr", "max_model_len": 512}]}))

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Models) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_model_is_described(url: str) -> None:
    assert endpoint.described_model(f"{url}/v1", "zephyr", "secret") == {"id": "zephyr", "max_model_len": 512}


def test_an_endpoint_without_a_list_is_asked_all_the_same(url: str) -> None:
    assert endpoint.described_model(f"{url}/none", "zephyr", "secret") == {}


@pytest.mark.parametrize(
    ("path", "model", "key", "says"),
    [
        ("/v1", "zephir", "secret", r"--model zephir: http\S+/v1 has no such model; it lists zephyr"),
        ("/v1", "zephyr", None, r"refuses the request \(401\); --api-key-env names the variable"),
        ("/page", "zephyr", None, r"/page/models is no list of models; --base-url is the address before"),
    ],
)
def test_what_is_wrong_is_told(url: str, path: str, model: str, key: str | None, says: str) -> None:
    with pytest.raises(UserError, match=says):
        endpoint.described_model(url + path, model, key)


def test_nobody_there_is_told() -> None:
    with pytest.raises(UserError, match=r"cannot be reached: .*refused"):
        endpoint.described_model(f"http://127.0.0.1:{free_port()}/v1", "zephyr", None)


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "secret")
    assert (endpoint.api_key("SOME_KEY"), endpoint.api_key(None)) == ("secret", None)
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(UserError, match="--api-key-env SOME_KEY: this variable is not set"):
        endpoint.api_key("SOME_KEY")
