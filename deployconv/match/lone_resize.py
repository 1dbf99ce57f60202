"""Find a nearest Resize or Upsample by itself, of which no Conv can take the place.

It stays as it is, unless a target refuses or misreads it: then it is written as any other Resize
(`resampling`). One that is part of a layer is a site of `upsampled_conv` or `concatenated`; that
site takes the place of the one that is found here.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_graphsurgeon as gs

from deployconv.errors import ModelError
from deployconv.graph.scope import Scope
from deployconv.graph.tensors import dtype_name
from deployconv.graph.view import View
from deployconv.match.attributes import is_standard
from deployconv.match.index_map import UNEVEN, is_even
from deployconv.match.interpolating_resize import interpolates, read_resize
from deployconv.match.movement_search import movements
from deployconv.match.recogniser import Recogniser, Site, SkippedSite
from deployconv.match.resample_site import ResampleSite
from deployconv.results import Reason

_SHRINKS = Reason("no-conv", "it makes the image smaller, so no Conv can take its place")
_ANY_CHANNELS = 3
"""A number of channels to try a layer on that does the same to every channel."""
_RANKS = frozenset(["Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"])
"""Operators that may stand around a Pad, such as one of 3-D images."""
_MOST_BEFORE_CONV = 16
"""The most nodes that are looked at for a Pad between a Resize and a Conv."""


def _recognise(node: gs.Node, scope: Scope, view: View, name: str) -> Site | None:
    """The Resize or Upsample ``node`` by itself, with the reason why it stays unless it is needed.

    None for any other node, and for one that changes nothing. If it is part of a layer that ends
    in a Conv, the site of that layer takes its place (`find_sites`).
    """
    if not is_standard(node, "Resize", "Upsample") or interpolates(node):
        return None
    factors = _factors(node, scope, view)
    grows = factors is None or any(factor > 1 for factor in factors)
    kept = _why_it_stays(node, factors, scope, view) if grows else _SHRINKS
    found = _read(node, scope, view, name, kept)
    if isinstance(found, ResampleSite) and found.enlarges == grows:
        return found
    if isinstance(found, SkippedSite):
        other = found.reason.code == "interpolating-resize"
        return replace(found, reason=kept if other else found.reason, enlarges=grows)
    if not grows:
        return None
    return SkippedSite(
        id=name,
        pattern="nearest_resize",
        scope=scope,
        nodes=(node,),
        reason=kept,
        dtype=dtype_name(node.inputs[0].dtype),
    )


def _read(
    node: gs.Node, scope: Scope, view: View, name: str, kept: Reason
) -> ResampleSite | SkippedSite | None:
    """Read how a Resize resamples; None if it changes nothing, or no image has its sizes."""
    names = {"id": name, "pattern": "nearest_resize", "unless_faster": kept}
    try:
        return read_resize(node, scope, view, **names)
    except ModelError:
        return None


RECOGNISERS = (Recogniser("nearest_resize", _recognise),)


def _factors(node: gs.Node, scope: Scope, view: View) -> list[float] | None:
    """How many times as large each axis becomes; None if that is not known."""
    for tensor in node.inputs[1:]:
        constant = view.constants.of(tensor, scope)
        if constant is None or tensor is _roi(node):
            continue
        if constant.dtype.kind == "f" and constant.shape != (0,):
            return [float(scale) for scale in constant.read()]
    if "scales" in node.attrs:
        return [float(scale) for scale in node.attrs["scales"]]
    x, y = node.inputs[0], node.outputs[0]
    sizes = [(instance[x.name], instance[y.name]) for instance in view.instances(scope, x, y)]
    found = [[new / old for old, new in zip(*pair, strict=True)] for pair in sizes]
    # With a fixed output size the factor depends on the size of the input.
    return found[0] if found and all(factors == found[0] for factors in found) else None


def _roi(node: gs.Node) -> gs.Tensor | None:
    """The region of interest, the second input of Resize from opset 11 on."""
    return node.inputs[1] if node.op == "Resize" and len(node.inputs) > 2 else None


def _why_it_stays(node: gs.Node, factors: list[float] | None, scope: Scope, view: View) -> Reason:
    if factors is None:
        return Reason("dynamic-scale", "its scale is computed while the model runs")
    if any(factor != int(factor) for factor in factors):
        shown = " x ".join(f"{factor:g}" for factor in factors)
        return Reason("non-integer-scale", f"its scale is {shown}")
    if not _is_upsampling(node, scope, view, len(factors)):
        return UNEVEN
    padding = _padding_before_conv(node)
    if padding is not None:
        return Reason("non-zero-padding", f"padding by {padding} stands between it and the Conv")
    return Reason("no-conv", "no Conv follows directly after it")


def _is_upsampling(node: gs.Node, scope: Scope, view: View, rank: int) -> bool:
    """Whether ``node`` by itself enlarges its input, of ``rank`` dimensions, by whole factors."""
    movement = next(movements(node.outputs[0], scope, view), None)
    if movement is None or movement.source is not node.inputs[0]:
        return False
    dtype = dtype_name(node.inputs[0].dtype) or "float32"
    return is_even(movement, _ANY_CHANNELS, rank, dtype)


def _padding_before_conv(node: gs.Node) -> str | None:
    """The mode of a Pad between ``node`` and a Conv; zero padding would be part of a site."""
    waiting: list[tuple[gs.Node, str | None]] = [(node, None)]
    for _ in range(_MOST_BEFORE_CONV):
        if not waiting:
            break
        last, mode = waiting.pop(0)
        for consumer in (after for out in last.outputs for after in out.outputs):
            if consumer.op == "Conv" and mode is not None:
                return mode
            if consumer.op == "Pad":
                waiting.append((consumer, str(consumer.attrs.get("mode", "constant"))))
            elif consumer.op in _RANKS:
                waiting.append((consumer, mode))
    return None
