"""Layers between QuantizeLinear and DequantizeLinear: the same bits, and an integer Conv."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from deployconv.graph.load import load
from deployconv.options import RewriteOptions
from deployconv.rewrites.planning import plan_model
from deployconv.runtimes import get_backend
from tests.build import Array, Feeds, assert_equal, ops, rewrite, run
from tests.quantized import Activations, Layer, Weight, network, optimised_ops

_2D: dict[str, Any] = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
SYMMETRIC = Weight(zero="zero")
"""What quantizers write; onnxruntime's integer Conv takes one zero point for all channels."""

LAYERS = {
    "int8": Layer(SYMMETRIC),
    "int8_per_tensor": Layer(Weight(axis=None)),
    "uint8_per_tensor": Layer(Weight(np.uint8, None)),
    "no_zero_point": Layer(Weight(zero="none")),
    "folded": Layer(Weight(zero="zero", constant_folded=True)),
    "groups": Layer(SYMMETRIC, group=2),
    "depthwise": Layer(Weight(axis=0, zero="zero"), "float", group=4, channels=(4, 8)),
    "bias_float": Layer(SYMMETRIC, bias="float"),
    "no_bias": Layer(SYMMETRIC, bias="none"),
    "cropped": Layer(SYMMETRIC, attributes=_2D),
    "k_is_s": Layer(SYMMETRIC, kernel=(2, 2)),
    "fewer_taps_than_phases": Layer(SYMMETRIC, kernel=(2, 2), attributes={"strides": [3, 3]}),
    "dilated": Layer(SYMMETRIC, kernel=(3, 3), attributes={**_2D, "dilations": [2, 3]}),
    "unequal_strides": Layer(SYMMETRIC, kernel=(4, 3), attributes={"strides": [2, 3]}),
    "stride_1": Layer(SYMMETRIC, kernel=(3, 3), attributes={"pads": [1, 1, 1, 1]}),
    "1d": Layer(SYMMETRIC, kernel=(5,), attributes={"strides": [3], "pads": [1, 2]}),
    "3d": Layer(SYMMETRIC, kernel=(4, 3, 2), attributes={"strides": [2, 1, 2]}),
}

GRIDS = {
    "uint8_relu": Activations(),
    "uint8_shifted": Activations(zero_point=100, between=()),
    "int8_symmetric": Activations(np.int8, between=()),
    "int8_relu": Activations(np.int8, -128),
    "int8_shifted": Activations(np.int8, 5, between=()),
}


def on_grid(proto: ModelProto, step: float = 2.0) -> Feeds:
    """Multiples of the step: integers in, as the issue of exactness asks for."""
    shape = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    values: Array = np.random.default_rng(1).integers(-40, 90, shape) * step
    return {"x": values.astype(np.float32)}


def sizes(layer: Layer) -> tuple[int, ...]:
    return (5, 6, 3)[: len(layer.kernel)]


@pytest.mark.parametrize("ends", ["float", "integer"])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_the_bits_stay(layer: Layer, grid: Activations, ends: Any) -> None:
    """Without optimisation: sums are exact, so both are the same integers."""
    before = network(layer, grid, sizes(layer), ends=ends)
    done, after = rewrite(before)
    assert [site.certificate for site in done.sites] == ["exact"]
    feeds = on_grid(before)
    expected = run(before, feeds)
    assert len(np.unique(next(iter(expected.values())))) > 10
    assert_equal(expected, run(after, feeds))


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_what_onnxruntime_runs_is_an_integer_conv(layer: Layer, grid: Activations) -> None:
    before = network(layer, grid, sizes(layer))
    assert optimised_ops(before)["ConvTranspose"] == 1
    _, after = rewrite(before)
    made = optimised_ops(after)
    assert made["QLinearConv"] == 1
    assert not made["ConvTranspose"] + made["Conv"] + made["FusedConv"]
    # One at each end of the model: none for weights, none around the shuffle.
    assert (made["QuantizeLinear"], made["DequantizeLinear"]) == (1, 1)
    session = get_backend("ort").prepare
    feeds = on_grid(before)
    first, second = (
        session(proto.SerializeToString(), threads=1).run(feeds)["y"] for proto in (before, after)
    )
    assert np.abs(first - second).max() <= grid.scale_behind  # one quantization step


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("form", ["crop", "pad"])
def test_the_next_layer_is_an_integer_conv_too(grid: Activations, form: str) -> None:
    before = network(LAYERS["cropped"], grid, conv_behind=True)
    _, after = rewrite(before, form=form)
    made = optimised_ops(after)
    assert made["QLinearConv"] == 2
    assert not made["ConvTranspose"] + made["Conv"] + made["FusedConv"]
    assert (made["QuantizeLinear"], made["DequantizeLinear"]) == (1, 1)
    feeds = on_grid(before)
    assert_equal(run(before, feeds), run(after, feeds))


@pytest.mark.parametrize(
    "shuffle", ["dcr", "crd", "transpose", "two-step", "col2im", "channels-last"]
)
def test_every_shuffle_stands_between_the_pairs(shuffle: str) -> None:
    before = network(LAYERS["cropped"], opset=18)
    done, after = rewrite(before, shuffle=shuffle)
    assert [site.shuffle for site in done.sites] == [shuffle]
    assert ops(after)["QuantizeLinear"] == ops(before)["QuantizeLinear"] + 1
    feeds = on_grid(before)
    assert_equal(run(before, feeds), run(after, feeds))


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize(("shuffle", "moves"), [("two-step", 6), ("channels-last", 3)])
def test_integer_convs_meet_channels_last(grid: Activations, shuffle: str, moves: int) -> None:
    """onnxruntime turns the image to the Convs once, back once; one Transpose shuffles."""
    before = network(LAYERS["cropped"], grid, conv_behind=True)
    _, after = rewrite(before, shuffle=shuffle)
    made = optimised_ops(after)
    assert (made["QLinearConv"], made["Transpose"]) == (2, moves)
    feeds = on_grid(before)
    assert_equal(run(before, feeds), run(after, feeds))


def test_the_report_names_the_layers_that_moved() -> None:
    (site,) = plan_model(load(network()), RewriteOptions()).reports
    assert site.dtype == "int8"
    assert site.nodes[0] == "up"
    assert [name.partition("_")[0] for name in site.nodes[1:]] == ["Relu", "QuantizeLinear"]


def test_a_layer_of_float_weights_keeps_what_is_behind_it() -> None:
    """Policy all does not change what it did: only integer layers take their neighbours along."""
    before = network(Layer(bias="none"))
    for made in before.graph.node:
        if made.name == "up":
            made.input[1] = "w_plain"
    from tests.build import integers, tensor

    before.graph.initializer.append(tensor("w_plain", integers(4, 6, 4, 4)))
    (site,) = plan_model(load(before), RewriteOptions()).reports
    assert (site.dtype, site.nodes) == ("float32", ("up",))


def test_a_quantize_that_others_look_past_stays_where_it_is() -> None:
    """What the layer makes leaves the graph as well, so nothing behind it can move."""
    before = network(Layer(SYMMETRIC), Activations(between=()))
    from tests.build import FLOAT, value

    before.graph.output.append(value("t0", FLOAT, [None] * 4))
    done, after = rewrite(before)
    assert [site.status for site in done.sites] == ["rewritten"]
    assert done.sites[0].nodes == ("up",)
    feeds = on_grid(before)
    assert_equal(run(before, feeds), run(after, feeds))
