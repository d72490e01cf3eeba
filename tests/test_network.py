from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.networks.nets import DynUNet as MonaiDynUNet
from torch.nn import functional as F

from pipeline.errors import InputError
from pipeline.train_config import NetworkConfig
from training.network import ClassTable, build_network, check_shape, levels, nearest_valid_shape, resolve_device
from training.networks.architectures import arguments_of

TINY = NetworkConfig(channels=(2, 4), strides=(2,))
CLASSES = {"background": 0, "liver": 1, "liver_tumor": 2, "kidney": 5, "kidney_tumor": 6}
Shape = tuple[int, int, int]

# Every network with few channels, and the smallest shape that it trains on.
SMALL: dict[str, tuple[NetworkConfig, Shape]] = {
    "unet": (TINY, (4, 2, 2)),
    "unet, residual": (NetworkConfig(channels=(2, 4), strides=(3,), res_units=1), (3, 6, 3)),
    "segresnet": (NetworkConfig(name="segresnet", channels=(2,), options={"blocks_down": [1, 1, 1]}), (4, 4, 8)),
    "dynunet": (NetworkConfig(name="dynunet", channels=(2, 4, 4, 4), options={"res_block": True}), (16, 8, 8)),
    "mednext": (
        NetworkConfig(name="mednext", channels=(2,), options={"blocks_down": [1, 1], "blocks_up": [1, 1]}),
        (4, 8, 4),
    ),
    "swinunetr": (NetworkConfig(name="swinunetr", channels=(12,)), (32, 32, 64)),
}


def small(name: str, **changes: Any) -> tuple[NetworkConfig, Shape]:
    config, shape = SMALL[name]
    if config.name == "swinunetr":
        pytest.importorskip("einops", reason="MONAI's SwinUNETR needs einops")
    return config.model_copy(update=changes), shape


def forward(network: torch.nn.Module, shape: Shape, batch: int = 1) -> Any:
    return network(torch.rand(batch, 1, *shape, generator=torch.Generator().manual_seed(0)))


# -- building ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_every_network_trains_all_its_weights_on_the_smallest_shape(name: str) -> None:
    config, shape = small(name)
    check_shape(shape, shape, config, "patch")
    network = build_network(config, 3, shape).train()
    (logits,) = levels(forward(network, shape, batch=2))
    assert logits.shape == (2, 3, *shape)
    logits.square().mean().backward()
    without = [key for key, weight in network.named_parameters() if weight.grad is None]
    assert without == []  # a process group would wait for them
    assert all(bool(weight.grad.isfinite().all()) for weight in network.parameters() if weight.grad is not None)


@pytest.mark.parametrize("name", ["unet", "dynunet", "segresnet", "mednext"])
def test_weights_depend_on_the_seed_alone_and_leave_the_global_generator(name: str) -> None:
    config, shape = small(name)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = build_network(config, 3, shape, seed=1).state_dict()
    assert torch.equal(torch.rand(3), expected)
    again, other = (build_network(config, 3, shape, seed).state_dict() for seed in (1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (NetworkConfig(), 487_161),
        (NetworkConfig(name="dynunet"), 16_543_683),
        (NetworkConfig(name="segresnet"), 19_914_179),
        (NetworkConfig(name="mednext"), 5_550_947),
    ],
    ids=lambda given: given.name if isinstance(given, NetworkConfig) else "",
)
def test_the_sizes_of_the_defaults(config: NetworkConfig, parameters: int) -> None:
    with torch.device("meta"):
        network = build_network(config, 3, (96, 96, 96))
    assert sum(weight.numel() for weight in network.parameters()) == parameters


def test_swinunetr_names_the_package_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.networks.architectures.find_spec", lambda package: None)
    with pytest.raises(InputError, match="pip install einops"):
        build_network(NetworkConfig(name="swinunetr"), 3, (64, 64, 64))


