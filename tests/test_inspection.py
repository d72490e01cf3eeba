"""What a dataset holds, as numbers that add up and as pictures, without loading anything heavy."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import inspection
from pipeline.catalog import Dataset, open_dataset
from pipeline.config import GenerateConfig
from pipeline.description import MOST_VOXELS
from pipeline.errors import InputError
from pipeline.inspection import describe, describe_sample, parse_sample, sample_document, summarise, tumor_table
from pipeline.manifest import TUMOR_TYPE, part_name
from pipeline.views import select
from tests.cases import make_bank
from tests.command import run
from tests.damage import rewrite_part
from tests.datasets import make_dataset
from workers.generate import generate

SAMPLES = 14
HEALTHY = 2  # samples 6 and 13
TUMORS = sum(1 + k % 2 for k in range(SAMPLES) if k % 7 != 6)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("inspection") / "data", samples=SAMPLES)


@pytest.fixture
def without_shards(dataset: Dataset, tmp_path: Path) -> Dataset:
    folder = Path(shutil.copytree(dataset.path, tmp_path / "data"))
    (folder / "manifest.parquet").unlink()
    for shard in dataset.parts:
        (folder / part_name(shard)).unlink()
    return open_dataset(folder)


# -- numbers ----------------------------------------------------------------------------------------------------------


def test_counts_add_up(dataset: Dataset) -> None:
    summary = summarise(dataset)
    assert summary["samples"] == summary["planned_samples"] == SAMPLES
    assert summary["healthy_samples"] == HEALTHY
    assert summary["tumors"] == TUMORS
    assert summary["shards"] == {"committed": 4, "planned": 4}
    for name, total in [("splits", SAMPLES), ("cases", SAMPLES)]:
        assert sum(summary[name].values()) == total
    for name in ("organs", "kinds", "diameter_bins"):
        assert sum(summary[name].values()) == TUMORS
    assert summary["splits"] == {"train": 9, "val": 3, "test": 2}
    assert summary["classes"] == {"background": 0, "liver": 1, "liver_tumor": 2}
    assert summary["patch_shape"] == [16, 16, 16]


def test_spreads_are_those_of_the_tumors(dataset: Dataset) -> None:
    tumors = [t for row in dataset.manifest.to_pylist() for t in row["tumors"]]
    for name in ("diameter_mm", "contrast_hu"):
        values = [t[name] for t in tumors]
        spread = summarise(dataset)[name]
        assert (spread["min"], spread["max"]) == (min(values), max(values))
        assert spread["mean"] == pytest.approx(np.mean(values))
        assert spread["p50"] == pytest.approx(np.median(values))
        assert list(spread) == ["mean", "min", "p5", "p25", "p50", "p75", "p95", "max"]


def test_diameters_fall_into_half_open_bins() -> None:
    bins = inspection._diameter_bins(np.array([0.5, 4.99, 5.0, 12.0, 19.9, 50.0, 400.0]))
    assert bins == {"0-5 mm": 2, "5-10 mm": 1, "10-20 mm": 2, "20-50 mm": 0, ">50 mm": 2}


def test_disk_bytes_are_those_of_the_shard_objects(dataset: Dataset) -> None:
    objects = [path for path in (Path(dataset.path) / "shards").rglob("*") if path.is_file() and path.suffix != ".json"]
    summary = summarise(dataset)
    assert summary["disk_bytes"] == sum(path.stat().st_size for path in objects)
    assert summary["stored_bytes"] == summary["disk_bytes"]
    apart = [summarise(dataset, f"split = '{split}'")["stored_bytes"] for split in ("train", "val", "test")]
    assert min(apart) > 0
    indices = 2 * (
        16 * SAMPLES + 4 * len(dataset.parts)
    )  # of the objects: offset and length of each sample, a checksum
    assert sum(apart) == summary["disk_bytes"] - indices


def test_the_tumor_table_has_one_row_a_tumor(dataset: Dataset) -> None:
    table = tumor_table(dataset.manifest)
    assert table.num_rows == TUMORS
    assert table.column_names == TUMOR_TYPE.names


@pytest.mark.parametrize(
    ("where", "samples", "healthy"),
    [
        (None, SAMPLES, HEALTHY),
        ("split = 'val'", 3, 1),
        ("n_tumors = 0", HEALTHY, HEALTHY),
        ("kind = 'bright' and split = 'test'", 2, 0),
        ("n_tumors > 9", 0, 0),
    ],
)
def test_a_selection_is_counted_alone(dataset: Dataset, where: str | None, samples: int, healthy: int) -> None:
    summary = summarise(dataset, where)
    assert (summary["samples"], summary["healthy_samples"], summary["where"]) == (samples, healthy, where)
    assert sum(summary["splits"].values()) == samples
    assert (summary["diameter_mm"] is None) == (summary["tumors"] == 0)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


@pytest.mark.parametrize("where", ["", "no_column = 1"])
def test_a_selection_that_means_nothing_is_refused(dataset: Dataset, where: str) -> None:
    with pytest.raises(InputError, match="--where"):
        summarise(dataset, where)


def test_a_dataset_without_shards_is_summarised(without_shards: Dataset) -> None:
    for where in (None, "n_tumors > 0", "diameter_mm > 0"):
        summary = summarise(without_shards, where)
        assert (summary["samples"], summary["tumors"], summary["disk_bytes"]) == (0, 0, 0)
        assert json.loads(json.dumps(summary, allow_nan=False)) == summary
        assert "0 of 4 shards committed" in describe(summary)[0]


def test_the_lines_say_what_the_numbers_say(dataset: Dataset) -> None:
    lines = describe(summarise(dataset, "split = 'train'"))
    text = "\n".join(lines)
    assert lines[0] == f"{dataset.path}: 9 samples of 16x16x16 voxels at 1 mm, complete"
    for part in ("where      split = 'train'", "train 9", "1 liver, 2 liver_tumor", "median", "HU", "of these samples"):
        assert part in text


# -- kinds of store and growth ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same samples in each kind of store, beside their bank; 4 samples, grown to 6."""
    folder = tmp_path_factory.mktemp("kinds")
    bank = make_bank(folder / "bank")
    for kind in ("full", "delta", "recipe"):
        for samples in (4, 6):
            config = GenerateConfig(samples=samples, patch_shape=(24, 24, 16), shard_samples=3, seed=3, store=kind)
            generate(bank.path, folder / kind, config, log=lambda _: None)
    return folder


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("full", r"store full: .* kB in 3 shards, .* kB a sample"),
        ("delta", r"store delta: .* kB in 3 shards, .* a sample"),
        ("recipe", "store recipe: no pixels, samples are made when they are read"),
    ],
)
def test_the_kind_of_store_and_growth_are_told(kinds: Path, kind: str, line: str) -> None:
    summary = summarise(open_dataset(kinds / kind))
    assert (summary["store"], summary["grown"], summary["planned_samples"]) == (kind, [4], 6)
    lines = describe(summary)
    assert "grown      made with 4, then 6 samples" in lines
    assert re.fullmatch(f"disk       {line}", lines[-1])
    assert (summary["stored_bytes"] == 0) == (kind == "recipe")


