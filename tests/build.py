"""Models around one ConvTranspose on small integers, and what it takes to compare them.

Integers are summed exactly in whatever order, so every comparison is bit for bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import deployconv
from deployconv.graph.tensors import graph_attributes
from deployconv.results import Rewriting
from deployconv.runtimes import get_backend
from tests.runtimes.tiny import FLOAT, graph, value

Array = NDArray[Any]
Feeds = Mapping[str, Array]
Size = int | str | None


def integers(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    """Integers from -4 to 4, so that float16 sums of a few hundred products are exact too."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def tensor(name: str, values: Array | np.generic) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values), name)


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs, outputs, **attributes)


def model(
    body: GraphProto, opset: int = 17, ir_version: int = 8, domains: Sequence[str] = (), **rest: Any
) -> ModelProto:
    """A model of ``body`` that imports ``opset`` and version 1 of other ``domains``."""
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    return helper.make_model(body, opset_imports=opsets, ir_version=ir_version, **rest)


def conv_transpose(
    weight: Array,
    sizes: Sequence[Size],
    bias: Array | None = None,
    *,
    batch: Size = 1,
    opset: int = 17,
    ir_version: int = 8,
    **attributes: Any,
) -> ModelProto:
    """``x [batch, C_in, *sizes]`` -> ConvTranspose -> ``y``, weight and bias initializers."""
    dtype = helper.np_dtype_to_tensor_dtype(weight.dtype)
    parameters = {"w": weight} if bias is None else {"w": weight, "b": bias}
    body = graph(
        [node("ConvTranspose", ["x", *parameters], ["y"], name="up", **attributes)],
        [value("x", dtype, [batch, weight.shape[0], *sizes])],
        [value("y", dtype, [None] * weight.ndim)],
        [tensor(name, array) for name, array in parameters.items()],
    )
    return model(body, opset, ir_version)


def upsampler(sizes: Sequence[Size] = (5, 6), **rest: Any) -> ModelProto:
    """One ConvTranspose, 2 to 3 channels, k4 s2 p1 with a bias, along every axis."""
    rank = len(sizes)
    geometry = {"strides": [2] * rank, "pads": [1] * 2 * rank}
    weight = integers(2, 3, *[4] * rank)
    return conv_transpose(weight, sizes, integers(3, seed=1), **{**geometry, **rest})


def owners(model: ModelProto) -> Iterator[GraphProto | FunctionProto]:
    """Every graph at any depth, and every function."""
    waiting: list[GraphProto | FunctionProto] = [model.graph, *model.functions]
    while waiting:
        owner = waiting.pop()
        yield owner
        for proto in owner.node:
            waiting += [body for _, body in graph_attributes(proto)]


def ops(model: ModelProto) -> Counter[str]:
    """How often each operator stands in the model, at any depth."""
    return Counter(proto.op_type for owner in owners(model) for proto in owner.node)


def feeds_for(model: ModelProto, seed: int = 2, size: int = 5) -> dict[str, Array]:
    """Integers for every input that has no default; ``size`` where a dimension is dynamic."""
    defaults = {initializer.name for initializer in model.graph.initializer}
    arrays: dict[str, Array] = {}
    for number, given in enumerate(model.graph.input):
        if given.name in defaults:
            continue
        kind = given.type.tensor_type
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        shape = [dim.dim_value or size for dim in kind.shape.dim]
        arrays[given.name] = integers(*shape, seed=seed + number, dtype=dtype)
    return arrays


def run(model: ModelProto, feeds: Feeds) -> dict[str, Array]:
    """All outputs by onnxruntime, which leaves the graph as it is."""
    session = get_backend("ort").prepare(model.SerializeToString(), threads=1, optimise=False)
    return session.run(feeds)


def run_reference(model: ModelProto, feeds: Feeds) -> dict[str, Array]:
    """All outputs by the ONNX reference evaluator."""
    evaluator = ReferenceEvaluator(model)
    results = evaluator.run(None, dict(feeds))
    return dict(zip(evaluator.output_names, map(np.asarray, results), strict=True))


def assert_equal(expected: Feeds, actual: Feeds) -> None:
    """Same names, dtypes, shapes and bits."""
    assert expected.keys() == actual.keys()
    for name, array in expected.items():
        assert array.dtype == actual[name].dtype, name
        np.testing.assert_array_equal(actual[name], array, err_msg=name, strict=True)


def rewrite(model: ModelProto, **options: Any) -> tuple[Rewriting, ModelProto]:
    """What `deployconv.rewrite` found, and the model that it made; nothing is timed."""
    done = deployconv.rewrite(model, bench=False, **options)
    assert done.model is not None
    return done, done.model


def assert_rewritten(
    model: ModelProto, feeds: Feeds | None = None, left: int = 0, **options: Any
) -> ModelProto:
    """Rewrite, and demand the same bits from onnxruntime before and after.

    All but ``left`` ConvTranspose nodes must be gone, each with an exact certificate.
    """
    done, after = rewrite(model, **options)
    verdicts = [site.certificate for site in done.sites if site.status == "rewritten"]
    assert verdicts
    assert set(verdicts) == {"exact"}
    assert ops(after)["ConvTranspose"] == left
    feeds = feeds_for(model) if feeds is None else feeds
    assert_equal(run(model, feeds), run(after, feeds))
    return after


def reasons(model: ModelProto, **options: Any) -> list[str]:
    """The reason code of every site that is left alone, in graph order."""
    done, _ = rewrite(model, **options)
    return [site.reason.code for site in done.sites if site.reason is not None]


__all__ = [
    "FLOAT",
    "Array",
    "Feeds",
    "Size",
    "assert_equal",
    "assert_rewritten",
    "conv_transpose",
    "feeds_for",
    "graph",
    "integers",
    "model",
    "node",
    "ops",
    "owners",
    "reasons",
    "rewrite",
    "run",
    "run_reference",
    "tensor",
    "upsampler",
    "value",
]
