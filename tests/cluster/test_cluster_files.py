"""config/ and cluster/: read by the schemas of those who will read them, and free of contradictions."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

from engines.voice.attributes import EMOTION_MODEL
from graphs import ray_runtime
from graphs.settings import AppArgs

ROOT = Path(__file__).resolve().parents[2]
SERVE_CONFIGS = sorted(
    path for path in (ROOT / "config").glob("*.yaml") if "applications:" in path.read_text()
)
MANIFESTS = sorted((ROOT / "cluster").glob("*.yaml"))
SHIPPED = sorted(path for room in ("config", "cluster") for path in (ROOT / room).iterdir() if path.is_file())


def named(path: Path) -> str:
    return path.name


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def manifest(kind: str, name: str) -> dict[str, Any]:
    """The one Kubernetes object of that kind and name."""
    found = [
        item
        for path in MANIFESTS
        for item in documents(path)
        if (item["kind"], item["metadata"]["name"]) == (kind, name)
    ]
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    """The RayService's description of its cluster."""
    described: dict[str, Any] = manifest("RayService", "presence")["spec"]["rayClusterConfig"]
    return described


def pod_templates(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        cluster["headGroupSpec"]["template"],
        *(group["template"] for group in cluster["workerGroupSpecs"]),
    ]


def all_pods(cluster: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pod template of everything that cluster/ starts."""
    yield from pod_templates(cluster)
    yield manifest("StatefulSet", "presence-redis")["spec"]["template"]
    yield manifest("Job", "presence-models")["spec"]["template"]


def test_the_shipped_configs_are_these() -> None:
    assert {"gpu.yaml", "local.yaml"} <= {path.name for path in SERVE_CONFIGS}


@pytest.mark.parametrize("path", SERVE_CONFIGS, ids=named)
def test_serve_and_presence_read_every_config(path: Path) -> None:
    config = ServeDeploySchema.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))

    assert [application.name for application in config.applications] == ["presence"]
    assert config.applications[0].import_path == "graphs.app:app"
    assert config.http_options.request_timeout_s is None
    arguments = AppArgs.model_validate(config.applications[0].args)
    assert arguments.models
    assert {model.capability for model in arguments.models} >= {"face", "voice", "tts"}


@pytest.mark.parametrize("path", SERVE_CONFIGS, ids=named)
def test_serve_knows_every_key_of_every_config(path: Path) -> None:
    """Serve's schema passes over keys that it does not know."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))

    assert data.keys() <= ServeDeploySchema.model_fields.keys()
    assert data["http_options"].keys() <= HTTPOptionsSchema.model_fields.keys()
    assert data["applications"][0].keys() <= ServeApplicationSchema.model_fields.keys()


def test_a_wrong_key_of_a_model_would_be_seen() -> None:
    data = yaml.safe_load((ROOT / "config" / "gpu.yaml").read_text(encoding="utf-8"))
    arguments = data["applications"][0]["args"]
    arguments["models"][0]["deployment"]["detector"]["num_gpu"] = 1

    with pytest.raises(ValueError, match="num_gpu"):
        AppArgs.model_validate(arguments)


def test_the_gpu_config_scales_every_part_on_gpus() -> None:
    data = yaml.safe_load((ROOT / "config" / "gpu.yaml").read_text(encoding="utf-8"))
    face, voice, speech = AppArgs.model_validate(data["applications"][0]["args"]).models

    assert set(face.deployment) == {"detector", "recognizer", "attributes", "liveness"}
    assert set(voice.deployment) == {"encoder", "attributes"}
    assert set(speech.deployment) == {"synthesizer"}
    parts = [part for model in (face, voice, speech) for part in model.deployment.values()]
    for part in parts:
        assert 0 < part.num_gpus < 1
        assert part.max_replicas is not None
        assert part.max_replicas > part.min_replicas
        assert part.max_ongoing_requests >= 2 * part.max_batch_size, "the next batch must be able to gather"


def test_the_gpu_config_serves_the_gallery_entries_as_they_are() -> None:
    gallery = yaml.safe_load((ROOT / "config" / "gallery.yaml").read_text(encoding="utf-8"))
    data = yaml.safe_load((ROOT / "config" / "gpu.yaml").read_text(encoding="utf-8"))
    for model in data["applications"][0]["args"]["models"]:
        (entry,) = [item for item in gallery if item["name"] == model["name"]]

        for key in ("backend", "license", "parameters", "options", "known_usecases"):
            assert model.get(key) == entry.get(key)


def test_kuberay_deploys_the_gpu_config() -> None:
    text = manifest("RayService", "presence")["spec"]["serveConfigV2"]

    assert yaml.safe_load(text) == yaml.safe_load((ROOT / "config" / "gpu.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", SHIPPED, ids=named)
def test_authentication_is_switched_off_nowhere(path: Path) -> None:
    assert not re.search(r"RAY_AUTH_MODE\W*disabled|mode:\s*disabled", path.read_text(encoding="utf-8"))


def test_ray_is_the_same_version_everywhere(cluster: dict[str, Any]) -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert cluster["rayVersion"] == pinned[1]
    assert f'"ray[serve]=={pinned[1]}"' in (ROOT / "pyproject.toml").read_text()


def test_calls_between_pods_need_the_token_inside_tls(cluster: dict[str, Any]) -> None:
    assert cluster["authOptions"] == {"mode": "token", "secretName": "presence-ray-token"}
    assert cluster["tlsOptions"] == {"mode": "mTLS"}


def test_the_head_serves_nothing_and_may_die(cluster: dict[str, Any]) -> None:
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert manifest("RayService", "presence")["spec"]["excludeHeadPodFromServeSvc"] is True
    store = manifest("Service", "presence-redis")
    assert cluster["gcsFaultToleranceOptions"]["redisAddress"] == (
        f"{store['metadata']['name']}:{store['spec']['ports'][0]['port']}"
    )


OF_ONE_MACHINE = (
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
    "RAY_AUTH_MODE",
    "RAY_SERVE_HAPROXY_",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_DIRECT_INGRESS_",
)
"""What a cluster has of its own: tokens by authOptions, addresses, ports, paths, time to drain."""


def test_head_and_workers_run_with_the_variables_of_presence_serve(cluster: dict[str, Any]) -> None:
    told = manifest("ConfigMap", "presence-ray")["data"]
    single = ray_runtime.environment(port=8080, directory=Path("/run/presence"))

    shared = {name for name in single if not name.startswith(OF_ONE_MACHINE)}
    assert {name: told[name] for name in shared} == {name: single[name] for name in shared}
    wrapper = Path(told["RAY_SERVE_HAPROXY_BINARY_PATH"])
    image = (ROOT / "cluster" / "Dockerfile").read_text(encoding="utf-8")
    assert f"ENV PATH={wrapper.parent}:" in image
    assert wrapper.name == Path(single["RAY_SERVE_HAPROXY_BINARY_PATH"]).name
    for template in pod_templates(cluster):
        (container,) = template["spec"]["containers"]
        assert container["envFrom"] == [{"configMapRef": {"name": "presence-ray"}}]
        assert [item["name"] for item in container["env"]] == ["PRESENCE_API_KEYS", "PRESENCE_STORE_URL"]


def test_workers_have_a_gpu_and_shared_memory_for_their_object_store(cluster: dict[str, Any]) -> None:
    (group,) = cluster["workerGroupSpecs"]
    pod = group["template"]["spec"]
    (container,) = pod["containers"]

    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert group["minReplicas"] >= 2
    shm = next(volume for volume in pod["volumes"] if volume["name"] == "shm")["emptyDir"]
    assert shm["medium"] == "Memory"
    assert int(group["rayStartParams"]["object-store-memory"]) <= 4 * 2**30
    assert shm["sizeLimit"] == "4Gi"


def test_the_gpus_of_two_workers_hold_the_smallest_deployment(cluster: dict[str, Any]) -> None:
    data = yaml.safe_load((ROOT / "config" / "gpu.yaml").read_text(encoding="utf-8"))
    arguments = AppArgs.model_validate(data["applications"][0]["args"])
    parts = [part for model in arguments.models for part in model.deployment.values()]
    workers = cluster["workerGroupSpecs"][0]["minReplicas"]

    assert sum(part.num_gpus * part.min_replicas for part in parts) <= workers
    cpus = sum(part.num_cpus * part.min_replicas for part in parts)
    cpus += arguments.gateway.num_cpus * arguments.gateway.num_replicas
    requested = cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert cpus <= workers * int(requested["cpu"])


def test_the_image_and_make_put_the_same_packages_for_gpus_in_the_place_of_the_same() -> None:
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "cluster/Dockerfile")]
    made, image = (text.replace("$$", "$") for text in texts)
    wanted = set(re.findall(r'"((?:onnxruntime|faiss)-gpu\S*\$\(sed [^"]+\))"', made))
    assert len(wanted) == 2
    assert wanted == set(re.findall(r'"((?:onnxruntime|faiss)-gpu\S*\$\(sed [^"]+\))"', image))
    assert all(re.search(r"uninstall .*\bonnxruntime\b.* faiss-cpu\b", text) for text in (made, image))


