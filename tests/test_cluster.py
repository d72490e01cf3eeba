"""cluster.yaml and docs/cluster: valid and safe, as far as can be told from the files.

Ray's own check is not a public interface: it is tested with the one version that the images name.
"""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from tests.cluster_config import RAY, ROOT, Config, needs_this_ray, read_cluster
from tests.command import run
from workers.plan import Slice

FILES = ROOT / "docs" / "cluster"
START = ("head_start_ray_commands", "worker_start_ray_commands")
ENVIRONMENT = {
    "RAY_grpc_client_keepalive_time_ms": "15000",
    "RAY_grpc_client_keepalive_timeout_ms": "10000",
    "RAY_task_oom_retries": "3",
}


@pytest.fixture
def cluster() -> Config:
    return read_cluster()


@pytest.fixture
def prepared(cluster: Config) -> Config:
    """As Ray completes it before it acts on it; refused by Ray where it is wrong."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config: Config = prepare_config(cluster)
    validate_config(config)
    return config


# ---- what Ray checks ----


@needs_this_ray
def test_ray_accepts_it(prepared: Config) -> None:
    assert prepared["available_node_types"]["cpu_spot"]["max_workers"] == 16
    assert prepared["worker_setup_commands"][-1].endswith("-e /home/ray/phantumor")  # not Ray's nightly wheel


@needs_this_ray
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("idle_timeout",), 10),
        (("available_node_types", "gpu_spot", "maxworkers"), 3),
        (("available_node_types", "gpu_spot", "resources", "GPU"), 0.5),
        (("head_node_type",), "nobody"),
        (("docker", "worker_images"), "x"),
    ],
)
def test_ray_refuses_mistakes(cluster: Config, path: tuple[str, ...], value: object) -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    put(cluster, path, value)
    with pytest.raises((ValidationError, ValueError)):
        validate_config(prepare_config(cluster))


# ---- what Ray does not check ----


def put(config: Config, path: tuple[str, ...], value: object) -> None:
    for name in path[:-1]:
        config = config[name]
    if value is None:
        del config[path[-1]]
    else:
        config[path[-1]] = value


def faults(config: Config) -> set[str]:
    """Names of the rules that a configuration breaks."""
    types, provider = config["available_node_types"], config["provider"]
    nodes = {name: entry["node_config"] for name, entry in types.items()}
    workers = {name: entry for name, entry in types.items() if name != config["head_node_type"]}
    head_profile = nodes[config["head_node_type"]].get("IamInstanceProfile")
    text = json.dumps([config[name] for name in config if "command" in name] + [config["docker"]])
    rules = {
        "provider": set(provider) == {"type", "region", "availability_zone", "cache_stopped_nodes"},
        "zones": all(zone.startswith(provider["region"]) for zone in provider["availability_zone"].split(",")),
        "region of the bucket": f"--env AWS_REGION={provider['region']}" in config["docker"]["run_options"],
        "spot is terminated": provider.get("cache_stopped_nodes") is False,
        "node_config": not any(map(ec2_faults, nodes.values())),
        "limits": sum(entry["max_workers"] for entry in workers.values()) == config["max_workers"],
        "starts small": not any(entry.get("min_workers") for entry in workers.values()),
        "idle time": 1 <= config.get("idle_timeout_minutes", 0) <= 30,
        "file mounts": set(config["file_mounts"].values()) == {".", "~/.ray/auth_token"},
        "not on all interfaces": "0.0.0.0" not in text and "::" not in text,
        "dashboard": "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1],
        "images": image_versions(config) == {RAY},
        "own security group": all(node.get("SecurityGroupIds") for node in nodes.values()),
        "instance profiles": all(node.get("IamInstanceProfile") for node in nodes.values())
        and head_profile not in [nodes[name].get("IamInstanceProfile") for name in workers],
        "metadata needs a session": all(
            node.get("MetadataOptions", {}).get("HttpTokens") == "required" for node in nodes.values()
        ),
        "head without tasks": types[config["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
        and "--num-cpus=0" in config["head_start_ray_commands"][-1],
        "market": all(
            (entry["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"})
            == (entry["labels"] == {"market-type": "spot"})
            for entry in workers.values()
        ),
    }
    for command in START:
        words = config[command][-1].split()
        rules[f"token: {command}"] = "RAY_AUTH_MODE=token" in words
        rules[f"patience: {command}"] = all(f"{name}={value}" in words for name, value in ENVIRONMENT.items())
    return {name for name, kept in rules.items() if not kept}


def ec2_faults(node: Config) -> str:
    """What EC2's own description of RunInstances has against a node_config; empty when nothing."""
    from botocore.validate import ParamValidator

    report = ParamValidator().validate({**node, "MinCount": 1, "MaxCount": 1}, run_instances())
    return str(report.generate_report())


@cache
def run_instances() -> Any:
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    return ServiceModel(Loader().load_service_model("ec2", "service-2")).operation_model("RunInstances").input_shape


def image_versions(config: Config) -> set[str]:
    named = re.findall(r"rayproject/ray:([\w.]+)-py311", json.dumps(config))
    return set(named) if len(named) == json.dumps(config).count("rayproject/") else {"other"}


def test_nothing_is_wrong_with_it(cluster: Config) -> None:
    assert faults(cluster) == set()


