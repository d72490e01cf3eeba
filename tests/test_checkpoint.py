from __future__ import annotations

import dataclasses
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import InputError
from pipeline.settings import resolve
from pipeline.train_config import NetworkConfig, TrainConfig
from training.checkpoint import (
    FORMAT,
    FORMAT_VERSION,
    Checkpoint,
    RunMeta,
    kept_checkpoints,
    load_for_inference,
    load_state,
    read_checkpoint,
    save_checkpoint,
    save_last,
    write_config,
)
from training.network import build_network

CONFIG = TrainConfig(network=NetworkConfig(channels=(2, 4), strides=(2,)), crop_shape=(8, 8, 8))
FIELDS = ("model", "averaged", "optimizer", "scaler", "stream", "best_score", "validated_step")
CLASSES = {"background": 0, "liver": 1, "liver_tumor": 2}


def make_checkpoint(step: int = 7, seed: int = 0) -> Checkpoint:
    network = build_network(CONFIG.network, 3, (8, 8, 8), seed)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 1, 8, 8, 8)).sum().backward()
    optimizer.step()
    meta = RunMeta(step, CONFIG, CLASSES, 1.5, (8, 8, 8), "data", "digest", 1, {"torch": "x"})
    return Checkpoint(meta, network.state_dict(), None, optimizer.state_dict(), None, {"position": 14}, 0.5, 6)


def same(a: Any, b: Any) -> bool:
    """Equal with equal types, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and bool(a == b)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    before = make_checkpoint()
    save_checkpoint(tmp_path / "last.pt", before)
    after = read_checkpoint(tmp_path / "last.pt")
    assert after.meta == before.meta
    for name in FIELDS:
        assert same(getattr(before, name), getattr(after, name)), name


def test_a_failed_write_leaves_the_old_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "last.pt"
    save_checkpoint(file, make_checkpoint(step=1))
    kept = file.read_bytes()

    def disk_is_full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_is_full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(file, make_checkpoint(step=2))
    assert file.read_bytes() == kept
    assert list(tmp_path.iterdir()) == [file]


class Payload:
    """Unpickling it creates a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.file),)


def write_text(file: Path) -> None:
    file.write_text("no checkpoint")


def write_empty(file: Path) -> None:
    file.write_bytes(b"")


def write_cut(file: Path) -> None:
    save_checkpoint(file, make_checkpoint())
    file.write_bytes(file.read_bytes()[:-100])


def write_changed(file: Path) -> None:
    save_checkpoint(file, make_checkpoint())
    data = bytearray(file.read_bytes())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        weights = next(entry for entry in archive.infolist() if "/data/" in entry.filename)
    data[weights.header_offset + 150] ^= 1
    file.write_bytes(data)


def write_pickle(file: Path) -> None:
    file.write_bytes(pickle.dumps(Payload(file.with_name("ran"))))


def write_torch_pickle(file: Path) -> None:
    torch.save({"format": FORMAT, "x": Payload(file.with_name("ran"))}, file)


def write_weights_of_others(file: Path) -> None:
    torch.save({"state_dict": torch.zeros(3)}, file)


def write_tensor(file: Path) -> None:
    torch.save(torch.zeros(3), file)


def write_folder(file: Path) -> None:
    file.mkdir()


def document() -> dict[str, Any]:
    buffer = make_checkpoint()
    meta = dataclasses.asdict(dataclasses.replace(buffer.meta, config=None))  # type: ignore[arg-type]
    rest = {name: getattr(buffer, name) for name in FIELDS}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "meta": meta | {"config": CONFIG.model_dump(mode="json")},
        **rest,
    }


def write_other_version(file: Path) -> None:
    torch.save(document() | {"format_version": 1}, file)


def write_incomplete(file: Path) -> None:
    torch.save({key: value for key, value in document().items() if key != "model"}, file)