def test_no_container_is_root_or_can_become_it(cluster: dict[str, Any]) -> None:
    for pod in all_pods(cluster):
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_the_models_job_brings_what_pods_cannot_fetch(cluster: dict[str, Any]) -> None:
    data = yaml.safe_load((ROOT / "config" / "gpu.yaml").read_text(encoding="utf-8"))
    (voice,) = (
        model for model in data["applications"][0]["args"]["models"] if "encoder" in model["deployment"]
    )
    assert "attributes" in voice["deployment"]
    assert not any("emotion_model" in option for option in voice.get("options", []))
    for template in pod_templates(cluster):
        (mount,) = (
            one for one in template["spec"]["containers"][0]["volumeMounts"] if one["name"] == "models"
        )
        assert (mount["mountPath"], mount["readOnly"]) == ("/models", True)
    (job,) = manifest("Job", "presence-models")["spec"]["template"]["spec"]["containers"]
    lines = [shlex.split(line) for line in job["command"][-1].splitlines() if not line.startswith("#")]
    assert ["hf", "download", EMOTION_MODEL, "--local-dir", f"/models/{EMOTION_MODEL}"] in lines


def test_every_volume_claim_and_config_map_exists(cluster: dict[str, Any]) -> None:
    volumes = [volume for pod in all_pods(cluster) for volume in pod["spec"].get("volumes", [])]
    claims = {
        item["persistentVolumeClaim"]["claimName"] for item in volumes if "persistentVolumeClaim" in item
    }
    assert claims == {"presence-models"}
    assert manifest("PersistentVolumeClaim", "presence-models")["spec"]["accessModes"] == ["ReadWriteMany"]


