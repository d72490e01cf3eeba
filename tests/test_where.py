"""`--where`: which rows an expression selects, and that nothing but the documented grammar is ever evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.catalog import Dataset, open_dataset
from pipeline.errors import InputError
from pipeline.manifest import SCHEMA, TUMOR_TYPE, ManifestFile
from pipeline.where import chosen, columns_named, positions, select
from tests.datasets import make_dataset

Tumor = dict[str, Any]


def tumor(kind: str, diameter_mm: float, contrast_hu: float, vessel_distance_mm: float | None = 5.0) -> Tumor:
    return dict.fromkeys(TUMOR_TYPE.names) | {
        "organ": "liver",
        "kind": kind,
        "diameter_mm": diameter_mm,
        "recist_long_mm": diameter_mm + 1,
        "contrast_hu": contrast_hu,
        "vessel_distance_mm": vessel_distance_mm,
    }


SAMPLES: list[tuple[str, str, list[Tumor]]] = [
    ("train", "A=1", [tumor("hcc", 8, 40), tumor("metastasis", 25, -30)]),
    ("train", "b == c", [tumor("hcc", 25, 45)]),
    ("test", "O'Brien=3", []),
    ("val", "AND-1 OR IN not", [tumor("metastasis", 8, -20)]),
    ("test", 'a "b" <c>', [tumor("cyst", 12, -90, None)]),
]


def make_table() -> pa.Table:
    rows = [
        {
            "index": k,
            "split": split,
            "case_id": case,
            "n_tumors": len(tumors),
            "spacing_mm": 1.5,
            "series_id": k // 2 if k else None,
            "time_days": 90.0 * k if k else None,
            "tumors": tumors,
        }
        for k, (split, case, tumors) in enumerate(SAMPLES)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def found(expression: str, table: pa.Table | None = None) -> list[int]:
    indices: list[int] = select(make_table() if table is None else table, expression)["index"].to_pylist()
    return indices


SELECTED: list[tuple[str, list[int]]] = [
    # sample columns
    ("split = 'train'", [0, 1]),
    ("split == 'train'", [0, 1]),
    ("split='train'", [0, 1]),
    ('split = "train"', [0, 1]),
    ("'train' = split", [0, 1]),
    ("split != 'train'", [2, 3, 4]),
    ("n_tumors = 0", [2]),
    ("n_tumors>=1", [0, 1, 3, 4]),
    ("1 <= index < 3", [1, 2]),
    ("3 > index >= 1", [1, 2]),
    ("index > -1", [0, 1, 2, 3, 4]),
    ("spacing_mm = 1.5", [0, 1, 2, 3, 4]),
    ("n_tumors > 0.5", [0, 1, 3, 4]),
    ("index = n_tumors", [1]),
    ("series_id = 1", [2, 3]),
    ("not series_id = 1", [1, 4]),  # a sample that is of no series meets nothing about them
    ("time_days > 90", [2, 3, 4]),
    # strings
    ("case_id = 'A=1'", [0]),
    ("case_id = 'b == c'", [1]),
    ("case_id = 'A==1'", []),
    ('case_id = "O\'Brien=3"', [2]),
    ("case_id = 'AND-1 OR IN not'", [3]),
    ("case_id = 'a \"b\" <c>'", [4]),
    ("case_id = 'TRAIN'", []),
    ("case_id = 'O\\'Brien=3'", [2]),
    # and, or, not
    ("split = 'train' and n_tumors = 1", [1]),
    ("split = 'val' or split = 'test' and n_tumors = 0", [2, 3]),
    ("(split = 'val' or split = 'test') and n_tumors = 1", [3, 4]),
    ("not split = 'train'", [2, 3, 4]),
    ("not (split = 'train' or n_tumors = 0)", [3, 4]),
    ("split = 'train' AND n_tumors = 1 OR NOT n_tumors < 2", [0, 1]),
    ("split = 'train' And Not n_tumors = 1 Or n_tumors = 0", [0, 2]),
    ("not not n_tumors = 0", [2]),
    # in
    ("split in ('val', 'test')", [2, 3, 4]),
    ("split IN ['val', 'test']", [2, 3, 4]),
    ("split not in ('val', 'test')", [0, 1]),
    ("split NOT IN ('val',)", [0, 1, 2, 4]),
    ("split in ('val')", [3]),  # a list of one, as in SQL
    ("index in (4)", [4]),
    ("index in (0, 4, 99)", [0, 4]),
    ("index in (-1, 2)", [2]),
    ("spacing_mm in (1, 1.5)", [0, 1, 2, 3, 4]),
    # tumors: one of them meets the whole expression
    ("kind = 'hcc'", [0, 1]),
    ("kind = 'hcc' and diameter_mm < 10", [0]),
    ("kind = 'metastasis' and diameter_mm < 10", [3]),
    ("kind = 'metastasis' and diameter_mm > 10", [0]),
    ("kind = 'hcc' and contrast_hu < 0", []),
    ("not kind = 'hcc'", [0, 3, 4]),
    ("kind != 'hcc'", [0, 3, 4]),
    ("contrast_hu < -25", [0, 4]),
    ("contrast_hu in (-20, -90)", [3, 4]),
    ("-30 <= contrast_hu <= -20", [0, 3]),
    ("5 < diameter_mm <= 12", [0, 3, 4]),
    ("kind in ('cyst', 'metastasis')", [0, 3, 4]),
    ("kind in ('cyst')", [4]),
    ("recist_long_mm > diameter_mm", [0, 1, 3, 4]),
    ("diameter_mm > 10 and diameter_mm < 9", []),
    # samples without tumors meet no expression about tumors, whatever else it says
    ("split = 'test' or kind = 'hcc'", [0, 1, 4]),
    ("split = 'test' and not kind = 'hcc'", [4]),
    ("n_tumors = 0 or kind = 'hcc'", [0, 1]),
    # both
    ("split = 'train' and kind = 'hcc' and diameter_mm > 20", [1]),
    ("n_tumors = 2 and kind = 'metastasis'", [0]),
    # a missing value meets no comparison, nor its opposite
    ("vessel_distance_mm < 100", [0, 1, 3]),
    ("not vessel_distance_mm < 100", []),
    # form
    (" \tn_tumors = 0  ", [2]),
    ("((((n_tumors = 0))))", [2]),
]


@pytest.mark.parametrize(("expression", "expected"), SELECTED)
def test_an_expression_selects(expression: str, expected: list[int]) -> None:
    assert found(expression) == expected


REFUSED: list[tuple[str, str]] = [
    # nothing to evaluate
    ("", "cannot be read"),
    ("   ", "cannot be read"),
    ("True", "no column"),
    ("1 = 1", "no column"),
    ("'a' = 'a'", "no column"),
    ("not False", "no column"),
    ("n_tumors", "not a comparison"),
    ("n_tumors and split", "not a comparison"),
    ("n_tumors = 1 and True", "not a comparison"),
    ("1 = 1 and n_tumors = 1", "neither is a column"),
    # names
    ("diametre_mm < 3", r"unknown column diametre_mm \(columns: .*split.*of tumors: .*diameter_mm"),
    ("organs = 'liver'", "unknown column organs"),
    ("__class__ = 1", "unknown column __class__"),
    ("pc = 1", "unknown column pc"),
    # syntax
    ("split = 'train", "cannot be read"),
    ("split =", "cannot be read"),
    ("split = = 'train'", "cannot be read"),
    ("(n_tumors = 1", "cannot be read"),
    ("n_tumors = 1; split = 'train'", "cannot be read"),
    ("n_tumors := 1", "cannot be read"),
    ("import os", "cannot be read"),
    ("n_tumors = 1\x00", "cannot be read"),
    ("n_tumors = 1\nimport os", "cannot be read"),
    # types
    ("kind = 5", "cannot be compared"),
    ("kind < 5", "cannot be compared"),
    ("n_tumors = 'one'", "cannot be compared"),
    ("n_tumors = '1'", "cannot be compared"),
    ("n_tumors = True", "cannot be compared"),
    ("kind = n_tumors", "cannot be compared"),
    ("index in ('1', '2')", "cannot be compared"),
    ("kind in ('hcc', 5)", "cannot be compared"),
    ("index = 99999999999999999999", "cannot be compared"),
    ("index in (99999999999999999999, 1)", "cannot be compared"),
    ("split in ('\\ud800',)", "cannot be compared"),
    ("split = None", "neither a column nor a value"),
    ("split = b'train'", "neither a column nor a value"),
    ("n_tumors = 1j", "neither a column nor a value"),
    ("n_tumors = ...", "neither a column nor a value"),
    # lists stand behind `in` and nowhere else, and hold values only
    ("index = (0, 1, 2, 3, 4)", "--where"),
    ("split = ('train', 'test')", "--where"),
    ("'hcc' in kind", "--where"),
    ("kind in kind", "--where"),
    ("index in (0, n_tumors)", "--where"),
    ("index in ((0, 1), 2)", "--where"),
    ("index in ()", "--where"),
    ("split is 'train'", "not allowed"),
    # Python beyond the grammar
    ("f(kind) = 1", "--where"),
    ("len(kind) = 3", "--where"),
    ("kind.upper() = 'HCC'", "--where"),
    ("kind.__class__ = 1", "--where"),
    ("kind[0] = 'h'", "--where"),
    ("lambda: kind", "--where"),
    ("(lambda: 1)() = n_tumors", "--where"),
    ("lambda kind: kind", "--where"),
    ("[kind for kind in (1,)]", "--where"),
    ("{kind: 1}", "--where"),
    ("n_tumors + 1 = 2", "--where"),
    ("n_tumors & 1 = 1", "--where"),
    ("-n_tumors = 1", "--where"),
    ("~n_tumors = 1", "--where"),
    ("1 if kind = 'hcc' else 0", "--where"),
    ("split = f'{kind}'", "--where"),
    ("*kind,", "--where"),
    ("await kind", "--where"),
    ("yield kind", "--where"),
    ("__import__('os')", "--where"),
    ("kind = __import__('os')", "--where"),
    ("kind in __import__('os').listdir('/')", "--where"),
    ("().__class__.__bases__[0].__subclasses__() = kind", "--where"),
]


@pytest.mark.parametrize(("expression", "reason"), REFUSED)
def test_anything_else_is_one_message(expression: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        found(expression)
    message = str(caught.value)
    assert message.startswith(f"--where {expression!r}: ")  # as it was typed
    assert "Write comparisons" in message
    assert "\n" not in message


DEEP = {
    "too long": "n_tumors = 1 or " * 125 + "n_tumors = 1",
    "parentheses": "(" * 900 + "n_tumors = 1" + ")" * 900,
    "lists": "n_tumors in " + "[" * 300 + "1" + "]" * 300,
    "signs of a number": "n_tumors = " + "-" * 1900 + "1",
    "signs of a column": "-" * 1900 + "n_tumors",
    "attributes": "n_tumors" + ".a" * 900,
    "calls": "n_tumors" + "()" * 900,
    "indices": "kind" + "[0]" * 600,
    "powers": "9**" * 600 + "9 = n_tumors",
    "nots": "not " * 400 + "n_tumors = 0",
    "nots of tumors": "not " * 400 + "diameter_mm < 10",
    "digits": "n_tumors = " + "9" * 1900,
}


@pytest.mark.parametrize("expression", DEEP.values(), ids=DEEP)
def test_long_and_deep_expressions_are_refused(expression: str) -> None:
    with pytest.raises(InputError, match="--where"):
        found(expression)


def test_the_message_about_length_does_not_repeat_the_expression() -> None:
    with pytest.raises(InputError) as caught:
        found("a" * 100_000)
    assert len(str(caught.value)) < 300


ATTACKS = [
    "__import__('pathlib').Path({file!r}).touch()",
    "kind = __import__('pathlib').Path({file!r}).touch()",
    "kind in [__import__('pathlib').Path({file!r}).touch()]",
    "[x for x in [open({file!r}, 'w')]] and kind = 'hcc'",
    "kind = f\"{{open({file!r}, 'w')}}\"",
    "kind = 'hcc' and exec('open({file!r}, \"w\")')",
    "(kind := open({file!r}, 'w')) = 1",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_expression_runs_code(tmp_path: Path, attack: str) -> None:
    file = tmp_path / "made"
    with pytest.raises(InputError):
        found(attack.format(file=str(file)))
    assert not file.exists()


# -- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expression", ["n_tumors > 0", "kind = 'hcc' and split = 'train'", "not kind = 'hcc'"])
def test_how_the_table_is_laid_out_does_not_matter(expression: str) -> None:
    table = make_table()
    chunked = pa.concat_tables([table.slice(0, 2), table.slice(2, 0), table.slice(2, 1), table.slice(3)])
    assert found(expression, chunked) == found(expression)
    part = table.slice(1, 3)
    assert found(expression, part) == [index for index in found(expression) if 1 <= index <= 3]


@pytest.mark.parametrize("expression", ["n_tumors > 0", "kind = 'hcc'", "kind in ('hcc', 'cyst')"])
@pytest.mark.parametrize(
    "table", [SCHEMA.empty_table(), make_table().slice(2, 1), pa.table([[]] * len(SCHEMA), schema=SCHEMA)]
)
def test_tables_without_rows_or_tumors_select_nothing(expression: str, table: pa.Table) -> None:
    assert found(expression, table) == []


def test_a_selection_keeps_whole_rows() -> None:
    table = make_table()
    assert select(table, "kind = 'metastasis'").equals(table.take([0, 3]))


# -- datasets ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("where") / "data", samples=14, patch_shape=(8, 8, 8))


@pytest.mark.parametrize("whole", [True, False], ids=["one manifest file", "parts only"])
@pytest.mark.parametrize(
    "expression",
    ["n_tumors = 0", "kind = 'bright' and split = 'test'", "index in (3, 12)", "n_tumors > 9", "instance = 2"],
)
def test_positions_are_those_of_the_rows(dataset: Dataset, tmp_path: Path, expression: str, whole: bool) -> None:
    opened = dataset
    if not whole:
        opened = make_dataset(tmp_path / "growing", samples=14, patch_shape=(8, 8, 8))
        (tmp_path / "growing" / "manifest.parquet").unlink()
        opened = open_dataset(opened.path)
    found = positions(opened, expression)
    assert found.dtype == np.int64
    assert opened.manifest.take(pa.array(found)).equals(select(opened.manifest, expression))


@pytest.mark.parametrize(
    ("expression", "columns"),
    [
        ("split = 'test'", ["split"]),
        ("kind = 'hcc' and diameter_mm < 10 and n_tumors > 1", ["tumors.diameter_mm", "tumors.kind", "n_tumors"]),
    ],
)
def test_only_the_columns_it_names_are_read(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, expression: str, columns: list[str]
) -> None:
    asked: list[object] = []
    read = ManifestFile.columns
    monkeypatch.setattr(ManifestFile, "columns", lambda self, names: asked.append(names) or read(self, names))
    positions(open_dataset(dataset.path), expression)
    assert len(asked) == 1
    assert sorted(asked[0]) == sorted(columns) == sorted(columns_named(expression))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({}, list(range(14))),
        ({"split": "val"}, [3, 8, 13]),
        ({"limit": 2}, [0, 1]),
        ({"where": "n_tumors = 0"}, [6, 13]),
        ({"where": "n_tumors = 0", "split": "val"}, [13]),
        ({"where": "n_tumors = 0", "limit": 1}, [6]),
        ({"split": "none"}, []),
    ],
)
def test_a_choice_is_of_where_split_and_limit(dataset: Dataset, choice: dict[str, Any], expected: list[int]) -> None:
    assert chosen(dataset, **choice).tolist() == expected


def test_a_limit_of_none_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="--limit 0: must be 1 or more"):
        chosen(dataset, limit=0)
