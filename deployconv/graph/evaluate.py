"""Run a few nodes of a model by the ONNX reference evaluator, with operators corrected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto

from deployconv.graph.nearest import LARGEST, resize, upsample
from deployconv.graph.not_evaluated import NotEvaluated

if TYPE_CHECKING:
    from onnx.reference.op_run import OpRun

Array = NDArray[Any]

Run = Callable[[Mapping[str, Array]], list[Array]]
"""Computes the values of some tensors from those of others, by their names."""

_RESIZES = {"Resize": resize, "Upsample": upsample}
"""What `evaluate` computes by itself: most models have no other operator that is evaluated."""


@contextmanager
def _as_not_evaluated() -> Iterator[None]:
    """Raise NotEvaluated for any error: the evaluator has no class for what it cannot run."""
    try:
        yield
    except NotEvaluated:
        raise
    except Exception as error:
        raise NotEvaluated(f"{type(error).__name__}: {error}") from error


def evaluate(
    nodes: Sequence[NodeProto], opset: int, feeds: Mapping[str, Array], outputs: Sequence[str]
) -> list[Array]:
    """The values of ``outputs`` after ``nodes`` ran on ``feeds``, which name all their inputs.

    Raises NotEvaluated for nodes that cannot be run, and for a ConvTranspose whose padding
    runtimes compute differently.
    """
    return prepared(nodes, opset, feeds, outputs)(feeds)


def prepared(
    nodes: Sequence[NodeProto], opset: int, inputs: Iterable[str], outputs: Sequence[str]
) -> Run:
    """Return a function that computes ``nodes`` as `evaluate` does, to be called many times.

    Both raise NotEvaluated.
    """
    if all(map(_is_resize, nodes)):
        return _as_not_evaluated()(partial(_resized, nodes, outputs))
    with _as_not_evaluated():
        for node in nodes:
            stated = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            same = stated.get("auto_pad", b"").startswith(b"SAME")
            if node.op_type == "ConvTranspose" and (same or stated.get("output_shape")):
                raise NotEvaluated("ConvTranspose without explicit pads")
    from deployconv.graph.reference_operators import OPERATORS

    return _by_reference(nodes, opset, inputs, outputs, OPERATORS)


def run_reference(
    nodes: Sequence[NodeProto], opset: int, feeds: Mapping[str, Array], outputs: Sequence[str]
) -> list[Array]:
    """The values of ``outputs`` by the ONNX reference evaluator, all operators as it has them.

    Raises NotEvaluated for nodes that it cannot run.
    """
    return _by_reference(nodes, opset, feeds, outputs)(feeds)


def _by_reference(
    nodes: Sequence[NodeProto],
    opset: int,
    inputs: Iterable[str],
    outputs: Sequence[str],
    operators: list[type[OpRun]] | None = None,
) -> Run:
    """What runs ``nodes`` by the ONNX reference evaluator, some ``operators`` replaced."""
    # The evaluator takes long to import, and few models need it.
    from onnx.reference import ReferenceEvaluator

    unknown = onnx.TypeProto()
    with _as_not_evaluated():
        graph = onnx.helper.make_graph(
            list(nodes),
            "evaluate",
            [onnx.helper.make_value_info(name, unknown) for name in inputs],
            [onnx.helper.make_value_info(name, unknown) for name in outputs],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        evaluator = ReferenceEvaluator(model, new_ops=operators)
    for node in evaluator.rt_nodes_:
        node.run = partial(_run_if_small, node.onnx_node, node.run)

    @_as_not_evaluated()
    def run(feeds: Mapping[str, Array]) -> list[Array]:
        # Infinity and NaN are results like others.
        with np.errstate(all="ignore"):
            return [np.asarray(array) for array in evaluator.run(None, dict(feeds))]

    return run


def _run_if_small(node: NodeProto, run: Callable[..., Any], *inputs: Array, **rest: Any) -> Any:
    """Run one node; NotEvaluated if its result were far larger than what it reads."""
    size = result_size(node, inputs)
    if size > LARGEST and size > sum(np.size(given) for given in inputs if given is not None):
        raise NotEvaluated(f"{node.op_type} with a result of {size} elements")
    return run(*inputs, **rest)


def result_size(node: NodeProto, inputs: Sequence[Array]) -> int:
    """How many elements ``node`` makes of ``inputs``, if it may make many of few; else 0.

    Raises ValueError for inputs that do not fit together.
    """
    op = node.op_type
    if op == "ConstantOfShape":
        return prod(map(int, inputs[0]))
    if op == "Expand":
        return prod(np.broadcast_shapes(inputs[0].shape, tuple(map(int, inputs[1]))))
    if op == "Tile":
        return inputs[0].size * prod(map(int, np.ravel(inputs[1])))
    if op == "Range":
        start, limit, step = (float(np.ravel(given)[0]) for given in inputs)
        return ceil(abs((limit - start) / step)) if step else 0
    if op == "Pad" and len(inputs) > 1:
        pads = [int(pad) for pad in inputs[1]]
        rank = len(pads) // 2
        sizes = list(inputs[0].shape)
        given = inputs[3] if len(inputs) > 3 else range(rank)
        for axis, begin, end in zip(given, pads[:rank], pads[rank:], strict=True):
            sizes[axis] += begin + end
        return prod(sizes)
    if op == "Gather":
        (axis,) = [int(a.i) for a in node.attribute if a.name == "axis"] or [0]
        return int(inputs[0].size // max(inputs[0].shape[axis], 1) * inputs[1].size)
    if op in _BROADCAST:
        return prod(np.broadcast_shapes(*(given.shape for given in inputs)))
    return 0


_BROADCAST = frozenset(
    {"Add", "And", "BitShift", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
    | {"Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor"}
)
"""Operators whose result has the shape that their inputs have in common."""


def _is_resize(node: NodeProto) -> bool:
    of_function = any(attribute.ref_attr_name for attribute in node.attribute)
    return node.op_type in _RESIZES and not node.domain and not of_function


def _resized(
    nodes: Sequence[NodeProto], outputs: Sequence[str], feeds: Mapping[str, Array]
) -> list[Array]:
    """The values of ``outputs`` after ``nodes``, each a Resize or Upsample, ran on ``feeds``."""
    known: dict[str, Array | None] = {**feeds, "": None}
    for node in nodes:
        # Defaults are those of the newest opset, as the evaluator has them.
        schema = onnx.defs.get_schema(node.op_type)
        stated = {a.name: _value(a) for a in node.attribute}
        defaults = {
            name: _value(attribute.default_value)
            for name, attribute in schema.attributes.items()
            if name not in stated and attribute.default_value.type
        }
        data, *inputs = [known[name] for name in node.input]
        assert data is not None
        known[node.output[0]] = _RESIZES[node.op_type](data, inputs, {**defaults, **stated})
    return [np.asarray(known[name]) for name in outputs]


def _value(attribute: AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value
