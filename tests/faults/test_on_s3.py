"""Faults between workers and an object store, thrown in at random by a proxy; and an outage that lasts."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.catalog import open_dataset
from pipeline.config import GenerateConfig
from pipeline.store import open_store
from tests.faults.lab import TINY, Lab
from tests.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from tests.s3_server import S3Server
from workers.verify import verify

CONFIG = TINY.model_copy(update={"samples": 8})
FAULTS: tuple[Fault, ...] = (500, 503, "drop", "lose", "cut")
VERBS = ("GET", "HEAD", "PUT", "POST", "DELETE")
PAUSES = {"pauses_s": [0.05, 0.05]}


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultyProxy]:
    with faulty_proxy(s3.endpoint) as between:
        yield between


def assert_same(lab: Lab, url: str, config: GenerateConfig) -> None:
    """As on a disk: rows, bytes, one attempt a shard, nothing left."""
    report = verify(url, gc=True, gc_age_minutes=0)
    assert report.ok, report.lines()
    dataset, wanted = open_dataset(url), open_dataset(lab.reference(config))
    assert dataset.complete
    assert dataset.manifest.equals(wanted.manifest)
    for shard in wanted.parts:
        for name in ("image", "label"):
            a, b = (store.read(key) for store, key in (d.object_key(shard, name) for d in (dataset, wanted)))
            assert a == b
    assert len(dataset.store.groups("shards")) == len(wanted.parts)
    assert list(dataset.store.entries("running")) == list(dataset.store.entries("failures")) == []


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 20))])
def test_one_request_in_ten_fails(lab: Lab, proxy: FaultyProxy, s3_url: str, seed: int) -> None:
    chance, thrown = random.Random(seed), 0
    for verb in VERBS:
        faults = [chance.choice(FAULTS) if chance.random() < 0.1 else "pass" for _ in range(400)]
        proxy.script(verb, "", *faults)
    for _ in range(5):
        run = lab.generate(s3_url, config=CONFIG, environment={"AWS_ENDPOINT_URL": proxy.endpoint}, policy=PAUSES)
        if run.wait() == 0:
            break
        assert "Traceback" not in run.said(), run.said()
        thrown += 1
    assert run.code == 0, run.said()
    print(f"\n{len(proxy.requests)} requests, runs that stopped: {thrown}")
    assert_same(lab, s3_url, CONFIG)


def test_a_commit_whose_answer_is_lost_happens_once(lab: Lab, proxy: FaultyProxy, s3_url: str) -> None:
    proxy.script("PUT", "/manifest/", *["lose"] * 3, "drop", 500, 503)
    run = lab.generate(s3_url, config=CONFIG, environment={"AWS_ENDPOINT_URL": proxy.endpoint}, policy=PAUSES)
    assert run.wait() == 0, run.said()
    assert proxy.used_up
    assert "8 samples, 8 made in this run" in run.said()
    assert_same(lab, s3_url, CONFIG)


def test_an_outage_that_lasts_is_told_and_the_same_command_goes_on(lab: Lab, proxy: FaultyProxy, s3_url: str) -> None:
    """The client gives up at once here; left to itself it sits out two minutes of it."""
    impatient = {"PHANTUMOR_TEST_IMPATIENT": "yes", "AWS_ENDPOINT_URL": proxy.endpoint}
    proxy.script("PUT", "/manifest/", "pass", *[500] * 2000)
    proxy.script("PUT", "/shards/", *["pass"] * 6, *[500] * 2000)
    run = lab.generate(s3_url, config=CONFIG, environment=impatient, policy={**PAUSES, "outage_s": 0.1})
    assert run.wait() == 1
    [told] = [line for line in run.said().splitlines() if line.startswith("phantumor: ")]
    assert f"nothing gets through to {s3_url}: the object store answers 500" in told
    proxy.faults.clear()
    lab.resume(s3_url, config=CONFIG)  # no shard was blamed
    assert_same(lab, s3_url, CONFIG)


@pytest.mark.soak
def test_a_run_killed_at_any_request_goes_on(lab: Lab, s3: S3Server, s3_url: str, tmp_path: Path) -> None:
    """The n-th request never comes: the command is killed as it is sent."""
    with faulty_proxy(s3.endpoint) as counting:
        lab.resume(f"{s3_url}/0", config=TINY, environment={"AWS_ENDPOINT_URL": counting.endpoint})
        requests = len(counting.requests)
    for at in range(1, requests, 2):
        url = f"{s3_url}/{at}"
        with faulty_proxy(s3.endpoint) as between:
            for verb in VERBS:
                between.script(verb, "", *["pass"] * 1000)
            run = lab.generate(url, config=TINY, environment={"AWS_ENDPOINT_URL": between.endpoint})
            while len(between.requests) < at and run.processes():
                pass
            run.kill()
            run.wait()
        lab.resume(url, config=TINY)
        assert_same(lab, url, TINY)
    assert open_store(f"{s3_url}/0").exists("dataset.json")
    print(f"\nkilled at {len(range(1, requests, 2))} of {requests} requests")
    shutil.rmtree(tmp_path)
