"""Which samples a report shows, and which part of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import InputError
from tests.reports import ALARM, CLEAN, FOUND, example, labels, scored, summary
from training.report import choose_examples
from training.report.choice import HEALTHY, WORST
from training.report.examples import picture, shown_box, shown_slice


def test_the_worst_come_first_then_what_to_compare_them_with() -> None:
    outlines = [scored(f"miss{k:02}", labels(3), labels()) for k in range(WORST)]
    outlines += [scored("half", labels(2, 8), labels(2)), scored("best", labels(2), labels(2))]
    alarms = [scored(f"alarm{k}", labels(), labels(5, size=1 + k % 2)) for k in range(HEALTHY + 1)]
    shown = choose_examples(summary([*outlines, *alarms, CLEAN])[1])
    assert list(shown)[:7] == [f"miss{k:02}" for k in range(7)]
    assert list(shown)[7:10] == ["alarm1", "alarm3", "alarm0"]  # the larger false tumors first
    assert shown["miss00"] == "Worst 1: tumor Dice 0.00"
    assert shown["alarm1"] == "Worst 8: healthy sample, 0.06 ml of false tumor"
    assert list(shown)[10:] == ["miss09", "best"]
    assert shown["best"] == "Best outline: tumor Dice 1.00"


def test_among_equals_the_most_false_tumor_is_worst() -> None:
    results = [scored("a", labels(3), labels()), scored("b", labels(3), labels(8)), scored("c", labels(2), labels(2))]
    shown = choose_examples(summary(results)[1])
    assert list(shown) == ["b", "a", "c"]
    assert shown["b"] == "Worst 1: tumor Dice 0.00, and 0.06 ml of false tumor elsewhere"


def test_places_that_one_side_does_not_need_go_to_the_other() -> None:
    misses = [scored(f"miss{k:02}", labels(3), labels()) for k in range(WORST + 5)]
    alarms = [scored(f"alarm{k:02}", labels(), labels(5)) for k in range(WORST + 5)]

    def worst(*results: object) -> list[str]:
        chosen = choose_examples(summary(results)[1])  # type: ignore[arg-type]
        return [case_id for case_id, caption in chosen.items() if caption.startswith("Worst")]

    assert worst(*misses) == [f"miss{k:02}" for k in range(WORST)]
    assert worst(*alarms) == [f"alarm{k:02}" for k in range(WORST)]
    assert len(worst(*misses[:2], *alarms)) == len(worst(*misses, *alarms[:1])) == WORST


def test_examples_of_few_samples() -> None:
    assert choose_examples(summary([FOUND])[1]) == {"found": "Worst 1: tumor Dice 0.67"}
    assert choose_examples(summary([CLEAN])[1]) == {"clean": "Worst 1: organ Dice 1.00"}
    assert choose_examples(summary([CLEAN, ALARM])[1]) == {
        "alarm": "Worst 1: healthy sample, 0.06 ml of false tumor",
    }
    assert choose_examples([]) == {}


def test_shown_slice_is_where_most_is_wrong() -> None:
    truth, prediction = labels(), labels()
    truth[:, :, 6] = 1  # nothing is predicted of that
    prediction[:, :, 6] = 0
    assert shown_slice(truth, prediction) == 6
    for tumor in (truth, prediction):
        tumor[4:6, 4:6, 3] = 2  # a tumor, and rightly outlined
    assert shown_slice(truth, prediction) == 3
    truth[4, 4, 1] = 2  # a voxel that is missed
    assert shown_slice(truth, prediction) == 1
    prediction[8:10, 8, 5] = 2  # and two that are false
    assert shown_slice(truth, prediction) == 5
    nothing = np.zeros((4, 4, 6), np.uint8)
    assert shown_slice(nothing, nothing) == 3


@pytest.mark.parametrize(
    ("corner", "spacing_mm", "expected"),
    [
        (2, 2.0, (slice(0, 16), slice(0, 12), 2)),  # smaller than the window: all of it
        (2, (20.0, 40.0, 1.0), (slice(0, 8), slice(2, 6), 2)),  # at the edge: moved inside
        (7, (20.0, 40.0, 1.0), (slice(4, 12), slice(2, 6), 2)),
        (7, (500.0, 500.0, 1.0), (slice(7, 9), slice(3, 5), 2)),  # never less than the tumor
    ],
)
def test_large_slices_are_cut_around_the_tumor(
    corner: int, spacing_mm: float | tuple[float, float, float], expected: tuple[slice, slice, int]
) -> None:
    assert shown_box(labels(corner), labels(), spacing_mm) == expected


def test_truth_and_prediction_of_a_slice_are_both_in_the_picture() -> None:
    assert shown_box(labels(2), labels(12), (20.0, 40.0, 1.0))[0] == slice(1, 15)


def test_a_sample_without_labels_is_shown_whole() -> None:
    nothing = np.zeros((16, 12, 8), np.uint8)
    assert shown_box(nothing, nothing, 20.0) == (slice(0, 16), slice(0, 12), 4)


def test_pictures_are_png_show_the_prediction_and_say_where() -> None:
    shown = example()
    drawn = picture(shown)
    assert drawn.png.startswith(b"\x89PNG\r\n")
    assert drawn.caption == "Best outline. Sample found, slice Z 2."
    assert picture(replace(shown, prediction=labels(2, 8))).png != drawn.png
    one_slice = replace(shown, ct=shown.ct[:, :, :1], truth=shown.truth[:, :, :1], prediction=shown.truth[:, :, :1])
    assert picture(one_slice).caption == "Best outline. Sample found."


def test_an_example_of_two_grids_is_refused() -> None:
    with pytest.raises(InputError, match="found"):
        replace(example(), prediction=labels()[:-1])
