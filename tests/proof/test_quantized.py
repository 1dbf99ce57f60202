"""The certificate of integer layers fails if scales, zero points or integers are misplaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from deployconv.graph.load import load
from deployconv.options import RewriteOptions
from deployconv.proof.certificate import certify_sites
from deployconv.rewrites import conv_emit
from deployconv.rewrites.emit import write_dequantized
from deployconv.rewrites.planning import plan_model
from tests.build import Array
from tests.quantized import Layer, Weight, network, quantized

Write = Callable[..., Any]

GEOMETRY = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
LAYERS = {
    "int8": Layer(attributes=GEOMETRY),
    "uint8": Layer(Weight(np.uint8), attributes=GEOMETRY),
    "no_zero_point": Layer(Weight(zero="none"), attributes=GEOMETRY),
    "groups": Layer(group=2, attributes=GEOMETRY),
    "missing_taps": Layer(kernel=(3, 3), attributes=GEOMETRY),
    "float_bias": Layer(bias="float", attributes=GEOMETRY),
}


def verdict(layer: Layer, seed: int = 0) -> str | None:
    planning = plan_model(load(quantized(layer)), RewriteOptions())
    (report,) = certify_sites(planning, seed).reports
    return report.certificate


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_what_is_right_is_exact(layer: Layer, seed: int) -> None:
    assert verdict(layer, seed) == "exact"


def test_the_layers_after_it_are_part_of_it() -> None:
    (report,) = certify_sites(plan_model(load(network()), RewriteOptions()), 0).reports
    assert report.certificate == "exact"


def with_scales(change: Callable[[Array], Array]) -> Callable[[Write], Write]:
    """Change the scale or zero point of each channel after the channels have been reordered."""

    def fault(write: Write) -> Write:
        def wrong(emitter: Any, suffix: str, found: Any, values: Array, by_channel: Any) -> Any:
            return write(emitter, suffix, found, values, lambda held: change(by_channel(held)))

        return wrong

    return fault


def with_integers(change: Callable[[Array], Array]) -> Callable[[Write], Write]:
    def fault(write: Write) -> Write:
        def wrong(emitter: Any, suffix: str, found: Any, values: Array, by_channel: Any) -> Any:
            return write(emitter, suffix, found, change(values), by_channel)

        return wrong

    return fault


def one_more(values: Array) -> Array:
    changed = values.copy()
    changed.flat[7] += 1
    return changed


def swapped(values: Array) -> Array:
    """Exchange two phases of one channel, or of two channels."""
    changed = values.copy()
    changed[[0, 1]] = changed[[1, 0]]
    return changed


FAULTS = {
    "scales one channel on": with_scales(lambda held: np.roll(held, 1)),
    "scales backwards": with_scales(lambda held: held[::-1].copy()),
    "one integer off by one": with_integers(one_more),
    "two phases exchanged": with_integers(swapped),
    "the kernel flipped": with_integers(lambda values: values[..., ::-1].copy()),
}


@pytest.mark.parametrize("layer", [LAYERS["int8"], LAYERS["uint8"], LAYERS["groups"]])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_fails(
    layer: Layer, fault: Callable[[Write], Write], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conv_emit, "write_dequantized", fault(write_dequantized))
    assert verdict(layer) == "failed"


def test_a_missing_tap_that_is_zero_and_not_the_zero_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrange = conv_emit.phase_weights
    monkeypatch.setattr(
        conv_emit, "phase_weights", lambda weight, axes, fill=0: arrange(weight, axes)
    )
    assert verdict(LAYERS["missing_taps"]) == "failed"


@pytest.mark.parametrize("axis", [None, 1])
def test_a_layer_too_large_to_run_is_run_with_fewer_channels(axis: int | None) -> None:
    """Some 10^9 multiplications even at a small size; scales are cut with the channels."""
    weight = Weight(axis=axis)
    layer = Layer(weight, kernel=(4, 4), channels=(1024, 1024), attributes=GEOMETRY)
    assert verdict(layer) == "exact"