def write_bad_config(file: Path) -> None:
    torch.save(document() | {"meta": document()["meta"] | {"config": {"lr": -1}}}, file)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_text, "not a checkpoint"),
        (write_empty, "not a checkpoint"),
        (write_cut, "not a checkpoint, cut off"),
        (write_changed, "checksum"),
        (write_pickle, "not a checkpoint"),
        (write_torch_pickle, "more than plain data"),
        (write_weights_of_others, "not a phantumor checkpoint"),
        (write_tensor, "not a phantumor checkpoint"),
        (write_folder, "cannot be read"),
        (write_other_version, "format 1, this phantumor reads 2"),
        (write_incomplete, "missing or invalid entries: 'model'"),
        (write_bad_config, "missing or invalid entries"),
    ],
)
def test_a_wrong_file_is_one_clear_error(tmp_path: Path, write: Callable[[Path], None], message: str) -> None:
    file = tmp_path / "last.pt"
    write(file)
    with pytest.raises(InputError, match=message) as caught:
        read_checkpoint(file)
    assert str(file) in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_the_document_of_these_tests_is_valid(tmp_path: Path) -> None:
    torch.save(document(), tmp_path / "last.pt")
    assert read_checkpoint(tmp_path / "last.pt").meta.config == CONFIG


def test_inference_takes_the_best_network_and_falls_back_to_the_last(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pt", make_checkpoint(step=9, seed=1))
    _, _, meta = load_for_inference(tmp_path)
    assert meta.step == 9
    best = make_checkpoint(step=5, seed=2)
    save_checkpoint(tmp_path / "best.pt", best)
    network, classes, meta = load_for_inference(tmp_path)
    assert (meta.step, meta.spacing_mm, meta.patch_shape) == (5, 1.5, (8, 8, 8))
    assert same(dict(network.state_dict()), dict(best.model))
    assert not network.training
    assert classes.classes == CLASSES
    assert load_for_inference(tmp_path / "last.pt")[2].step == 9


def test_inference_takes_the_averaged_weights_of_a_run_that_has_them(tmp_path: Path) -> None:
    averaged = make_checkpoint(seed=3).model
    save_checkpoint(tmp_path / "best.pt", dataclasses.replace(make_checkpoint(seed=2), averaged=averaged))
    network, _, _ = load_for_inference(tmp_path)
    assert same(dict(network.state_dict()), dict(averaged))


@pytest.mark.parametrize(("keep", "kept"), [(1, []), (2, [4]), (3, [3, 4]), (9, [1, 2, 3, 4])])
def test_as_many_of_the_last_checkpoints_stay_as_asked_for(tmp_path: Path, keep: int, kept: list[int]) -> None:
    for step in range(6):
        save_last(tmp_path, make_checkpoint(step), keep, replaced=max(0, step - 1))
    assert [read_checkpoint(file).meta.step for file in kept_checkpoints(tmp_path)] == kept
    assert read_checkpoint(tmp_path / "last.pt").meta.step == 5
    save_last(tmp_path, make_checkpoint(5), 1, replaced=5)
    assert kept_checkpoints(tmp_path) == []


def test_a_disk_without_hard_links_keeps_checkpoints_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    for step in (1, 2):
        save_last(tmp_path, make_checkpoint(step), keep=2, replaced=step - 1)
    assert [read_checkpoint(file).meta.step for file in kept_checkpoints(tmp_path)] == [1]


def test_a_folder_without_a_trained_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run"):
        load_for_inference(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no best\.pt or last\.pt"):
        load_for_inference(tmp_path)
    save_checkpoint(tmp_path / "last.pt", make_checkpoint(step=0))
    with pytest.raises(InputError, match="before the first step"):
        load_for_inference(tmp_path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    other = build_network(NetworkConfig(channels=(2, 8), strides=(2,)), 3, (8, 8, 8))
    with pytest.raises(InputError, match="do not fit the network"):
        load_state(other, make_checkpoint().model, tmp_path / "last.pt")


def test_the_config_beside_a_run_is_the_resolved_one(tmp_path: Path) -> None:
    write_config(tmp_path, CONFIG, "some/data")
    written = tmp_path / "config.yaml"
    assert "some/data" in written.read_text().splitlines()[0]
    assert resolve(TrainConfig, written, {}) == CONFIG  # what --config does with it
