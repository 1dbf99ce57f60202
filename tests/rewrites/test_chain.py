"""Layers behind a site that run before its shuffle: the same bits, one shuffle, no stray node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from onnx import ModelProto

from deployconv.options import Form, RewriteOptions, Shuffle
from deployconv.proof.certificate import certify_sites
from deployconv.rewrites.chain import Chain
from deployconv.rewrites.planning import Planning, apply
from deployconv.search.choice import Choice
from tests.build import (
    FLOAT,
    Array,
    assert_equal,
    feeds_for,
    graph,
    integers,
    model,
    node,
    ops,
    run,
    tensor,
    value,
)
from tests.rewrites.plans import chain_of, chosen, operators_of, verdict
from tests.rewrites.shuffles import SIZES

CHAIN = Choice("crop", "auto", "chain")


@dataclass(frozen=True)
class Head:
    """A ConvTranspose with 4 channels in and out."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pads: int = 0
    group: int = 1

    @property
    def rank(self) -> int:
        return len(self.kernel)


HEADS = {
    "k2_s2": Head((2, 2), (2, 2)),
    "k4_s2_cropped": Head((4, 4), (2, 2), 1),
    "k3_s2_cropped_behind": Head((3, 3), (2, 2), 1),
    "unequal": Head((3, 2), (3, 2)),
    "grouped": Head((4, 4), (2, 2), 1, group=2),
    "1d": Head((4,), (2,), 1),
    "3d": Head((2, 2, 2), (2, 2, 2)),
}

TAILS = {
    "relu": ["Relu"],
    "bias": ["Relu", "Add"],
    "scalar": ["Relu", "AddScalar"],
    "relu_sub_per_channel": ["Relu", "Sub"],
    "conv1x1": ["Conv"],
    "relu_conv1x1_relu": ["Relu", "Conv", "Relu"],
    "block": ["Up"],
    "relu_block_relu": ["Relu", "Up", "Relu"],
    "two_blocks": ["Up", "Up"],
    "block_bias_conv1x1": ["Up", "Add", "Conv"],
}


