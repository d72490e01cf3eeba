"""Annotations of a dataset: kept beside the manifest, added to as it grows, and trusted only where they belong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.annotations import annotate as door
from pipeline.annotations.annotate import annotate
from pipeline.annotations.derive import annotate_sample
from pipeline.annotations.records import SampleAnnotation
from pipeline.annotations.settings import AnnotationSettings
from pipeline.annotations.table import ANNOTATIONS, read_annotations
from pipeline.catalog import open_dataset
from pipeline.cli import main
from pipeline.config import GenerateConfig
from pipeline.errors import InputError
from pipeline.manifest import WHOLE, part_name
from pipeline.store import open_store
from pipeline.views import merge, select
from tests.cases import make_bank
from tests.datasets import make_dataset
from tests.s3_server import S3Server
from workers.generate import generate

SAMPLES, SHARD = 10, 4
SETTINGS = AnnotationSettings(seed=5, box_jitter_mm=2, scribble_every_mm=4)


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with annotations, of which three samples are a row group."""
    folder = tmp_path_factory.mktemp("annotations") / "data"
    make_dataset(folder, samples=SAMPLES, shard_samples=SHARD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(door, "GROUP_ROWS", 3)
        annotate(folder, SETTINGS, log=quiet)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(made, tmp_path / "data"))


def same(a: SampleAnnotation, b: SampleAnnotation) -> bool:
    """Whether two records say the same."""
    plain = {**vars(a), "scribbles": None} == {**vars(b), "scribbles": None}
    return plain and {c: v.tolist() for c, v in a.scribbles.items()} == {c: v.tolist() for c, v in b.scribbles.items()}


def content(folder: Path) -> tuple[list[dict[str, Any]], bytes]:
    """All rows, and what the file says of them."""
    file = pq.ParquetFile(folder / ANNOTATIONS)
    return file.read(use_threads=False).to_pylist(), file.metadata.metadata[b"phantumor.annotations"]


