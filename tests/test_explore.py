"""The explorer's answers: filters, order and histograms of a manifest, images, and what it refuses."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from starlette.testclient import TestClient

from pipeline.catalog import Dataset, open_dataset
from pipeline.config import GenerateConfig
from pipeline.explore.dataset import Samples
from pipeline.explore.facts import dataset_facts, round_edges
from pipeline.explore.filters import expression, parse_filters
from pipeline.explore.kept import Kept
from pipeline.explore.routes import PAGE, explore_routes
from pipeline.where import positions
from tests.annotated import make_annotated_bank
from tests.command import run
from tests.datasets import make_dataset
from tests.pages import client
from workers.generate import generate


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("explored") / "data", samples=60, shard_samples=16)


@pytest.fixture(scope="module")
def page(dataset: Dataset) -> TestClient:
    return client(explore_routes(Samples(dataset)))


# -- table and histograms ---------------------------------------------------------------------------------------------

QUERIES = [
    "",
    "split=val",
    "split=val&split=test",
    "kind=bright&diameter_mm=3.5..4",
    "n_tumors=0",
    "n_tumors=1&n_tumors=2&case_id=case-a",
    "contrast_hu=..100&split=train",
    "diameter_mm=4..",
    "where=n_tumors = 2",
    "where=diameter_mm < 3.8 or split = 'val'&contrast_hu=99..",
    "where=index >= 10 and index < 30&split=train",
]


@pytest.mark.parametrize("query", QUERIES)
def test_the_page_shows_what_its_expression_selects(page: TestClient, dataset: Dataset, query: str) -> None:
    answer = page.get(f"/api/table?{query}&limit=500").json()
    expected = positions(dataset, answer["where"]) if answer["where"] else np.arange(dataset.rows)
    assert [row["index"] for row in answer["rows"]] == expected.tolist()
    assert answer["total"] == len(expected)
    assert 0 < answer["total"] <= 60


@pytest.mark.parametrize("query", QUERIES)
def test_histograms_leave_their_own_filter_out(page: TestClient, dataset: Dataset, query: str) -> None:
    facts = dataset_facts(dataset)
    filters = parse_filters(facts, [tuple(pair.split("=", 1)) for pair in query.split("&") if pair])  # type: ignore[misc]
    charts = page.get(f"/api/charts?{query}").json()
    for name in ("split", "case_id", "n_tumors"):
        others = expression(facts, filters.without(name))
        found = positions(dataset, others) if others else np.arange(dataset.rows)
        assert sum(entry["count"] for entry in charts[name]["names"]) == len(found)


def test_tumors_are_counted_that_meet_the_filters_on_tumors(page: TestClient, dataset: Dataset) -> None:
    diameters = [t["diameter_mm"] for row in dataset.manifest.to_pylist() for t in row["tumors"]]
    middle = float(np.median(diameters))
    charts = page.get(f"/api/charts?diameter_mm={middle}..").json()
    assert charts["kind"]["names"] == [{"name": "bright", "count": sum(d >= middle for d in diameters)}]
    assert sum(charts["diameter_mm"]["counts"]) == len(diameters)


@pytest.mark.parametrize(
    ("query", "meets"),
    [
        ("split=val&diameter_mm=..{cut}", lambda tumor, split, cut: tumor["diameter_mm"] < cut and split == "val"),
        ("where=diameter_mm < {cut}", lambda tumor, _, cut: tumor["diameter_mm"] < cut),
        (
            "where=diameter_mm < {cut}&contrast_hu=..100",
            lambda tumor, _, cut: tumor["diameter_mm"] < cut and tumor["contrast_hu"] < 100,
        ),
    ],
)
def test_the_table_shows_the_largest_tumor_that_meets_the_filters(
    page: TestClient, dataset: Dataset, query: str, meets: Callable[[dict[str, Any], str, float], bool]
) -> None:
    cut = 3.8  # mm; some samples have a tumor on either side of it
    rows = dataset.manifest.to_pylist()
    expected = {
        row["index"]: max(sizes)
        for row in rows
        if (sizes := [t["diameter_mm"] for t in row["tumors"] if meets(t, row["split"], cut)])
    }
    answer = page.get(f"/api/table?{query.format(cut=cut)}&limit=500&sort=diameter_mm").json()
    assert answer["by_tumor"]
    assert {row["index"]: row["diameter_mm"] for row in answer["rows"]} == expected
    assert [row["diameter_mm"] for row in answer["rows"]] == sorted(expected.values())
    for row in answer["rows"]:
        assert rows[row["index"]]["tumors"][row["tumor"]]["diameter_mm"] == row["diameter_mm"]
    assert any(size < max(t["diameter_mm"] for t in rows[index]["tumors"]) for index, size in expected.items())
    counts = page.get(f"/api/charts?{query.format(cut=cut)}").json()["kind"]["names"]
    assert counts[0]["count"] == sum(meets(t, row["split"], cut) for row in rows for t in row["tumors"])


def test_without_a_filter_on_tumors_the_largest_stands_for_a_sample(page: TestClient, dataset: Dataset) -> None:
    answer = page.get("/api/table?split=val&limit=500").json()
    assert not answer["by_tumor"]
    for row in answer["rows"]:
        assert row["diameter_mm"] == max((t["diameter_mm"] for t in dataset.row(row["index"])["tumors"]), default=None)


@pytest.mark.parametrize(
    ("sort", "key"),
    [("index", "index"), ("-index", "index"), ("diameter_mm", "diameter_mm"), ("-contrast_hu", "contrast_hu"),
     ("split", "split"), ("-case_id", "case_id"), ("n_tumors", "n_tumors"), ("-tumor_voxels", "tumor_voxels")],
)  # fmt: skip
def test_the_table_is_in_the_order_of_a_column(page: TestClient, sort: str, key: str) -> None:
    rows = page.get(f"/api/table?sort={sort}&limit=500").json()["rows"]
    values = [row[key] for row in rows]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=sort.startswith("-"))
    assert values[len(known) :] == [None] * (len(values) - len(known))
    assert len({row["index"] for row in rows}) == 60


def test_the_page_of_a_sample_is_found(page: TestClient) -> None:
    whole = page.get("/api/table?sort=-diameter_mm&limit=500").json()["rows"]
    answer = page.get(f"/api/table?sort=-diameter_mm&limit=7&at={whole[30]['id']}").json()
    assert (answer["offset"], answer["rows"]) == (28, whole[28:35])
    assert page.get("/api/table?split=val&limit=7&at=s000000000").json()["offset"] == 0


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/api/table?kind=green", "kind=green"),
        ("/api/table?diameter_mm=big", "5..10"),
        ("/api/table?diameter_mm=9..5", "5..10"),
        ("/api/table?diameter_mm=nan..", "5..10"),
        ("/api/table?diameter_mm=..", "5..10"),
        ("/api/table?sort=spec", "sort=spec"),
        ("/api/table?offset=-1", "whole number"),
        ("/api/table?where=spec like 'x'", "Filter box: it cannot be read"),
        ("/api/table?where=__import__('os').system('x')", "Filter box: unknown column"),
        ("/api/table?where=diamter_mm < 3&split=val", "Filter box: unknown column diamter_mm"),
        (f"/api/table?where={'n_tumors = 1 or ' * 200}index = 1", "Filter box: 3209 characters"),
        ("/api/sample/s000000099", "no sample"),
        ("/api/sample/..%2f..%2fetc", "sample"),
        ("/api/sample/s000000001/image.png", ".nii"),
        ("/api/sample/s000000001/..%2fdataset.nii", "sample"),
        ("/api/sample/s000000001/spec.nii", "image, label"),
    ],
)
def test_what_makes_no_sense_is_explained(page: TestClient, path: str, part: str) -> None:
    answer = page.get(path)
    assert answer.status_code in (400, 404)
    if answer.status_code == 400:
        assert part in answer.json()["error"]
        assert "--where" not in answer.json()["error"]


def test_a_name_with_quotes_survives_the_expression(dataset: Dataset) -> None:
    facts = dataset_facts(dataset)
    odd = 'it\'s "odd" \\ and = so'
    renamed = {**facts.facts, "case_id": type(facts.facts["case_id"])("sample", (odd,), np.zeros(60, np.int32))}  # type: ignore[call-arg]
    changed = type(facts)(facts.ids, renamed, facts.parents, facts.extra)
    text = expression(changed, parse_filters(changed, [("case_id", odd)]))
    assert positions(dataset, text).size == 0
    assert positions(dataset, f"not ({text})").size == 60


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.0, 1.0), (3.2, 61.7), (-120.0, 15.0), (5.0, 5.0), (1e-4, 2e-4), (0.0, 23.8), (7.1, 7.1 + 1e-15)],
)
def test_edges_are_round_and_cover(low: float, high: float) -> None:
    edges = round_edges(low, high)
    assert edges[0] <= low
    assert edges[-1] >= high - 1e-9
    assert 2 <= len(edges) <= 26
    assert (np.diff(edges) > 0).all()


# -- samples ----------------------------------------------------------------------------------------------------------


def test_a_sample_is_told_whole(page: TestClient, dataset: Dataset) -> None:
    document = page.get("/api/sample/3").json()
    row = dataset.row(3)
    assert document["id"] == "s000000003"
    assert document["tumors"] == row["tumors"]
    assert document["drawn"] == json.loads(row["spec"])
    assert document["sections"]["measured"]["case_id"] == row["case_id"]
    assert document["layers"] == ["image", "label"]  # there is no bank
    commands = " ".join(document["commands"].values())
    assert all(
        word in commands for word in ("phantumor inspect", "phantumor export", "phantumor verify", "make_sample")
    )


def test_images_come_for_the_viewer_and_to_keep(page: TestClient, dataset: Dataset) -> None:
    sample = dataset.sample(3)
    label = page.get("/api/sample/s000000003/label.nii")
    dense = np.asarray(nib.Nifti1Image.from_bytes(label.content).dataobj)
    classes = [int(entry.split("=")[0]) for entry in label.headers["x-classes"].split(",")]
    np.testing.assert_array_equal(np.array(classes)[dense.astype(int)], sample.label)
    kept = page.get("/api/sample/s000000003/image.nii.gz")
    np.testing.assert_array_equal(
        np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(kept.content)).dataobj), sample.image
    )
    assert kept.headers["content-disposition"].endswith("''s000000003_image.nii.gz")


def test_a_patient_s_own_tumors_have_no_twin_to_offer(tmp_path: Path) -> None:
    bank = make_annotated_bank(tmp_path / "bank", healthy=1)
    config = GenerateConfig(samples=8, patch_shape=(8, 8, 8), shard_samples=8, store="recipe")
    generate(bank.path, tmp_path / "data", config, log=lambda _: None)
    made = open_dataset(tmp_path / "data")
    samples = Samples(made)
    case_ids = made.manifest["case_id"].to_pylist()
    offered = {case_id: "healthy" in samples.document(k)["layers"] for k, case_id in enumerate(case_ids)}
    assert offered == {"real": False} | {case_id: True for case_id in case_ids if case_id != "real"}


def test_a_missing_bank_is_named(page: TestClient) -> None:
    answer = page.get("/api/sample/s000000003/healthy.nii")
    assert answer.status_code == 400
    assert "bank" in answer.json()["error"]


def test_the_page_has_no_script_or_style_of_its_own() -> None:
    html = (PAGE / "index.html").read_text()
    assert "style=" not in html
    assert "<script>" not in html
    assert "http" not in html.replace("http://www.w3.org", "")


def test_looking_at_stored_samples_loads_neither_torch_nor_ray(dataset: Dataset) -> None:
    script = (
        "import sys; from pipeline.explore.explore import open_collection, explore_routes; import pipeline.cli\n"
        f"c = open_collection({dataset.path!r}, None); c.facts; c.document(3); c.layers(3, ['image', 'label'])\n"
        "print([name for name in ('torch', 'ray', 'monai') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_result_is_made_once_whoever_asks() -> None:
    kept: Kept[int] = Kept(2)
    made: list[int] = []
    barrier = threading.Barrier(4)

    def ask() -> None:
        barrier.wait()
        assert kept.get("a", lambda: made.append(1) or 7) == 7  # type: ignore[func-returns-value]

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept.get("b", lambda: 1)
    kept.get("c", lambda: 1)
    kept.get("a", lambda: made.append(2) or 8)  # type: ignore[func-returns-value]
    assert made == [1, 2]


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["nowhere"], "nowhere: no such folder. `explore` opens a dataset"),
        (["nowhere", "--host", "0.0.0.0"], "--i-know"),
        (["nowhere", "--port", "70000"], "port"),
    ],
)
def test_bad_commands_end_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, told = run(capsys, "explore", *words, "--no-browser")
    assert code == 2
    assert part in told
