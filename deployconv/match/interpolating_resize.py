"""Find Resize and Upsample that interpolate, and read how.

Each axis that changes is resampled by a matrix of its own (`resampling`), so any axes will do:
those of an image in channels-first or in channels-last order. A Resize of a region
(tf_crop_and_resize) is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deployconv.graph.tensors import dtype_name
from deployconv.match.attributes import Geometry, has_references, is_standard
from deployconv.match.site import Recogniser, ResampledAxis, ResampleSite, Site, SkippedSite
from deployconv.resampling import Interpolation
from deployconv.results import Pattern, Reason

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from deployconv.graph.scope import Scope
    from deployconv.graph.view import View

_PATTERN: Pattern = "interpolating_resize"
_COORDINATES = frozenset(
    ["half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric"]
)
_DTYPES = frozenset(["float16", "float32", "float64"])


def interpolates(node: gs.Node) -> bool:
    """Whether ``node`` is a Resize or Upsample that is linear or cubic."""
    return is_standard(node, "Resize", "Upsample") and node.attrs.get("mode", "nearest") in (
        *("linear", "cubic"),
        *("bilinear", "trilinear"),  # as opset 1 called it
    )


def _recognise(node: gs.Node, scope: Scope, view: View, name: str) -> Site | None:
    if not interpolates(node):
        return None
    known: dict[str, Any] = {"id": name, "pattern": _PATTERN, "scope": scope, "nodes": (node,)}
    x, y = node.inputs[0], node.outputs[0]
    found = _axes(node, scope, view)
    if isinstance(found, Reason):
        return SkippedSite(**known, reason=found, dtype=dtype_name(x.dtype))
    axes, shape, scaled = found
    if not axes:
        return None  # it changes no size
    reason = _obstacle(node, scope, view)
    if reason is not None:
        return SkippedSite(**known, reason=reason, dtype=dtype_name(x.dtype))
    factors = tuple(axis.scale for axis in axes)
    whole = all(factor == int(factor) for factor in factors)
    return ResampleSite(
        **known,
        source=x.name,
        output=y.name,
        axes=axes,
        how=_interpolation(node),
        unless_faster=Reason(
            "interpolating-resize",
            f"it is {node.attrs['mode']}: --resample writes it as products with matrices",
        ),
        by_sizes=not scaled,
        shape=shape,
        dtype=dtype_name(x.dtype) or "",
        geometry=Geometry(tuple(map(int, factors)), None, None, None) if whole else None,
    )


RECOGNISERS = (Recogniser(_PATTERN, _recognise),)


def _obstacle(node: gs.Node, scope: Scope, view: View) -> Reason | None:
    """Why this Resize cannot be written as products."""
    coordinates = node.attrs.get("coordinate_transformation_mode", "half_pixel")
    if has_references(node):
        return Reason("attribute-reference", "its attributes are parameters of a function")
    if scope.opset > 10 and coordinates not in _COORDINATES:
        return Reason("interpolating-resize", f"it takes its coordinates as {coordinates} does")
    given = [tensor for tensor in node.inputs[2:] if _constant(tensor, scope, view) is not None]
    if len(given) > 1:
        return Reason("interpolating-resize", "it has scales and sizes at once")
    dtype = dtype_name(node.inputs[0].dtype)
    if dtype not in _DTYPES:
        return Reason("unsupported-dtype", f"the image is of type {dtype or 'unknown'}")
    return None


def _interpolation(node: gs.Node) -> Interpolation:
    attributes: Mapping[str, Any] = node.attrs
    # Before opset 11 there was one mode, and no attribute for it.
    old = "coordinate_transformation_mode" not in attributes and "cubic_coeff_a" not in attributes
    modern = node.op == "Resize" and not (old and len(node.inputs) == _OLD_INPUTS)
    return Interpolation(
        mode="cubic" if attributes["mode"] == "cubic" else "linear",
        coordinates=attributes.get(
            "coordinate_transformation_mode", "half_pixel" if modern else "asymmetric"
        ),
        cubic_coeff_a=float(attributes.get("cubic_coeff_a", -0.75)),
        exclude_outside=bool(attributes.get("exclude_outside", 0)),
        antialias=bool(attributes.get("antialias", 0)),
    )


_OLD_INPUTS = 2
"""Inputs of the Resize of opset 10: the image and the scales."""


def _axes(
    node: gs.Node, scope: Scope, view: View
) -> tuple[tuple[ResampledAxis, ...], tuple[int | None, ...], bool] | Reason:
    """The axes that change, the shape of the input, and whether scales are given.

    Or why they are not known.
    """
    x, y = node.inputs[0], node.outputs[0]
    shapes = [(instance[x.name], instance[y.name]) for instance in view.instances(scope, x, y)]
    if not shapes:
        return Reason("dynamic-scale", "the sizes before or after it are not known")
    before = shapes[0][0]
    static = [len({sizes[axis] for sizes, _ in shapes}) == 1 for axis in range(len(before))]
    shape = tuple(size if same else None for size, same in zip(before, static, strict=True))
    scales = _scales(node, scope, view, before)
    if scales is None:
        return Reason("dynamic-scale", "the sizes that it keeps the aspect ratio of are computed")
    found = []
    for axis in range(len(before)):
        sizes = {(old[axis], new[axis]) for old, new in shapes}
        if all(old == new for old, new in sizes) and scales.get(axis, 1) == 1:
            continue
        if len(sizes) > 1:
            return Reason("dynamic-sizes", "a size that it changes does not follow from the model")
        ((inputs, outputs),) = sizes
        found.append(ResampledAxis(axis, inputs, outputs, scales.get(axis, outputs / inputs)))
    return tuple(found), shape, bool(scales)


def _scales(
    node: gs.Node, scope: Scope, view: View, before: Sequence[int]
) -> dict[int, float] | None:
    """The scale of each axis that is given one; None if it takes sizes that are not constant.

    Empty if sizes are given, or scales that are computed: they are then those of the shapes.
    """
    axes = [axis % len(before) for axis in node.attrs.get("axes") or range(len(before))]
    given = node.attrs.get("scales")
    at = 1 if len(node.inputs) <= _OLD_INPUTS else 2
    if given is None and len(node.inputs) > at:
        given = _constant(node.inputs[at], scope, view)
    if given is not None:
        return {axis: float(np.float32(scale)) for axis, scale in zip(axes, given, strict=True)}
    choose = {"not_larger": min, "not_smaller": max}.get(
        node.attrs.get("keep_aspect_ratio_policy", "stretch")
    )
    if choose is None:
        return {}
    sizes = _constant(node.inputs[-1], scope, view)
    if sizes is None:
        return None
    scale = choose(size / before[axis] for axis, size in zip(axes, sizes, strict=True))
    return dict.fromkeys(axes, float(np.float32(scale)))


def _constant(tensor: gs.Tensor, scope: Scope, view: View) -> list[float] | None:
    """The values of a constant that is not empty."""
    found = view.constants.of(tensor, scope) if tensor.name else None
    return None if found is None or found.shape == (0,) else list(found.read())
