"""Constant weights and biases are found and folded, whatever makes them, and then removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, SparseTensorProto, TensorProto, helper

from tests.build import (
    FLOAT,
    Array,
    assert_equal,
    assert_rewritten,
    feeds_for,
    graph,
    integers,
    model,
    node,
    ops,
    reasons,
    rewrite,
    run,
    tensor,
    upsampler,
    value,
)

WEIGHT, BIAS = integers(2, 3, 4, 4), integers(3, seed=1)
SHAPE = tensor("shape", np.array(WEIGHT.shape))


def computed(
    nodes: Sequence[NodeProto], initializers: Sequence[TensorProto] = (), **rest: Any
) -> ModelProto:
    """A ConvTranspose whose weight ``w`` is what ``nodes`` make of ``initializers``."""
    site = node("ConvTranspose", ["x", "w", "b"], ["y"], name="up", strides=[2, 2], pads=[1] * 4)
    body = graph(
        [*nodes, site],
        [value("x", FLOAT, [1, 2, 5, 6])],
        [value("y", FLOAT, [None] * 4)],
        [*initializers, tensor("b", BIAS)],
    )
    return model(body, **rest)


def constant(name: str, **attribute: Any) -> NodeProto:
    return node("Constant", [], [name], name=name, **attribute)


def sparse(array: Array, name: str = "") -> SparseTensorProto:
    """Every second element of ``array``, by coordinates."""
    where = np.argwhere(array)[::2]
    values = tensor(name, array[tuple(where.T)])
    return helper.make_sparse_tensor(values, tensor("", where), array.shape)


def reshaped(*nodes: NodeProto) -> ModelProto:
    return computed([*nodes, node("Reshape", ["flat", "shape"], ["w"])], [SHAPE])


def weight_norm() -> ModelProto:
    """g * v / ||v||, as PyTorch exports it; the norm is a power of two, so exact."""
    v = np.ones((4, 4, 4, 4), np.float32) * np.float32(2)
    nodes = [
        node("ReduceL2", ["v"], ["norm"], axes=[1, 2, 3], keepdims=1),
        node("Div", ["v", "norm"], ["unit"]),
        node("Mul", ["unit", "g"], ["w4"]),
        node("Slice", ["w4", "zero", "ends", "axes"], ["w"]),
    ]
    ints = {"zero": [0, 0], "ends": [2, 3], "axes": [0, 1]}
    constants = [tensor(name, np.array(values)) for name, values in ints.items()]
    gain = tensor("g", integers(4, 1, 1, 1) * np.float32(16))
    return computed(nodes, [tensor("v", v), gain, *constants])


def scattered() -> ModelProto:
    """A weight that is written into zeros, as in bilinear upsampling."""
    where = np.argwhere(WEIGHT)
    nodes = [
        node("ConstantOfShape", ["shape"], ["zeros"], value=tensor("", np.zeros(1, np.float32))),
        node("ScatterND", ["zeros", "where", "values"], ["w"]),
    ]
    values = tensor("values", WEIGHT[tuple(where.T)])
    return computed(nodes, [SHAPE, tensor("where", where), values])


def reversed_by_indices() -> ModelProto:
    """Reversed along two axes by Range and Gather, whose sizes Shape reads from the weight."""
    nodes, source = [], "v"
    for axis in (2, 3):
        made = {name: f"{name}_{axis}" for name in ("shape", "part", "size", "last", "up", "down")}
        nodes += [
            node("Shape", [source], [made["shape"]]),
            node("Gather", [made["shape"], f"axis_{axis}"], [made["part"]]),
            node("Squeeze", [made["part"], "first"], [made["size"]]),
            node("Sub", [made["size"], "one"], [made["last"]]),
            node("Range", ["zero", made["size"], "one"], [made["up"]]),
            node("Sub", [made["last"], made["up"]], [made["down"]]),
            node("Gather", [source, made["down"]], [f"v_{axis}"], axis=axis),
        ]
        source = f"v_{axis}"
    numbers = {"axis_2": [2], "axis_3": [3], "first": [0], "one": 1, "zero": 0}
    held = [tensor(name, np.array(values)) for name, values in numbers.items()]
    return computed([*nodes, node("Identity", [source], ["w"])], [tensor("v", WEIGHT), *held])


FLAT = WEIGHT.ravel().tolist()
SOURCES = {
    "initializer": computed([], [tensor("w", WEIGHT)]),
    "Constant": computed([constant("w", value=tensor("", WEIGHT))]),
    "Constant value_floats": reshaped(constant("flat", value_floats=FLAT)),
    "Constant value_ints, Cast": reshaped(
        constant("ints", value_ints=[int(v) for v in FLAT]),
        node("Cast", ["ints"], ["flat"], to=FLOAT),
    ),
    "Constant value_float, Expand": computed(
        [constant("two", value_float=2.0), node("Expand", ["two", "shape"], ["w"])], [SHAPE]
    ),
    "Constant value_int, Cast, Expand": computed(
        [
            constant("two", value_int=2),
            node("Cast", ["two"], ["real"], to=FLOAT),
            node("Expand", ["real", "shape"], ["w"]),
        ],
        [SHAPE],
    ),
    "Identity of Identity": computed(
        [node("Identity", ["v"], ["i"]), node("Identity", ["i"], ["w"])], [tensor("v", WEIGHT)]
    ),
    "Cast": computed(
        [node("Cast", ["v"], ["w"], to=FLOAT)], [tensor("v", WEIGHT.astype(np.float16))]
    ),
    "CastLike": computed([node("CastLike", ["v", "x"], ["w"])], [tensor("v", WEIGHT.astype(int))]),
    "Shape, Range and Gather": reversed_by_indices(),
    "Transpose": computed(
        [node("Transpose", ["v"], ["w"], perm=[1, 0, 2, 3])], [tensor("v", integers(3, 2, 4, 4))]
    ),
    "Reshape": computed(
        [node("Reshape", ["v", "shape"], ["w"])], [tensor("v", WEIGHT.ravel()), SHAPE]
    ),
    "Unsqueeze": computed(
        [node("Unsqueeze", ["v", "axes"], ["row"]), node("Concat", ["row"] * 4, ["w"], axis=2)],
        [tensor("v", integers(2, 3, 4)), tensor("axes", np.array([2]))],
    ),
    "Mul": computed(
        [node("Mul", ["v", "gain"], ["w"])],
        [tensor("v", WEIGHT), tensor("gain", integers(3, 1, 1))],
    ),
    "an output left out": computed(
        [node("MaxPool", ["v"], ["w", ""], kernel_shape=[1, 1])], [tensor("v", WEIGHT)]
    ),
    "weight norm": weight_norm(),
    "ScatterND": scattered(),
}


@pytest.mark.parametrize("original", SOURCES.values(), ids=list(SOURCES))
def test_every_source_of_a_constant_weight(original: ModelProto) -> None:
    after = assert_rewritten(original)
    # What made the old weight is removed with it.
    assert set(ops(after)) == {"Conv", "DepthToSpace", "Slice"}
    names = {initializer.name for initializer in after.graph.initializer}
    assert all(name.startswith("up/") for name in names)


@pytest.mark.parametrize("place", ["Constant", "initializer"])
def test_a_sparse_weight(place: str) -> None:
    """Compared with the dense weight: onnxruntime takes no sparse tensor of four dimensions."""
    if place == "Constant":
        original = computed([constant("w", sparse_value=sparse(WEIGHT))])
    else:
        original = computed([])
        original.graph.sparse_initializer.append(sparse(WEIGHT, "w"))
    dense = np.zeros_like(WEIGHT)
    where = np.argwhere(WEIGHT)[::2]
    dense[tuple(where.T)] = WEIGHT[tuple(where.T)]
    feeds = feeds_for(original)

    _, after = rewrite(original, verify=False)

    assert_equal(run(computed([], [tensor("w", dense)]), feeds), run(after, feeds))
    assert not after.graph.sparse_initializer


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Identity", ["v"], ["b"])],
        [node("Add", ["v", "v"], ["b"])],
        [node("Reshape", ["v", "minus"], ["r"]), node("Identity", ["r"], ["b"])],
    ],
    ids=["Identity", "Add", "Reshape"],
)
def test_a_computed_bias_is_folded(nodes: list[NodeProto]) -> None:
    original = upsampler()
    original.graph.initializer[1].name = "v"
    original.graph.initializer.append(tensor("minus", np.array([-1])))
    site = original.graph.node.pop()
    original.graph.node.extend([*nodes, site])
    after = assert_rewritten(original)
    assert set(ops(after)) == {"Conv", "DepthToSpace", "Slice"}


BIASES = {
    "CastLike, Expand to the width of the weight": [
        node("CastLike", ["zero", "x"], ["cast"]),
        node("Shape", ["w"], ["width"], start=1, end=2),
        node("Expand", ["cast", "width"], ["b"]),
    ],
    "Expand to channels picked from the input's shape": [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "axis"], ["channels"]),
        node("Sub", ["channels", "minus"], ["width"]),
        node("Expand", ["zero", "width"], ["b"]),
    ],
    "Expand to channels that Split takes from the input's shape": [
        node("Shape", ["x"], ["shape"]),
        node("Split", ["shape", "parts"], ["batch", "channels", "rest"]),
        node("Sub", ["channels", "minus"], ["width"]),
        node("Expand", ["zero", "width"], ["b"]),
    ],
    "ConstantOfShape of channels sliced from the input's shape": [
        node("Shape", ["x"], ["channels"], start=1, end=2),
        node("Sub", ["channels", "minus"], ["width"]),
        node("ConstantOfShape", ["width"], ["b"]),
    ],
}


@pytest.mark.parametrize("sizes", [(5, 6), (1, 9)])
@pytest.mark.parametrize("nodes", BIASES.values(), ids=list(BIASES))
def test_a_bias_that_depends_on_static_channels_alone_is_folded(
    nodes: list[NodeProto], sizes: tuple[int, int]
) -> None:
    """Batch, height and width are dynamic."""
    original = upsampler(("h", "w_size"), batch="n", opset=18)
    del original.graph.initializer[1]
    held = {"zero": np.float32(0), "axis": np.array([1]), "minus": np.array([-1])}
    held["parts"] = np.array([1, 1, 2])
    original.graph.initializer.extend(tensor(name, array) for name, array in held.items())
    site = original.graph.node.pop()
    original.graph.node.extend([*nodes, site])
    feeds = {"x": integers(2, 2, *sizes)}
    after = assert_rewritten(original, feeds)
    assert set(ops(after)) == {"Conv", "DepthToSpace", "Slice"}


def test_a_bias_that_depends_on_dynamic_channels_is_a_run_time_bias() -> None:
    original = upsampler(opset=18)
    original.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "c"
    held = {"axis": np.array([1]), "minus": np.array([-1]), "zero": np.float32(0)}
    original.graph.initializer.extend(tensor(name, array) for name, array in held.items())
    del original.graph.initializer[1]
    site = original.graph.node.pop()
    nodes = BIASES["Expand to channels picked from the input's shape"]
    original.graph.node.extend([*nodes, site])
    assert reasons(original, verify=False) == ["runtime-bias"]


def test_a_random_weight_is_not_constant() -> None:
    original = computed([node("RandomNormalLike", ["v"], ["w"])], [tensor("v", WEIGHT)])
    assert reasons(original, verify=False) == ["runtime-weight"]


# --- initializers that are graph inputs


def with_inputs(ir_version: int, opset: int = 8) -> ModelProto:
    """Weight and bias are listed as inputs, too."""
    original = upsampler(opset=opset, ir_version=ir_version)
    for initializer in original.graph.initializer:
        original.graph.input.append(value(initializer.name, FLOAT, list(initializer.dims)))
    return original


def test_before_ir_4_every_initializer_is_an_input() -> None:
    after = assert_rewritten(with_inputs(3))
    # New constants are nodes, as an initializer would be a new input of the model.
    assert [given.name for given in after.graph.input] == ["x"]
    assert not after.graph.initializer


def test_from_ir_4_a_caller_may_override_it() -> None:
    assert reasons(with_inputs(8)) == ["overridable-initializer"]


def test_a_weight_computed_from_an_overridable_one_is_found_too() -> None:
    original = with_inputs(8)
    site = original.graph.node.pop()
    original.graph.node.extend([node("Identity", ["w"], ["same"]), site])
    original.graph.node[1].input[1] = "same"
    assert reasons(original) == ["overridable-initializer"]


def test_frozen_it_is_a_constant_and_no_input_any_more() -> None:
    original = with_inputs(8)
    done, after = rewrite(original, freeze_initializers=True, verify=False)
    assert [site.status for site in done.sites] == ["rewritten"]
    assert [given.name for given in after.graph.input] == ["x"]
    feeds = feeds_for(original)
    assert_equal(run(original, feeds), run(after, feeds))


def test_a_body_may_not_freeze_what_the_caller_overrides() -> None:
    """The weight of a node in a branch is a default of the main graph."""
    original = with_inputs(8, opset=17)
    site = original.graph.node.pop()
    then = graph([site], [], [value("y", FLOAT, [None] * 4)])
    original.graph.input.append(value("yes", TensorProto.BOOL, []))
    original.graph.node.append(
        node("If", ["yes"], ["z"], name="if", then_branch=then, else_branch=then)
    )
    original.graph.output[0].name = "z"
    assert reasons(original) == ["overridable-initializer"] * 2
