"""Opset 1 to the newest that onnx knows: the same layer, written as each opset wants it."""

from __future__ import annotations

import onnx
import pytest
from onnx import ModelProto

from deployconv.errors import DeployconvError
from deployconv.graph.load import load
from deployconv.options import RewriteOptions
from deployconv.proof.certificate import certify_sites
from deployconv.rewrites.planning import plan_model
from tests.build import (
    Array,
    Feeds,
    assert_equal,
    conv_transpose,
    feeds_for,
    integers,
    ops,
    rewrite,
    run,
    run_reference,
)

OPSETS = range(1, onnx.defs.onnx_opset_version() + 1)


def ir_version(opset: int) -> int:
    """As exporters pair them; before IR version 4, initializers are inputs as well."""
    return 3 if opset < 9 else 8 if opset < 19 else 10


def layer(opset: int, strides: tuple[int, int]) -> ModelProto:
    original = conv_transpose(
        integers(4, 3, 4, 4),
        (5, 6),
        integers(3, seed=1),
        opset=opset,
        ir_version=ir_version(opset),
        strides=strides,
        pads=[1, 1, 2, 1],
    )
    if original.ir_version < 4:
        for initializer in original.graph.initializer:
            dims = list(initializer.dims)
            original.graph.input.append(
                onnx.helper.make_tensor_value_info(initializer.name, initializer.data_type, dims)
            )
    return original


def execute(model: ModelProto, feeds: Feeds) -> tuple[str, dict[str, Array]]:
    """By onnxruntime where it knows the opset, which it does here from 1 to 28; and by whom."""
    try:
        return "onnxruntime", run(model, feeds)
    except DeployconvError:
        return "reference evaluator", run_reference(model, feeds)


@pytest.mark.parametrize("strides", [(2, 2), (2, 3)], ids=["DepthToSpace", "Reshape"])
@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset(opset: int, strides: tuple[int, int]) -> None:
    original = layer(opset, strides)
    _, after = rewrite(original, verify=False)
    # Opset 5 alone reshapes to a tensor, but can neither hold integers in a Constant nor cast.
    full_check = opset != 5 or ops(after)["Reshape"] == 0
    onnx.checker.check_model(original, full_check=True)
    onnx.checker.check_model(after, full_check=full_check)
    assert ops(after)["ConvTranspose"] == 0
    assert [entry.version for entry in after.opset_import] == [opset]
    assert after.ir_version == original.ir_version
    feeds = feeds_for(original)
    by, expected = execute(original, feeds)
    assert execute(after, feeds)[0] == by
    assert_equal(expected, execute(after, feeds)[1])


@pytest.mark.parametrize("opset", OPSETS)
def test_certificate_at_every_opset(opset: int) -> None:
    planning = certify_sites(plan_model(load(layer(opset, (2, 3))), RewriteOptions()), seed=0)
    assert [report.certificate for report in planning.reports] == ["exact"]


def attributes(model: ModelProto, op: str) -> set[str]:
    return {a.name for proto in model.graph.node if proto.op_type == op for a in proto.attribute}


@pytest.mark.parametrize(
    ("op", "strides", "opset", "expected"),
    [
        ("DepthToSpace", (2, 2), 10, {"blocksize"}),
        ("DepthToSpace", (2, 2), 11, {"blocksize", "mode"}),
        ("Reshape", (2, 3), 4, {"shape"}),
        ("Reshape", (2, 3), 5, set()),
        ("Slice", (2, 2), 9, {"starts", "ends", "axes"}),
        ("Slice", (2, 2), 10, set()),
    ],
)
def test_operators_take_the_form_of_their_opset(
    op: str, strides: tuple[int, int], opset: int, expected: set[str]
) -> None:
    _, after = rewrite(layer(opset, strides), verify=False)
    assert ops(after)[op]
    assert attributes(after, op) == expected


@pytest.mark.parametrize(("opset", "nodes"), [(8, True), (9, False)])
def test_constants_are_nodes_before_ir_4(opset: int, nodes: bool) -> None:
    _, after = rewrite(layer(opset, (2, 2)), verify=False)
    assert bool(ops(after)["Constant"]) == nodes
    assert bool(after.graph.initializer) != nodes
    assert [given.name for given in after.graph.input] == ["x"]
