from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.body import body_box
from pipeline.errors import InputError, PhantumorError
from pipeline.image import Volume, check_same_grid
from pipeline.volume import read_nifti
from tests.command import run as command
from tests.segmenters import CLASSES, LIVER, expected, make_ct, make_run, make_segmenter
from tests.test_dicom import save_slices, series
from training.network import ClassTable
from training.predict import Segmenter
from training.prediction.files import predict_file, predict_folder, volumes_ml
from training.prediction.postprocess import Rules

torch.set_num_threads(1)


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
    returned, _ = predict_file(make_segmenter(), tmp_path / "a.nii.gz", tmp_path / "out.nii.gz")
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


def make_images(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(folder / name, make_ct((12, 16, 12)), np.diag([-1.0, 1, 1, 1]))
    return folder


def test_a_folder_is_predicted_case_by_case(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images", "a.nii.gz", "b.nii", "case_c/ct.nii.gz", "case_d/ct.nii")
    save_slices(images / "case_e", series())
    (images / "case_f").mkdir()
    (images / "notes.txt").write_text("not an image")
    lines: list[str] = []
    out = tmp_path / "out" / "deep"
    done = predict_folder(make_run(tmp_path / "run"), images, out, lines.append, device="cpu")
    names = ["a", "b", "case_c", "case_d", "case_e"]
    assert [one.out for one in done] == [out / f"{name}.nii.gz" for name in names]
    assert sorted(file.name for file in out.iterdir()) == [f"{name}.nii.gz" for name in names]
    assert [line.split(":")[0] for line in lines] == [f"{k}/5 {name}" for k, name in enumerate(names, 1)]
    first = np.asarray(nib.load(done[0].out).dataobj)
    assert first.shape == (12, 16, 12)
    assert set(np.unique(first)) <= set(CLASSES.values())
    assert nib.load(done[4].out).shape == (4, 5, 6)


def test_a_damaged_image_does_not_keep_the_others_from_being_segmented(tmp_path: Path) -> None:
    run, images = make_run(tmp_path / "run"), make_images(tmp_path / "images", "a.nii.gz", "c.nii.gz")
    (images / "b.nii.gz").write_bytes(b"no image")
    lines: list[str] = []
    with pytest.raises(PhantumorError, match=r"1 of 3 images were not segmented, .*: b\. The others are in"):
        predict_folder(run, images, tmp_path / "out", lines.append)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.nii.gz", "c.nii.gz"]
    assert sum("b: not segmented" in line for line in lines) == 1


def test_nothing_is_found_outside_the_body(tmp_path: Path) -> None:
    """As banks leave the table and the air around the body out, networks do not know them."""
    ct = np.full((40, 30, 30), -1000, np.int16)
    ct[2:20, 2:20, 2:20] = 100
    ct[5:8, 5:8, 5:8] = ct[36:39, 26:29, 26:29] = 200  # the other one lies on the table
    write_image(tmp_path / "a.nii", ct, np.diag([2.0, 2.0, 2.0, 1]))
    labels, _ = predict_file(make_segmenter(spacing_mm=2.0), tmp_path / "a.nii", tmp_path / "o.nii")
    assert np.argwhere(labels.data == 6).max() < 10
    assert labels.data[6, 6, 6] == 6


def test_volumes_are_in_ml() -> None:
    labels = Volume(np.array([0] * 500 + [5] * 250 + [6] * 250, np.uint8).reshape(10, 10, 10), np.diag([2.0, 1, 2, 1]))
    assert volumes_ml(labels, ClassTable(CLASSES)) == {"kidney": 1.0, "kidney_tumor": 1.0}


@pytest.mark.parametrize(
    ("rules", "in_kidney", "in_fat"),
    [
        (Rules(), 6, 6),
        (Rules(min_tumor_mm3=100), 5, 6),
        (Rules(min_tumor_mm3=300), 5, 0),
        (Rules(within_organ_mm=8), 6, 0),
        (Rules(within_organ_mm=18), 6, 6),
        (Rules(within_organ_mm=8, min_tumor_mm3=100), 5, 0),
    ],
)
def test_rules_judge_what_is_written_in_mm(tmp_path: Path, rules: Rules, in_kidney: int, in_fat: int) -> None:
    """Voxels of 2 mm; tumors of 64 mm3 in the kidney, and of 216 mm3 in fat, 10.4 mm from it."""
    ct = np.full((16, 16, 16), -150, np.int16)
    ct[0] = -1000
    ct[2:10, 2:10, 2:10] = 100
    ct[5:7, 5:7, 5:7] = ct[12:15, 12:15, 12:15] = 200
    write_image(tmp_path / "a.nii", ct, np.diag([2.0, 2.0, 2.0, 1]))
    labels, removed = predict_file(make_segmenter(spacing_mm=2.0), tmp_path / "a.nii", tmp_path / "o.nii", rules)
    written = read_nifti(tmp_path / "o.nii", "mask").data
    assert np.array_equal(written, labels.data)
    assert (written[5, 5, 5], written[13, 13, 13]) == (in_kidney, in_fat)
    assert sum(part.outside_mm3 + part.to_organ_mm3 + part.to_background_mm3 for part in removed) == pytest.approx(
        64 * (in_kidney == 5) + 216 * (in_fat == 0)
    )


def test_a_rule_that_the_network_cannot_answer_is_refused_before_any_work(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {"background": 0, "liver_tumor": 2})
    images = make_images(tmp_path / "images", "a.nii.gz")
    with pytest.raises(InputError, match="without it"):
        predict_folder(run, images, tmp_path / "out", print, "cpu", rules=Rules(within_organ_mm=3))
    assert not (tmp_path / "out").exists()


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
    with pytest.raises(InputError, match="no such file or folder of images"):
        predict_folder(run, tmp_path / "none", tmp_path / "out", print)
    assert (images / "a.nii.gz").read_bytes() == before


def test_a_full_gpu_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr("training.prediction.files.predict_grid", full)
    images = make_images(tmp_path / "images", "a.nii.gz")
    with pytest.raises(
        PhantumorError, match=r"a\.nii\.gz: the memory of cpu is full \(CUDA .*GiB\.\)\. .*--device cpu"
    ):
        predict_folder(make_run(tmp_path / "run"), images, tmp_path / "out", print, "cpu")


# ---- real CT ----


def at_once(spacing_mm: float) -> Segmenter:
    return make_segmenter((32, 32, 32), spacing_mm)


def test_a_real_ct_at_the_networks_spacing_is_labelled_voxel_by_voxel(shared_data: Path, tmp_path: Path) -> None:
    image = shared_data / "totalseg_native" / "upper" / "ct.nii.gz"
    predict_file(at_once(3.0), image, tmp_path / "o.nii.gz")
    hu, found = read_nifti(image, "CT"), read_nifti(tmp_path / "o.nii.gz", "mask")
    check_same_grid(hu, found, "CT", "result")
    # Thresholds: background below 0 HU, tumor where 8 i - 2.6 > 4 i, which is 130 HU.
    box = body_box(hu)
    assert np.array_equal(found.data[box], np.select([hu.data > 130, hu.data > 0], [6, 5], 0)[box])
    outside = np.ones(hu.shape, bool)
    outside[box] = False
    assert not found.data[outside].any()


def test_the_result_of_a_real_series_lies_on_its_mask(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "totalseg_contrast_slab"
    predict_file(at_once(4.0), folder / "dicom", tmp_path / "o.nii.gz")
    found, mask = read_nifti(tmp_path / "o.nii.gz", "mask"), read_nifti(folder / "organs_las.nii.gz", "mask")
    check_same_grid(mask, found, "mask", "result")
    liver = found.data[mask.data == 5]
    assert np.mean(liver == 5) > 0.9  # 0 to 130 HU
    assert np.mean(found.data[mask.data == 52] == 6) > 0.7  # the aorta has 177 HU, its rim at 4 mm less


# ---- the command ----


def test_the_command_averages_runs_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = make_images(tmp_path / "images", "a.nii.gz", "b/ct.nii.gz")
    runs = make_run(tmp_path / "one"), make_run(tmp_path / "two", seed=5) / "best.pt"
    words = ["predict", *runs, "--images", images, "--out", tmp_path / "out", "--device", "cpu"]
    rules = ["--mirror", "--overlap", "0.25", "--within-organ-mm", "5", "--min-tumor-mm3", "100000"]
    code, out, err = command(capsys, *words, *rules, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert [(one["name"], Path(one["out"]).name) for one in report] == [("a", "a.nii.gz"), ("b", "b.nii.gz")]
    for one in report:
        assert Path(one["out"]).is_file()
        assert set(one["volumes_ml"]) == {"kidney", "kidney_tumor"}
        assert one["volumes_ml"]["kidney_tumor"] == 0  # nothing in these images is 100 ml
        assert [part["tumor"] for part in one["removed"]] == ["kidney_tumor"]
    code, out, _ = command(capsys, *words)
    assert (code, out.splitlines()) == (0, [str(tmp_path / "out" / f"{name}.nii.gz") for name in "ab"])


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--images", "IMAGES", "--out", "OUT"], ["no run is given"]),
        (["RUN", "LIVER", "--images", "IMAGES", "--out", "OUT"], ["cannot be averaged", "liver"]),
        (["RUN", "--images", "IMAGES", "--out", "OUT", "--overlap", "1"], ["--overlap", "< 1"]),
        (["RUN", "--images", "IMAGES", "--out", "OUT", "--min-tumor-mm3", "-1"], ["--min-tumor-mm3", ">= 0"]),
        (["RUN", "--images", "s3://bucket/ct", "--out", "OUT"], ["s3://bucket/ct", "on a disk"]),
        (["RUN", "--images", "IMAGES", "--out", "OUT", "--device", "tpu"], ["tpu", "cpu or cuda"]),
    ],
)
def test_the_command_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], parts: list[str]
) -> None:
    places = {
        "IMAGES": make_images(tmp_path / "images", "a.nii.gz"),
        "OUT": tmp_path / "out",
        "RUN": make_run(tmp_path / "run"),
        "LIVER": make_run(tmp_path / "liver", LIVER),
    }
    code, out, err = command(capsys, "predict", *(places.get(word, word) for word in words))
    assert (code, out) == (2, ""), err
    assert all(part in err for part in parts), err
    assert not (tmp_path / "out").exists()
