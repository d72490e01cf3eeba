from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.organs import (
    CLASS_IDS,
    ELONGATED,
    HOLLOW,
    ORGANS,
    TUMOR_ORGAN_TABLE,
    TUMOR_ORGANS,
    class_of_structure,
    is_tumor,
    label_map,
    organ_id,
    tumor_id,
    tumor_organ,
)


def test_the_first_class_ids_are_part_of_the_format() -> None:
    names = "background liver liver_tumor pancreas pancreas_tumor kidney kidney_tumor colon colon_tumor".split()
    assert [CLASS_IDS[name] for name in names] == list(range(9))
    assert ORGANS[4:7] == ("spleen", "stomach", "gallbladder")


def test_tumors_follow_their_organs() -> None:
    for organ in ORGANS:
        assert tumor_id(organ) == organ_id(organ) + 1
        assert is_tumor(tumor_id(organ))
        assert not is_tumor(organ_id(organ))
    assert not is_tumor(0)


def test_the_table_names_the_organs_for_tumors() -> None:
    assert TUMOR_ORGANS == ("liver", "pancreas", "kidney", "colon")
    assert (HOLLOW, ELONGATED) == (("colon",), ("pancreas",))
    for organ in TUMOR_ORGAN_TABLE:
        assert tumor_organ(organ.name) is organ
        assert organ.name in ORGANS
        assert 0 < organ.volume_ml[0] < organ.volume_ml[1]
        assert organ.mean_hu[0] < organ.mean_hu[1]


def test_an_organ_without_a_line_takes_no_tumors() -> None:
    with pytest.raises(InputError, match="no tumors are put into 'spleen'; choose from liver, pancreas"):
        tumor_organ("spleen")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("liver", "liver"),
        ("kidney_left", "kidney"),
        ("right_kidney", "kidney"),
        ("vertebrae_L1", "bone"),
        ("rib_left_12", "bone"),
        ("sacrum", "bone"),
        ("portal_vein_and_splenic_vein", "portal_vein"),
        ("postcava", "inferior_vena_cava"),
        ("liver_tumor", "liver_tumor"),
        ("heart", "background"),
    ],
)
def test_structures_by_the_names_in_use(name: str, expected: str) -> None:
    assert class_of_structure(name) == CLASS_IDS[expected]


def test_a_name_nobody_uses_has_no_class() -> None:
    assert class_of_structure("lever") is None


@pytest.mark.parametrize(
    ("text", "ids", "expected"),
    [
        ("totalsegmentator", [0, 1, 2, 3, 5, 7, 20, 26, 50, 52, 63, 64, 117], "0 9 5 5 1 3 7 25 25 19 21 23 0"),
        ("lits", [0, 1, 2], "0 1 2"),
        ("phantumor", [0, 6, 7], "0 6 7"),
        ("liver=6, kidney_left=3,kidney=2", [0, 6, 3, 2], "0 1 5 5"),
        ("heart=4,liver=1", [4, 1], "0 1"),
    ],
)
def test_label_maps_translate_ids(text: str, ids: list[int], expected: str) -> None:
    out = label_map(text).apply(np.array(ids), "a.nii")
    assert out.dtype == np.uint8
    assert out.tolist() == [int(i) for i in expected.split()]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_label_maps_keep_the_shape(dtype: type) -> None:
    labels = np.array([[[0, 1], [2, 1]]], dtype)
    np.testing.assert_array_equal(label_map("lits").apply(labels, "a.nii"), labels)


@pytest.mark.parametrize(
    ("ids", "words"),
    [([0, 3], r"ids \[3\] \(it knows 0, 1, 2\)"), ([-1], r"ids \[-1\]"), ([2**31 - 1], "ids"), ([0, 200], "--labels")],
)
def test_unknown_ids_are_refused_with_the_file(ids: list[int], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        label_map("lits").apply(np.array(ids, np.int32), "case7/organs.nii.gz")
    assert "case7/organs.nii.gz" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("totalsegmentor", "neither a known label map"),
        ("", "neither a known label map"),
        ("liver", "neither a known label map"),
        ("liver=x", "nor name=value"),
        ("lever=1", "unknown structure 'lever'"),
        ("liver=0", "0 is background"),
    ],
)
def test_label_texts_that_say_nothing_are_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        label_map(text)


@pytest.mark.parametrize("function", [organ_id, tumor_id])
def test_unknown_organs_are_refused(function: object) -> None:
    with pytest.raises(InputError, match="unknown organ 'heart'; known organs: liver"):
        function("heart")  # type: ignore[operator]