def growing(folder: Path) -> Path:
    """The dataset as it was before its last shard was committed."""
    (folder / WHOLE).unlink()
    (folder / part_name(SAMPLES // SHARD)).unlink()
    (folder / ANNOTATIONS).unlink(missing_ok=True)
    return folder


def test_what_is_read_is_what_the_label_gives(made: Path) -> None:
    dataset = open_dataset(made)
    annotations = read_annotations(dataset)
    assert annotations.settings == SETTINGS
    tumors = 0
    for index in reversed(range(SAMPLES)):
        sample = dataset.sample(index)
        derived = annotate_sample(sample.label, sample.row, SETTINGS)
        assert same(annotations.of(index), derived)
        tumors += len(derived.tumors)
    assert tumors == sum(dataset.manifest["n_tumors"].to_pylist()) > 0
    with pytest.raises(InputError, match="no annotations of a sample 10"):
        annotations.of(SAMPLES)


def test_the_manifest_is_left_alone(folder: Path) -> None:
    before = (folder / WHOLE).read_bytes()
    annotate(folder, anew=True, log=quiet)
    assert (folder / WHOLE).read_bytes() == before
    assert read_annotations(open_dataset(folder)).settings == AnnotationSettings()


def test_growth_adds_rows_only(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = growing(Path(shutil.copytree(made, tmp_path / "small")))
    assert annotate(small, SETTINGS, log=quiet).made == 2 * SHARD
    grown = Path(shutil.copytree(made, tmp_path / "grown"))
    shutil.copy(small / ANNOTATIONS, grown / ANNOTATIONS)
    with pytest.raises(InputError, match="lacks 2 of the dataset's 10 samples"):
        read_annotations(open_dataset(grown))
    derived: list[int] = []
    record = lambda label, row, *rest: derived.append(row["index"]) or annotate_sample(label, row, *rest)  # noqa: E731
    monkeypatch.setattr(door, "annotate_sample", record)
    assert annotate(grown, log=quiet).made == 2  # with the settings of then
    assert sorted(derived) == [8, 9]
    assert content(grown) == content(made)
    before = (grown / ANNOTATIONS).read_bytes()
    assert annotate(grown, SETTINGS, log=quiet).made == 0
    assert (grown / ANNOTATIONS).read_bytes() == before


def test_a_sample_that_was_made_anew_is_derived_anew(folder: Path) -> None:
    rows = pq.ParquetFile(folder / ANNOTATIONS)
    table, metadata = rows.read(use_threads=False), rows.metadata.metadata
    labels = table["label_crc32c"].to_numpy().copy()
    labels[4] += 1
    changed = table.set_column(2, table.schema.field(2), [labels]).replace_schema_metadata(metadata)
    pq.write_table(changed, folder / ANNOTATIONS)
    assert annotate(folder, log=quiet).made == 1
    assert read_annotations(open_dataset(folder)).of(4).index == 4


def test_what_was_derived_before_a_stop_is_kept(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "data"))
    (folder / ANNOTATIONS).unlink()

    def stopping(label: Any, row: Any, *rest: Any) -> SampleAnnotation:
        if row["index"] == 7:
            raise KeyboardInterrupt
        return annotate_sample(label, row, *rest)

    monkeypatch.setattr(door, "GROUP_ROWS", 3)
    with monkeypatch.context() as patch:
        patch.setattr(door, "annotate_sample", stopping)
        with pytest.raises(KeyboardInterrupt):
            annotate(folder, SETTINGS, log=quiet)
    assert [row["index"] for row in content(folder)[0]] == list(range(6))
    assert annotate(folder, log=quiet).made == 4
    assert content(folder) == content(made)


def test_other_settings_need_anew(folder: Path) -> None:
    with pytest.raises(InputError, match=r"box_jitter_mm: 2\.0 -> 0\.0.*--anew"):
        annotate(folder, AnnotationSettings(seed=5, scribble_every_mm=4), log=quiet)
    assert annotate(folder, AnnotationSettings(seed=5), anew=True, log=quiet).made == SAMPLES


def test_a_view_has_its_own(made: Path, tmp_path: Path) -> None:
    select(made, tmp_path / "view", where="n_tumors > 1")
    view = open_dataset(tmp_path / "view")
    with pytest.raises(InputError, match=r"has no annotations\.parquet; `phantumor annotate"):
        read_annotations(view)
    annotate(tmp_path / "view", SETTINGS, log=quiet)
    source, own = read_annotations(open_dataset(made)), read_annotations(view)
    indices = view.columns(["index"])["index"].to_pylist()
    assert indices
    assert all(same(own.of(index), source.of(index)) for index in indices)
    make_dataset(tmp_path / "other", samples=3, seed=9)
    merge([made, tmp_path / "other"], tmp_path / "both", log=quiet)
    assert annotate(tmp_path / "both", log=quiet).made == SAMPLES + 3
    assert read_annotations(open_dataset(tmp_path / "both")).of(12).sample_id == "s000000012"


def read_all(folder: Path) -> list[SampleAnnotation]:
    annotations = read_annotations(open_dataset(folder))
    return [annotations.of(index) for index in range(SAMPLES)]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 4] ^= 255
    file.write_bytes(data)


def garbage(file: Path) -> None:
    file.write_bytes(b"no Parquet at all")


def rewritten(file: Path, **metadata: str) -> None:
    old = pq.ParquetFile(file)
    said = {name: value for name, value in old.metadata.metadata.items() if name != b"ARROW:schema"}
    said |= {f"phantumor.{key}".encode(): value.encode() for key, value in metadata.items()}
    pq.write_table(old.read(use_threads=False).replace_schema_metadata(said), file)


def of_another_version(file: Path) -> None:
    rewritten(file, annotations_version="99")


def without_origin(file: Path) -> None:
    rewritten(file, annotations="{}")


def of_another_dataset(file: Path) -> None:
    make_dataset(file.parent / "other", samples=3, seed=9)
    annotate(file.parent / "other", log=quiet)
    shutil.copy(file.parent / "other" / ANNOTATIONS, file)


def a_manifest(file: Path) -> None:
    shutil.copy(file.parent / WHOLE, file)


def shuffled(file: Path) -> None:
    old = pq.ParquetFile(file)
    rows = old.read(use_threads=False)[::-1].replace_schema_metadata(old.metadata.metadata)
    pq.write_table(rows, file)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "not a readable file of annotations"),
        (flipped, "not a readable file of annotations"),
        (garbage, "not a readable file of annotations"),
        (of_another_version, "annotations of version 99, this phantumor reads version 1"),
        (without_origin, "does not say what it was derived from"),
        (of_another_dataset, "derived from another dataset"),
        (a_manifest, "annotations of version none"),
        (shuffled, "not in the order of index"),
    ],
)
def test_a_broken_or_foreign_file_is_one_message(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(folder / ANNOTATIONS)
    with pytest.raises(InputError, match=message) as caught:
        read_all(folder)
    assert str(folder / ANNOTATIONS) in str(caught.value)
    assert "annotate` again" in str(caught.value)


def test_a_file_that_is_written_anew_is_not_read_on(folder: Path) -> None:
    annotations = read_annotations(open_dataset(folder))
    annotate(folder, anew=True, log=quiet)
    with pytest.raises(InputError, match="written anew since it was opened"):
        annotations.of(0)


def test_a_dataset_in_an_object_store(s3: S3Server) -> None:
    url = s3.new_url()
    make_dataset(url, samples=2)
    assert annotate(url, SETTINGS, log=quiet).made == 2
    assert open_store(url).exists(ANNOTATIONS)
    dataset = open_dataset(url)
    sample = dataset.sample(1)
    assert same(read_annotations(dataset).of(1), annotate_sample(sample.label, sample.row, SETTINGS))


# -- of generated datasets --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same three samples in full, as differences and as recipes, and their bank."""
    folder = tmp_path_factory.mktemp("generated")
    bank = make_bank(folder / "bank", cases=1)
    for store in ("full", "delta", "recipe"):
        config = GenerateConfig(samples=3, patch_shape=(32, 32, 24), healthy_share=0, body_share=0, store=store)
        generate(bank.path, folder / store, config, log=quiet)
    return folder


def test_all_stores_give_the_same_and_reports_know_the_whole_organ(generated: Path) -> None:
    found = []
    for store in ("full", "delta", "recipe"):
        summary = annotate(generated / store, log=quiet)
        assert summary.with_cases
        annotations = read_annotations(open_dataset(generated / store))
        found.append([annotations.of(index) for index in range(3)])
    assert all(same(a, b) and same(a, c) for a, b, c in zip(*found, strict=True))
    findings = [finding for sample in found[0] for finding in sample.findings]
    assert findings
    assert all(finding.region and finding.margin and finding.attenuation for finding in findings)


def test_a_bank_that_moved_is_named(generated: Path, tmp_path: Path) -> None:
    full = Path(shutil.copytree(generated / "full", tmp_path / "full", ignore=shutil.ignore_patterns(ANNOTATIONS)))
    notes: list[str] = []
    assert not annotate(full, log=notes.append).with_cases
    assert "--bank says where it is" in notes[0]
    assert {f.region for k in range(3) for f in read_annotations(open_dataset(full)).of(k).findings} == {None}
    assert annotate(full, bank=generated / "bank", anew=True, log=quiet).with_cases
    with pytest.raises(InputError, match="with --bank, or derive all of it again with --anew"):
        annotate(full, log=quiet)
    make_bank(tmp_path / "another", cases=1, spacing_mm=4.0)
    with pytest.raises(InputError, match="not the bank that"):
        annotate(full, bank=tmp_path / "another", log=quiet)


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_shows_a_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / ANNOTATIONS).unlink()
    assert main(["annotate", str(folder), "--box-jitter-mm", "3", "--seed", "2"]) == 0
    assert read_annotations(open_dataset(folder)).settings == AnnotationSettings(seed=2, box_jitter_mm=3)
    printed = capsys.readouterr().out
    example = read_annotations(open_dataset(folder)).of(1)
    assert "annotations of 10 samples, 10 of them derived in this run" in printed
    assert "settings: seed 2, box_jitter_mm 3, scribble_length 0.5, scribble_every_mm 10" in printed
    assert all(line in printed for line in example.report.splitlines())
    assert main(["annotate", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["made"] == 0
    assert document["settings"]["box_jitter_mm"] == 3
    assert document["example"]["tumors"][0]["box_vox"] == list(example.tumors[0].box_vox)
    assert document["example"]["scribbles"]["2"] == len(example.scribbles[2])
    assert main(["annotate", str(folder), "--scribble-length", "2"]) == 2


def test_settings_come_from_a_file_and_flags_win(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("seed: 3\nscribble_length: 0.25\n")
    words = ["annotate", str(folder), "--config", str(tmp_path / "settings.yaml"), "--seed", "4", "--anew", "--json"]
    assert main(words) == 0
    assert read_annotations(open_dataset(folder)).settings == AnnotationSettings(seed=4, scribble_length=0.25)
    assert np.isfinite(read_annotations(open_dataset(folder)).of(0).tumors[0].long_mm)