NODE = ("available_node_types", "gpu_spot", "node_config")
MISTAKES: list[tuple[tuple[str, ...], object, str]] = [
    (("provider", "cache_stoped_nodes"), False, "provider"),
    (("provider", "cache_stopped_nodes"), True, "spot is terminated"),
    (("provider", "availability_zone"), "us-east-1a", "zones"),
    (("docker", "run_options"), [], "region of the bucket"),
    (("docker", "image"), "rayproject/ray:2.59.0-py311-gpu", "images"),
    (("docker", "image"), "rayproject/ray:latest", "images"),
    ((*NODE, "InstanceTyp"), "g6.2xlarge", "node_config"),
    ((*NODE, "InstanceMarketOptions"), {"MarketType": ["spot"]}, "node_config"),
    ((*NODE, "InstanceMarketOptions"), None, "market"),
    ((*NODE, "SecurityGroupIds"), None, "own security group"),
    ((*NODE, "IamInstanceProfile"), None, "instance profiles"),
    ((*NODE, "IamInstanceProfile"), {"Name": "phantumor-head"}, "instance profiles"),
    ((*NODE, "MetadataOptions"), {"HttpTokens": "optional"}, "metadata needs a session"),
    (("max_workers",), 5, "limits"),
    (("available_node_types", "gpu_spot", "min_workers"), 1, "starts small"),
    (("idle_timeout_minutes",), None, "idle time"),
    (("file_mounts", "/home/ray/data"), "./data", "file mounts"),
    (("available_node_types", "head", "resources"), {"CPU": 4, "GPU": 0}, "head without tasks"),
    (("head_start_ray_commands",), ["ray start --head --dashboard-host=0.0.0.0"], "not on all interfaces"),
    (("worker_start_ray_commands",), ["ray start"], "token: worker_start_ray_commands"),
    (("worker_start_ray_commands",), ["RAY_AUTH_MODE=token ray start"], "patience: worker_start_ray_commands"),
]


@pytest.mark.parametrize(("path", "value", "rule"), MISTAKES)
def test_mistakes_are_found(cluster: Config, path: tuple[str, ...], value: object, rule: str) -> None:
    cluster = copy.deepcopy(cluster)  # YAML merges share parts between node types
    put(cluster, path, value)
    assert rule in faults(cluster)


def test_all_files_name_one_ray() -> None:
    assert f"ARG RAY={RAY}-py311\n" in (FILES / "Dockerfile").read_text()
    assert f'pip install "ray[default]=={RAY}"' in (ROOT / "docs" / "cluster.md").read_text()


def test_the_images_hold_a_ray_and_python_that_we_run_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ray = next(r for r in map(Requirement, project["dependencies"]) if r.name == "ray")
    assert ray.specifier.contains(RAY)
    assert Requirement(f"python{project['requires-python']}").specifier.contains("3.11")


# ---- the files in docs/cluster ----


def test_the_policies_give_workers_less_than_the_head(cluster: Config) -> None:
    head, worker = (json.loads((FILES / f"iam-{name}.json").read_text())["Statement"] for name in ("head", "worker"))
    assert all(statement in head for statement in worker)
    assert {action.partition(":")[0] for statement in worker for action in statement["Action"]} == {"s3"}
    (terminate,) = [s for s in head if "ec2:TerminateInstances" in s["Action"]]
    assert terminate["Condition"]["StringEquals"] == {"ec2:ResourceTag/ray-cluster-name": cluster["cluster_name"]}


def flags_of(command: str) -> set[str]:
    return set(re.findall(r"(?<=\s)--[a-z-]+", command))


@pytest.fixture
def generate_flags(capsys: pytest.CaptureFixture[str]) -> set[str]:
    return flags_of(run(capsys, "generate", "--help")[1])


def test_the_slurm_array_covers_every_shard_once(generate_flags: set[str], tmp_path: Path) -> None:
    (tmp_path / "phantumor").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "phantumor").chmod(0o755)
    script = FILES / "generate.sbatch"
    slices = []
    for task in range(16):
        slurm = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": "16", "SLURM_CPUS_PER_TASK": "8"}
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **slurm}
        command = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, check=True)
        assert flags_of(command.stdout) <= generate_flags
        slices.append(Slice.parse(command.stdout.split()[-1]))
    assert "#SBATCH --array=0-15" in script.read_text().splitlines()
    made = [shard for part in slices for shard in part.of_shards(range(100))]
    assert sorted(made) == list(range(100))


# KubeRay's API, ray.io/v1, as of 1.5: what we use of it.
RAYJOB = {
    *("entrypoint", "submissionMode", "backoffLimit", "submitterConfig", "activeDeadlineSeconds"),
    *("shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"),
}
RAYCLUSTER = {
    *("rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec"),
    "workerGroupSpecs",
}
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def test_the_rayjob_is_one(generate_flags: set[str]) -> None:
    job = yaml.safe_load((FILES / "rayjob.yaml").read_text())
    spec, ray = job["spec"], job["spec"]["rayClusterSpec"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(spec) <= RAYJOB
    assert set(ray) <= RAYCLUSTER
    assert flags_of(spec["entrypoint"]) <= generate_flags
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"]
    assert (ray["rayVersion"], ray["authOptions"]) == (RAY, {"mode": "token"})
    assert ray["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = [ray["headGroupSpec"], *ray["workerGroupSpecs"]]
    for group in groups:
        assert set(group) <= GROUP
        (container,) = group["template"]["spec"]["containers"]
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        assert environment.items() >= ENVIRONMENT.items()
        assert container["resources"]["requests"] == container["resources"]["limits"]
