"""Models with one feature each that a rewrite has no business with, around one ConvTranspose.

The node is called ``up`` and reads ``w`` and ``b``; whatever else stands in the model must come
back byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from tests.build import FLOAT, graph, integers, model, node, tensor, value

SHAPE, UPSAMPLED = [1, 2, 4, 5], [1, 3, 8, 10]
Build = Callable[[], ModelProto]


@dataclass(frozen=True)
class Feature:
    """A model and what is to be expected of it.

    Attributes:
        build: makes the model.
        gone: names of the parameters that nothing reads once the node is replaced.
        checks: whether the checker accepts the model with full shape inference.
        runs: whether onnxruntime runs it, so that it can be proved as well.
    """

    build: Build
    gone: frozenset[str]
    checks: bool
    runs: bool


FEATURES: dict[str, Feature] = {}


def feature(
    gone: Sequence[str] = ("w", "b"), checks: bool = True, runs: bool = True
) -> Callable[[Build], Build]:
    """Put a builder into `FEATURES` under its own name."""

    def register(build: Build) -> Build:
        FEATURES[build.__name__] = Feature(build, frozenset(gone), checks, runs)
        return build

    return register


def up(source: str = "x", result: str = "y") -> NodeProto:
    """The node that is replaced."""
    geometry = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    return node("ConvTranspose", [source, "w", "b"], [result], name="up", **geometry)


def parameters() -> list[TensorProto]:
    """What it reads."""
    return [tensor("w", integers(2, 3, 4, 4)), tensor("b", integers(3, seed=1))]


def network(
    nodes: Sequence[NodeProto] = (),
    inputs: Sequence[ValueInfoProto] = (),
    outputs: Sequence[ValueInfoProto] = (),
    initializers: Sequence[TensorProto] = (),
    **rest: Any,
) -> ModelProto:
    """``x -> Relu -> ConvTranspose -> y``, and what else is given beside it."""
    body = graph(
        [node("Relu", ["x"], ["low"], name="relu"), up("low"), *nodes],
        [value("x", FLOAT, SHAPE), *inputs],
        [value("y", FLOAT, UPSAMPLED), *outputs],
        [*parameters(), *initializers],
    )
    return model(body, **rest)


def custom(*attributes: AttributeProto) -> ModelProto:
    """A node behind the ConvTranspose, of a domain that no runtime knows."""
    proto = node("Custom", ["y"], ["z"], name="custom", domain="com.example")
    proto.attribute.extend(attributes)
    return network([proto], outputs=[value("z", FLOAT, [None])], domains=["com.example"])