def chain_model(head: Head, tail: Sequence[str], sizes: Sequence[int | str] = SIZES) -> ModelProto:
    """The head and the layers of ``tail``, on integers; x is ``[2, 4, ..]``, the result ``y``."""
    rank, channels = head.rank, 4
    parameters: dict[str, Array] = {
        "w": integers(4, 4 // head.group, *head.kernel),
        "b": integers(4, seed=1),
    }
    nodes = [
        node(
            "ConvTranspose",
            ["x", "w", "b"],
            ["t0"],
            name="head",
            strides=head.stride,
            pads=[head.pads] * 2 * rank,
            group=head.group,
        )
    ]
    for number, op in enumerate(tail):
        source, target = f"t{number}", f"t{number + 1}"
        given = [f"w{number}", f"b{number}"]
        if op == "Conv":
            parameters[given[0]] = integers(3, channels, *[1] * rank, seed=number)
            channels = 3
        elif op == "Up":
            parameters[given[0]] = integers(channels, 2, *[2] * rank, seed=number)
            channels = 2
        if op in ("Conv", "Up"):
            parameters[given[1]] = integers(channels, seed=number + 7)
            attributes = {"strides": [2] * rank} if op == "Up" else {}
            kind = "ConvTranspose" if op == "Up" else "Conv"
            nodes.append(node(kind, [source, *given], [target], name=f"n{number}", **attributes))
        elif op == "Relu":
            nodes.append(node("Relu", [source], [target]))
        else:
            per_channel = (channels, *[1] * rank)
            shape = () if op.endswith("Scalar") else per_channel
            parameters[given[0]] = integers(*shape, seed=number)
            nodes.append(node(op.removesuffix("Scalar"), [source, given[0]], [target]))
    nodes[-1].output[0] = "y"
    body = graph(
        nodes,
        [value("x", FLOAT, [2, 4, *sizes[:rank]])],
        [value("y", FLOAT, [None] * (rank + 2))],
        [tensor(name, array) for name, array in parameters.items()],
    )
    return model(body, opset=18)


def chained(proto: ModelProto, choice: Choice) -> Planning:
    """``proto`` planned with ``choice`` for its head."""
    return chosen(proto, {"main/head": choice})


@pytest.mark.parametrize(
    "shuffle", ["dcr", "crd", "transpose", "two-step", "col2im", "channels-last"]
)
@pytest.mark.parametrize("form", ["crop", "pad"])
@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_the_bits_stay(head: Head, tail: list[str], form: Form, shuffle: Shuffle) -> None:
    proto = chain_model(head, tail)
    planning = certify_sites(chained(proto, Choice(form, shuffle, "chain")), seed=0)
    rewrite = planning.sites[0].rewrite
    if rewrite is None or rewrite.summary.shuffle != shuffle:
        # This spelling does not fit the head, and another is tried under its own name.
        assert head.rank != 2 or head.group > 1 or len(set(head.stride)) > 1
        return
    assert isinstance(rewrite, Chain)
    assert len(rewrite.steps) == len(tail)
    assert {report.certificate for report in planning.reports} == {"exact"}
    after = apply(planning).proto
    assert ops(after)["ConvTranspose"] == 0
    assert ops(after)["DepthToSpace"] <= 1
    feeds = feeds_for(proto)
    assert_equal(run(proto, feeds), run(after, feeds))


@pytest.mark.parametrize("shuffle", ["dcr", "transpose", "col2im"])
def test_dynamic_sizes(shuffle: Shuffle) -> None:
    proto = chain_model(HEADS["k4_s2_cropped"], ["Relu", "Up", "Relu"], ("H", "W"))
    planning = chained(proto, Choice("crop", shuffle, "chain"))
    after = apply(planning).proto
    for size in (1, 4, 9):
        feeds = feeds_for(proto, size=size)
        assert_equal(run(proto, feeds), run(after, feeds))


def test_batch_normalization_has_each_parameter_once_per_phase() -> None:
    proto = chain_model(HEADS["k2_s2"], ["Relu", "Relu"])
    names = ["scale", "shift", "mean", "variance"]
    proto.graph.initializer.extend(
        tensor(name, np.linspace(0.5, 2.0, 4, dtype=np.float32) + place)
        for place, name in enumerate(names)
    )
    proto.graph.node[2].CopyFrom(node("BatchNormalization", ["t1", *names], ["y"]))
    planning = chained(proto, CHAIN)
    after = apply(planning).proto
    feeds = feeds_for(proto)
    expected, actual = run(proto, feeds)["y"], run(after, feeds)["y"]
    assert ops(after)["BatchNormalization"] == 1
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_constants_in_front_of_a_repetition_come_once() -> None:
    """A 1x1 Conv behind a nearest Resize makes one pixel of each, and so does what follows."""
    body = graph(
        [
            node("Resize", ["x", "", "scales"], ["r"], mode="nearest"),
            node("Conv", ["r", "w"], ["c"], name="head"),
            node("Relu", ["c"], ["d"]),
            node("Add", ["d", "b"], ["y"]),
        ],
        [value("x", FLOAT, [2, 4, 5, 6])],
        [value("y", FLOAT, [None] * 4)],
        [
            tensor("scales", np.array([1, 1, 2, 2], np.float32)),
            tensor("w", integers(3, 4, 1, 1)),
            tensor("b", integers(3, 1, 1)),
        ],
    )
    proto = model(body, opset=18)
    planning = certify_sites(chained(proto, Choice("auto", "auto", "pointwise")), seed=0)
    assert planning.reports[0].certificate == "exact"
    after = apply(planning).proto
    assert [found.op_type for found in after.graph.node] == ["Conv", "Relu", "Add", "Resize"]
    assert_equal(run(proto, feeds_for(proto)), run(after, feeds_for(proto)))


def test_an_add_that_makes_more_channels_ends_a_chain() -> None:
    proto = chain_model(HEADS["k2_s2"], ["Relu", "Add"])
    kept = [array for array in proto.graph.initializer if array.name != "w"]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend([*kept, tensor("w", integers(4, 1, 2, 2))])
    del proto.graph.node[0].input[2:]
    planning = certify_sites(chained(proto, CHAIN), seed=0)
    chain = chain_of(planning)
    assert chain is not None
    assert [node.op for node in chain.nodes] == ["ConvTranspose", "Relu"]
    after = apply(planning).proto
    assert_equal(run(proto, feeds_for(proto)), run(after, feeds_for(proto)))


def test_a_block_that_joins_is_reported_with_the_head() -> None:
    planning = certify_sites(chained(chain_model(HEADS["k2_s2"], ["Relu", "Up"]), CHAIN), 0)
    head, block = planning.reports
    assert (head.status, block.status) == ("rewritten", "rewritten")
    assert block.reason is None
    assert (head.certificate, block.certificate) == ("exact", "exact")
    assert head.nodes[-1] == "n1"


def test_without_mixing_the_chain_ends_before_the_first_convolution() -> None:
    proto = chain_model(HEADS["k2_s2"], ["Relu", "Conv", "Relu"])
    planning = chained(proto, Choice("crop", "auto", "pointwise"))
    chain = chain_of(planning)
    assert chain is not None
    assert operators_of(chain) == ["Relu"]


def stopped_by(change: str) -> ModelProto:
    proto = chain_model(HEADS["k2_s2"], ["Relu", "Conv"])
    body = proto.graph
    if change == "is an output":
        body.output.append(value("t0", FLOAT, [None] * 4))
    elif change == "has two readers":
        body.node.append(node("Neg", ["t0"], ["z"]))
        body.output.append(value("z", FLOAT, [None] * 4))
    elif change == "adds per pixel":
        body.node[1].CopyFrom(node("Add", ["t0", "map"], ["t1"]))
        body.initializer.append(tensor("map", integers(1, 1, 10, 12)))
    elif change == "adds itself":
        body.node[1].CopyFrom(node("Add", ["t0", "t0"], ["t1"]))
    elif change == "mixes neighbours":
        body.node[1].CopyFrom(node("Conv", ["t0", "w3"], ["t1"], pads=[1] * 4))
        body.initializer.append(tensor("w3", integers(4, 4, 3, 3)))
    return proto


@pytest.mark.parametrize(
    "change",
    ["is an output", "has two readers", "adds per pixel", "adds itself", "mixes neighbours"],
)
def test_what_ends_a_chain_at_once(change: str) -> None:
    planning = chained(stopped_by(change), CHAIN)
    assert chain_of(planning) is None
    after = apply(planning).proto
    feeds = feeds_for(stopped_by(change))
    assert_equal(run(stopped_by(change), feeds), run(after, feeds))


def test_a_site_that_is_left_alone_joins_no_chain() -> None:
    proto = chain_model(HEADS["k2_s2"], ["Relu", "Up"])
    options = RewriteOptions(skip=("main/n1",))
    planning = chosen(proto, {"main/head": CHAIN}, options)
    chain = chain_of(planning)
    assert chain is not None
    assert operators_of(chain) == ["Relu"]
    assert planning.reports[1].status == "kept"


def test_a_wrong_crop_does_not_pass_the_certificate() -> None:
    proto = chain_model(HEADS["k4_s2_cropped"], ["Relu", "Up"])
    chain = chain_of(chained(proto, Choice("crop", "dcr", "chain")))
    assert chain is not None
    assert verdict(chain) == "exact"
    (begin, end), across = chain.layout.crop
    layout = replace(chain.layout, crop=((begin + 1, end - 1), across))
    assert verdict(replace(chain, layout=layout)) == "failed"
