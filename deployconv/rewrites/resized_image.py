"""A Resize as a layer that commutes with 1x1 Convs: each channel is resized by itself, alike.

    Resize(W x + b) = W Resize(x) + b

The first holds for every Resize of spatial axes. The second takes weights that add up to 1 for each
output pixel: so do those of a nearest, a linear and a cubic Resize, also with ``exclude_outside``
and ``antialias``, which divide by the sum. A Resize of a region may write a value of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from deployconv.graph.scope import Scope
from deployconv.graph.view import View, remembered
from deployconv.match.attributes import is_standard
from deployconv.rewrites.emit import INT64_MAX, Emitter
from deployconv.rewrites.neighbours import is_known

_MODES = ("nearest", "linear", "cubic", "bilinear", "trilinear")
_SIZES = 3
"""Position of the sizes among the inputs of a Resize."""


@dataclass(frozen=True, eq=False)
class ResizedImage:
    """A Resize of the spatial axes of an image.

    Attributes:
        node: the Resize or Upsample.
        axes: the axes that it changes.
        channels: of the image.
        scales: the scale of each axis that is given one; empty if sizes are given.
        sizes: the sizes that it is given, if they are constant.
        before: a shape of the image.
        after: the shape of the result for that.
        fixed: whether these are the only shapes.
        repeats_one_pixel: whether the image has one pixel along each axis that it changes.
    """

    node: gs.Node
    axes: tuple[int, ...]
    channels: int
    scales: Mapping[int, float]
    sizes: tuple[int, ...] | None
    before: tuple[int, ...]
    after: tuple[int, ...]
    fixed: bool
    repeats_one_pixel: bool

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        return (self.node,)

    @property
    def source(self) -> str:
        return str(self.node.inputs[0].name)

    @property
    def output(self) -> str:
        return str(self.node.outputs[0].name)

    @property
    def mode(self) -> str:
        return str(self.node.attrs.get("mode", "nearest"))

    @property
    def changes_nothing(self) -> bool:
        """Whether it returns the image as it is."""
        return self.fixed and not self.axes

    def write(self, emitter: Emitter, image: gs.Tensor, channels: int) -> gs.Tensor:
        """The same Resize of another image, which has so many channels."""
        node, rank = self.node, len(self.before)
        inputs = [image, *node.inputs[1:]]
        axes = [axis % rank for axis in node.attrs.get("axes", range(rank))]
        if self.sizes is not None:
            sizes = dict(zip(axes, self.sizes, strict=True))
            sizes |= {1: channels} if 1 in sizes else {}
            inputs[_SIZES] = emitter.ints("sizes", list(sizes.values()))
        elif len(inputs) > _SIZES and 1 in axes and channels != self.channels:
            inputs[_SIZES] = self._sizes_for(emitter, axes.index(1), channels)
        return emitter.add(node.op, inputs, **node.attrs)

    def _sizes_for(self, emitter: Emitter, at: int, channels: int) -> gs.Tensor:
        """The sizes that the node is given, with other channels."""
        given = self.node.inputs[_SIZES]
        parts = [emitter.ints("channels", [channels])]
        if at:
            parts.insert(0, emitter.slice(given, [0], [at], [0]))
        return emitter.add(
            "Concat", [*parts, emitter.slice(given, [at + 1], [INT64_MAX], [0])], axis=0
        )


@remembered
def resized_image(node: gs.Node, scope: Scope, view: View) -> ResizedImage | None:
    """``node`` as a Resize of the spatial axes of an image; None if it is none."""
    if not is_standard(node, "Resize", "Upsample") or not is_known(node, scope):
        return None
    attributes, x, y = node.attrs, node.inputs[0], node.outputs[0]
    region = attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    if region or attributes.get("mode", "nearest") not in _MODES:
        return None
    instances = view.instances(scope, x, y)
    shapes = [(instance[x.name], instance[y.name]) for instance in instances]
    if not shapes or len(shapes[0][0]) < 3:
        return None
    before, after = shapes[0]
    scales = _scales(node, scope, view, before)
    if scales is None or len({old[1] for old, _ in shapes}) > 1:
        return None
    changed = {axis for old, new in shapes for axis in range(len(old)) if old[axis] != new[axis]}
    changed |= {axis for axis, scale in scales.items() if scale != 1}
    if changed & {0, 1}:
        return None
    given = node.inputs[_SIZES] if len(node.inputs) > _SIZES else None
    constant = None if given is None else view.constants.fixed(given, scope)
    return ResizedImage(
        node,
        tuple(sorted(changed)),
        before[1],
        scales,
        None if constant is None else tuple(np.ravel(constant.read()).tolist()),
        before,
        after,
        len(set(shapes)) == 1 and not view.shapes.dynamic,
        bool(changed) and all(old[axis] == 1 for axis in changed for old, _ in shapes),
    )


def _scales(
    node: gs.Node, scope: Scope, view: View, before: Sequence[int]
) -> dict[int, float] | None:
    """The scale of each axis that is given one; None if they are not known.

    Empty if sizes are given.
    """
    axes = [axis % len(before) for axis in node.attrs.get("axes") or range(len(before))]
    given = node.attrs.get("scales")
    at = 1 if len(node.inputs) < _SIZES else 2
    if given is None and len(node.inputs) > at and node.inputs[at].name:
        constant = view.constants.fixed(node.inputs[at], scope)
        if constant is None:
            return None
        given = np.ravel(constant.read()).tolist()
    if len(node.inputs) <= _SIZES or not node.inputs[_SIZES].name:
        return dict(zip(axes, map(float, given), strict=True)) if given else None
    # One scale for all axes that are named would follow from the sizes.
    stretched = node.attrs.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    return {} if not given and (stretched or not {0, 1} & set(axes)) else None
