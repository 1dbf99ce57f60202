"""Pixel shuffles behind a layer of integer weights: the same bits, one shuffle, an integer Conv."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto

from deployconv.graph.load import load
from deployconv.options import RewriteOptions
from deployconv.proof.certificate import certify_sites
from deployconv.rewrites.chain import Chain
from deployconv.rewrites.planning import apply
from deployconv.search.candidates import Candidates
from tests.build import (
    FLOAT,
    Feeds,
    assert_equal,
    graph,
    model,
    node,
    ops,
    rewrite,
    run,
    tensor,
    value,
)
from tests.quantized import Layer, Weight, layer_node, optimised_ops, parameters_of

LAYER = Layer(Weight(zero="zero"), "none", kernel=(2, 2), channels=(4, 16))


def shuffle(source: str, target: str, name: str) -> NodeProto:
    return node("DepthToSpace", [source], [target], name=name, blocksize=2, mode="DCR")


def quantize(source: str, target: str) -> NodeProto:
    return node("QuantizeLinear", [source, "coarse", "zero"], [target])


def dequantize(source: str, target: str) -> NodeProto:
    return node("DequantizeLinear", [source, "coarse", "zero"], [target])


TAILS = {
    "on_integers": [
        *(node("Relu", ["a"], ["r"]), quantize("r", "c"), shuffle("c", "d", "near")),
        *(shuffle("d", "e", "far"), dequantize("e", "y")),
    ],
    "on_floats": [
        *(node("Relu", ["a"], ["r"]), quantize("r", "c"), dequantize("c", "d")),
        *(shuffle("d", "e", "near"), quantize("e", "f"), dequantize("f", "y")),
    ],
    "in_front_of_the_grid": [
        *(shuffle("a", "r", "near"), node("Relu", ["r"], ["c"])),
        *(quantize("c", "d"), dequantize("d", "y")),
    ],
    "integers_leave": [node("Relu", ["a"], ["r"]), quantize("r", "c"), shuffle("c", "y", "near")],
}


def behind(tail: str) -> ModelProto:
    """``x`` on a grid, a quantized ConvTranspose k2 s2 to 16 channels, and the tail."""
    nodes, held = parameters_of(LAYER, 18)
    held |= {"fine": np.array(2, np.float32), "coarse": np.array(512, np.float32)}
    held["zero"] = np.array(0, np.uint8)
    front = [
        node("QuantizeLinear", ["x", "fine", "zero"], ["x_int"]),
        node("DequantizeLinear", ["x_int", "fine", "zero"], ["x_grid"]),
    ]
    dtype = TensorProto.UINT8 if tail == "integers_leave" else FLOAT
    body = graph(
        [*front, *nodes, layer_node(LAYER, "x_grid", "a"), *TAILS[tail]],
        [value("x", FLOAT, [1, 4, 5, 6])],
        [value("y", dtype, [None] * 4)],
        [tensor(name, array) for name, array in held.items()],
    )
    return model(body, 18)


def feeds() -> Feeds:
    drawn = np.random.default_rng(1).integers(-40, 90, (1, 4, 5, 6)) * 2
    return {"x": drawn.astype(np.float32)}


@pytest.mark.parametrize("tail", TAILS)
def test_every_form_has_the_same_bits_and_the_longest_one_shuffle(tail: str) -> None:
    candidates = Candidates.of(load(behind(tail)), RewriteOptions())
    found = candidates.of_site(candidates.planning.sites[0])
    expected = run(behind(tail), feeds())
    assert expected["y"].std() > 0
    longest = max(len(option.rewrite.nodes) for option in found)
    for option in found:
        made = certify_sites(candidates.with_choices({"main/up": option.choice}), 0)
        verdicts = [item.certificate for item in made.reports if item.status == "rewritten"]
        assert set(verdicts) == {"exact"}
        after = apply(made).proto
        assert_equal(expected, run(after, feeds()))
        if len(option.rewrite.nodes) == longest and option.rewrite.summary.shuffle == "dcr":
            assert isinstance(option.rewrite, Chain)
            assert (ops(after)["DepthToSpace"], ops(after)["ConvTranspose"]) == (1, 0)


def test_every_policy_takes_in_the_shuffle_in_front_of_the_grid() -> None:
    """Or the QuantizeLinear would not stand beside the Conv, and that would run in floats."""
    proto = behind("in_front_of_the_grid")
    done, after = rewrite(proto)
    assert [(site.status, site.certificate) for site in done.sites] == [("rewritten", "exact")] * 2
    assert ops(after)["DepthToSpace"] == 1
    assert optimised_ops(after)["QLinearConv"] == 1
    assert_equal(run(proto, feeds()), run(after, feeds()))


def test_unless_it_is_left_alone() -> None:
    _, after = rewrite(behind("in_front_of_the_grid"), skip=("near",))
    assert ops(after)["DepthToSpace"] == 2