@pytest.mark.parametrize("kind", ["full", "delta", "recipe"])
def test_a_sample_of_any_kind_is_told_in_detail(kinds: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "inspect", kinds / kind, "--sample", "5", "--json")
    found, full = json.loads(out), sample_document(open_dataset(kinds / "full").sample(5))
    ranges = {"image_range", "label_range"}
    assert code == 0
    assert {k: v for k, v in found.items() if k not in ranges} == {k: v for k, v in full.items() if k not in ranges}
    assert (found["image_range"] is None) == (kind == "recipe")


def test_a_view_is_told_of(kinds: Path, tmp_path: Path) -> None:
    select(kinds / "delta", tmp_path / "view", where="index > 1")
    lines = describe(summarise(open_dataset(tmp_path / "view")))
    assert f"view of    {kinds / 'delta'}" in lines
    assert re.search(r"store delta: .* in 3 shards of the sources, .* a sample", lines[-1])


# -- one sample -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "index"), [("3", 3), ("003", 3), ("s3", 3), ("s000000003", 3), ("0", 0), ("13", 13)])
def test_a_sample_is_named_by_index_or_id(dataset: Dataset, text: str, index: int) -> None:
    assert parse_sample(dataset, text) == index


@pytest.mark.parametrize("text", ["", "s", "-1", "+1", "1.0", " 1", "1 ", "ss1", "S1", "0x1", "one", "²", "1²", "1_0"])
def test_a_sample_of_another_form_is_refused(dataset: Dataset, text: str) -> None:
    with pytest.raises(InputError, match=r"--sample .*: give an index such as 42 or an id such as s000000042"):
        parse_sample(dataset, text)


@pytest.mark.parametrize("text", ["14", "s000000099", "9" * 30, "9" * 5000])
def test_a_sample_that_is_not_there_is_refused(dataset: Dataset, text: str) -> None:
    with pytest.raises(InputError):
        parse_sample(dataset, text)


@pytest.mark.parametrize("index", [0, 1, 6])
def test_a_sample_in_detail(dataset: Dataset, index: int) -> None:
    sample = dataset.sample(index)
    document = sample_document(sample)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["spec"] == {"seed": 0, "index": index}
    assert document["image_hu"]["min"] == sample.image.min()
    assert document["image_hu"]["max"] == sample.image.max()
    assert document["image_hu"]["mean"] == pytest.approx(sample.image.mean())
    assert sum(document["label_voxels"].values()) == 16**3
    assert document["label_voxels"].get("2", 0) == document["tumor_voxels"]
    assert {name: document[name] for name in sample.row if name != "spec"} == {
        name: value for name, value in sample.row.items() if name != "spec"
    }


