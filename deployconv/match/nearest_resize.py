"""Nearest Resize or Upsample + Conv, in whatever spelling.

    x -> each element repeated s times -> Conv -> y

Resize in each of its modes that amounts to this, Upsample, repeat_interleave, expand and
reshape: what counts is where each element goes (`upsampled_conv`). A Resize that stays is
listed with the reason.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deployconv.graph.tensors import dtype_name
from deployconv.graph.view import Scope, View
from deployconv.match import upsampled_conv
from deployconv.match.site import Site, Skip, SkippedSite


def recognise(node: gs.Node, scope: Scope, view: View, name: str) -> Site | None:
    """The site that ends in the Conv ``node``, or the Resize ``node`` with its reason."""
    if node.op not in ("Resize", "Upsample") or node.domain not in (None, "", "ai.onnx"):
        return upsampled_conv.recognise(node, scope, view, name, "nearest_resize")
    factors = _factors(node, scope, view)
    if factors is not None and all(factor <= 1 for factor in factors):
        return None  # this one makes its input smaller
    dtype = dtype_name(node.inputs[0].dtype)
    reason = _reason(node, factors, scope, view)
    return SkippedSite(name, "nearest_resize", scope, (node,), None, dtype, reason)


def _factors(node: gs.Node, scope: Scope, view: View) -> list[float] | None:
    """How much larger each axis becomes; None where that is not known."""
    for tensor in node.inputs[1:]:
        constant = view.constants.of(tensor, scope)
        is_scales = constant is not None and constant.dtype.kind == "f" and constant.shape != (0,)
        if is_scales and tensor is not _roi(node):
            return [float(scale) for scale in constant.read()] if constant else None
    if "scales" in node.attrs:
        return [float(scale) for scale in node.attrs["scales"]]
    x, y = node.inputs[0], node.outputs[0]
    sizes = [(instance[x.name], instance[y.name]) for instance in view.instances(scope, x, y)]
    found = [[new / old for old, new in zip(*pair, strict=True)] for pair in sizes]
    # A fixed size makes another factor of every size of the input.
    return found[0] if found and all(factors == found[0] for factors in found) else None


def _roi(node: gs.Node) -> gs.Tensor | None:
    """From opset 11 on the second input of Resize is a region of interest."""
    return node.inputs[1] if node.op == "Resize" and len(node.inputs) > 2 else None


def _reason(node: gs.Node, factors: list[float] | None, scope: Scope, view: View) -> Skip:
    mode = node.attrs.get("mode", "nearest")
    if mode != "nearest":
        return Skip("interpolating-resize", f"it interpolates ({mode})")
    if factors is None:
        return Skip("dynamic-scale", "its scale is computed while the model runs")
    if any(factor != int(factor) for factor in factors):
        shown = " x ".join(f"{factor:g}" for factor in factors)
        return Skip("non-integer-scale", f"its scale is {shown}")
    if not upsampled_conv.is_upsampling(node, scope, view, len(factors)):
        return Skip("unsupported-rounding", "its rounding repeats the pixels unevenly")
    padding = _padding_behind(node)
    if padding is not None:
        return Skip("non-zero-padding", f"padding by {padding} stands between it and the Conv")
    return Skip("no-conv", "no Conv stands directly behind it")


def _padding_behind(node: gs.Node) -> str | None:
    """The mode of a Pad between ``node`` and a Conv, which would be part of the site if zero."""
    for consumer in node.outputs[0].outputs:
        feeds_conv = any(after.op == "Conv" for out in consumer.outputs for after in out.outputs)
        if consumer.op == "Pad" and feeds_conv:
            return str(consumer.attrs.get("mode", "constant"))
    return None
