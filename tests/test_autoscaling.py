"""What Ray and AWS make of cluster.yaml: which machines are asked for, and what happens when there are none.

All of this looks inside Ray, whose autoscaler has no public interface, so it is tied to one version of it.
"""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster_config import GPU_TASKS, WINDOW, Config, needs_this_ray, read_cluster

pytestmark = needs_this_ray


@pytest.fixture
def cluster() -> Config:
    return read_cluster()


# ---- which machines Ray would start ----


@pytest.fixture
def machines_for(cluster: Config) -> Callable[..., dict[str, int]]:
    """Machines by node type that Ray's scheduler starts for so many tasks, from a cluster without workers."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil

    config = AutoscalingConfig(cluster, skip_content_hash=True)

    def schedule(tasks: int, refused: str = "", **resources: float) -> dict[str, int]:
        demand = [ResourceRequestUtil.make(resources)] * tasks
        reply = ResourceDemandScheduler().schedule(
            SchedulingRequest(
                disable_launch_config_check=True,
                node_type_configs=config.get_node_type_configs(),
                max_num_nodes=config.get_max_num_nodes(),
                resource_requests=ResourceRequestUtil.group_by_count(demand),
                recoverable_resource_availabilities={refused: 0.0} if refused else {},
            )
        )
        return {entry.instance_type: entry.count for entry in reply.to_launch}

    return schedule


def test_tasks_go_to_the_machines_meant_for_them(machines_for: Callable[..., dict[str, int]]) -> None:
    gpu = {"CPU": 1, "GPU": 1 / GPU_TASKS}
    assert machines_for(WINDOW, CPU=1) == {"cpu_spot": 4}
    assert machines_for(8, **gpu) == {"gpu_spot": 2}
    assert machines_for(8, refused="gpu_spot", **gpu) == {"gpu_ondemand": 2}


def test_the_smallest_window_reaches_the_on_demand_machines(machines_for: Callable[..., dict[str, int]]) -> None:
    from workers import ray_executor

    assert (ray_executor._LEAST_WINDOW, ray_executor._GPU_TASKS_PER_GPU) == (WINDOW, GPU_TASKS)
    # Ray asks for a refused type again and again, and for the next one only for what the first could not hold.
    assert machines_for(WINDOW, CPU=1, GPU=1 / GPU_TASKS) == {"gpu_spot": 12, "gpu_ondemand": 2}


# ---- on a mocked AWS ----


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Config]:
    """cluster.yaml, its group, profiles and image filled in with things that exist in a mocked AWS."""
    moto = pytest.importorskip("moto", reason="moto[ec2,iam] is not installed")
    import boto3

    monkeypatch.setenv("HOME", str(tmp_path))  # Ray keeps the key of its machines in ~/.ssh
    (tmp_path / ".ssh").mkdir()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    config = read_cluster()
    with moto.mock_aws():
        region = config["provider"]["region"]
        ec2, iam = boto3.client("ec2", region), boto3.client("iam", region)
        vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        group = ec2.create_security_group(GroupName="phantumor", Description="-", VpcId=vpc)["GroupId"]
        image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        for name in ("phantumor-head", "phantumor-worker"):
            iam.create_instance_profile(InstanceProfileName=name)
        for entry in config["available_node_types"].values():
            entry["node_config"] |= {"ImageId": image, "SecurityGroupIds": [group]}
        yield config


def test_aws_is_asked_for_what_the_file_says(aws: Config) -> None:
    import boto3
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config

    config = AWSNodeProvider.bootstrap_config(prepare_config(aws))
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    started = {}
    for name, entry in config["available_node_types"].items():
        node = copy.deepcopy(entry["node_config"])
        (machine,) = provider.create_node(node, {"ray-user-node-type": name}, 1).values()
        started[name] = boto3.resource("ec2", config["provider"]["region"]).Instance(machine.id)
    (group,) = aws["available_node_types"]["head"]["node_config"]["SecurityGroupIds"]
    assert {name: [g["GroupId"] for g in m.security_groups] for name, m in started.items()} == {
        name: [group] for name in started
    }
    profiles = {name: m.iam_instance_profile["Arn"].rpartition("/")[2] for name, m in started.items()}
    assert profiles.pop("head") == "phantumor-head"
    assert set(profiles.values()) == {"phantumor-worker"}
    assert {name for name, m in started.items() if m.instance_lifecycle == "spot"} == {"gpu_spot", "cpu_spot"}
    assert {m.metadata_options["HttpTokens"] for m in started.values()} == {"required"}


# ---- a cluster of our node types on this machine ----

PROVIDER = """
import os
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider

