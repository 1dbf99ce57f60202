"""Integer weights with scales that no new Conv can have: other scales, or floats, if allowed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from tests.build import assert_rewritten, integers, ops, reasons, rewrite, run
from tests.quantized import Activations, Layer, Weight, network, quantized, upsampled_conv

LAYERS = {
    "input channels": Layer(Weight(axis=0)),
    "uint8": Layer(Weight(np.uint8, axis=0)),
    "groups": Layer(Weight(axis=0), group=2),
    "a kernel axis": Layer(Weight(axis=2)),
    "quantized floats": Layer(Weight(axis=0, constant_folded=True)),
    "stride 1": Layer(Weight(axis=0), kernel=(3, 3), attributes={"pads": [1, 1, 1, 1]}),
    "1-D": Layer(Weight(axis=0), kernel=(5,), attributes={"strides": [3]}),
}


def upsampled(layer: Layer) -> ModelProto:
    return quantized(layer, (5, 6)[: len(layer.kernel)], opset=18)


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_the_reason_names_both_options(layer: Layer) -> None:
    done, _ = rewrite(upsampled(layer), verify=False)
    (reason,) = [site.reason for site in done.sites]
    assert reason is not None
    assert reason.code == "per-input-channel-scale"
    assert "--allow-requantize" in reason.text
    assert "--dequantize-weights" in reason.text


@pytest.mark.parametrize("shuffle", ["dcr", "transpose", "channels-last"])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_as_floats_they_are_exact(layer: Layer, shuffle: str) -> None:
    if shuffle == "channels-last" and layer.group > 1:
        shuffle = "crd"
    before = upsampled(layer)
    after = assert_rewritten(before, dequantize_weights=True, shuffle=shuffle)
    assert ops(after)["DequantizeLinear"] == 0
    weights = [t for t in after.graph.initializer if len(t.dims) == len(layer.kernel) + 2]
    assert {t.data_type for t in weights} == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_with_new_scales_they_are_close(layer: Layer) -> None:
    before = upsampled(layer)
    done, after = rewrite(before, allow_requantize=True)
    (site,) = done.sites
    assert (site.status, site.certificate) == ("rewritten", "exact")
    assert site.requantized is not None
    assert 0 < site.requantized.max_error <= 0.5 / 127 * (1 + 1e-6)
    (warning,) = done.warnings
    assert "allow-requantize" in warning
    assert ops(after)["DequantizeLinear"] >= 1
    feeds = {"x": integers(1, 4, *(5, 6)[: len(layer.kernel)])}
    expected, actual = run(before, feeds)["y"], run(after, feeds)["y"]
    assert np.abs(expected - actual).max() <= 0.02 * np.abs(expected).max()


def test_floats_win_over_new_scales() -> None:
    before = upsampled(LAYERS["input channels"])
    done, after = rewrite(before, allow_requantize=True, dequantize_weights=True)
    assert [site.requantized for site in done.sites] == [None]
    assert ops(after)["DequantizeLinear"] == 0
    (warning,) = done.warnings
    assert "dequantize-weights" in warning


@pytest.mark.parametrize("options", [{"allow_requantize": True}, {"dequantize_weights": True}])
@pytest.mark.parametrize("policy", ["all", "cost"])
def test_between_quantized_activations(policy: str, options: dict[str, Any]) -> None:
    """As TensorRT takes a ConvTranspose: its weight has one scale per input channel."""
    before = network(Layer(Weight(axis=0), bias="float"), Activations(zero_point=100))
    done, _ = rewrite(before, policy=policy, **options)
    assert [site.certificate for site in done.sites if site.status == "rewritten"] in (
        ["exact"],
        [],
    )
    assert policy == "cost" or done.sites[0].status == "rewritten"


def test_sums_of_taps_as_floats() -> None:
    layer = Layer(
        op="Conv", kernel=(3, 3), attributes={"pads": [1, 1, 1, 1]}, weight=Weight(axis=0)
    )
    before = upsampled_conv("resize", layer)
    assert reasons(before, verify=False) == ["needs-requantize"]
    done, after = rewrite(before, dequantize_weights=True)
    assert [(site.status, site.certificate) for site in done.sites] == [("rewritten", "exact")]
    assert ops(after)["Resize"] == 0


@pytest.mark.parametrize("spelling", ["resize", "insertion"])
def test_a_conv_with_scales_of_its_input_channels(spelling: Any) -> None:
    layer = Layer(
        op="Conv", kernel=(3, 3), attributes={"pads": [1, 1, 1, 1]}, weight=Weight(axis=1)
    )
    before = upsampled_conv(spelling, layer)
    assert reasons(before, verify=False) == ["per-input-channel-scale"]
    for options in ({"allow_requantize": True}, {"dequantize_weights": True}):
        done, _ = rewrite(before, **options)
        assert [(site.status, site.certificate) for site in done.sites] == [("rewritten", "exact")]


def test_a_pointwise_conv_with_scales_of_its_input_channels_before_a_resize() -> None:
    layer = Layer(op="Conv", kernel=(1, 1), attributes={}, weight=Weight(axis=1))
    before = upsampled_conv("resize", layer)
    assert reasons(before, verify=False) == ["per-input-channel-scale"]
    for options in ({"allow_requantize": True}, {"dequantize_weights": True}):
        done, _ = rewrite(before, **options)
        assert [(site.status, site.certificate) for site in done.sites] == [("rewritten", "exact")]


def test_weights_with_an_integer_form_stay_integers() -> None:
    before = quantized(Layer())
    after = assert_rewritten(before, dequantize_weights=True)
    assert ops(after)["DequantizeLinear"] == ops(before)["DequantizeLinear"]
