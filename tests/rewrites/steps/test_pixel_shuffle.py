"""Two shuffles in a row become one: the order of the channels goes into the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from deployconv.options import Form, RewriteOptions, Shuffle
from deployconv.proof.certificate import certify_sites
from deployconv.rewrites.chain import Chain
from deployconv.rewrites.planning import Planning, apply
from deployconv.rewrites.steps.pixel_shuffle import PixelShuffle
from deployconv.search.choice import Choice
from tests.build import FLOAT, assert_equal, feeds_for, graph, model, node, ops, run, tensor, value
from tests.rewrites.plans import chain_of, chosen, operators_of, verdict
from tests.rewrites.shuffles import CHANNELS, Head, Layer, Shuffled, behind

CRD, DCR = Shuffled("CRD"), Shuffled("DCR")

HEADS = {
    "k2_s2": Head(),
    "k4_s2_cropped": Head((4, 4), pads=1),
    "k3_s2_cropped_behind": Head((3, 3), pads=1),
    "unequal": Head((3, 2), (3, 2)),
    "grouped": Head((4, 4), pads=1, group=2),
}

TAILS: dict[str, list[Layer]] = {
    "crd": [CRD],
    "dcr": [DCR],
    "relu_dcr_relu": ["Relu", DCR, "Relu"],
    "bias_on_either_side": ["Relu", "Add", DCR, "Add", "Relu"],
    "two_shuffles": [CRD, "Add", DCR],
    "conv1x1_shuffle": ["Conv", DCR, "Add"],
    "shuffle_conv1x1": [DCR, "Relu", "Conv", "Add"],
    "shuffle_between_two_convs": ["Conv", CRD, "Add", "Conv", "Relu"],
    "shuffle_block_shuffle": [DCR, "Up", "Add", CRD, "Relu"],
    "unequal": [Shuffled("DCR", (1, 2), composite=True), "Add"],
    "stride_4": [Shuffled("DCR", (4, 4)), "Add"],
    "spelled_crd": [Shuffled("CRD", composite=True), "Add"],
    "spelled_dcr": ["Relu", Shuffled("DCR", composite=True), "Conv"],
}

OTHER_RANKS: dict[str, tuple[Head, list[Layer]]] = {
    "1d": (Head((4,), (2,), 1), [Shuffled("CRD", (4,), composite=True), "Add"]),
    "1d_dcr": (Head((4,), (2,), 1), [Shuffled("DCR", (4,), composite=True), "Add", "Conv"]),
    "3d": (Head((2, 2, 2), (2, 2, 2)), [Shuffled("CRD", (2, 2, 2), composite=True), "Add"]),
    "3d_dcr": (Head((2, 2, 2), (2, 2, 2)), [Shuffled("DCR", (2, 1, 2), composite=True), "Relu"]),
}

CONVS = {
    "k1": Head((1, 1), (1, 1), op="Conv"),
    "k3": Head((3, 3), (1, 1), 1, op="Conv"),
    "k3_grouped": Head((3, 3), (1, 1), 1, 2, "Conv"),
    "k2_far_padded": Head((2, 2), (1, 1), 3, op="Conv"),
}

BEHIND_CONVS: dict[str, list[Layer]] = {
    "crd_crd": [CRD, CRD],
    "dcr_dcr": [DCR, "Relu", DCR],
    "crd_add_dcr": [CRD, "Add", DCR, "Relu"],
    "relu": [CRD, "Relu"],
    "block": [DCR, "Relu", "Up"],
    "shuffle_conv1x1_shuffle": [DCR, "Conv", "Relu", CRD, "Add"],
    "spelled": [Shuffled("DCR", composite=True), "Add", Shuffled("CRD", (2, 1), composite=True)],
}

LEAVE_THEIR_GROUP = {
    *(("grouped", tail) for tail in ("dcr", "relu_dcr_relu", "bias_on_either_side")),
    *(("grouped", tail) for tail in ("two_shuffles", "unequal", "stride_4")),
    *(("k3_grouped", tail) for tail in ("crd_crd", "crd_add_dcr", "spelled")),
}
"""Where one shuffle would read channels of several groups: DCR, or a channel in two groups.

