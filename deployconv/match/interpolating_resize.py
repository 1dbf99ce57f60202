"""Find Resize and Upsample that interpolate, and read how they, and nearest ones, resample.

Each axis that changes is resampled by a matrix of its own (`resampling`), so any axes will do:
those of an image in channels-first or in channels-last order. A Resize of a region
(tf_crop_and_resize) is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from deployconv.errors import ModelError
from deployconv.graph.symbolic import Unproven
from deployconv.graph.tensors import dtype_name
from deployconv.match.attributes import Geometry, has_references, is_standard
from deployconv.match.recogniser import Recogniser, Site, SkippedSite
from deployconv.match.resample_site import ResampledAxis, ResampleSite
from deployconv.resampling import Coordinates, Interpolation, NearestMode, resampling_matrix
from deployconv.results import Pattern, Reason

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from deployconv.graph.scope import Scope
    from deployconv.graph.view import View

_PATTERN: Pattern = "interpolating_resize"
_COORDINATES = frozenset(get_args(Coordinates))
_DTYPES = frozenset(["float16", "bfloat16", "float32", "float64"])


def interpolates(node: gs.Node) -> bool:
    """Whether ``node`` is a Resize or Upsample that is linear or cubic."""
    return is_standard(node, "Resize", "Upsample") and node.attrs.get("mode", "nearest") in (
        *("linear", "cubic"),
        *("bilinear", "trilinear"),  # as opset 1 called it
    )


def _recognise(node: gs.Node, scope: Scope, view: View, name: str) -> Site | None:
    if not interpolates(node):
        return None
    kept = Reason(
        "interpolating-resize",
        f"it is {node.attrs['mode']}: --resample writes it as products with matrices",
    )
    return read_resize(node, scope, view, id=name, pattern=_PATTERN, unless_faster=kept)


def read_resize(
    node: gs.Node, scope: Scope, view: View, **names: Any
) -> ResampleSite | SkippedSite | None:
    """Read which axes a Resize or Upsample changes, and how.

    Args:
        node: the Resize or Upsample, of any mode.
        scope: the graph that it is in.
        view: the model.
        names: ``id``, ``pattern`` and ``unless_faster`` of the site.

    Returns:
        The site; one with a reason if it cannot be rewritten, None if it changes nothing.
    """
    known: dict[str, Any] = {**names, "scope": scope, "nodes": (node,)}
    x, y = node.inputs[0], node.outputs[0]
    found = _axes(node, scope, view)
    if isinstance(found, Reason):
        if found.code in ("dynamic-scale", "unsupported-rounding"):
            # An obstacle may be why a size is not known, or is not that of the scale.
            found = _obstacle(node, scope, view) or found
        return SkippedSite(**known, reason=found, dtype=dtype_name(x.dtype))
    axes, shape, scaled = found
    if not axes:
        return None  # it changes no size
    reason = _obstacle(node, scope, view) or _mixed(node, axes)
    if reason is not None:
        return SkippedSite(**known, reason=reason, dtype=dtype_name(x.dtype))
    factors, how = tuple(axis.scale for axis in axes), _interpolation(node, scope, len(shape), axes)
    whole = all(factor == int(factor) for factor in factors)
    return ResampleSite(
        **known,
        source=x.name,
        output=y.name,
        axes=(*axes, *_blurred(shape, axes, how)),
        how=how,
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
    constants = [view.constants.of(tensor, scope) for tensor in node.inputs[1:] if tensor.name]
    if any(map(view.constants.may_be_overridden, constants)):
        text = "its scales or sizes are a default that a caller may override"
        return Reason("overridable-initializer", text)
    given = [tensor for tensor in node.inputs[2:] if _constant(tensor, scope, view) is not None]
    if len(given) > 1:
        return Reason("interpolating-resize", "it has scales and sizes at once")
    keeps = node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch"
    if keeps and min(node.attrs.get("axes") or [0]) < 0:
        text = "onnxruntime keeps all sizes if axes are negative and the aspect ratio is kept"
        return Reason("interpolating-resize", text)
    dtype = dtype_name(node.inputs[0].dtype)
    if dtype not in _DTYPES:
        return Reason("unsupported-dtype", f"the image is of type {dtype or 'unknown'}")
    return None


def _mixed(node: gs.Node, axes: Sequence[ResampledAxis]) -> Reason | None:
    """Why a nearest Resize of opset 10 has no rounding that holds for all of its axes."""
    if not _is_old(node) or interpolates(node) or len({axis.scale > 1 for axis in axes}) == 1:
        return None
    return Reason("unsupported-rounding", "it rounds up along one axis and down along another")


def _interpolation(
    node: gs.Node, scope: Scope, rank: int, axes: Sequence[ResampledAxis]
) -> Interpolation:
    attributes: Mapping[str, Any] = node.attrs
    cubic, nearest = attributes.get("mode") == "cubic", not interpolates(node)
    coefficient = float(attributes.get("cubic_coeff_a", _KEYS))
    if cubic and not isfinite(coefficient):
        raise ModelError(
            f"{scope.label(node)}: its cubic_coeff_a is {coefficient:g}: export the model with a"
            " number"
        )
    antialias = not nearest and bool(attributes.get("antialias", 0))
    second = rank == _IMAGE_RANK and 1 in {axis.position for axis in axes}
    return Interpolation(
        mode="cubic" if cubic else "nearest" if nearest else "linear",
        coordinates=coordinates_of(node),
        nearest_mode=nearest_mode_of(node, shrinks=all(axis.scale <= 1 for axis in axes)),
        cubic_coeff_a=coefficient if cubic else _KEYS,  # a linear one does not read it
        exclude_outside=not nearest and bool(attributes.get("exclude_outside", 0)),
        antialias=antialias,
        channels_last=cubic and second and not antialias,
    )


def coordinates_of(node: gs.Node) -> Coordinates:
    """The coordinate_transformation_mode of a Resize or Upsample."""
    default = "asymmetric" if _is_old(node) else "half_pixel"
    return cast("Coordinates", node.attrs.get("coordinate_transformation_mode", default))


def nearest_of(nodes: Iterable[gs.Node]) -> gs.Node | None:
    """The first nearest Resize or Upsample among some nodes."""
    resizes = (one for one in nodes if is_standard(one, "Resize", "Upsample"))
    return next((one for one in resizes if not interpolates(one) and not has_references(one)), None)


def nearest_mode_of(node: gs.Node, shrinks: bool = False) -> NearestMode:
    """The nearest_mode of a Resize or Upsample, as onnxruntime takes it before opset 11."""
    old = "ceil" if shrinks else "floor"
    default = old if _is_old(node) else "round_prefer_floor"
    return cast("NearestMode", node.attrs.get("nearest_mode", default))


def _is_old(node: gs.Node) -> bool:
    """Whether it is of an opset before 11, which had one mode and no attributes for it."""
    if node.op != "Resize":
        return True
    stated = {"coordinate_transformation_mode", "cubic_coeff_a", "nearest_mode"} & set(node.attrs)
    return len(node.inputs) == _OLD_INPUTS and not stated


def _blurred(
    shape: Sequence[int | None], axes: Sequence[ResampledAxis], how: Interpolation
) -> Iterator[ResampledAxis]:
    """The axes of known size that keep it, but whose matrix is not the identity.

    onnxruntime runs its cubic kernel along both of the last axes, see `Interpolation.weight`.
    """
    if how.mode != "cubic" or how.filters:
        return
    changed = {axis.position for axis in axes}
    for position in {len(shape) - 2, len(shape) - 1} - changed:
        size = shape[position]
        if size is None:
            continue
        if (resampling_matrix(size, size, 1.0, how) != np.eye(size)).any():
            yield ResampledAxis(position, size, size, 1.0)


_KEYS = -0.75
"""The usual cubic_coeff_a."""
_IMAGE_RANK = 4
"""Axes of a batch of images with channels."""
_OLD_INPUTS = 2
"""Inputs of the Resize of opset 10: the image and the scales."""


def _axes(
    node: gs.Node, scope: Scope, view: View
) -> tuple[tuple[ResampledAxis, ...], tuple[int | None, ...], bool] | Reason:
    """The axes that change, the shape of the input, and whether scales are given.

    Or why they are not known.
    """
    x, y = node.inputs[0], node.outputs[0]
    (instance, *_) = view.instances(scope, x) or [None]
    rank = None if instance is None else len(instance[x.name])
    given = _given_scales(node, scope, view, rank)
    if isinstance(given, Reason):
        return given
    shapes = [(known[x.name], known[y.name]) for known in view.instances(scope, x, y)]
    if not shapes:
        # Shape inference does not follow computed scales, nor computed sizes before opset 13.
        before_all = [known[x.name] for known in view.instances(scope, x)]
        shapes = [
            (sizes, after)
            for sizes in before_all
            if (after := _scaled(sizes, given) if given else _computed_sizes(node, scope, view))
            and len(after) == len(sizes)
        ]
    if not shapes:
        return Reason("dynamic-scale", "the sizes before or after it are not known")
    if any(not all(sizes) for pair in shapes for sizes in pair):
        return Reason("interpolating-resize", "it leaves nothing of an axis")
    before = shapes[0][0]
    static = [len({sizes[axis] for sizes, _ in shapes}) == 1 for axis in range(len(before))]
    shape = tuple(size if same else None for size, same in zip(before, static, strict=True))
    scales = given or _kept_aspect(node, scope, view, shape)
    if isinstance(scales, Reason):
        return scales
    ratios = {} if scales else _ratios(node, scope, view)
    found = []
    for axis, size in enumerate(shape):
        ((inputs, outputs), *others) = {(old[axis], new[axis]) for old, new in shapes}
        scale = scales.get(axis, 1.0) if scales else outputs / inputs
        if size is None or others:
            ratio = scale if scales else ratios.get(axis)
            if ratio is None:
                return Reason("dynamic-sizes", "the factor of a dynamic size depends on the size")
            if ratio != 1:
                found.append(ResampledAxis(axis, None, None, ratio))
        elif given and int(np.float32(inputs) * np.float32(scale)) != outputs:
            text = f"runtimes differ in how they round {inputs} times {scale:g}"
            return Reason("unsupported-rounding", text)
        elif (inputs, scale) != (outputs, 1):
            found.append(ResampledAxis(axis, inputs, outputs, scale))
    return tuple(found), shape, bool(scales)


def _given_scales(
    node: gs.Node, scope: Scope, view: View, rank: int | None
) -> dict[int, float] | Reason:
    """The scale of each axis that is given one, as float32; empty if sizes are given."""
    given = node.attrs.get("scales")
    at = 1 if len(node.inputs) <= _OLD_INPUTS else 2
    if given is None and len(node.inputs) > at and node.inputs[at].name:
        given = _constant(node.inputs[at], scope, view)
        if given is None and not _is_empty(node.inputs[at], scope, view):
            given = _computed(node.inputs[at], scope, view)
            if given is None:
                return Reason("dynamic-scale", "its scales are computed as the model runs")
    if given is None:
        sizes = _constant(node.inputs[-1], scope, view) or []
        if not all(size > 0 for size in sizes):
            raise ModelError(
                f"{scope.label(node)}: its sizes are {', '.join(f'{size:g}' for size in sizes)}:"
                " export the model with sizes above 0"
            )
        return {}
    if not all(0 < scale < inf for scale in given):
        raise ModelError(
            f"{scope.label(node)}: its scales are {', '.join(f'{scale:g}' for scale in given)}:"
            " export the model with scales above 0"
        )
    if rank is None:
        return Reason("dynamic-scale", "the sizes before or after it are not known")
    axes = _resized(node, rank)
    if len(given) != len(axes) or not set(axes) <= set(range(rank)):
        raise ModelError(
            f"{scope.label(node)}: it has {len(given)} scales for the axes {axes} of {rank}: export"
            " the model again"
        )
    return {axis: float(np.float32(scale)) for axis, scale in zip(axes, given, strict=True)}


def _computed_sizes(node: gs.Node, scope: Scope, view: View) -> tuple[int, ...] | None:
    """The sizes of all axes after a Resize that is given computed ones, if they are known."""
    if len(node.inputs) <= _OLD_INPUTS or "axes" in node.attrs:
        return None
    found = _computed(node.inputs[-1], scope, view)
    return None if found is None or min(found, default=0) < 0 else tuple(map(int, found))


def _scaled(sizes: Sequence[int], scales: Mapping[int, float]) -> tuple[int, ...]:
    """The sizes after a Resize, which multiplies in float32 and rounds down."""
    return tuple(
        int(np.float32(size) * np.float32(scales.get(axis, 1))) for axis, size in enumerate(sizes)
    )


def _kept_aspect(
    node: gs.Node, scope: Scope, view: View, before: Sequence[int | None]
) -> dict[int, float] | Reason:
    """The scale of all axes of a Resize that keeps the aspect ratio; empty for any other."""
    choose = {"not_larger": min, "not_smaller": max}.get(
        node.attrs.get("keep_aspect_ratio_policy", "stretch")
    )
    if choose is None:
        return {}
    axes, sizes = _resized(node, len(before)), _constant(node.inputs[-1], scope, view)
    if sizes is None or any(before[axis] is None for axis in axes):
        return Reason("dynamic-scale", "the sizes that it keeps the aspect ratio of are computed")
    scale = choose(size / (before[axis] or 1) for axis, size in zip(axes, sizes, strict=True))
    return dict.fromkeys(axes, float(np.float32(scale)))


def _ratios(node: gs.Node, scope: Scope, view: View) -> dict[int, float]:
    """The ratio of the sizes of each axis for which it is the same at all sizes."""
    try:
        before = view.open_shapes.of(node.inputs[0], scope).shape
        after = view.open_shapes.of(node.inputs[-1], scope).sizes()
    except Unproven:
        return {}
    axes = _resized(node, len(before))
    quotients = {axis: size.divided(before[axis]) for axis, size in zip(axes, after, strict=True)}
    kept = {axis: 1.0 for axis in range(len(before)) if axis not in axes}
    known = {axis: ratio.constant for axis, ratio in quotients.items() if ratio is not None}
    return kept | {axis: float(ratio) for axis, ratio in known.items() if ratio is not None}


def _resized(node: gs.Node, rank: int) -> list[int]:
    """The axes that scales or sizes are given for, in their order."""
    return [axis + rank if axis < 0 else axis for axis in node.attrs.get("axes") or range(rank)]


def _computed(tensor: gs.Tensor, scope: Scope, view: View) -> list[float] | None:
    """The values of a tensor that is computed, if they are the same at all sizes."""
    try:
        found = [value.constant for value in view.open_shapes.of(tensor, scope).sizes()]
    except Unproven:
        return None
    known = [float(value) for value in found if value is not None]
    return known if len(known) == len(found) else None


def _is_empty(tensor: gs.Tensor, scope: Scope, view: View) -> bool:
    found = view.constants.of(tensor, scope)
    return found is not None and found.shape == (0,)


def _constant(tensor: gs.Tensor, scope: Scope, view: View) -> list[float] | None:
    """The values of a constant that is not empty."""
    found = view.constants.of(tensor, scope) if tensor.name else None
    return None if found is None or found.shape == (0,) else list(found.read())
