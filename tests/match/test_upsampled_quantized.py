"""Upsampling and an integer Conv: integers that only move are exact, sums need new scales."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from deployconv.errors import CheckFailed
from deployconv.graph.load import load
from deployconv.graph.view import view
from deployconv.match import UpsampleSite, find_sites
from deployconv.options import RewriteOptions
from deployconv.rewrites import emit
from deployconv.rewrites.planning import plan_model
from deployconv.runtimes import get_backend
from tests.build import Array, Feeds, assert_equal, reasons, rewrite, run
from tests.quantized import Activations, Layer, Spelling, Weight, optimised_ops, upsampled_conv

SYMMETRIC = Weight(axis=0, zero="zero")


def conv(kernel: tuple[int, int] = (3, 3), **rest: Any) -> Layer:
    """A Conv between 4 and 6 channels that keeps the size."""
    pads = [size // 2 for size in kernel] * 2
    given: dict[str, Any] = {"weight": SYMMETRIC, "bias": "none", "attributes": {"pads": pads}}
    return Layer(**{**given, "kernel": kernel, "op": "Conv", **rest})


LAYERS = {
    "3x3": conv(),
    "5x3": conv((5, 3)),
    "1x1": conv((1, 1)),
    "groups": conv(group=2),
    "uint8": conv(weight=Weight(np.uint8, 0)),
    "per_tensor": conv(weight=Weight(axis=None)),
    "folded": conv(weight=replace(SYMMETRIC, constant_folded=True)),
    "bias": conv(bias="float"),
}
GRIDS = {
    "uint8_relu": Activations(),
    "uint8_shifted": Activations(zero_point=100, between=()),
    "int8_symmetric": Activations(np.int8, between=()),
    "int8_relu": Activations(np.int8, -128),
}
FEEDS: Feeds = {
    "x": np.random.default_rng(1).integers(-40, 90, (1, 4, 5, 6)).astype(np.float32) * 2
}


@pytest.mark.parametrize("between", [True, False])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_zero_insertion_only_moves(layer: Layer, grid: Activations, between: bool) -> None:
    """An inserted zero comes back as zero from QuantizeLinear and DequantizeLinear."""
    before = upsampled_conv("insertion", layer, grid, between)
    done, after = rewrite(before)
    assert [(site.pattern, site.certificate) for site in done.sites] == [
        ("zero_insertion", "exact")
    ]
    assert_equal(run(before, FEEDS), run(after, FEEDS))
    made = optimised_ops(after)
    assert made["QLinearConv"] == 1
    assert not made["Conv"] + made["FusedConv"] + made["Pad"]
    assert (made["QuantizeLinear"], made["DequantizeLinear"]) == (1, 1)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_a_1x1_conv_runs_before_its_pixels_are_repeated(grid: Activations) -> None:
    before = upsampled_conv("resize", LAYERS["1x1"], grid)
    done, after = rewrite(before)
    assert [site.certificate for site in done.sites] == ["exact"]
    assert_equal(run(before, FEEDS), run(after, FEEDS))
    made = optimised_ops(after)
    assert made["QLinearConv"] == made["Resize"] == 1


def test_taps_two_apart_are_not_added() -> None:
    """With dilation by the factor each tap reads another pixel, and integers only move."""
    attributes = {"pads": [2, 2, 2, 2], "dilations": [2, 2]}
    before = upsampled_conv("resize", conv(attributes=attributes))
    done, after = rewrite(before)
    assert [site.certificate for site in done.sites] == ["exact"]
    assert_equal(run(before, FEEDS), run(after, FEEDS))


@pytest.mark.parametrize("spelling", ["resize", "insertion"])
def test_scales_of_the_input_channels_have_no_exact_form(spelling: Spelling) -> None:
    before = upsampled_conv(spelling, conv(weight=Weight(axis=1)))
    assert reasons(before, verify=False) == ["per-input-channel-scale"]


# --- sums leave the grid


@pytest.mark.parametrize("layer", [LAYERS["3x3"], LAYERS["5x3"], LAYERS["groups"]])
def test_sums_are_refused_unless_allowed(layer: Layer) -> None:
    before = upsampled_conv("resize", layer)
    done, after = rewrite(before)
    assert [site.reason.code for site in done.sites if site.reason] == ["needs-requantize"]
    assert after == before


def summed(layer: Layer) -> Array:
    """The weights of the new Conv of a 3x3 layer without rounding, ``[C_out, phases, ..]``."""
    (site,) = find_sites(view(load(upsampled_conv("resize", layer))))
    assert isinstance(site, UpsampleSite)
    old = site.weight.read().astype(np.float64)
    rows = [np.array([[1, 0, 0], [0, 1, 1]]), np.array([[1, 1, 0], [0, 0, 1]])]
    return np.stack(
        [np.einsum("at,octu,bu->ocab", first, old, last) for first in rows for last in rows], 1
    )


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("layer", [LAYERS["3x3"], LAYERS["uint8"], LAYERS["bias"]])
def test_new_scales_are_those_of_the_sums(layer: Layer, grid: Activations) -> None:
    before = upsampled_conv("resize", layer, grid)
    done, after = rewrite(before, allow_requantize=True)
    (site,) = done.sites
    assert (site.status, site.certificate) == ("rewritten", "exact")
    exact = summed(layer)
    held = {t.name: t for t in after.graph.initializer}
    scale = np.sort(numpy_helper.to_array(held["up/weight_scale"]))
    expected = np.sort(np.abs(exact).max(axis=(2, 3, 4)).ravel() / 127)
    np.testing.assert_allclose(scale, expected, rtol=1e-6)
    assert site.requantized is not None
    assert 0 < site.requantized.rms_error < site.requantized.max_error
    # At most half a step of the widest channel.
    assert site.requantized.max_error <= 0.5 / 127 * (1 + 1e-6)
    (warning,) = done.warnings
    assert "allow-requantize" in warning
    assert optimised_ops(after)["QLinearConv"] == 1


def test_the_error_of_new_scales_is_small_and_not_hidden() -> None:
    layer, grid = LAYERS["3x3"], Activations(between=(), zero_point=100, scale_behind=64.0)
    before = upsampled_conv("resize", layer, grid)
    done, after = rewrite(before, allow_requantize=True)
    assert done.parity is not None
    (output,) = done.parity.outputs
    assert 0 < output.max_abs <= output.tolerance
    session = get_backend("ort").prepare
    first, second = (
        session(proto.SerializeToString(), threads=1).run(FEEDS)["y"] for proto in (before, after)
    )
    (site,) = done.sites
    assert site.requantized is not None
    # Each of the 4 x 2 x 2 products is off by the error of its weight, and the sum is rounded.
    moved = site.requantized.max_error * np.abs(summed(layer)).max() * np.abs(FEEDS["x"]).max()
    assert np.abs(first - second).max() <= 16 * moved + grid.scale_behind


def test_parity_of_new_scales_is_no_free_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are wrong altogether are found."""
    right = emit.requantized

    def wrong(weight: Array) -> tuple[Array, Array]:
        integers, scale = right(weight)
        return -integers, scale

    monkeypatch.setattr(emit, "requantized", wrong)
    grid = Activations(between=(), zero_point=100)
    before = upsampled_conv("resize", LAYERS["3x3"], grid)
    with pytest.raises(CheckFailed, match="parity failed"):
        rewrite(before, allow_requantize=True)


def test_what_is_exact_stays_so_if_new_scales_are_allowed() -> None:
    before = upsampled_conv("insertion", LAYERS["3x3"])
    planning = plan_model(load(before), RewriteOptions(allow_requantize=True))
    assert [report.requantized for report in planning.reports] == [None]
    assert planning.warnings == ()