Behind a mix of channels there are no groups any more, wherever they have been.
"""

SHUFFLES = ["dcr", "crd", "transpose", "two-step", "col2im", "channels-last"]


def joined(form: Form, shuffle: Shuffle) -> Choice:
    """A layer in this form with all layers after it that can run before its shuffle."""
    return Choice(form, shuffle, "chain")


def chained(proto: ModelProto, choice: Choice, head: str = "main/head") -> Planning:
    """``proto`` planned with ``choice`` for the site at the head."""
    return chosen(proto, {head: choice})


def whole_chain(proto: ModelProto, shuffle: Shuffle = "dcr") -> Chain:
    """The chain of the head of ``proto``, which is certified."""
    chain = chain_of(chained(proto, joined("crop", shuffle)))
    assert chain is not None
    assert verdict(chain) == "exact"
    return chain


def moves(proto: ModelProto) -> int:
    """Shuffles in the graph, however they are spelled."""
    found = ops(proto)
    return found["DepthToSpace"] + found["Col2Im"] + (found["Transpose"] > 0)


def rewritten(proto: ModelProto, choice: Choice, head: str = "main/head") -> Planning:
    """Certified, reported, applied, and of the same bits."""
    planning = certify_sites(chained(proto, choice, head), seed=0)
    verdicts = [report.certificate for report in planning.reports if report.status == "rewritten"]
    assert set(verdicts) == {"exact"}
    after = apply(planning).proto
    feeds = feeds_for(proto)
    assert_equal(run(proto, feeds), run(after, feeds))
    return planning


def assert_one_shuffle(planning: Planning, tail: list[Layer]) -> None:
    """All of ``tail`` has joined the first site, and one shuffle is left."""
    first, *others = planning.sites
    assert isinstance(first.rewrite, Chain)
    assert len(first.rewrite.steps) == len(tail)
    assert all((other.joined, other.rewrite) == (first.id, None) for other in others)
    assert {report.status for report in planning.reports} == {"rewritten"}
    after = apply(planning).proto
    assert (moves(after), ops(after)["ConvTranspose"]) == (1, 0)


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("head", HEADS)
def test_the_bits_stay(head: str, tail: str, shuffle: Shuffle) -> None:
    planning = rewritten(behind(HEADS[head], TAILS[tail]), joined("crop", shuffle))
    if (head, tail) in LEAVE_THEIR_GROUP:
        assert None in [site.joined for site in planning.sites[1:]]
    else:
        assert_one_shuffle(planning, TAILS[tail])


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("name", OTHER_RANKS)
def test_other_ranks(name: str, shuffle: Shuffle) -> None:
    head, tail = OTHER_RANKS[name]
    assert_one_shuffle(rewritten(behind(head, tail), joined("crop", shuffle)), tail)


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("tail", BEHIND_CONVS)
@pytest.mark.parametrize("head", CONVS)
def test_a_conv_with_a_pixel_shuffle_heads_a_chain(head: str, tail: str, shuffle: Shuffle) -> None:
    proto = behind(CONVS[head], BEHIND_CONVS[tail])
    planning = certify_sites(chained(proto, joined("auto", shuffle), "main/n0"), 0)
    after = apply(planning).proto
    assert_equal(run(proto, feeds_for(proto)), run(after, feeds_for(proto)))
    if (head, tail) in LEAVE_THEIR_GROUP:
        assert None in [site.joined for site in planning.sites[1:]]
    else:
        assert_one_shuffle(planning, BEHIND_CONVS[tail])
        assert {report.certificate for report in planning.reports} == {"exact"}


@pytest.mark.parametrize(
    ("shuffle", "op"), [("dcr", "DepthToSpace"), ("crd", "DepthToSpace"), ("col2im", "Col2Im")]
)
def test_the_second_shuffle_adds_no_node(shuffle: Shuffle, op: str) -> None:
    planning = rewritten(behind(Head(), ["Relu", DCR, "Relu"]), joined("crop", shuffle))
    after = apply(planning).proto
    left = ops(after)
    del left["Reshape"]  # of Col2Im
    assert left == {"Conv": 1, "Relu": 2, op: 1}
    if op == "DepthToSpace":
        (block,) = [
            helper.get_node_attr_value(found, "blocksize")
            for found in after.graph.node
            if found.op_type == op
        ]
        assert block == 4


@pytest.mark.parametrize("order", [CRD, DCR])
@pytest.mark.parametrize("shuffle", ["dcr", "transpose", "col2im"])
def test_dynamic_sizes(order: Shuffled, shuffle: Shuffle) -> None:
    tail: list[Layer] = ["Relu", order, "Add", "Conv"]
    proto = behind(HEADS["k4_s2_cropped"], tail, ("H", "W"))
    planning = certify_sites(chained(proto, joined("crop", shuffle)), 0)
    after = apply(planning).proto
    assert_one_shuffle(planning, tail)
    for size in (1, 4, 9):
        feeds = feeds_for(proto, size=size)
        assert_equal(run(proto, feeds), run(after, feeds))


def by_its_own_shape() -> ModelProto:
    """A shuffle that reads the sizes of what it shuffles, as ``x.view(b, c, h, w)`` does."""
    proto = behind(Head(), ["Relu"], ("H", "W"))
    proto.graph.node[-1].output[0] = "r"
    constants = {"four": [4], "two": [2], "first": [0], "third": [2], "fourth": [3]}
    proto.graph.initializer.extend(
        tensor(name, np.array(values, np.int64)) for name, values in constants.items()
    )
    proto.graph.node.extend(
        [
            node("Shape", ["r"], ["shape"]),
            node("Gather", ["shape", "first"], ["batch"]),
            node("Gather", ["shape", "third"], ["rows"]),
            node("Gather", ["shape", "fourth"], ["columns"]),
            node("Concat", ["batch", "four", "two", "two", "rows", "columns"], ["split"], axis=0),
            node("Reshape", ["r", "split"], ["apart"]),
            node("Transpose", ["apart"], ["moved"], perm=[0, 1, 4, 2, 5, 3]),
            node("Mul", ["rows", "two"], ["more_rows"]),
            node("Mul", ["columns", "two"], ["more_columns"]),
            node("Concat", ["batch", "four", "more_rows", "more_columns"], ["merged"], axis=0),
            node("Reshape", ["moved", "merged"], ["y"], name="spelled"),
        ]
    )
    return proto


def test_a_shuffle_that_reads_the_sizes_of_what_it_shuffles() -> None:
    proto = by_its_own_shape()
    planning = certify_sites(chained(proto, joined("crop", "dcr")), 0)
    after = apply(planning).proto
    assert_one_shuffle(planning, ["Relu", CRD])
    assert ops(after) == {"Conv": 1, "Relu": 1, "DepthToSpace": 1}
    for size in (1, 4, 9):
        feeds = feeds_for(proto, size=size)
        assert_equal(run(proto, feeds), run(after, feeds))


def with_another_reader(change: str) -> ModelProto:
    proto = behind(Head(), ["Relu", CRD])
    if change == "an output":
        proto.graph.output.append(value("t1", FLOAT, [None] * 4))
    elif change == "read twice":
        proto.graph.node.append(node("Neg", ["t1"], ["z"]))
        proto.graph.output.append(value("z", FLOAT, [None] * 4))
    else:
        proto = by_its_own_shape()
        proto.graph.output.append(value("rows", TensorProto.INT64, [1]))
    return proto


@pytest.mark.parametrize("change", ["an output", "read twice", "its size is read"])
def test_what_something_else_reads_keeps_its_shuffle(change: str) -> None:
    proto = with_another_reader(change)
    planning = rewritten(proto, joined("crop", "dcr"))
    assert planning.sites[1].joined is None


def test_in_the_branch_of_an_if() -> None:
    branch = behind(Head(), ["Relu", DCR, "Add"]).graph
    branch.name = "then"
    outer = branch.input[0]
    del branch.input[:]
    other = graph([node("Constant", [], ["e"], value_float=1.0)], [], [value("e", FLOAT, [])])
    choose = node("If", ["c"], ["y"], name="if", then_branch=branch, else_branch=other)
    body = graph([choose], [outer, value("c", TensorProto.BOOL, [])], [value("y", FLOAT, None)])
    proto = model(body, 18)
    planning = certify_sites(chained(proto, joined("crop", "dcr"), "main/if.then_branch/head"), 0)
    after = apply(planning).proto
    assert_one_shuffle(planning, ["Relu", DCR, "Add"])
    feeds = {**feeds_for(proto), "c": np.array(True)}
    assert_equal(run(proto, feeds), run(after, feeds))


@pytest.mark.parametrize("shuffle", ["dcr", "col2im"])
def test_float16(shuffle: Shuffle) -> None:
    proto = behind(HEADS["k4_s2_cropped"], ["Relu", DCR, "Add"])
    half = [
        numpy_helper.from_array(numpy_helper.to_array(array).astype(np.float16), array.name)
        for array in proto.graph.initializer
    ]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(half)
    for entry in (*proto.graph.input, *proto.graph.output):
        entry.type.tensor_type.elem_type = TensorProto.FLOAT16
    assert_one_shuffle(rewritten(proto, joined("crop", shuffle)), ["Relu", DCR, "Add"])


def test_a_shuffle_that_is_left_alone_joins_no_chain() -> None:
    options = RewriteOptions(skip=("main/n1",))
    proto = behind(Head(), ["Relu", CRD])
    planning = chosen(proto, {"main/head": joined("crop", "dcr")}, options)
    chain = chain_of(planning)
    assert chain is not None
    assert operators_of(chain) == ["Relu"]
    assert planning.reports[1].status == "kept"


@pytest.mark.parametrize(
    "head",
    [Head((3, 3), (2, 2), 1, op="Conv"), Head((2, 2), (1, 1), dilation=2, op="Conv")],
    ids=["strided", "dilated"],
)
def test_a_conv_that_is_strided_or_dilated_heads_no_chain(head: Head) -> None:
    proto = behind(head, [CRD, "Relu", CRD])
    planning = chained(proto, joined("auto", "dcr"), "main/n0")
    assert [chain_of(planning, at) for at, _ in enumerate(planning.sites)] == [None, None]


FAULTS = {
    "order": ([DCR], {"order": "CRD"}),
    "order_in_front_of_a_conv": ([CRD, "Conv"], {"order": "DCR"}),
    "axes": ([Shuffled("CRD", (1, 2), composite=True), "Add"], {"stride": (2, 1)}),
    "axes_in_front_of_a_conv": ([Shuffled("DCR", (4, 2), True), "Up"], {"stride": (2, 4)}),
}


@pytest.mark.parametrize("shuffle", ["dcr", "crd", "transpose", "col2im"])
@pytest.mark.parametrize(("tail", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_wrong_order_does_not_pass_the_certificate(
    tail: list[Layer], fault: dict[str, Any], shuffle: Shuffle
) -> None:
    chain = whole_chain(behind(Head(), tail), shuffle)
    steps = tuple(
        replace(step, site=replace(step.site, **fault)) if isinstance(step, PixelShuffle) else step
        for step in chain.steps
    )
    strides = [chain.head.site.stride, *(step.stride for step in steps if step.stride)]
    stride = tuple(prod(along) for along in zip(*strides, strict=True))
    layout = replace(chain.layout, stride=stride)
    assert verdict(replace(chain, steps=steps, layout=layout)) == "failed"


WRONG: dict[str, tuple[str, Callable[..., Any]]] = {
    "constants where the channels were": ("chain.reordered", lambda layout, order: layout),
    "constants side by side": (
        "steps.pixelwise._spread",
        lambda values, layout: np.repeat(values, 16, axis=0),
    ),
    "phases of the first layer last": (
        "chain.channel_order",
        lambda name, layout, rank: layout.transpose(0, 3, 4, 1, 2).ravel(),
    ),
}


@pytest.mark.parametrize(("name", "wrong"), WRONG.values(), ids=WRONG)
def test_a_channel_in_a_wrong_place_does_not_pass_the_certificate(
    name: str, wrong: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = whole_chain(behind(Head(), [DCR, "Add"]))
    monkeypatch.setattr(f"deployconv.rewrites.{name}", wrong)
    assert verdict(chain) == "failed"


def test_a_crop_that_is_not_grown_does_not_pass_the_certificate() -> None:
    chain = whole_chain(behind(HEADS["k4_s2_cropped"], [DCR]))
    assert chain.layout.crop == ((2, 2), (2, 2))
    layout = replace(chain.layout, crop=((1, 3), (2, 2)))
    assert verdict(replace(chain, layout=layout)) == "failed"


@st.composite
def chains(draw: st.DrawFn) -> tuple[Head, list[Layer], Shuffle]:
    rank = draw(st.integers(1, 3))
    extent = st.integers(1, 3)
    stride = tuple(draw(extent) for _ in range(rank))
    head = Head(
        kernel=tuple(s * draw(st.integers(1, 2)) for s in stride),
        stride=stride,
        group=draw(st.sampled_from([1, 1, 2])),
    )
    tail: list[Layer] = []
    left = CHANNELS
    for _ in range(draw(st.integers(1, 4))):
        layer = draw(st.sampled_from(["Relu", "Add", "Conv", "Up", "Shuffle", "Shuffle"]))
        if layer != "Shuffle":
            tail.append(layer)
            left = 8 if layer in ("Conv", "Up") else left
            continue
        by = tuple(draw(st.sampled_from([1, 2])) for _ in range(rank))
        if 1 < prod(by) <= left:
            left //= prod(by)
            square = by == (2, 2)
            spelled = not square or draw(st.booleans())
            tail.append(Shuffled(draw(st.sampled_from(["CRD", "DCR"])), by, spelled))
    return head, tail, draw(st.sampled_from(SHUFFLES))


@settings(max_examples=60, deadline=None)
@given(chains())
def test_any_chain(drawn: tuple[Head, list[Layer], Shuffle]) -> None:
    head, tail, shuffle = drawn
    rewritten(behind(head, tail, (3, 2, 2)), joined("crop", shuffle))
