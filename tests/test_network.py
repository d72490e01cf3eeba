from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.train_config import NetworkConfig
from training.network import ClassTable, build_network, check_shape, nearest_valid_shape, resolve_device

TINY = NetworkConfig(channels=(2, 4), strides=(2,))
CLASSES = {"background": 0, "liver": 1, "liver_tumor": 2, "kidney": 5, "kidney_tumor": 6}


def test_weights_depend_on_the_seed_alone_and_leave_the_global_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = build_network(TINY, 3, seed=1).state_dict()
    assert torch.equal(torch.rand(3), expected)
    again, other = (build_network(TINY, 3, seed=seed).state_dict() for seed in (1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("config", [TINY, TINY.model_copy(update={"res_units": 1}), NetworkConfig()])
def test_network_gives_one_channel_per_class(config: NetworkConfig) -> None:
    network = build_network(config, 5)
    assert network(torch.zeros(2, 1, 16, 8, 8)).shape == (2, 5, 16, 8, 8)


def test_class_table_numbers_channels_by_ascending_id() -> None:
    table = ClassTable(dict(reversed(CLASSES.items())))
    label = torch.tensor([[6, 0, 5], [2, 1, 6]], dtype=torch.uint8)
    channels = table.to_channels(label)
    assert channels.dtype == torch.int64
    assert channels.tolist() == [[4, 0, 3], [2, 1, 4]]
    back = table.to_ids(channels)
    assert back.dtype == torch.uint8
    assert torch.equal(back, label)
    assert table.names == ("background", "liver", "liver_tumor", "kidney", "kidney_tumor")
    assert table.tumors == {"kidney_tumor": 6, "liver_tumor": 2}
    assert len(table) == 5


def test_a_label_with_a_class_that_the_dataset_does_not_list_is_refused() -> None:
    with pytest.raises(InputError, match=r"class ids \[3, 255\].*lists \[0, 1, 2, 5, 6\]"):
        ClassTable(CLASSES).to_channels(torch.tensor([0, 3, 255], dtype=torch.uint8))


@pytest.mark.parametrize(
    "classes", [{}, {"background": 0}, {"liver": 1, "x": 2}, {"background": 0, "a": 0}, {"background": 0, "a": 256}]
)
def test_class_tables_that_cannot_be_are_refused(classes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="background 0"):
        ClassTable(classes)


@pytest.mark.parametrize(
    ("shape", "strides", "nearest"),
    [
        ((50, 48, 48), (2, 2, 2), "(48, 48, 48)"),
        ((44, 48, 41), (2, 2, 2), "(48, 48, 40)"),
        ((95, 95, 95), (2, 2, 2), "(96, 96, 96)"),
        ((97, 97, 97), (2, 2, 2), "(96, 96, 96)"),
        ((8, 8, 8), (2, 2, 2), "(16, 16, 16)"),
        ((10, 16, 16), (3,), "(9, 15, 15)"),
    ],
)
def test_a_shape_that_does_not_fit_names_the_nearest_that_does(
    shape: tuple[int, int, int], strides: tuple[int, ...], nearest: str
) -> None:
    config = NetworkConfig(channels=(2,) * (len(strides) + 1), strides=strides)
    with pytest.raises(InputError) as caught:
        check_shape(shape, (96, 96, 96), config, "crop_shape")
    assert nearest in str(caught.value)
    assert f"crop_shape {shape}" in str(caught.value)


def test_no_shape_fits_a_patch_below_the_product_of_strides() -> None:
    config = NetworkConfig(channels=(2,) * 5, strides=(2, 2, 2, 2))
    with pytest.raises(InputError, match="smaller strides"):
        check_shape((12, 12, 12), (12, 12, 12), config, "patch")


@pytest.mark.parametrize("shape", [(16, 16, 16), (8, 8, 16), (96, 96, 96)])
def test_valid_shapes_pass(shape: tuple[int, int, int]) -> None:
    check_shape(shape, shape, NetworkConfig(), "patch")


@pytest.mark.parametrize(("shape", "trains"), [((4, 2, 2), True), ((2, 2, 2), False), ((3, 4, 4), False)])
def test_the_rule_on_shapes_is_the_network_s_own(shape: tuple[int, int, int], trains: bool) -> None:
    network = build_network(TINY, 2).train()
    try:
        worked = network(torch.zeros(1, 1, *shape)).shape[2:] == shape
    except (RuntimeError, ValueError):
        worked = False
    assert worked == trains
    try:
        check_shape(shape, shape, TINY, "patch")
        allowed = True
    except InputError:
        allowed = False
    assert allowed == trains


edges = st.integers(1, 200)


@given(shape=st.tuples(edges, edges, edges), over=st.integers(0, 40), factor=st.sampled_from([1, 2, 3, 4, 8, 16, 32]))
def test_the_nearest_shape_fits_network_and_limit(shape: tuple[int, int, int], over: int, factor: int) -> None:
    limit = (shape[0] + over, shape[1] + over, shape[2] + over)
    nearest = nearest_valid_shape(shape, limit, factor)
    if nearest is None:
        assert min(limit) < factor or math.prod(edge // factor for edge in limit) == 1
        return
    assert all(edge % factor == 0 and factor <= edge <= most for edge, most in zip(nearest, limit, strict=True))
    assert math.prod(nearest) > factor**3


def test_auto_is_a_device_that_exists() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("text", ["gpu", "cuda:99", "meta", ""])
def test_devices_that_cannot_be_used_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="cannot be used here"):
        resolve_device(text)