# -- deep supervision -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "factors"), [("dynunet", (1, 2, 4)), ("segresnet", (1, 2)), ("mednext", (1, 2, 4))])
def test_deep_supervision_gives_coarser_levels_in_training_only(name: str, factors: tuple[int, ...]) -> None:
    config, shape = small(name, deep_supervision=True)
    network = build_network(config, 3, shape)
    outputs = levels(forward(network.train(), shape))
    assert [output.shape for output in outputs] == [(1, 3, *(edge // factor for edge in shape)) for factor in factors]
    torch.stack([output.square().mean() for output in outputs]).sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())
    copied = copy.deepcopy(network).eval()  # what a moving average of the weights does
    answer = forward(copied, shape)
    assert isinstance(answer, torch.Tensor)
    assert answer.shape == (1, 3, *shape)
    assert torch.equal(answer, forward(network.eval(), shape))


def test_dynunet_is_monai_s() -> None:
    config, shape = small("dynunet", deep_supervision=True)
    ours = build_network(config, 3, shape)
    theirs = MonaiDynUNet(spatial_dims=3, in_channels=1, out_channels=3, **arguments_of(config))
    weights = {key.replace("heads.", "deep_supervision_heads.", 1): value for key, value in ours.state_dict().items()}
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert unexpected == []
    assert all(key.startswith("skip_layers.") for key in missing)  # the same blocks under a second name
    assert torch.equal(forward(ours.eval(), shape), forward(theirs.eval(), shape))
    stacked = forward(theirs.train(), shape)
    enlarged = [F.interpolate(output, shape) for output in levels(forward(ours.train(), shape))]
    assert torch.equal(torch.stack(enlarged, dim=1), stacked)


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"deep_supervision": True}, "unet takes no deep_supervision.*is of segresnet, dynunet, mednext"),
        ({"name": "mednext", "res_units": 0}, "mednext takes no res_units; it takes channels, deep_supervision"),
        ({"name": "segresnet", "strides": (2,)}, "segresnet takes no strides.*is of unet, dynunet"),
        ({"name": "segresnet", "channels": (4, 8)}, r"one number of channels.*got \(4, 8\)"),
        ({"channels": (4,)}, "for 2 levels or more"),
        ({"name": "dynunet", "channels": (4, 8)}, "for 3 levels or more"),
        ({"strides": (2, 2)}, r"4 levels need 3 strides, got \(2, 2\)"),
        (
            {"options": {"droput": 0.1}},
            r"unet has no option 'droput' \(did you mean 'dropout'\?\); it takes kernel_size",
        ),
        ({"options": {"channels": [2, 4]}}, "unet has no option 'channels'"),
        ({"name": "segresnet", "options": {"resolution": [1, 1, 5]}}, "no option 'resolution'"),
        ({"name": "segresnet", "options": {"blocks_down": True}}, "blocks_down is True, but takes tuple"),
        (
            {"name": "mednext", "options": {"blocks_up": [1, True]}},
            r"blocks_up is \(1, True\), but takes Sequence\[int\]",
        ),
        ({"name": "mednext", "options": {"kernel_size": "five"}}, "kernel_size is 'five', but takes int"),
        ({"options": {"dropout": True}}, "dropout is True, but takes float"),
        ({"name": "dynunet", "options": {"res_block": 1}}, "res_block is 1, but takes bool"),
        # What only MONAI knows
        ({"name": "dynunet", "options": {"norm_name": "nonsense"}}, "dynunet cannot be built.*NONSENSE"),
        (
            {"name": "mednext", "channels": (2,), "options": {"blocks_up": [1, 1]}},
            "mednext cannot be built.*16, 16, 32",
        ),
    ],
)
def test_settings_that_a_network_does_not_take_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build_network(NetworkConfig.model_validate(given), 3, (16, 16, 32))
    assert "\n" not in str(caught.value)


def test_options_reach_the_network_also_as_text_of_a_command_line() -> None:
    given = NetworkConfig(name="dynunet", options={"dropout": "0.25", "res_block": "true", "act_name": "relu"})
    arguments = arguments_of(given)
    assert (arguments["dropout"], arguments["res_block"], arguments["act_name"]) == (0.25, True, "relu")
    config = NetworkConfig(channels=(2, 4), options={"dropout": "0.25", "norm": "batch"})
    modules = {type(module).__name__ for module in build_network(config, 3, (8, 8, 8)).modules()}
    assert {"Dropout", "BatchNorm3d"} <= modules
    assert "InstanceNorm3d" not in modules


