"""What TensorRT-RTX makes of integer layers, as exported and rewritten: compile evidence.

The kernels depend on its version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import deployconv
from tests.build import assert_equal, ops, run
from tests.quantized import Activations, Layer, Weight, network
from tests.runtimes.rtx import RECORD, build_one, needs_record, needs_rtx, words

pytestmark = [needs_rtx, needs_record]

SIGNED = Activations(np.int8)
"""TensorRT takes symmetric int8 activations only."""


def layer(axis: int | None = 1, bias: Any = "float", **rest: Any) -> Layer:
    """16 to 32 channels, as integer kernels want some."""
    geometry = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    given = {"kernel": (4, 4), "channels": (16, 32), "attributes": geometry, **rest}
    return Layer(Weight(axis=axis, zero="zero"), bias, **given)


def rewritten(before: ModelProto, **options: Any) -> ModelProto:
    done = deployconv.rewrite(before, bench=False, **options)
    assert done.model is not None
    return done.model


def kernels(made: ModelProto) -> list[tuple[str, Sequence[str]]]:
    """Kind and input types of each convolution or deconvolution kernel on SM89."""
    built = build_one(made)
    assert built.builds, words(built)
    assert built.kernels is not None
    found = [(kernel.kind, kernel.inputs) for kernel in built.kernels]
    return [entry for entry in found if entry[0] in ("correlation", "deconv")]


@pytest.mark.parametrize("axis", [None, 1])
def test_a_float_deconvolution_becomes_an_integer_correlation(axis: int | None) -> None:
    before = network(layer(axis), SIGNED, (8, 8))
    (exported,) = kernels(before)
    assert exported[0] == "deconv"
    assert "Int8" not in exported[1]
    ((kind, inputs),) = kernels(rewritten(before))
    assert kind == "correlation"
    assert "Int8" in inputs


def test_the_weights_are_no_longer_dequantized_by_a_kernel_of_their_own() -> None:
    before = network(layer(), SIGNED, (8, 8))
    counts = {}
    for name, made in (("exported", before), ("rewritten", rewritten(before))):
        built = build_one(made)
        assert built.kernels is not None
        without_inputs = [kernel for kernel in built.kernels if not kernel.inputs]
        counts[name] = len(without_inputs)
    assert counts == RECORD.kernels_that_dequantize


def test_an_int32_bias_does_not_parse_and_is_folded_if_a_target_is_named() -> None:
    before = network(layer(bias="int32"), SIGNED, (8, 8))
    assert "Int32" in words(build_one(before))
    assert "Int32" in words(build_one(rewritten(before)))
    after = rewritten(before, target="sm89")
    assert [kind for kind, _ in kernels(after)] == ["correlation"]
    assert ops(after)["DequantizeLinear"] == ops(before)["DequantizeLinear"]
    feeds = {"x": np.random.default_rng(0).integers(-9, 9, (1, 16, 8, 8)).astype(np.float32) * 2}
    assert_equal(run(before, feeds), run(after, feeds))
