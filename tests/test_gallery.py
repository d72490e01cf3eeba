"""The gallery: a page whose pictures exist, are small and the same each time, and whose commands work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

import pipeline.gallery as gallery_module
from pipeline.bank import Bank, create_or_open_bank, open_bank
from pipeline.gallery import gallery, make_phantom_bank
from pipeline.gallery_content import CONTRAST, EFFECTS, GROWTH, LOOK, PART, sizes_mm
from pipeline.organs import TUMOR_ORGANS
from pipeline.presets import preset_of
from pipeline.preview import Wish
from pipeline.steps import PARTS
from tests.cases import make_abdomen
from tests.command import run

LARGEST_BYTES = 120_000


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    path = tmp_path_factory.mktemp("gallery") / "bank"
    with create_or_open_bank(path, 3.0) as writer:
        for phase in ("arterial", "portal_venous"):
            writer.add_case(make_abdomen(phase, phase=phase))
    return open_bank(path)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    _make_small(monkeypatch)


def _make_small(patch: pytest.MonkeyPatch) -> None:
    """One organ, one size, few tries: what the page is made of, in seconds."""
    patch.setattr(gallery_module, "TUMOR_ORGANS", ("pancreas",))
    patch.setattr(gallery_module, "sizes_mm", lambda organ, kind: (14.0,))
    patch.setattr(gallery_module, "EFFECTS", EFFECTS[:1])
    patch.setattr(gallery_module, "GROWTH", (Wish("kidney", "clear_cell", 30, points=2),))
    patch.setattr(gallery_module, "_SEEDS", 2)
    patch.setattr(gallery_module, "_PARTS", 1)


@pytest.fixture(scope="module")
def page(bank: Bank, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page."""
    out = tmp_path_factory.mktemp("page") / "new"
    with pytest.MonkeyPatch.context() as patch:
        _make_small(patch)
        files = gallery(out, bank.path, 0, lambda _: None)
    assert sorted(files) == sorted(path for path in out.rglob("*") if path.is_file())
    return out


def test_every_kind_has_a_picture_facts_and_a_command(page: Path) -> None:
    text = (page / "gallery.md").read_text()
    for kind in preset_of("pancreas").kinds:
        assert f"`{kind}`" in text
        assert (page / "gallery" / f"pancreas_{kind}.png").exists()
    shown = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert sorted(shown) == sorted(f"gallery/{path.name}" for path in (page / "gallery").iterdir())
    assert "| wanted | arterial | portal venous |" in text
    assert re.search(r"\| 14 mm \| 1\d\.\d mm, [+-]\d+ HU \| 1\d\.\d mm, [+-]\d+ HU \|", text)
    assert re.search(r"- day 90: \d+\.\d mm, RECIST", text)


def test_pictures_are_small_and_of_few_colours(page: Path) -> None:
    for file in (page / "gallery").iterdir():
        assert file.stat().st_size < LARGEST_BYTES
        assert Image.open(file).mode == "P"


@pytest.mark.usefixtures("small")
def test_the_page_is_the_same_each_time(page: Path, bank: Bank, tmp_path: Path) -> None:
    for file in gallery(tmp_path, bank.path, 0, lambda _: None):
        assert file.read_bytes() == (page / file.relative_to(tmp_path)).read_bytes()


def test_the_commands_of_the_page_work(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^`phantumor (preview .*)`$", (page / "gallery.md").read_text(), re.MULTILINE)
    assert len(commands) >= 5
    for command in (commands[0], commands[-1]):
        *words, name = shlex.split(command)
        code, _, err = run(capsys, *words, tmp_path / name)
        assert code == 0, err
        assert (tmp_path / name).exists()


def test_the_phantoms_hold_every_organ_in_every_phase(tmp_path: Path) -> None:
    said: list[str] = []
    bank = make_phantom_bank(tmp_path / "bank", said.append, (108, 88, 66), 3.0)
    assert [record.phase for record in bank.records] == ["arterial", "native", "portal_venous"]
    assert all(set(record.usable_organs) == set(TUMOR_ORGANS) for record in bank.records)
    assert len(said) == 3


def test_the_page_speaks_of_kinds_and_parts_that_exist() -> None:
    kinds = {(organ, kind) for organ in TUMOR_ORGANS for kind in preset_of(organ).kinds}
    assert set(LOOK) == kinds
    assert set(CONTRAST) | set(PART) <= kinds
    assert {(wish.organ, wish.kind) for wish in (*GROWTH, *(effect.wish for effect in EFFECTS))} <= kinds
    assert {effect.part for effect in EFFECTS} <= set(PARTS)
    assert all(list(sizes_mm(*of)) == sorted(sizes_mm(*of)) for of in kinds)


def test_the_verb_has_help_and_refuses_a_wrong_bank(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Example" in run(capsys, "gallery", "--help")[1]
    (tmp_path / "folder").mkdir()
    code, _, err = run(capsys, "gallery", "--out", tmp_path / "look", "--bank", tmp_path / "folder")
    assert code == 2
    assert str(tmp_path / "folder") in err
    assert not (tmp_path / "look").exists()
