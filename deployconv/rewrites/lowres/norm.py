"""A normalisation over groups of whole channels, as exporters spell GroupNorm.

    image [N, C, h, w] -> Reshape [N, G, C / G * h * w] -> InstanceNormalization
      -> Reshape [N, C, h, w], by a constant or by the Shape of the image

It adds up all pixels of a group, in whatever order they lie, so it may run where they still lie
phase by phase, if there are no others among them: what a crop would remove must not be there
yet. InstanceNormalization and GroupNormalization by themselves are the same without Reshapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import onnx_graphsurgeon as gs

from deployconv.graph.constants import Constant
from deployconv.graph.scope import Scope
from deployconv.graph.view import View
from deployconv.rewrites.lowres.follow import is_known, only_reader
from deployconv.rewrites.lowres.product import is_constant

_LARGEST = 1 << 23
"""Elements of a group for which a certificate's sum, each at most 2, is exact."""
_FIRST_MOD = 10
"""The first opset with what a certificate adds up: remainders."""


@dataclass(frozen=True, eq=False)
class Normalization:
    """``inner`` normalises, on the image as it is where there are no Reshapes around it.

    ``groups`` is G, ``shape`` the node that says what ``unflatten`` makes, if any; ``constants`` is
    empty but for a certificate, which puts other nodes in place.
    """

    flatten: gs.Node | None
    inner: tuple[gs.Node, ...]
    unflatten: gs.Node | None
    groups: int
    channels: int
    constants: Mapping[int, Constant] = field(default_factory=dict)
    shape: gs.Node | None = None

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        """In graph order."""
        nodes = (self.flatten, *self.inner, self.shape, self.unflatten)
        return tuple(node for node in nodes if node is not None)

    @property
    def reads(self) -> tuple[str, ...]:
        """The name of the image."""
        return (self.nodes[0].inputs[0].name,)

    @property
    def output(self) -> str:
        """The name of the result."""
        return str(self.nodes[-1].outputs[0].name)


def normalization_at(
    node: gs.Node, scope: Scope, view: View, channels: int
) -> Normalization | None:
    """The normalisation that begins with ``node``, of an image of ``channels``; else None."""
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
    """The Shape node that says what ``reshape`` makes: all of the shape of ``image``."""
    given = reshape.inputs[1] if len(reshape.inputs) > 1 else None
    if given is None or only_reader(given, scope) is not reshape or not given.inputs:
        return None
    (shape,) = given.inputs
    whole = shape.op == "Shape" and shape.inputs[0] is image and not shape.attrs
    return shape if whole and is_known(shape, scope) else None


def _is_fixed(node: gs.Node, scope: Scope, view: View) -> bool:
    """Whether it reads one image, the first, and constants."""
    return all(view.constants.fixed(given, scope) is not None for given in node.inputs[1:])


def _groups(image: Sequence[int], flat: Sequence[int], result: Sequence[int]) -> int | None:
    """G, where the shapes are those of such a normalisation."""
    if len(flat) != 3 or tuple(result) != tuple(image) or image[1] % flat[1]:
        return None
    fits = tuple(flat) == (image[0], flat[1], prod(image[1:]) // flat[1])
    return flat[1] if fits and _fits(image, flat[1]) else None


def _fits(image: Sequence[int], groups: int) -> bool:
    """Whether a certificate can tell the groups of ``image``."""
    return prod(image[1:]) // groups <= _LARGEST
