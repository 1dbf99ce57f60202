"""Facts of the axes of a layer: its kernel, and what a Resize does to each of them."""

from __future__ import annotations

from deployconv.match import ResampleSite, Site
from deployconv.match.interpolating_resize import nearest_of

Value = bool | int | str | None
"""A fact of one layer; None if it is not known, or not of this kind of layer."""


def states_kernel(site: Site) -> Value:
    """Whether a Conv or ConvTranspose has the attribute kernel_shape, which it may lack."""
    if site.layer.op not in ("Conv", "ConvTranspose"):
        return None
    return bool(site.layer.attrs.get("kernel_shape"))


def over_depth(site: Site) -> Value:
    """Whether a layer of three axes does more along the first one than to copy slices."""
    geometry = site.geometry
    if geometry is None or geometry.kernel is None or len(geometry.kernel) != _VOLUME:
        return None
    return geometry.kernel[0] > 1 or geometry.stride[0] > 1


_VOLUME = 3
"""The spatial axes of a volume."""


def span_within_stride(site: Site) -> Value:
    """Whether the first and the last tap along an axis are less than a stride apart."""
    geometry = site.geometry
    if geometry is None or geometry.kernel is None or geometry.dilation is None:
        return None
    axes = zip(geometry.kernel, geometry.dilation, geometry.stride, strict=True)
    return any((taps - 1) * step < stride for taps, step, stride in axes)


def rounds(site: ResampleSite) -> Value:
    """Whether an output length differs, or may differ, from the input length times the scale."""
    return any(
        not (is_whole(one.scale) and one.scale > 1)
        if one.inputs is None
        else one.outputs != one.inputs * one.scale
        for one in site.axes
    )


def keeps_an_axis(site: ResampleSite) -> Value:
    """Whether an axis after the second one, of an image its height or width, keeps its size."""
    resized = {axis.position for axis in site.axes if axis.resized}
    return not resized.issuperset(range(2, len(site.shape)))


def only_last_axis(site: ResampleSite) -> Value:
    """Whether the last axis, of an image its width, is the only one whose size changes."""
    return {axis.position for axis in site.axes if axis.resized} == {len(site.shape) - 1}


def named_axes(site: Site) -> list[int] | None:
    """The attribute axes of a Resize, also of a nearest one before a Conv; empty if it has none."""
    node = site.layer if site.layer.op == "Resize" else nearest_of(site.nodes)
    return None if node is None else list(node.attrs.get("axes") or ())


def is_whole(scale: float) -> bool:
    """Whether a scale enlarges or shrinks by a whole number."""
    return (scale if scale > 1 else 1 / scale).is_integer()
