"""The Kubernetes manifests: what they name exists, what recipes ask for is offered, nothing asks for privileges."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import ray
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from tests.kuberay import node_groups, read_documents
from zephyr_ray import __version__, zephyr
from zephyr_ray.cli import jobs
from zephyr_ray.cluster import drain, resources
from zephyr_ray.cluster.connect import FAST_PATH
from zephyr_ray.serving.model_spec import ServedModel
from zephyr_ray.training.methods import load_recipe

REPO = Path(__file__).resolve().parents[2]
CLUSTER = read_documents("cluster.yaml")
RAY_CLUSTER = CLUSTER[0]
(JOB,) = read_documents("jobs/rayjob.yaml")
(SERVICE,) = read_documents("serve/rayservice.yaml")
SERVICE_CLUSTER = SERVICE["spec"]["rayClusterConfig"]
RAY_CLUSTERS = {"cluster.yaml": RAY_CLUSTER["spec"], "rayservice.yaml": SERVICE_CLUSTER}
GIB = 1 << 30


def _pods() -> dict[str, dict[str, Any]]:
    """Every pod's spec, by file and group."""
    pods = {"rayjob submitter": JOB["spec"]["submitterPodTemplate"]["spec"]}
    for file, spec in RAY_CLUSTERS.items():
        pods[f"{file} head"] = spec["headGroupSpec"]["template"]["spec"]
        for group in spec["workerGroupSpecs"]:
            pods[f"{file} {group['groupName']}"] = group["template"]["spec"]
    pods["cluster.yaml redis"] = _one("StatefulSet")["spec"]["template"]["spec"]
    return pods


def _one(kind: str) -> dict[str, Any]:
    (found,) = [document for document in CLUSTER if document["kind"] == kind]
    return found


def _containers() -> dict[str, dict[str, Any]]:
    return {pod: container for pod, spec in _pods().items() for container in spec["containers"]}


