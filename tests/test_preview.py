"""Preview: the tumor that was wished for, look-alikes, series, files, and refusals that say what to do."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline.bank import Bank, create_or_open_bank, open_bank
from pipeline.errors import InputError
from pipeline.organs import CLASS_IDS
from pipeline.preview import Wish, describe_frame, extent_mm, field_of_view, make_preview, preview
from tests.cases import make_abdomen, make_bank, make_case

LIVER, LIVER_TUMOR = CLASS_IDS["liver"], CLASS_IDS["liver_tumor"]


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_bank(tmp_path_factory.mktemp("preview") / "bank", cases=2)


@pytest.fixture(scope="module")
def abdomen(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    path = tmp_path_factory.mktemp("abdomen") / "bank"
    with create_or_open_bank(path, 3.0) as writer:
        writer.add_case(make_abdomen())
    return open_bank(path)


def test_the_wished_kind_and_diameter_are_shown(bank: Bank) -> None:
    made = make_preview(bank, Wish(kind="metastasis", diameter_mm=30))
    (frame,) = made.frames
    (tumor,) = frame.tumors
    assert (tumor["kind"], tumor["requested_diameter_mm"]) == ("metastasis", pytest.approx(30))
    assert tumor["diameter_mm"] == pytest.approx(30, rel=0.1)
    assert (frame.shown == (frame.label == LIVER_TUMOR)).all()
    assert (frame.image != made.healthy)[frame.shown].mean() > 0.9
    assert f"metastasis {tumor['diameter_mm']:.0f} mm" in made.title


def test_the_same_wish_is_the_same_picture(bank: Bank) -> None:
    one, two = (make_preview(bank, Wish(kind="hcc", diameter_mm=25, seed=3)).frames[0].image for _ in range(2))
    assert (one == two).all()
    assert (one != make_preview(bank, Wish(kind="hcc", diameter_mm=25, seed=4)).frames[0].image).any()


@pytest.mark.parametrize("case_id", ["tiny_0", "tiny_1"])
def test_the_wished_case_is_shown(bank: Bank, case_id: str) -> None:
    made = make_preview(bank, Wish(case_id=case_id))
    assert made.spec.case_id == case_id
    assert made.title.startswith(case_id)


def test_a_look_alike_is_shown_and_not_labelled(bank: Bank) -> None:
    made = make_preview(bank, Wish(kind="focal_fat", seed=1))
    (frame,) = made.frames
    assert frame.shown.any()
    assert not (frame.label == LIVER_TUMOR).any()
    assert (frame.label[frame.shown] == LIVER).all()
    assert (frame.image != made.healthy)[frame.shown].any()
    assert frame.tumors[0]["contrast_hu"] < -5
    assert "look-alike" in made.title


def test_a_series_grows_and_lies_inside_itself(bank: Bank) -> None:
    made = make_preview(bank, Wish(kind="metastasis", diameter_mm=40, points=3, interval_days=100))
    assert [frame.day for frame in made.frames] == [0, 100, 200]
    sizes = [frame.tumors[0]["diameter_mm"] for frame in made.frames]
    assert sizes == sorted(sizes)
    assert sizes[0] < 0.9 * sizes[-1]
    assert all((earlier.shown <= later.shown).all() for earlier, later in pairwise(made.frames))
    assert made.lesion.form.engine == "growth"


def test_a_time_before_the_lesion_shows_says_so(bank: Bank) -> None:
    made = make_preview(bank, Wish(kind="metastasis", diameter_mm=12, points=2, interval_days=5000))
    assert describe_frame(made.frames[0]) == "day 0: too small to show"
    assert describe_frame(made.frames[1]).startswith("day 5000: 1")


def test_what_is_left_out_is_not_there(bank: Bank) -> None:
    wishes = [Wish(kind="hcc", diameter_mm=40, without=without) for without in ((), ("mass_effect", "septa"))]
    parts = [make_preview(bank, wish).lesion for wish in wishes]
    assert (parts[1].mass_effect, parts[1].septa) == (None, None)
    assert parts[0].diameter_mm == parts[1].diameter_mm


def test_seed_paper_kinds(bank: Bank) -> None:
    assert make_preview(bank, Wish(kind="small", presets="seed-paper")).lesion.kind == "small"


@pytest.mark.parametrize("organ", ["kidney", "pancreas", "colon"])
def test_other_organs(abdomen: Bank, organ: str) -> None:
    made = make_preview(abdomen, Wish(organ))
    assert (made.frames[0].label == CLASS_IDS[f"{organ}_tumor"]).any()


def test_the_field_of_view_holds_the_tumor_and_stays_in_the_patch(bank: Bank) -> None:
    for seed in range(4):
        made = make_preview(bank, Wish(diameter_mm=20, seed=seed))
        view = field_of_view(made)
        shown = made.frames[0].shown
        assert shown[view].sum() == shown.sum()
        assert all(0 <= s.start < s.stop <= n for s, n in zip(view, shown.shape, strict=True))
        assert extent_mm(made) >= 15


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"kind": "glioma"}, ["glioma", "metastasis", "look-alikes", "focal_fat"]),
        ({"organ": "toe"}, ["toe", "liver"]),
        ({"organ": "kidney", "presets": "seed-paper"}, ["seed-paper", "kidney"]),
        ({"points": 3, "engine": "ellipsoid"}, ["--series", "--engine growth"]),
        ({"engine": "cube"}, ["cube", "ellipsoid, growth"]),
        ({"kind": "focal_fat", "diameter_mm": 20}, ["--diameter-mm", "focal_fat"]),
        ({"kind": "focal_fat", "points": 2}, ["--series", "focal_fat"]),
        ({"case_id": "nobody"}, ["nobody", "tiny_0"]),
        ({"diameter_mm": 300}, ["300", "organ", "holds"]),
        ({"diameter_mm": 2}, ["2", "grid of 3 mm"]),
    ],
    ids=str,
)
def test_what_cannot_be_shown_is_refused(bank: Bank, wish: dict[str, object], says: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        make_preview(bank, Wish(**wish))  # type: ignore[arg-type]
    for word in says:
        assert word in str(refused.value)


def test_a_large_tumor_in_a_small_organ_names_the_limit(tmp_path: Path) -> None:
    with create_or_open_bank(tmp_path / "bank", 3.0) as writer:
        writer.add_case(make_case("small", shape=(36, 30, 28)))
    with pytest.raises(InputError, match=r"60 mm are not possible in case small.*ml.*holds \d+ mm"):
        make_preview(open_bank(tmp_path / "bank"), Wish(diameter_mm=60))


def test_a_picture_of_a_series_and_its_lines(bank: Bank, tmp_path: Path) -> None:
    wish = Wish(kind="metastasis", diameter_mm=30, points=7)
    files, lines = preview(bank.path, tmp_path / "new" / "look.png", wish)
    assert files == [tmp_path / "new" / "look.png"]
    assert files[0].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(lines) == 7
    assert all("RECIST" in line or "too small" in line for line in lines)


def test_volumes_of_a_series(bank: Bank, tmp_path: Path) -> None:
    wish = Wish(kind="metastasis", diameter_mm=30, points=2, interval_days=60)
    files, _ = preview(bank.path, tmp_path / "look.nii.gz", wish)
    names = ["_day000", "_day060", "_healthy", "_day000_label", "_day060_label"]
    assert [file.name for file in files] == [f"look{name}.nii.gz" for name in names]
    first, last, healthy, _, label = (np.asarray(nib.load(file).dataobj) for file in files)
    tumor = label == LIVER_TUMOR
    assert np.abs(last - healthy)[tumor].mean() > np.abs(first - healthy)[tumor].mean()


def test_another_ending_is_refused_before_anything_is_made(bank: Bank, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"look\.jpg.*\.png"):
        preview(bank.path, tmp_path / "look.jpg", Wish())
    assert list(tmp_path.iterdir()) == []