@pytest.mark.parametrize(("index", "tumors"), [(0, 1), (1, 2), (6, 0)])
def test_a_sample_as_lines(dataset: Dataset, index: int, tumors: int) -> None:
    lines = describe_sample(sample_document(dataset.sample(index)))
    assert lines[0].startswith(f"s00000000{index}: split train, case case-")
    assert f"tumors     {tumors}" in lines
    assert sum("liver bright" in line for line in lines) == tumors


@pytest.mark.parametrize("shape", [[2**30, 2**30, 2**30], [16, 16, 17], [0, 16, 16], [-16, -16, 16], [2**31 - 1, 1, 1]])
def test_a_shape_that_no_sample_has_is_refused_before_memory_is_taken(
    dataset: Dataset, tmp_path: Path, shape: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(dataset.path, tmp_path / "data"))
    rewrite_part(folder, 0, lambda row: row.update(shape_vox=shape))
    hostile = open_dataset(folder)
    monkeypatch.setattr(np, "empty", lambda *_: pytest.fail("memory was taken"))
    for read in (hostile.sample, hostile.healthy):
        with pytest.raises(InputError, match=r"claims a sample of shape .* holds patches of \(16, 16, 16\)"):
            read(2)


def test_a_whole_case_has_a_largest_shape(dataset: Dataset) -> None:
    config = GenerateConfig.model_validate({"samples": 4, "patch_shape": "full"})
    home = dataclasses.replace(dataset.homes[0], info=dataset.info.model_copy(update={"config": config}))
    whole = dataclasses.replace(dataset, homes=(home,))
    assert whole.checked_shape(0, (512, 512, 400)) == (512, 512, 400)
    for shape in ((MOST_VOXELS, 2, 1), (0, 5, 5)):
        with pytest.raises(InputError, match="voxels at most"):
            whole.checked_shape(0, shape)


@pytest.mark.parametrize("change", [lambda index: 13 - index, lambda index: index // 2])
def test_rows_out_of_order_are_refused(dataset: Dataset, tmp_path: Path, change: Any) -> None:
    folder = Path(shutil.copytree(dataset.path, tmp_path / "data"))
    rewrite_part(folder, 0, lambda row: row.update(index=change(row["index"])))
    with pytest.raises(InputError, match="not in the order of index"):
        open_dataset(folder).row(9)


# -- pictures ---------------------------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("where", "names"),
    [
        (None, {"diameter.png", "contrast.png", "samples.png"}),
        ("n_tumors = 0", {"samples.png"}),
        ("n_tumors > 9", set()),
    ],
)
def test_figures_are_png_files(dataset: Dataset, tmp_path: Path, where: str | None, names: set[str]) -> None:
    written = inspection.write_figures(dataset, tmp_path / "new" / "figures", where)
    assert {path.name for path in written} == names
    assert {path.name for path in (tmp_path / "new" / "figures").iterdir()} == names
    assert all(path.read_bytes().startswith(PNG) for path in written)


def test_a_picture_shows_the_slice_with_most_tumor(dataset: Dataset) -> None:
    for index, kinds in [(0, "bright"), (6, "no tumor")]:
        sample = dataset.sample(index)
        caption, image, label = inspection._picture(sample)
        assert caption.startswith(f"{index}: {kinds}")
        assert image.shape == label.shape == (16, 16)
        assert (label == 2).sum() == (sample.label == 2).sum(axis=(0, 1)).max()


# -- what it loads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags", [["--json"], [], ["--sample", "3"], ["--where", "kind = 'bright'"], ["--diff", "ITSELF"]]
)
def test_the_command_loads_nothing_heavy(dataset: Dataset, flags: list[str]) -> None:
    script = (
        "import json, sys\n"
        "from pipeline.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "print(json.dumps([code, [*sys.modules]]), file=sys.stderr)\n"
    )
    command = [
        sys.executable,
        "-c",
        script,
        "inspect",
        dataset.path,
        *(dataset.path if flag == "ITSELF" else flag for flag in flags),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    loaded = {name.partition(".")[0] for name in modules}
    assert loaded.isdisjoint({"torch", "ray", "monai", "scipy", "matplotlib", "zarr", "workers", "training"})
    if flags == ["--json"]:
        found: dict[str, Any] = json.loads(done.stdout)
        assert found == summarise(dataset)


def test_the_disk_line_of_a_selection_is_of_the_selection(dataset: Dataset) -> None:
    whole, some = (describe(summarise(dataset, where))[-1] for where in (None, "split = 'test'"))
    assert "in 4 shards" in whole
    assert "shards" not in some
    assert size_of(some) < size_of(whole)


def size_of(line: str) -> float:
    found = re.search(r": ([\d.]+) kB ", line)
    assert found
    return float(found[1])


def test_the_picture_of_a_sample_is_of_that_sample(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = run(capsys, "inspect", dataset.path, "--sample", "s000000003", "--figures", tmp_path)
    assert (code, error) == (0, f"wrote {tmp_path / 's000000003.png'}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["s000000003.png"]