def test_building_leaves_the_settings_as_they_were() -> None:
    config = NetworkConfig(
        name="segresnet", channels=(2,), options={"blocks_down": [1, 1], "norm": ["instance", {"eps": 1e-4}]}
    )
    before = config.model_dump_json()
    build_network(config, 3, (8, 8, 8))
    assert config.model_dump_json() == before


# -- classes ----------------------------------------------------------------------------------------------------------


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


# -- shapes -----------------------------------------------------------------------------------------------------------

FIVE_BLOCKS = NetworkConfig(name="segresnet", options={"blocks_down": [1, 1, 1, 1, 1]})


@pytest.mark.parametrize(
    ("shape", "config", "nearest"),
    [
        ((50, 48, 48), NetworkConfig(), (48, 48, 48)),
        ((44, 48, 41), NetworkConfig(), (48, 48, 40)),
        ((95, 95, 95), NetworkConfig(), (96, 96, 96)),
        ((97, 97, 97), NetworkConfig(), (96, 96, 96)),
        ((8, 8, 8), NetworkConfig(), (16, 16, 16)),
        ((10, 16, 16), NetworkConfig(channels=(2, 2), strides=(3,)), (9, 15, 15)),
        ((40, 40, 40), NetworkConfig(name="dynunet"), (48, 48, 48)),
        ((20, 24, 24), NetworkConfig(name="segresnet"), (24, 24, 24)),
        ((40, 48, 48), FIVE_BLOCKS, (48, 48, 48)),
        ((90, 90, 40), NetworkConfig(name="mednext"), (96, 96, 48)),
        ((48, 48, 48), NetworkConfig(name="swinunetr"), (64, 64, 64)),
        ((32, 32, 32), NetworkConfig(name="swinunetr"), (64, 64, 64)),
    ],
)
def test_a_shape_that_does_not_fit_names_the_nearest_that_does(
    shape: Shape, config: NetworkConfig, nearest: Shape
) -> None:
    with pytest.raises(InputError) as caught:
        check_shape(shape, (96, 96, 96), config, "crop_shape")
    assert f"crop_shape {shape} does not fit network {config.name}" in str(caught.value)
    assert f"nearest valid shape is {nearest}" in str(caught.value)
    check_shape(nearest, (96, 96, 96), config, "crop_shape")


def test_no_shape_fits_a_patch_below_what_the_network_divides_by() -> None:
    with pytest.raises(InputError, match="smaller strides, or larger patches"):
        check_shape((12, 12, 12), (12, 12, 12), NetworkConfig(channels=(2,) * 5), "patch")


@pytest.mark.parametrize("shape", [(16, 16, 16), (8, 8, 16), (96, 96, 96)])
def test_valid_shapes_pass(shape: Shape) -> None:
    check_shape(shape, shape, NetworkConfig(), "patch")


@pytest.mark.parametrize("name", [name for name in SMALL if name != "unet, residual"])
def test_the_rule_on_shapes_is_the_network_s_own(name: str) -> None:
    config, least = small(name, options=SMALL[name][0].options)
    network = build_network(config, 2, least).to("meta").train()
    factor = min(least)
    for shape, trains in {least: True, (factor,) * 3: False, (factor + factor // 2, 2 * factor, factor): False}.items():
        try:
            worked = network(torch.zeros(1, 1, *shape, device="meta")).shape[2:] == shape
        except (RuntimeError, ValueError):
            worked = False
        try:
            check_shape(shape, shape, config, "patch")
            allowed = True
        except InputError:
            allowed = False
        assert (worked, allowed) == (trains, trains), shape


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


# -- devices -----------------------------------------------------------------------------------------------------------


def test_auto_is_a_device_that_exists() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("text", ["gpu", "cuda:99", "meta", ""])
def test_devices_that_cannot_be_used_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="cannot be used here"):
        resolve_device(text)
