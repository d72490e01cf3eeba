"""cluster.yaml: valid for Ray, and right in what Ray's own check does not look at."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return document


def test_ray_accepts_it(cluster: dict[str, Any]) -> None:
    schema = Path(str(metadata.distribution("ray").locate_file("ray/autoscaler/ray-schema.json")))
    jsonschema.validate(cluster, json.loads(schema.read_text()))


def test_every_node_type_fits_the_cluster_and_has_its_own_access(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    assert cluster["head_node_type"] in types
    assert sum(node.get("max_workers", 0) for node in types.values()) <= cluster["max_workers"]
    for node in types.values():
        assert node["node_config"]["SecurityGroupIds"]
        assert node["node_config"]["IamInstanceProfile"]


def test_the_head_runs_no_tasks_and_spot_is_preferred(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert types["gpu_spot"]["priority"] > types["gpu_ondemand"]["priority"]
    assert types["gpu_spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in types["gpu_ondemand"]["node_config"]


@pytest.mark.parametrize("commands", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_ray_starts_with_a_token_and_finite_patience(cluster: dict[str, Any], commands: str) -> None:
    start = cluster[commands][-1]
    for setting in ("RAY_AUTH_MODE=token", "RAY_grpc_client_keepalive_time_ms=", "RAY_task_oom_retries=3"):
        assert setting in start
    assert "0.0.0.0" not in start


def test_the_dashboard_is_not_public(cluster: dict[str, Any]) -> None:
    assert "--dashboard-host=127.0.0.1" in cluster["head_start_ray_commands"][-1]
