"""A pixel shuffle in the other order permutes its Conv and nothing else; a 1x1 Conv moves first."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import ModelProto, numpy_helper
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.rewrites.emit import Emitter
from tests.build import (
    FLOAT,
    assert_equal,
    feeds_for,
    graph,
    integers,
    model,
    node,
    ops,
    rewrite,
    run,
    tensor,
    value,
)


def shuffled(mode: str, group: int = 1, conv: bool = True, opset: int = 17) -> ModelProto:
    """``x [1, 4, 5, 6]`` -> Conv to 8 channels with its own pads -> DepthToSpace by 2."""
    nodes = [node("DepthToSpace", ["c" if conv else "x"], ["y"], blocksize=2, mode=mode)]
    parameters = {}
    if conv:
        parameters = {"w": integers(8, 4 // group, 3, 3), "b": integers(8, seed=1)}
        front = node("Conv", ["x", "w", "b"], ["c"], pads=[1, 0, 1, 2], group=group)
        nodes.insert(0, front)
    body = graph(
        nodes,
        [value("x", FLOAT, [1, 4, 5, 6])],
        [value("y", FLOAT, [None] * 4)],
        [tensor(name, array) for name, array in parameters.items()],
    )
    return model(body, opset)


@pytest.mark.parametrize(("mode", "other"), [("CRD", "dcr"), ("DCR", "crd")])
def test_the_other_order_permutes_the_conv_and_nothing_else(mode: str, other: str) -> None:
    proto = shuffled(mode)
    done, after = rewrite(proto, shuffle=other)
    assert [(s.status, s.shuffle, s.certificate) for s in done.sites] == [
        ("rewritten", other, "exact")
    ]
    conv, shuffle = after.graph.node
    assert sorted(map(str, conv.attribute)) == sorted(map(str, proto.graph.node[0].attribute))
    assert onnx.helper.get_node_attr_value(shuffle, "mode") == other.upper().encode()
    arrays = {t.name: numpy_helper.to_array(t) for t in after.graph.initializer}
    weight, bias = (arrays[name] for name in conv.input[1:])
    was, was_bias = (numpy_helper.to_array(t) for t in proto.graph.initializer)
    order = [int(np.flatnonzero((was == row).all((1, 2, 3)))[0]) for row in weight]
    assert sorted(order) == list(range(8))
    np.testing.assert_array_equal(bias, was_bias[order])
    feeds = feeds_for(proto)
    assert_equal(run(proto, feeds), run(after, feeds))


@pytest.mark.parametrize("asked", ["two-step", "transpose", "channels-last", "crd", "dcr"])
@pytest.mark.parametrize("mode", ["CRD", "DCR"])
@pytest.mark.parametrize(
    "geometry",
    [
        {"pads": [1, 0, 1, 2]},
        {"strides": [2, 1], "pads": [0, 1, 0, 0]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"dilations": [2, 1], "auto_pad": "VALID"},
    ],
    ids=["pads", "strides", "same", "valid"],
)
def test_static_sizes_behind_a_conv_of_any_geometry(
    mode: str, asked: str, geometry: dict[str, Any]
) -> None:
    """The certificate's Conv is smaller than the model's, and what is behind it as well."""
    proto = shuffled(mode)
    del proto.graph.node[0].attribute[:]
    made = node("Conv", ["x", "w", "b"], ["c"], **geometry)
    proto.graph.node[0].CopyFrom(made)
    done, after = rewrite(proto, shuffle=asked)
    (site,) = done.sites
    assert (site.status, site.certificate) in {("rewritten", "exact"), ("kept", None)}
    assert (site.status == "kept") == (asked == mode.lower())
    feeds = feeds_for(proto)
    assert_equal(run(proto, feeds), run(after, feeds))


@pytest.mark.parametrize(
    ("proto", "asked"),
    [
        (shuffled("CRD", group=2), "dcr"),
        (shuffled("CRD", conv=False), "dcr"),
        (shuffled("CRD"), "crd"),
        (shuffled("CRD"), "auto"),
    ],
    ids=["grouped", "no_conv", "same_order", "nothing_asked"],
)
def test_what_keeps_its_order(proto: ModelProto, asked: str) -> None:
    done, after = rewrite(proto, shuffle=asked)
    (site,) = done.sites
    assert site.reason is not None
    assert (site.status, site.reason.code) == ("kept", "already-lowered")
    assert after == proto


@pytest.mark.parametrize("opset", range(7, onnx.defs.onnx_opset_version() + 1))
def test_a_1x1_conv_moves_in_front_of_the_repetition(opset: int) -> None:
    # The layer is spelled as this opset spells it, by the writer that the lowering uses.
    names = iter(range(9))
    emitter = Emitter(opset, lambda suffix: f"{suffix}{next(names)}")
    emitter.repeat(gs.Variable("x"), [2, 3])
    (resize,) = emitter.finish("r")
    constants = {t.name: t.values for t in resize.inputs if isinstance(t, gs.Constant)}
    weight = integers(3, 4, 1, 1)
    body = graph(
        [OnnxExporter.export_node(resize), node("Conv", ["r", "w", "b"], ["y"], name="up")],
        [value("x", FLOAT, [1, 4, 5, 6])],
        [value("y", FLOAT, [None] * 4)],
        [
            tensor(name, array)
            for name, array in {**constants, "w": weight, "b": integers(3)}.items()
        ],
    )
    proto = model(body, opset)
    done, after = rewrite(proto)
    (site,) = done.sites
    assert (site.status, site.form, site.shuffle, site.certificate) == (
        "rewritten",
        "conv",
        None,
        "exact",
    )
    assert site.macs is not None
    assert site.macs.before == 6 * site.macs.after
    assert [n.op_type for n in after.graph.node] == ["Conv", resize.op]
    assert ops(after)["DepthToSpace"] == 0
    feeds = feeds_for(proto)
    assert_equal(run(proto, feeds), run(after, feeds))
