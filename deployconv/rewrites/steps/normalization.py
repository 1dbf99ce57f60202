"""A normalisation over groups of whole channels, as exporters write GroupNorm.

    image [N, C, h, w] -> Reshape [N, G, C / G * h * w] -> InstanceNormalization
      -> Reshape [N, C, h, w], by a constant or by the Shape of the image

It adds up all pixels of a group, in whatever order they lie, so it may run while they lie phase by
phase. Only pixels that a crop would remove later must not be among them. InstanceNormalization and
GroupNormalization by themselves are the same without the Reshapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from deployconv.graph.constants import Constant
from deployconv.graph.scope import Scope
from deployconv.graph.view import View
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.neighbours import is_known, only_reader
from deployconv.rewrites.steps.base import Defaults, PhaseImage
from deployconv.rewrites.steps.product import is_constant
from deployconv.rewrites.trial import Draws, constant_of

Array = NDArray[Any]

_LARGEST = 1 << 23
"""Elements of a group for which the sum in a trial, of values up to 2, is exact."""
_FIRST_MOD = 10
"""The first opset with Mod, which a trial needs."""
_SMALL, _ODD = 3, 7
"""A trial adds up remainders of _SMALL, and takes the remainder of _ODD of their sum."""


@dataclass(frozen=True, eq=False)
class Normalization(Defaults):
    """A GroupNorm or InstanceNorm over whole channels.

    Attributes:
        flatten: the Reshape before it, if there is one.
        inner: the nodes that normalise; in a trial, those that stand in for them.
        unflatten: the Reshape after it, if there is one.
        groups: G.
        channels: C.
        shape: the Shape node that ``unflatten`` reads, if there is one.
        constants: in a trial, what the nodes read.
        parity_only: in a trial, the nodes that are not computed.
    """

    flatten: gs.Node | None
    inner: tuple[gs.Node, ...]
    unflatten: gs.Node | None
    groups: int
    channels: int
    shape: gs.Node | None = None
    constants: tuple[Constant, ...] = ()
    parity_only: tuple[gs.Node, ...] = ()

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        nodes = (self.flatten, *self.inner, self.shape, self.unflatten)
        return tuple(node for node in nodes if node is not None)

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.nodes[0].inputs[0].name,)

    @property
    def output(self) -> str:
        return str(self.nodes[-1].outputs[0].name)

    @property
    def beyond_chains(self) -> bool:
        return False

    @property
    def needs_whole_image(self) -> bool:
        return True

    @property
    def growth(self) -> int:
        return _ODD

    @property
    def values(self) -> dict[str, Array]:
        return {known.name: known.read() for known in self.constants}

    def emit_on_pixels(
        self, emitter: Emitter, made: Mapping[str, gs.Tensor], image: PhaseImage
    ) -> gs.Tensor:
        """The same nodes, which see the pixels of a group in the order of the phases."""
        tensor = read = made[self.reads[0]]
        if self.flatten is not None:
            sizes = [size for size in image.spatial if size is not None]
            known = len(sizes) == image.rank
            pixels = self.channels // self.groups * prod(sizes) if known else -1
            tensor = emitter.reshape(read, [0, self.groups, pixels])
        inside = {self.inner[0].inputs[0].name: tensor}
        for node in self.inner:
            inputs = [inside.get(given.name, given) for given in node.inputs]
            tensor = inside[node.outputs[0].name] = emitter.add(node.op, inputs, **node.attrs)
        if self.unflatten is None:
            return tensor
        return emitter.reshape_to_image(tensor, [0, self.channels], image.spatial, read)

    def on_integers(self, draws: Draws, image: Sequence[int]) -> Normalization:
        """``x + (sum of x mod 3) mod 7`` over each group, in which no other element has a part.

        If no Reshape makes the groups of a GroupNormalization, it sums over all channels: these do
        not move.
        """
        source, result = self.inner[0].inputs[0].name, self.inner[-1].outputs[0].name
        own = f"certificate/{self.output}"
        constants = [
            constant_of(f"{own}/small", np.array(_SMALL, np.float32)),
            constant_of(f"{own}/odd", np.array(_ODD, np.float32)),
        ]
        first = 1 if self.inner[0].op == "GroupNormalization" else 2
        axes = [2] if self.flatten is not None else [*range(first, 2 + len(image))]
        summed, attrs = [f"{own}/left"], {"axes": axes}
        if draws.opset >= 13:
            summed, attrs = [*summed, f"{own}/axes"], {}
            constants.append(constant_of(f"{own}/axes", np.array(axes)))
        inner = (
            _node("Mod", [source, f"{own}/small"], f"{own}/left", fmod=1),
            _node("ReduceSum", summed, f"{own}/sum", **attrs),
            _node("Mod", [f"{own}/sum", f"{own}/odd"], f"{own}/rest", fmod=1),
            _node("Add", [source, f"{own}/rest"], result),
        )
        flatten, unflatten = self.flatten, self.unflatten
        if flatten is not None and unflatten is not None:
            flat, whole = f"{own}/flat", f"{own}/whole"
            # It fails on an empty batch, as what exporters write does.
            constants.append(constant_of(flat, np.array([0, self.groups, -1])))
            constants.append(constant_of(whole, np.array([0, self.channels, *image])))
            flatten = _node("Reshape", [flatten.inputs[0].name, flat], source)
            unflatten = _node("Reshape", [result, whole], self.output)
        return Normalization(
            flatten,
            inner,
            unflatten,
            self.groups,
            self.channels,
            constants=tuple(constants),
            parity_only=self.inner,
        )


def _node(op: str, inputs: Sequence[str], output: str, **attrs: Any) -> gs.Node:
    given = [gs.Variable(name) for name in inputs]
    return gs.Node(op, output, attrs, given, [gs.Variable(output)])


def normalization_at(
    node: gs.Node, scope: Scope, view: View, channels: int
) -> Normalization | None:
    """The normalisation that begins with ``node``, of an image of so many ``channels``."""
    if not is_known(node, scope) or scope.opset < _FIRST_MOD:
        return None
    if node.op in ("InstanceNormalization", "GroupNormalization"):
        groups = node.attrs.get("num_groups", channels)
        found = Normalization(None, (node,), None, groups, channels)
        image = node.inputs[0]
        fits = all(_fits(shapes[image.name], groups) for shapes in view.instances(scope, image))
        return found if fits and _is_fixed(node, scope, view) else None
    inner = only_reader(node.outputs[0], scope) if node.op == "Reshape" else None
    if inner is None or inner.op != "InstanceNormalization":
        return None
    last = only_reader(inner.outputs[0], scope)
    if last is None or last.op != "Reshape" or not _is_fixed(inner, scope, view):
        return None
    image, shape = node.inputs[0], _shape_of(node.inputs[0], last, scope)
    if not is_constant(node, scope, view) or not (shape or is_constant(last, scope, view)):
        return None
    tensors = (image, node.outputs[0], image if shape else last.outputs[0])
    grouped = {
        _groups(*(shapes[tensor.name] for tensor in tensors))
        for shapes in view.instances(scope, *tensors)
    }
    if len(grouped) != 1 or None in grouped:
        return None
    (groups,) = grouped
    assert groups is not None
    return Normalization(node, (inner,), last, groups, channels, shape=shape)


def _shape_of(image: gs.Tensor, reshape: gs.Node, scope: Scope) -> gs.Node | None:
    """The Shape node of ``image`` that only ``reshape`` reads for its shape, if there is one."""
    given = reshape.inputs[1] if len(reshape.inputs) > 1 else None
    if given is None or only_reader(given, scope) is not reshape or not given.inputs:
        return None
    (shape,) = given.inputs
    whole = shape.op == "Shape" and shape.inputs[0] is image and not shape.attrs
    return shape if whole and is_known(shape, scope) else None


def _is_fixed(node: gs.Node, scope: Scope, view: View) -> bool:
    """Whether all inputs but the first are constant."""
    return all(view.constants.fixed(given, scope) is not None for given in node.inputs[1:])


def _groups(image: Sequence[int], flat: Sequence[int], result: Sequence[int]) -> int | None:
    """The number of groups; None if the shapes do not fit."""
    if len(flat) != 3 or tuple(result) != tuple(image) or image[1] % flat[1]:
        return None
    fits = tuple(flat) == (image[0], flat[1], prod(image[1:]) // flat[1])
    return flat[1] if fits and _fits(image, flat[1]) else None


def _fits(image: Sequence[int], groups: int) -> bool:
    """Whether a trial can sum a group of ``image`` exactly."""
    return prod(image[1:]) // groups <= _LARGEST
