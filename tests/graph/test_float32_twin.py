from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from deployconv.errors import ModelError
from deployconv.graph.float32_twin import float32_twin, has_element_types
from tests.runtimes.tiny import (
    BFLOAT16,
    DOUBLE,
    FLOAT,
    INT64,
    constant,
    graph,
    model,
    unary,
    upsampler,
    value,
)


def nested(dtype: int) -> ModelProto:
    """A Constant, a Cast and a declared type, two Ifs deep, and an outer initializer."""
    inner = graph(
        [
            helper.make_node("Constant", [], ["c"], value=constant("c", [2.0], dtype)),
            helper.make_node("Mul", ["x", "c"], ["inner"]),
        ],
        [],
        [value("inner", dtype, [1])],
    )
    other = graph([helper.make_node("Identity", ["w"], ["o"])], [], [value("o", dtype, [1])])
    middle = graph(
        [
            helper.make_node("If", ["yes"], ["half"], then_branch=inner, else_branch=other),
            helper.make_node("Cast", ["half"], ["middle"], to=dtype),
        ],
        [],
        [value("middle", dtype, [1])],
    )
    nodes = [helper.make_node("If", ["yes"], ["y"], then_branch=middle, else_branch=other)]
    inputs = [value("yes", TensorProto.BOOL, []), value("x", dtype, [1])]
    return model(nodes, inputs, [value("y", dtype, [1])], [constant("w", [3.0], dtype)])


def local_function(dtype: int) -> ModelProto:
    function = helper.make_function(
        "local",
        "Plus",
        ["a"],
        ["b"],
        [
            helper.make_node("Constant", [], ["c"], value=constant("c", [2.0], dtype)),
            helper.make_node("Cast", ["c"], ["d"], to=dtype),
            helper.make_node("Add", ["a", "d"], ["b"]),
        ],
        [helper.make_opsetid("", 17)],
    )
    return model(
        [helper.make_node("Plus", ["x"], ["y"], domain="local")],
        [value("x", dtype, [1])],
        [value("y", dtype, [1])],
        functions=[function],
    )


def generators(dtype: int) -> ModelProto:
    """Every attribute by which an operator states its element type."""
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["a"], value=constant("v", [5.0], dtype)),
        helper.make_node("EyeLike", ["a"], ["b"], dtype=dtype),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Add", ["c", "x"], ["y"]),
    ]
    return model(
        nodes,
        [value("x", dtype, [2, 2])],
        [value("y", dtype, [2, 2])],
        [constant("s", [2, 2], INT64)],
    )


@pytest.mark.parametrize("dtype", [DOUBLE, BFLOAT16])
@pytest.mark.parametrize("build", [nested, local_function, generators, upsampler])
def test_no_trace_of_the_type_is_left_and_the_original_is_untouched(
    build: Callable[[int], ModelProto], dtype: int
) -> None:
    original = build(dtype)
    before = original.SerializeToString()
    twin = float32_twin(original)
    assert original.SerializeToString() == before
    assert has_element_types(original)
    assert not has_element_types(twin)
    assert TensorProto.DataType.Name(dtype).lower() not in onnx.printer.to_text(twin)
    onnx.checker.check_model(twin, full_check=True)


@pytest.mark.parametrize("build", [nested, local_function, generators])
def test_the_twin_computes_the_same(build: Callable[[int], ModelProto]) -> None:
    original = build(DOUBLE)
    shape = [dim.dim_value for dim in original.graph.input[-1].type.tensor_type.shape.dim]
    feeds = {"x": np.full(shape, 0.5)}
    if len(original.graph.input) == 2:
        feeds["yes"] = np.array(True)
    (expected,) = ReferenceEvaluator(original).run(None, feeds)
    feeds["x"] = feeds["x"].astype(np.float32)
    (found,) = ReferenceEvaluator(float32_twin(original)).run(None, feeds)
    assert found.dtype == np.float32
    assert found.tolist() == expected.tolist()


def test_bfloat16_is_widened_without_loss() -> None:
    values = np.array([1.0, -0.0, 3.140625, 2.0**-130, np.inf]).astype(ml_dtypes.bfloat16)
    proto = unary("Neg")
    proto.graph.initializer.append(constant("w", values, BFLOAT16))
    widened = numpy_helper.to_array(float32_twin(proto).graph.initializer[0])
    assert widened.dtype == np.float32
    assert widened.tobytes() == values.astype(np.float32).tobytes()


def test_only_the_asked_for_types_are_converted() -> None:
    proto = unary("Neg")
    proto.graph.initializer.extend(
        [constant("d", [1], DOUBLE), constant("b", [1], BFLOAT16), constant("i", [1], INT64)]
    )
    twin = float32_twin(proto, [DOUBLE])
    assert [tensor.data_type for tensor in twin.graph.initializer] == [FLOAT, BFLOAT16, INT64]


def test_sparse_initializers_and_composite_types() -> None:
    values = constant("w", [2.0, 3.0], DOUBLE)
    sparse = helper.make_sparse_tensor(values, constant("i", [0, 3], INT64), [4])
    proto = unary("Neg")
    proto.graph.sparse_initializer.append(sparse)
    tensor_type = helper.make_tensor_type_proto(DOUBLE, [1])
    sequence = helper.make_sequence_type_proto(tensor_type)
    proto.graph.value_info.append(
        helper.make_value_info("s", helper.make_optional_type_proto(sequence))
    )
    twin = float32_twin(proto)
    assert twin.graph.sparse_initializer[0].values.data_type == FLOAT
    assert twin.graph.sparse_initializer[0].indices.data_type == INT64
    inside = twin.graph.value_info[0].type.optional_type.elem_type.sequence_type.elem_type
    assert inside.tensor_type.elem_type == FLOAT


def test_an_integer_attribute_that_is_no_dtype_keeps_its_value() -> None:
    proto = model(
        [helper.make_node("Concat", ["x", "x"], ["y"], axis=DOUBLE)],
        [value("x", FLOAT, [1])],
        [value("y", FLOAT, None)],
    )
    assert float32_twin(proto).graph.node[0].attribute[0].i == DOUBLE


def test_a_broken_tensor_is_named() -> None:
    proto = upsampler(DOUBLE)
    proto.graph.initializer[0].raw_data = b"short"
    with pytest.raises(ModelError, match="tensor 'w' cannot be read"):
        float32_twin(proto)


def test_an_external_tensor_is_refused() -> None:
    proto = upsampler(DOUBLE)
    proto.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(ModelError, match="tensor 'w' is external"):
        float32_twin(proto)
