"""The quantizers that a model gets for the converter of the IMX500, and its words on an error."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx
import pytest

from deployconv.runtimes.toolchains.catalogue import get_toolchain
from tests.build import FLOAT, graph, model, node, tensor, value


@pytest.fixture(scope="module")
def adapter():
    spec = importlib.util.spec_from_file_location("adapter", get_toolchain("imx500").program)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def quantized(adapter, nodes, weights, given: np.ndarray) -> onnx.ModelProto:
    body = graph(
        nodes,
        [value("x", FLOAT, list(given.shape))],
        [value("y", FLOAT, [None] * 4)],
        [tensor(name, array) for name, array in weights.items()],
    )
    result = adapter._quantized(model(body), {"x": given})
    onnx.checker.check_model(result)
    return result


def attributes(made: onnx.NodeProto) -> dict:
    return {one.name: onnx.helper.get_attribute_value(one) for one in made.attribute}


def test_weights_and_activations_get_quantizers_with_their_ranges(adapter) -> None:
    weight = np.zeros((2, 3, 1, 1), np.float32)
    weight[0, 1], weight[1, 2] = -3, 0.5
    given = np.ones((1, 2, 4, 4), np.float32)
    nodes = [
        node("ConvTranspose", ["x", "w"], ["a"], strides=[1, 1]),
        node("Relu", ["a"], ["b"]),
        node("Slice", ["b", "starts", "ends"], ["y"]),
    ]
    corners = {"starts": np.array([0, 0, 1, 1]), "ends": np.array([1, 3, 4, 4])}
    made = quantized(adapter, nodes, {"w": weight, **corners, "unused": weight}, given)
    kinds = [one.op_type for one in made.graph.node]
    assert kinds == [
        "ActivationPOTQuantizer",
        "WeightsSymmetricQuantizer",
        "ConvTranspose",
        "Relu",  # one quantizer for a layer with its activation
        "ActivationPOTQuantizer",
        "Slice",  # moves pixels only
    ]
    first, weights, _, _, last, _ = made.graph.node
    assert (attributes(first)["threshold"], attributes(first)["signed"]) == (1.0, 0)
    assert (attributes(last)["threshold"], attributes(last)["signed"]) == (0.5, 0)
    assert attributes(weights)["channel_axis"] == 1
    ends = next(one for one in made.graph.initializer if one.name == weights.input[1])
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(ends), np.float32([2.0**-28, 3, 0.5]))
    assert "unused" not in {one.name for one in made.graph.initializer}
    assert all(one.name for one in made.graph.node)


@pytest.mark.parametrize(
    ("operator", "weight", "attributes_of_node", "axis"),
    [
        ("MatMul", np.ones((4, 5), np.float32), {}, 1),
        ("Gemm", np.ones((4, 5), np.float32), {}, 1),
        ("Gemm", np.ones((5, 4), np.float32), {"transB": 1}, 0),
        ("MatMul", np.ones((1, 4, 5), np.float32), {}, None),
        ("Add", np.ones((1, 4), np.float32), {}, None),
    ],
)
def test_the_weight_of_a_matrix_product_gets_a_quantizer(
    adapter, operator: str, weight: np.ndarray, attributes_of_node: dict, axis: int | None
) -> None:
    body = graph(
        [node(operator, ["x", "w"], ["y"], **attributes_of_node)],
        [value("x", FLOAT, [1, 4])],
        [value("y", FLOAT, None)],
        [tensor("w", weight)],
    )
    made = adapter._quantized(model(body), {"x": np.ones((1, 4), np.float32)})
    found = [one for one in made.graph.node if one.op_type == "WeightsSymmetricQuantizer"]
    assert [attributes(one)["channel_axis"] for one in found] == ([] if axis is None else [axis])


def test_other_types_get_no_quantizers(adapter) -> None:
    given = np.ones((1, 2, 4, 4), np.float16)
    body = graph(
        [node("Relu", ["x"], ["y"])],
        [value("x", onnx.TensorProto.FLOAT16, [1, 2, 4, 4])],
        [value("y", onnx.TensorProto.FLOAT16, [None] * 4)],
    )
    made = adapter._quantized(model(body), {"x": given})
    assert [one.op_type for one in made.graph.node] == ["Relu"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "2026-11-29 06:50:24,812 INFO : Converting\n"
            "2026-11-29 06:50:24,900 ERROR : CODE: [EXEC] No such thing [/a/logger.py:191]\n"
            "Traceback (most recent call last):\n  File x\nValueError: No such thing\n"
            "2026-11-29 06:50:24,901 ERROR : CODE: [EXEC] No such thing [/a/logger.py:185]\n",
            "No such thing",
        ),
        (
            "2026-11-29 06:50:33.211 ERROR: CODE: [GE] Caught 'm': ERROR: CODE: [VE] Not good: \n"
            "2026-11-29 06:50:33.211 ERROR: CODE: [GE] Layer up is not quantized\n"
            "Exception in thread main\n\tat sdsp.run\n"
            "2026-11-29 06:50:33,314 ERROR : sdspconv exited with error code: 1, see [/a/b.py:8]\n",
            "Caught 'm': Not good: Layer up is not quantized",
        ),
        (
            "2026-11-29 06:50:24,900 ERROR : CODE: [INVOPS] Errors are:\nNode up\n -----\nNode b\n"
            "2026-11-29 06:50:25,900 INFO : end\n",
            "Errors are: Node up ----- Node b",
        ),
        ("Error: nothing known\n", "Error: nothing known"),
    ],
)
def test_errors_are_the_words_of_the_converter(adapter, said: str, words: str) -> None:
    assert adapter._errors(said) == words