class WithoutGpuSpot(FakeMultiNodeProvider):
    def create_node_with_resources_and_labels(self, node_config, tags, count, resources, labels):
        if tags["ray-user-node-type"] == "gpu_spot":
            raise RuntimeError("InsufficientInstanceCapacity")
        super().create_node_with_resources_and_labels(node_config, tags, count, resources, labels)
"""
HEAD_ID = "f" * 51 + "00000"
HEAD = {
    **{"RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"},
    **{"RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID, "RAY_CLOUD_INSTANCE_ID": HEAD_ID},
    "RAY_NODE_TYPE_NAME": "ray.head.default",
}
DRIVER = """
import collections, json, sys, time
import ray

address, tasks, share = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
ray.init(address=address, logging_level="ERROR", log_to_driver=False)

@ray.remote(num_cpus=1, num_gpus=share)
def market():
    return ray.get_runtime_context().get_node_labels()["market-type"]

def workers():
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]

pending = [market.remote() for _ in range(tasks)]
found = dict(collections.Counter(ray.get(pending, timeout=90)))
deadline = time.monotonic() + 60
while workers() and time.monotonic() < deadline:
    time.sleep(0.5)
print(json.dumps({"found": found, "left": len(workers())}))
"""


def free_port() -> int:
    while True:  # Ray keeps 10002 to 19999 for its workers
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port: int = listener.getsockname()[1]
        if not 10002 <= port <= 19999:
            return port


@pytest.fixture
def refused_spot(cluster: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """Address and environment of a Ray head here whose autoscaler starts our node types as processes; no gpu_spot."""
    folder = tmp_path_factory.mktemp("ray")  # short: Ray's sockets lie in it
    address = f"127.0.0.1:{free_port()}"
    (folder / "provider.py").write_text(PROVIDER)
    (folder / "cluster.yaml").write_text(yaml.safe_dump(on_this_machine(cluster, address)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PYTHONPATH": str(folder), "RAY_TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.urandom(16).hex()}
    with (folder / "head.log").open("w") as log:
        command = start_head(folder, address)
        head = subprocess.Popen(command, env={**environment, **HEAD}, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield address, environment
    finally:
        end(head)


def on_this_machine(cluster: Config, address: str) -> Config:
    """cluster.yaml with its node types and limits, for Ray's provider of pretended machines."""
    types = {name: {**entry, "node_config": {}} for name, entry in cluster["available_node_types"].items()}
    for entry in types.values():
        entry.pop("docker", None)
    types["gpu_spot"]["max_workers"] = 1  # of 8 tasks it could hold 4
    types["ray.head.default"] = types.pop("head")  # the name that the provider knows
    provider = {"type": "external", "module": "provider.WithoutGpuSpot", "gcs_address": address}
    return {
        **{name: [] for name in cluster if name.endswith("commands")},
        **{name: cluster[name] for name in ("cluster_name", "max_workers", "upscaling_speed")},
        **{"idle_timeout_minutes": 0.05, "head_node_type": "ray.head.default", "available_node_types": types},
        **{"auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": []},
        "provider": {**provider, "disable_node_updaters": True, "use_node_id_as_ip": True, "head_node_id": HEAD_ID},
    }


def start_head(folder: Path, address: str) -> list[str]:
    flags = "--head --block --num-cpus=0 --num-gpus=0 --include-dashboard=false --disable-usage-stats"
    flags += " --dashboard-agent-listen-port=0 --metrics-export-port=0 --min-worker-port=0 --max-worker-port=0"
    places = [f"--port={address.rpartition(':')[2]}", "--node-ip-address=127.0.0.1", f"--temp-dir={folder}"]
    places += [f"--autoscaling-config={folder / 'cluster.yaml'}", "--object-store-memory=100000000"]
    return [str(Path(sys.executable).with_name("ray")), "start", *flags.split(), *places]


def end(head: subprocess.Popen[bytes]) -> None:
    """Kill a process that we started, and what it started; nothing else of this user."""
    import ray  # noqa: F401 brings psutil along, so it comes first
    import psutil  # isort: skip

    processes = [psutil.Process(head.pid)] if head.poll() is None else []
    for process in processes + [child for p in processes for child in p.children(recursive=True)]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    head.wait()


@pytest.mark.soak  # a cluster that starts nodes on demand: on a busy machine minutes
def test_work_goes_on_when_spot_machines_are_refused_and_machines_leave_when_it_is_done(
    refused_spot: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    address, environment = refused_spot
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    words = [sys.executable, str(driver), address, "8", str(1 / GPU_TASKS)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"found": {"on-demand": 8}, "left": 0}
