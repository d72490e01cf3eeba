from __future__ import annotations

import numpy as np

from pipeline.body import BODY_MARGIN_MM, body_box, cropped_to
from pipeline.image import Volume
from tests.ct_files import AIR, TISSUE


def test_the_box_holds_the_body_and_a_margin_without_table_and_air() -> None:
    ct = np.full((60, 50, 30), AIR, np.int16)
    ct[15:40, 12:35] = TISSUE
    ct[10:50, 3:4] = TISSUE  # a table under it
    organs = np.zeros(ct.shape, np.uint8)
    organs[20, 20, 20] = 1
    x, y, z = body_box(Volume(ct, np.diag([2.0, 2, 2, 1])), organs)
    margin = round(BODY_MARGIN_MM / 2)
    assert x.start <= 15 - margin + 1
    assert 40 + margin - 1 <= x.stop <= 40 + margin + 2
    assert 4 < y.start <= 12 - margin + 1
    assert (z.start, z.stop) == (0, 30)


def test_organs_outside_the_body_are_not_cropped_away() -> None:
    ct = np.full((40, 40, 40), AIR, np.int16)
    ct[20:38, 20:38, 20:38] = TISSUE
    organs = np.zeros(ct.shape, np.uint8)
    organs[1, 2, 3] = 25
    assert organs[body_box(Volume(ct, np.eye(4)), organs)].any()
    assert body_box(Volume(np.full_like(ct, AIR), np.eye(4)), np.zeros_like(organs)) == (slice(0, 40),) * 3


def test_a_part_of_a_scan_stays_where_it_was() -> None:
    image = Volume(np.arange(60).reshape(3, 4, 5), np.array([[2.0, 0, 0, 7], [0, 3, 0, 8], [0, 0, 4, 9], [0, 0, 0, 1]]))
    part = cropped_to(image, (slice(1, 3), slice(2, 4), slice(0, 5)))
    np.testing.assert_array_equal(part.data, image.data[1:3, 2:4])
    np.testing.assert_array_equal(part.affine[:3, 3], [9, 14, 9])
