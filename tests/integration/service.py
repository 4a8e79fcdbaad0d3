"""The chat endpoint as a cluster runs it: `serve deploy` of a config on a head node, real engines behind it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.integration.cluster import BIN, REPO, Head, free_port
from tests.integration.jobs import forked_by
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.fingerprints import fingerprint_files
from zephyr_ray.pipeline.lineage.export import write_to_checkpoint

BUILDERS = "zephyr_ray.serving.applications"
KEY = "a-key-of-the-tests-0001"
REPLICA_PORTS = (31_500, 31_600)
"""What the replicas of the deployed endpoint listen on."""


@dataclass
class Service:
    """A deployed endpoint: its address, a key for it, and how to deploy it anew."""

    head: Head
    folder: Path
    port: int
    model: dict[str, Any]
    gateway: dict[str, Any]
    key: str = KEY
    proxy_location: str = "EveryNode"
    host: str = "127.0.0.1"
    fork_server: str | None = None
    """Socket of one that has loaded what replicas import; else each loads it."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def feedback(self) -> Path:
        return Path(self.gateway["feedback"])

    def deploy(self, *, wait: bool = True, **model: Any) -> None:
        """`serve deploy` with these arguments of the model changed."""
        self.model = {**self.model, **model}
        applications: list[dict[str, Any]] = [
            {"name": "tiny", "route_prefix": None, "import_path": f"{BUILDERS}:model", "args": self.model},
            {"name": "chat", "route_prefix": "/", "import_path": f"{BUILDERS}:chat", "args": self.gateway},
        ]
        if self.fork_server:
            for each in applications:
                each["runtime_env"] = forked_by(self.fork_server)
        config = self.folder / "serve.yaml"
        options = {"host": self.host, "port": self.port}
        wanted = {"proxy_location": self.proxy_location, "http_options": options, "applications": applications}
        config.write_text(yaml.safe_dump(wanted))
        command = [str(BIN / "serve"), "deploy", str(config), "--address", self.head.api]
        done = subprocess.run(command, env=self.head.environment, cwd=REPO, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        if wait:
            self.wait_until_running()

    def applications(self) -> dict[str, Any]:
        token = Path(self.head.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        headers = {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"{self.head.api}/api/serve/applications/", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["applications"]

    def wait_until_running(self, seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while True:
            found = self.applications()
            states = {name: found.get(name, {}).get("status") for name in ("tiny", "chat")}
            if set(states.values()) == {"RUNNING"}:
                return
            failed = [name for name, state in states.items() if state == "DEPLOY_FAILED"]
            assert not failed, json.dumps([found[name]["deployments"] for name in failed], indent=1)[-6000:]
            assert time.monotonic() < deadline, states
            time.sleep(0.5)

    def replicas(self) -> list[dict[str, Any]]:
        """The running replicas of the model."""
        (deployment,) = self.applications()["tiny"]["deployments"].values()
        return [replica for replica in deployment["replicas"] if replica["state"] == "RUNNING"]

    def metric(self, name: str) -> float:
        """The sum of a metric over all its tags, as Prometheus would scrape it from Ray; 0 where it is not exported.

        Ray exports a gauge only while somebody sets it.
        """
        with urllib.request.urlopen(self.head.metrics, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0] == name)


def make_run(root: Path, model: Path) -> Path:
    """A run whose `dpo` stage is finished, with this model as its checkpoint."""
    artifact = Run(str(root)).artifact("dpo")
    fingerprint = fingerprint_files([str(model)])
    artifact.begin(fingerprint)
    shutil.copytree(model, root / "dpo" / "checkpoint")
    manifest = {"stage": "dpo", "fingerprint": fingerprint, "files": [], "checkpoint": "checkpoint"}
    write_to_checkpoint(artifact, manifest, "")
    artifact.finish(manifest)
    return root


def describe(head: Head, folder: Path, run: Path, adapters: dict[str, str]) -> Service:
    """A service of one model with adapters, small bounds, and quick autoscaling; not deployed yet."""
    model = {
        "name": "tiny",
        "run": str(run),
        "adapters": adapters,
        "accelerator": "cpu",
        "max_model_len": 512,
        "engine": {"max_num_seqs": 32},
        "max_requests": 32,
        "target_ongoing_requests": 4,
        "upscale_delay_s": 1,
        "downscale_delay_s": 8,
        "drain_s": 20,
    }
    gateway = {
        "models": {"tiny": list(adapters)},
        "feedback": str(run / "feedback"),
        "limits": {"max_tokens": 400, "n": 4, "body_bytes": 400_000, "timeout_s": 120},
    }
    return Service(head, folder, free_port(), model, gateway)