def test_every_secret_is_named_in_the_instructions() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in MANIFESTS)
    secrets = set(re.findall(r"secretKeyRef: \{name: ([\w-]+)", text)) | set(
        re.findall(r"secretName: ([\w-]+)", text)
    )

    assert secrets == {"presence-ray-token", "presence-redis", "presence-api-keys", "presence-store"}
    readme = (ROOT / "cluster" / "README.md").read_text(encoding="utf-8")
    for secret in secrets:
        assert f"create secret generic {secret}" in readme


def test_the_network_policies_select_the_pods_that_they_guard(cluster: dict[str, Any]) -> None:
    ray = manifest("NetworkPolicy", "presence-ray")["spec"]["podSelector"]["matchLabels"]
    for template in pod_templates(cluster):
        assert ray.items() <= template["metadata"]["labels"].items()
    store = manifest("NetworkPolicy", "presence-redis")["spec"]["podSelector"]["matchLabels"]
    assert store == manifest("StatefulSet", "presence-redis")["spec"]["template"]["metadata"]["labels"]


def test_clients_reach_the_http_front_and_nothing_else() -> None:
    rules = manifest("NetworkPolicy", "presence-ray")["spec"]["ingress"]
    data = yaml.safe_load((ROOT / "config" / "gpu.yaml").read_text(encoding="utf-8"))
    clients = {"namespaceSelector": {"matchLabels": {"presence-clients": "true"}}}

    opened = [rule["ports"] for rule in rules if clients in rule["from"]]
    assert opened == [[{"protocol": "TCP", "port": data["http_options"]["port"]}]]
    without_ports = [rule["from"] for rule in rules if "ports" not in rule]
    assert without_ports == [[{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "presence"}}}]], (
        "only the cluster's own pods reach every port"
    )


