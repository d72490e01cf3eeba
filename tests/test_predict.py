from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.errors import InputError
from pipeline.image import Volume
from pipeline.train_config import NetworkConfig, TrainConfig
from tests.datasets import make_dataset
from training.checkpoint import Checkpoint, RunMeta, save_checkpoint
from training.network import ClassTable, build_network
from training.predict import (
    Segmenter,
    describe_volumes,
    find_images,
    nifti_by_name,
    predict_batch,
    predict_dataset,
    predict_file,
    predict_folder,
    predict_samples,
    predict_volume,
)

torch.set_num_threads(1)
CLASSES = {"background": 0, "kidney": 5, "kidney_tumor": 6}
KIDNEY_HU, TUMOR_HU = 100, 200


class Thresholds(torch.nn.Module):
    """Class 1 above 0 and class 2 above 0.5 of the window -200..200 HU, voxel by voxel; remembers its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen.append(image.clone())
        return torch.cat((torch.zeros_like(image), image * 4, image * 8 - 2.6), 1)


def make_segmenter(patch_shape: tuple[int, int, int] = (8, 8, 8), spacing_mm: float = 1.0) -> Segmenter:
    return Segmenter(Thresholds(), ClassTable(CLASSES), (-200.0, 200.0), patch_shape, spacing_mm, torch.device("cpu"))


def make_ct(shape: tuple[int, int, int], seed: int = 0) -> npt.NDArray[np.int16]:
    """Air, and a kidney box with an off-centre tumor box."""
    ct = np.full(shape, -1000, np.int16)
    x, y, z = shape
    ct[x // 4 : -2, y // 3 : -3, 2 : z - z // 4] = KIDNEY_HU
    ct[x // 4 : x // 2, y // 3 : y // 3 + 4, 2 : z // 2] = TUMOR_HU
    return ct


def expected(ct: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    return np.select([ct == TUMOR_HU, ct == KIDNEY_HU], [6, 5], 0).astype(np.uint8)


@pytest.mark.parametrize("shape", [(8, 8, 8), (11, 20, 9), (5, 6, 7), (3, 17, 8)])
def test_volumes_of_any_size_get_the_ids_of_their_voxels(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    ct = rng.choice(np.array([-1000, KIDNEY_HU, TUMOR_HU], np.int16), shape)
    labels = predict_volume(make_segmenter(), ct)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, expected(ct))


def test_a_volume_smaller_than_the_patch_is_padded_with_air() -> None:
    segmenter = make_segmenter()
    predict_volume(segmenter, np.full((4, 8, 8), 200, np.int16))
    (window,) = segmenter.network.seen  # type: ignore[misc]
    assert window.shape == (1, 1, 8, 8, 8)
    assert sorted(window.unique().tolist()) == [-1.0, 1.0]
    assert int((window == 1).sum()) == 4 * 8 * 8


def test_batches_are_predicted_sample_by_sample() -> None:
    images = torch.from_numpy(np.stack([make_ct((12, 12, 12)), np.full((12, 12, 12), -1000, np.int16)]))[:, None]
    labels = predict_batch(make_segmenter(), images)
    assert (labels.shape, labels.dtype) == ((2, 1, 12, 12, 12), torch.uint8)
    assert np.array_equal(labels[0, 0].numpy(), expected(make_ct((12, 12, 12))))
    assert not labels[1].any()


def write_image(file: Path, ct: npt.NDArray[np.int16], affine: npt.NDArray[np.float64]) -> None:
    nib.save(nib.Nifti1Image(ct, affine), file)


TURNS = {
    "RAS": np.diag([1.0, 1, 1]),
    "LAS": np.diag([-1.0, 1, 1]),
    "LPI": np.diag([-1.0, -1, -1]),
    "PIR": np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]]),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("sizes", [(1.0, 1.0, 1.0), (0.8, 1.0, 2.0)])
def test_a_file_keeps_its_grid_axis_order_and_affine(
    tmp_path: Path, turn: str, sizes: tuple[float, float, float]
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = TURNS[turn] * sizes
    affine[:3, 3] = (12.5, -40, 7)
    ct = make_ct((24, 26, 20))
    write_image(tmp_path / "a.nii.gz", ct, affine)
    returned = predict_file(make_segmenter(), tmp_path / "a.nii.gz", tmp_path / "out.nii.gz")
    written = nib.load(tmp_path / "out.nii.gz")
    labels = np.asarray(written.dataobj)
    assert nib.aff2axcodes(written.affine) == tuple(turn)
    assert np.array_equal(written.affine, nib.load(tmp_path / "a.nii.gz").affine)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, returned.data)
    assert np.array_equal(returned.affine, written.affine)
    if sizes == (1.0, 1.0, 1.0):
        assert np.array_equal(labels, expected(ct))
    else:
        # The network ran on a 1 mm grid: voxels at the edges may differ by interpolation, no more.
        assert labels.shape == ct.shape
        assert np.mean(labels == expected(ct)) > 0.93


def test_results_replace_older_ones(tmp_path: Path) -> None:
    write_image(tmp_path / "a.nii", make_ct((16, 16, 16)), np.eye(4))
    (tmp_path / "out.nii.gz").write_text("an older result")
    predict_file(make_segmenter(), tmp_path / "a.nii", tmp_path / "out.nii.gz")
    assert nib.load(tmp_path / "out.nii.gz").shape == (16, 16, 16)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.nii", "out.nii.gz"]


def make_run(run: Path, classes: dict[str, int] = CLASSES, spacing_mm: float = 1.0) -> Path:
    config = TrainConfig(network=NetworkConfig(channels=(2, 4), strides=(2,)))
    network = build_network(config.network, len(classes), seed=3)
    meta = RunMeta(5, config, classes, spacing_mm, (8, 8, 8), "data", "digest", {})
    run.mkdir()
    save_checkpoint(run / "best.pt", Checkpoint(meta, network.state_dict(), {}, {}, None, 0))
    return run


def make_images(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(folder / name, make_ct((12, 16, 12)), np.diag([-1.0, 1, 1, 1]))
    return folder


def test_a_folder_is_predicted_file_by_file(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images", "a.nii.gz", "b.nii", "case_c/ct.nii.gz", "case_d/ct.nii")
    (images / "case_e").mkdir()
    (images / "notes.txt").write_text("not an image")
    lines: list[str] = []
    out = tmp_path / "out" / "deep"
    written = predict_folder(make_run(tmp_path / "run"), images, out, lines.append, device="cpu")
    names = ["a.nii.gz", "b.nii.gz", "case_c.nii.gz", "case_d.nii.gz"]
    assert written == [out / name for name in names]
    assert sorted(file.name for file in out.iterdir()) == names
    assert [line.split(":")[0] for line in lines] == ["1/4 a", "2/4 b", "3/4 case_c", "4/4 case_d"]
    first = np.asarray(nib.load(written[0]).dataobj)
    assert first.shape == (12, 16, 12)
    assert set(np.unique(first)) <= set(CLASSES.values())


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["x.nii.gz"], ["x"]),
        (["ct.nii.gz"], ["ct"]),
        (["ct.nii.gz", "liver.nii.gz"], ["images"]),
        (["ct.nii.gz", "segmentations/liver.nii.gz"], ["images"]),
        (["b/ct.nii.gz", "a/ct.nii.gz", "a/liver.nii.gz"], ["a", "b"]),
        (["S.NII.GZ", ".hidden.nii.gz"], ["S"]),
    ],
)
def test_images_are_found_by_case(tmp_path: Path, files: list[str], names: list[str]) -> None:
    for name in files:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).touch()
    found = find_images(tmp_path / "images")
    assert list(found) == names
    assert all(file.is_file() for file in found.values())


def test_one_file_is_a_list_of_one(tmp_path: Path) -> None:
    (tmp_path / "x.nii.gz").touch()
    assert find_images(tmp_path / "x.nii.gz") == {"x": tmp_path / "x.nii.gz"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no images found"),
        (["notes.txt", "empty/notes.txt"], "no images found"),
        (["a.nii", "a.nii.gz"], "several images are named a"),
        (["a.nii", "a/ct.nii.gz"], "several images are named a"),
    ],
)
def test_folders_without_clear_images_are_refused(tmp_path: Path, files: list[str], message: str) -> None:
    (tmp_path / "images").mkdir()
    for name in files:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).touch()
    with pytest.raises(InputError, match=message):
        predict_folder(tmp_path / "run", tmp_path / "images", tmp_path / "out", print)
    assert not (tmp_path / "out").exists()


def test_label_maps_are_found_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        nifti_by_name(tmp_path / "none")
    with pytest.raises(InputError, match=r"holds no \.nii\.gz"):
        nifti_by_name(tmp_path)
    for name in ("b.nii", "a.nii.gz"):
        (tmp_path / name).touch()
    assert nifti_by_name(tmp_path) == {"a": tmp_path / "a.nii.gz", "b": tmp_path / "b.nii"}
    (tmp_path / "a.nii").touch()
    with pytest.raises(InputError, match="several images are named a"):
        nifti_by_name(tmp_path)


def test_volumes_for_people_are_in_ml() -> None:
    labels = Volume(np.array([0] * 500 + [5] * 250 + [6] * 250, np.uint8).reshape(10, 10, 10), np.diag([2.0, 1, 2, 1]))
    assert describe_volumes(labels, ClassTable(CLASSES)) == "kidney 1.0 ml, kidney_tumor 1.0 ml"


def test_wrong_places_are_refused(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images", "a.nii.gz")
    before = (images / "a.nii.gz").read_bytes()
    run = make_run(tmp_path / "run")
    (tmp_path / "file").touch()
    for out, message in ((images, "would replace the image"), (tmp_path / "file", "is a file")):
        with pytest.raises(InputError, match=message):
            predict_folder(run, images, out, print)
    with pytest.raises(InputError, match="no such run"):
        predict_folder(tmp_path / "none", images, tmp_path / "out", print)
    with pytest.raises(InputError, match="no such folder of images"):
        predict_folder(run, tmp_path / "none", tmp_path / "out", print)
    assert (images / "a.nii.gz").read_bytes() == before


LIVER = {"background": 0, "liver": 1, "liver_tumor": 2}


def test_stored_samples_are_predicted_in_order_whatever_the_batch(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", samples=10)
    run = make_run(tmp_path / "run", LIVER)
    got = {size: list(predict_dataset(run, dataset, "all", batch_size=size, device="cpu")) for size in (1, 4)}
    assert [p.sample for p in got[1]] == list(range(10))
    for one, many in zip(got[1], got[4], strict=True):
        assert np.array_equal(one.truth, dataset.sample(one.sample).label)
        assert one.prediction.dtype == np.uint8
        assert np.array_equal(one.prediction, many.prediction)
    assert [sample for sample, _, _ in predict_dataset(run, dataset.path, "test")] == [4, 9]


def test_samples_are_scored_on_the_right_voxels(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", samples=2)
    segmenter = dataclasses.replace(make_segmenter((16, 16, 16)), classes=ClassTable(LIVER))
    for sample, truth, prediction in predict_samples(segmenter, dataset, [1, 0], 2):
        image = dataset.sample(sample).image
        assert np.array_equal(prediction > 0, image > 0)
        assert np.array_equal(truth, dataset.sample(sample).label)


def test_datasets_that_do_not_fit_the_run_are_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", samples=3)
    run = make_run(tmp_path / "run", LIVER, spacing_mm=2.0)
    cases: list[tuple[Any, str, str]] = [
        (dataset, "train", "has 1 mm voxels, .* trained at 2 mm"),
        (dataset, "val", r"no samples of split 'val' \(the dataset has train 3\)"),
        (dataset, "validation", "unknown split"),
        (tmp_path, "train", "not a phantumor dataset"),
    ]
    for data, split, message in cases:
        with pytest.raises(InputError, match=message):
            predict_dataset(run, data, split)