def _values(node: Any, key: str) -> Iterator[Any]:
    """Everything that stands under a key, anywhere."""
    if isinstance(node, dict):
        if key in node:
            yield node[key]
        for value in node.values():
            yield from _values(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from _values(value, key)


RAY_PODS = [name for name in _pods() if name.startswith(("cluster.yaml", "rayservice.yaml")) and "redis" not in name]


def test_versions_are_the_installed_ones() -> None:
    images = [container["image"] for pod, container in _containers().items() if "redis" not in pod]
    assert set(images) == {f"registry.example.com/zephyr-ray:{__version__}-ray{ray.__version__}"}
    assert {spec["rayVersion"] for spec in RAY_CLUSTERS.values()} == {ray.__version__}
    dockerfile = (REPO / "Dockerfile").read_text()
    assert f"FROM rayproject/ray:{ray.__version__}-py311-gpu\n" in dockerfile
    for lock in ("cpu", "cuda"):
        assert f"\nray=={ray.__version__} \\\n" in (REPO / "requirements" / f"{lock}.lock").read_text()


def test_the_image_is_built_by_its_own_user_and_ends_with_the_code() -> None:
    lines = [line.split(maxsplit=1) for line in (REPO / "Dockerfile").read_text().splitlines()]
    words = [(line[0], line[1]) for line in lines if line and line[0].isupper()]
    assert [value for word, value in words if word == "USER"] == ["ray"]
    copies = [index for index, (word, _) in enumerate(words) if word == "COPY"]
    assert words[copies[-1]][1].endswith(". .")
    assert all("requirements" in words[index][1] for index in copies[:-1])  # so that new code keeps the layers
    assert len(words) - copies[-1] == 2


@pytest.mark.parametrize("pod", _pods())
def test_pods_run_under_the_restricted_standard(pod: str) -> None:
    spec, container = _pods()[pod], _containers()[pod]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for forbidden in ("hostNetwork", "hostPID", "hostIPC", "privileged", "hostPath", "hostPort", "sysctls"):
        assert not list(_values(spec, forbidden))


def test_the_autoscaler_runs_under_it_too() -> None:
    for spec in RAY_CLUSTERS.values():
        options = spec["autoscalerOptions"]
        assert options["version"] == "v2"
        assert options["securityContext"] == _containers()["cluster.yaml head"]["securityContext"]
        assert options["resources"]["requests"] == options["resources"]["limits"]


@pytest.mark.parametrize("pod", _pods())
def test_requests_equal_limits(pod: str) -> None:
    resources = _containers()[pod]["resources"]
    assert resources["requests"] == resources["limits"]
    assert {"cpu", "memory"} <= set(resources["requests"])


@pytest.mark.parametrize("pod", _pods())
def test_mounts_are_volumes_and_claims_exist(pod: str) -> None:
    spec, container = _pods()[pod], _containers()[pod]
    made = {claim["metadata"]["name"] for claim in _one("StatefulSet")["spec"]["volumeClaimTemplates"]}
    volumes = {volume["name"] for volume in spec.get("volumes", ())} | (made if "redis" in pod else set())
    mounts = {mount["name"]: mount["mountPath"] for mount in container.get("volumeMounts", ())}
    assert set(mounts) == volumes
    for claim in _values(spec, "claimName"):
        assert claim == _one("PersistentVolumeClaim")["metadata"]["name"]
    paths = [value["value"] for value in container.get("env", ()) if str(value.get("value", "")).startswith("/")]
    assert all(any(path == mount or path.startswith(f"{mount}/") for mount in mounts.values()) for path in paths)


@pytest.mark.parametrize("pod", RAY_PODS)
def test_the_object_store_fits_into_shared_memory(pod: str) -> None:
    """Ray takes 30 % of a node's memory for it, 200 GB at most, and a slow file where /dev/shm is smaller."""
    (size,) = [
        volume["emptyDir"]["sizeLimit"] for volume in _pods()[pod]["volumes"] if volume["name"] == "shared-memory"
    ]
    memory = _containers()[pod]["resources"]["limits"]["memory"]
    assert _bytes(size) >= min(0.3 * _bytes(memory), 200e9)


def _bytes(quantity: str) -> int:
    assert quantity.endswith("Gi")
    return int(quantity[:-2]) * GIB


@pytest.mark.parametrize("file", RAY_CLUSTERS)
def test_objects_spill_to_a_volume(file: str) -> None:
    spec = RAY_CLUSTERS[file]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        folder = group["rayStartParams"]["object-spilling-directory"]
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": "spill", "mountPath": folder} in container["volumeMounts"]


def test_the_head_holds_no_workloads_and_groups_start_at_none() -> None:
    for spec in RAY_CLUSTERS.values():
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = {group["groupName"]: group for group in RAY_CLUSTER["spec"]["workerGroupSpecs"]}
    assert set(groups) == {"data", "train", "inference"}
    for name, group in groups.items():
        assert (group["replicas"], group["minReplicas"]) == (0, 0)
        assert group["maxReplicas"] > 0
        assert group["idleTimeoutSeconds"] > 0
        assert group["labels"] == {"group": name}
        (container,) = group["template"]["spec"]["containers"]
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (name != "data")
        assert {"readinessProbe", "livenessProbe"} <= set(container)


def test_replicas_have_time_to_finish_their_answers() -> None:
    drain = ServedModel(name="m", path="/m").drain_s
    for file in RAY_CLUSTERS:
        assert _pods()[f"{file} inference"]["terminationGracePeriodSeconds"] > drain


def test_a_training_node_says_in_time_that_it_goes() -> None:
    pod = _pods()["cluster.yaml train"]
    script = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
    *command, option, seconds = shlex.split(script.partition("&&")[0])
    assert (*command, option) == ("timeout", "30", "python", "-m", drain.__name__, "--seconds")
    assert 0 < int(seconds) < pod["terminationGracePeriodSeconds"] - 20


def test_nodes_are_started_for_the_chat_endpoint() -> None:
    for pod in RAY_PODS:
        env = {each["name"]: each["value"] for each in _containers()[pod]["env"]}
        assert env.items() >= FAST_PATH.items()


def test_secrets_are_made_where_the_docs_say() -> None:
    made: dict[str, set[str]] = {}
    for line in (REPO / "docs" / "cluster.md").read_text().replace("\\\n", " ").splitlines():
        words = line.split()
        if words[:4] == ["kubectl", "create", "secret", "generic"]:
            made[words[4]] = {word.split("=")[1] for word in words[5:] if word.startswith("--from-literal=")}
    everything = [*CLUSTER, JOB, SERVICE]
    for reference in _values(everything, "secretKeyRef"):
        assert reference["key"] in made[reference["name"]]
    for reference in _values(everything, "secretRef"):
        assert reference["name"] in made
    for options in _values(everything, "authOptions"):
        assert options["mode"] == "token"
        assert made[options["secretName"]] == {"auth_token"}


def test_no_secret_is_in_a_manifest() -> None:
    assert not [document for document in (*CLUSTER, JOB, SERVICE) if document["kind"] == "Secret"]
    secrets = re.compile("TOKEN|PASSWORD|KEY|SECRET")
    for name, container in _containers().items():
        for variable in container.get("env", ()):
            if secrets.search(variable["name"]):
                assert "value" not in variable, name


def test_redis_is_the_one_that_the_clusters_name() -> None:
    service, redis = _one("Service"), _one("StatefulSet")
    (port,) = service["spec"]["ports"]
    for spec in RAY_CLUSTERS.values():
        assert spec["gcsFaultToleranceOptions"]["redisAddress"] == f"{service['metadata']['name']}:{port['port']}"
    pod = redis["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert redis["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert redis["spec"]["serviceName"] == service["metadata"]["name"]
    assert port["targetPort"] in [each["name"] for each in pod["spec"]["containers"][0]["ports"]]


def test_the_job_goes_to_the_cluster_and_its_command_line_is_read() -> None:
    assert JOB["spec"]["clusterSelector"] == {"ray.io/cluster": RAY_CLUSTER["metadata"]["name"]}
    python, script, *arguments = shlex.split(JOB["spec"]["entrypoint"].replace("/home/ray/zephyr_ray", str(REPO)))
    assert python == "python"
    assert Path(script) == REPO / "jobs" / "pipeline.py"
    with mock.patch("zephyr_ray.cli.pipeline.run") as run:
        jobs.app_of(jobs.pipeline, "")(args=arguments, standalone_mode=False)
    recipe = run.call_args.args[0]()
    assert recipe.run.root.startswith("s3://")


def test_the_services_config_is_serves() -> None:
    assert yaml.safe_load(SERVICE["spec"]["serveConfigV2"]) == yaml.safe_load((REPO / "serve/config.yaml").read_text())


def test_the_service_and_the_cluster_share_their_parts() -> None:
    ours, theirs = RAY_CLUSTER["spec"], SERVICE_CLUSTER
    assert ours.keys() == theirs.keys()
    assert all(ours[key] == theirs[key] for key in ours if key not in ("headGroupSpec", "workerGroupSpecs"))
    groups = {group["groupName"]: group for group in ours["workerGroupSpecs"]}
    pairs = [(ours["headGroupSpec"], theirs["headGroupSpec"])]
    pairs += [(groups[group["groupName"]], group) for group in theirs["workerGroupSpecs"]]
    for one, other in pairs:
        assert _without_scale(one) == _without_scale(other)


def _without_scale(group: dict[str, Any]) -> dict[str, Any]:
    """A group less how many of it there are, and less its probes: a RayService's have KubeRay's own."""
    template = group["template"]
    spec = {key: value for key, value in template["spec"].items() if key != "containers"}
    containers = [
        {key: value for key, value in container.items() if not key.endswith("Probe")}
        for container in template["spec"]["containers"]
    ]
    scale = ("replicas", "minReplicas", "maxReplicas", "template")
    return {key: value for key, value in group.items() if key not in scale} | {"pod": spec, "containers": containers}


def test_the_service_has_nodes_for_its_replicas() -> None:
    config = yaml.safe_load(SERVICE["spec"]["serveConfigV2"])
    (group,) = SERVICE_CLUSTER["workerGroupSpecs"]
    models = [
        ServedModel(**_model_fields(each["args"])) for each in config["applications"] if each["route_prefix"] is None
    ]
    assert sum(model.min_replicas for model in models) == group["minReplicas"]
    assert sum(model.max_replicas for model in models) == group["maxReplicas"]
    assert all(model.labels == group["labels"] for model in models)


def _model_fields(args: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in args.items() if key not in ("keys", "open")}


RECIPES = [str(path.relative_to(REPO)) for path in sorted((REPO / "recipes").rglob("*.yaml"))]


@pytest.mark.parametrize("file", RECIPES)
def test_the_groups_can_hold_every_stage_of_every_recipe(file: str) -> None:
    files = [file]
    if file.endswith("feedback.yaml"):  # merged over a recipe that trains
        files = ["recipes/zephyr-7b-beta/paper.yaml", file]
    if file.endswith(("rounds.yaml", "delta.yaml")):  # merged over one that samples
        files = ["recipes/tiny.yaml", file]
    recipe = load_recipe([str(REPO / each) for each in files], [])
    groups = node_groups(RAY_CLUSTER)
    for stage in zephyr.stages(recipe):
        assert resources.first_that_does_not_fit(stage.demands, groups) is None, stage.name
        for demand in stage.demands:
            assert any(resources.suits(demand, group) for group in groups), demand


def test_ray_reads_the_groups_as_we_do() -> None:
    """KubeRay's autoscaler reads the resource with this function of Ray's."""
    types = _derive_autoscaling_config_from_ray_cr(RAY_CLUSTER | {"metadata": {"name": "c", "namespace": "n"}})
    assert types["available_node_types"]["train"]["labels"] == {"group": "train"}
    assert types["available_node_types"]["train"]["resources"]["GPU"] == 8
    assert types["available_node_types"]["headgroup"]["resources"]["CPU"] == 0