def test_pods_reach_the_postgres_of_the_store(dockerfile: list[str]) -> None:
    rules = manifest("NetworkPolicy", "presence-ray")["spec"]["egress"]
    (store,) = [rule for rule in rules if {"protocol": "TCP", "port": 5432} in rule.get("ports", [])]
    assert store["to"][0]["podSelector"]["matchLabels"] == {"presence-store": "true"}
    assert any('".[postgres]"' in line for line in dockerfile), "the image has the driver"


def test_what_a_container_registers_is_on_a_volume(dockerfile: list[str]) -> None:
    home = "/home/ray/.presence"
    assert any(line.startswith("VOLUME") and home in line.split() for line in dockerfile)
    assert f":{home} " in (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")


def test_no_policy_opens_the_ray_client() -> None:
    policies = documents(ROOT / "cluster" / "networkpolicy.yaml")
    ports = {
        port["port"]
        for policy in policies
        for rule in policy["spec"].get("ingress", [])
        for port in rule.get("ports", [])
    }
    assert ports == {8000, 8265, 52365, 8080, 6379}


@pytest.fixture(scope="module")
def dockerfile() -> list[str]:
    """Its instructions, continuation lines joined, comments dropped."""
    lines = (ROOT / "cluster" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def test_the_image_runs_as_a_user(dockerfile: list[str]) -> None:
    last = max(index for index, line in enumerate(dockerfile) if line.startswith("FROM"))
    assert [line for line in dockerfile[last:] if line.startswith("USER")] == ["USER 1000"]


def test_what_the_image_copies_exists_and_is_let_through(dockerfile: list[str]) -> None:
    sources = {
        word
        for line in dockerfile
        if line.startswith("COPY") and "--from" not in line
        for word in shlex.split(line)[1:-1]
    }
    ignored = (ROOT / "cluster" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()

    assert sources == {line[1:] for line in ignored if line.startswith("!")}
    assert all((ROOT / source).exists() for source in sources)


def test_the_image_has_what_kuberays_probes_call(dockerfile: list[str]) -> None:
    installed = next(line for line in dockerfile if "apt-get install" in line)
    assert {"bash", "wget"} <= set(installed.split())


def test_the_image_has_the_weights_of_the_default_voice_model(dockerfile: list[str]) -> None:
    """The package that carries them is no dependency: its own need a compiler."""
    text = (ROOT / "config" / "local.yaml").read_text(encoding="utf-8")
    models = AppArgs.model_validate(yaml.safe_load(text)["applications"][0]["args"]).models
    assert "resemblyzer-ge2e" in [model.backend for model in models]
    installs = [command.split() for line in dockerfile for command in line.split("&&")]
    assert any(
        {"install", "--no-deps", "resemblyzer"} <= set(words) and "constraints.txt" in words
        for words in installs
    )


def test_the_image_installs_the_pinned_versions_from_no_named_registry(dockerfile: list[str]) -> None:
    installs = [line for line in dockerfile if "pip install" in line]
    assert installs
    assert all("-c constraints.txt" in line or "$version" in line for line in installs)
    assert not any("://" in line for line in dockerfile)
