"""The report folder: complete, self-contained, escaped, and in plain words for every kind of result."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.errors import PhantumorError
from tests.reports import (
    ALARM,
    CLEAN,
    FOUND,
    HOSTILE,
    KNOWN,
    MISSED,
    ORGANS_ONLY,
    Reader,
    assert_loads_nothing,
    example,
    labels,
    scored,
    summary,
)
from training.records import CaseResult, ScoreSettings
from training.report import write_report
from training.report.markdown_page import markdown_page
from training.report.opening import headline, opening
from training.report.page import CLOSING, evaluation
from training.report.sections import html_page
from training.summary import aggregate

CONTEXT = {"Run": "runs/liver", "Dataset": "liver-1k", "Config digest": "a3f9"}


def html_of(*results: CaseResult) -> str:
    metrics, scores, lesions = summary(results)
    return html_page(opening(metrics), evaluation(metrics, scores, lesions, [], CONTEXT), CLOSING)


def markdown_of(*results: CaseResult) -> str:
    metrics, scores, lesions = summary(results)
    return markdown_page(opening(metrics), evaluation(metrics, scores, lesions, [], CONTEXT), CLOSING)


# The folder


def test_the_folder_is_complete(tmp_path: Path) -> None:
    metrics, scores, lesions = summary([FOUND, MISSED, CLEAN, ALARM])
    out = tmp_path / "new" / "report"
    assert write_report(out, metrics, scores, lesions, iter([example()]), CONTEXT) == out / "report.html"
    names = ["cases.parquet", "lesions.parquet", "metrics.json", "report.html", "report.md"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert json.loads((out / "metrics.json").read_text()) == metrics | {"context": CONTEXT}
    cases, found = pq.read_table(out / "cases.parquet"), pq.read_table(out / "lesions.parquet")
    assert cases.num_rows == len(scores) == 8
    assert cases.to_pylist()[1] == {name: getattr(scores[1], name) for name in cases.column_names}
    assert found.num_rows == len(lesions) == 5
    assert found.to_pylist()[0] == {name: getattr(lesions[0], name) for name in found.column_names}


def test_tables_keep_their_columns_without_rows(tmp_path: Path) -> None:
    metrics, scores, lesions = summary([CLEAN])
    write_report(tmp_path / "one", metrics, scores, lesions, [], {})
    write_report(tmp_path / "none", aggregate([], []), [], [], [], {})
    for name in ("cases.parquet", "lesions.parquet"):
        one, none = (pq.read_table(tmp_path / folder / name) for folder in ("one", "none"))
        assert none.num_rows == 0
        assert none.schema.equals(one.schema)


def test_a_second_report_replaces_the_first(tmp_path: Path) -> None:
    for result in (FOUND, CLEAN):
        report = write_report(tmp_path, *summary([result]), [], CONTEXT)
    for text in (report.read_text(), (tmp_path / "report.md").read_text()):
        assert "No tumors to find" in text
    assert pq.read_table(tmp_path / "cases.parquet").column("case_id").to_pylist() == ["clean", "clean"]
    assert len(list(tmp_path.iterdir())) == 5


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PhantumorError, match="cannot write to"):
        write_report(tmp_path / "file", *summary([FOUND]), [], CONTEXT)


# Self-contained and safe


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    report = write_report(tmp_path, *summary([FOUND, MISSED, CLEAN, ALARM, KNOWN]), [example()], CONTEXT)
    text = report.read_text()
    assert "http" not in re.sub(r'"data:[^"]*"', "", text)
    assert not re.search(r"url\(|@import", text)
    assert sum(name == "img" for name, _ in assert_loads_nothing(text).elements) == 1


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    missed = scored(HOSTILE, labels(3), labels())
    report = write_report(tmp_path, *summary([missed]), [example(HOSTILE, HOSTILE)], {HOSTILE: HOSTILE})
    assert_loads_nothing(report.read_text())
    assert Reader(report.read_text()).text.count("alert(1)") == 5  # caption twice, missed tumor, context twice
    markdown = (tmp_path / "report.md").read_text()
    assert markdown.count("alert(1)") == 5
    assert not re.search(r"(?<!\\)<|^# no heading|(?<!\\)`", markdown, re.MULTILINE)


# What it says


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([FOUND, MISSED, CLEAN, ALARM], "Found 1 of 3 tumors: 33 % (95 % interval 6 to 79 %)."),
        ([MISSED], "Found 0 of 1 tumor: 0 % (95 % interval 0 to 79 %)."),
        ([CLEAN, ALARM], "No tumors to find; 1 of 2 healthy samples free of false tumors."),
        ([ORGANS_ONLY], "1 sample evaluated, for organs only."),
        ([], "Nothing was evaluated: there are no samples."),
    ],
)
def test_headline(results: list[CaseResult], said: str) -> None:
    assert headline(summary(results)[0]) == said
    read = Reader(html_of(*results))
    assert read.open == []
    for text in (read.text, markdown_of(*results)):
        assert said in text
        assert "Research software, not for clinical use" in text


@pytest.mark.parametrize(
    ("results", "warned"),
    [
        ([FOUND, CLEAN], set()),
        ([FOUND, MISSED], {"No healthy sample was evaluated"}),
        ([CLEAN, ALARM], {"The truth holds no tumor"}),
        ([FOUND, scored("b", labels(), labels(), "ct1")], {"All samples come from one source case"}),
        ([FOUND, CLEAN, scored("b", labels(), labels(), "ct1")], {"Several samples share a source case"}),
        ([ORGANS_ONLY], set()),
    ],
)
def test_warnings(results: list[CaseResult], warned: set[str]) -> None:
    html = html_of(*results)
    assert html.count('class="warning"') == len(warned)
    assert all(warning in html for warning in warned)


def test_the_reader_sees_the_figures() -> None:
    results = (FOUND, MISSED, CLEAN, ALARM)
    for text in (Reader(html_of(*results)).text, markdown_of(*results)):
        for said in (
            "1 of 2 predicted tumors touched no true tumor",
            "1 of 2 healthy samples stayed free of false tumors.",
            "4 samples from 4 source cases: 2 with tumor, 2 healthy.",
            "Largest missed tumors (2 of 2)",
            "Largest false tumors (1 of 1)",
            "Liver tumor, IoU 0.5 or more",
            "setting nsd_tolerance_mm",
            "runs/liver",
        ):
            assert said in text


def test_a_tile_for_small_tumors_only_where_the_groups_have_that_border() -> None:
    def names(*cuts: float) -> list[str]:
        metrics = aggregate(FOUND.scores, FOUND.lesions, settings=ScoreSettings(diameter_cuts_mm=cuts))
        return [tile.name for tile in opening(metrics).tiles]

    assert "Tumors below 10 mm found" in names(5, 10, 20)
    assert "Tumors below 10 mm found" not in names(8, 20)


def test_another_tolerance_is_said() -> None:
    settings = ScoreSettings(nsd_tolerance_mm=1.5)
    metrics = aggregate(FOUND.scores, FOUND.lesions, settings=settings)
    sections = evaluation(metrics, FOUND.scores, FOUND.lesions, [], {})
    text = Reader(html_page(opening(metrics), sections, CLOSING)).text
    assert "Surface Dice 1.5 mm" in text
    assert "2 mm" not in text


@pytest.mark.parametrize(
    ("words", "there", "left_out"),
    [
        ("False alarms on healthy samples", [FOUND, CLEAN], [FOUND]),
        ("Detection", [FOUND], [ORGANS_ONLY]),
        ("Outlines", [ORGANS_ONLY], []),
        ("FROC: tumors found", [KNOWN], [FOUND]),
        ("By kind of tumor", [KNOWN], [FOUND]),
        ("Limits of agreement", [FOUND], [CLEAN]),
        ("Where it fails", [ALARM], [CLEAN]),
    ],
)
def test_what_does_not_apply_is_left_out(words: str, there: list[CaseResult], left_out: list[CaseResult]) -> None:
    assert words in Reader(html_of(*there)).text
    assert words not in Reader(html_of(*left_out)).text


def test_a_stratum_that_all_tumors_share_is_left_out() -> None:
    text = Reader(html_of(KNOWN)).text
    assert "By contrast to the organ" in text
    assert "\N{MINUS SIGN}60 to \N{MINUS SIGN}40 HU 1 of 1" in text
    assert "clear cell" in text
    assert "By organ" not in text
    assert "By texture" not in text


def test_figures_stand_where_their_header_says() -> None:
    """Columns of the Markdown tables, against the metrics."""
    metrics, *_ = summary([FOUND, MISSED, CLEAN, ALARM])
    text = markdown_of(FOUND, MISSED, CLEAN, ALARM)
    tumor = metrics["classes"]["liver_tumor"]

    def cells(first: str) -> list[str]:
        row = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
        return [cell.strip() for cell in row.strip("|").split("|")]

    assert cells("Liver tumor, touched")[1:3] == ["1 of 3, 33 % (6 to 79 %)", "1 of 2, 50 % (9 to 91 %)"]
    assert float(cells("Liver tumor, touched")[3]) == round(tumor["lesions"]["by_rule"]["overlap"]["f1"], 2) == 0.4
    volume = next(line for line in text.split("| Volume |")[1].splitlines() if line.startswith("| Liver tumor"))
    found = [cell.strip() for cell in volume.strip("|").split("|")]
    assert found[1:4] == ["2", "0.10", "0.03"]  # 16 and 8 true voxels of 8 mm³, 8 and 0 predicted
    assert found[4].startswith(f"\N{MINUS SIGN}{-tumor['volume_error_ml']['mean']:.2f}")
    assert found[5] == "\N{MINUS SIGN}0.06 to \N{MINUS SIGN}0.06"


def test_definitions_are_in_the_report() -> None:
    text = Reader(html_of(FOUND)).text
    for definition in aggregate([], [])["definitions"].values():
        assert definition in text
