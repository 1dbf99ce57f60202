"""The facts of a layer that the rules of a target may ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import gcd, prod
from typing import TYPE_CHECKING, Any, get_args

from deployconv.match import (
    ConcatSite,
    ResampleSite,
    ShuffleSite,
    Site,
    SkippedSite,
    UpsampleSite,
)
from deployconv.match.attributes import has_references
from deployconv.match.interpolating_resize import coordinates_of, nearest_mode_of, nearest_of
from deployconv.resampling import Coordinates, NearestMode
from deployconv.results import Pattern
from deployconv.targets.geometry_facts import (
    Value,
    is_whole,
    keeps_an_axis,
    named_axes,
    only_last_axis,
    over_depth,
    rounds,
    span_within_stride,
    states_kernel,
)

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs


@dataclass(frozen=True)
class Fact:
    """A fact that rules may ask for.

    Attributes:
        kind: bool, int or str.
        of: reads it from a layer.
        meaning: what it is, for people.
        words: all texts that it can be; empty if they are too many.
    """

    kind: type[bool] | type[int] | type[str]
    of: Callable[[Site], Value]
    meaning: str
    words: tuple[str, ...] = ()


def facts_of(site: Site) -> Mapping[str, Value]:
    """Return every fact of one layer by its name.

    Of a layer whose attributes are parameters of a function, only what does not depend on them.
    """
    known = _WITHOUT_ATTRIBUTES if has_references(site.layer) else FACTS
    return {name: fact.of(site) if name in known else None for name, fact in FACTS.items()}


_WITHOUT_ATTRIBUTES = ("pattern", "operator", "dtype", "quantized")


def _attribute(site: Site, name: str, default: Any = None) -> Any:
    return site.layer.attrs.get(name, default)


def _upsample(site: Site) -> UpsampleSite | None:
    return site if isinstance(site, UpsampleSite) else None


def _of_transposed(site: Site, of: Callable[[Site], Value]) -> Value:
    """The fact of a ConvTranspose; None for any other layer."""
    return of(site) if site.layer.op == "ConvTranspose" else None


def _rank(site: Site) -> Value:
    if isinstance(site, ShuffleSite):
        return len(site.stride)
    if isinstance(site, ResampleSite):
        return max(1, len(site.shape) - 2)
    if site.geometry is None:
        return None
    return len(site.geometry.kernel or site.geometry.stride)


def _axes(name: str, take: Callable[..., int]) -> Callable[[Site], Value]:
    """Read the largest or smallest value of an attribute over the spatial axes."""

    def of(site: Site) -> Value:
        values = getattr(site.geometry, name) if site.geometry is not None else None
        return take(values) if values else None

    return of


def _equal_axes(site: Site) -> Value:
    stride = site.geometry.stride if site.geometry is not None else None
    return None if stride is None else len(set(stride)) == 1


def _group(site: Site) -> int | None:
    return site.geometry.group if site.geometry is not None else None


def _depthwise(site: Site) -> Value:
    """As the node states it: as many groups as input channels, more than one."""
    upsample, group = _upsample(site), _group(site)
    if upsample is None or group is None:
        return None
    return group > 1 and group == upsample.channels[0]


def _grouped(site: Site) -> Value:
    group = _group(site)
    return None if group is None else bool(group > 1) and not _depthwise(site)


def _dilated(site: Site) -> Value:
    dilation = site.geometry.dilation if site.geometry is not None else None
    return None if dilation is None else any(step > 1 for step in dilation)


def _zero_phases(site: Site) -> Value:
    """Whether a phase of the output is the bias alone: no tap lands on it."""
    upsample = _upsample(site)
    if upsample is None or not upsample.transposed:
        return None
    return any(
        axis.taps * gcd(axis.step, axis.stride) < axis.stride or gcd(axis.step, axis.stride) > 1
        for axis in upsample.axes
    )


def _auto_pad(site: Site) -> Value:
    value = _attribute(site, "auto_pad", "NOTSET")
    return str(value) if site.layer.op in ("Conv", "ConvTranspose") else None


def _has_output_shape(site: Site) -> Value:
    return _of_transposed(site, lambda one: bool(_attribute(one, "output_shape")))


def _odd_output_shape(site: Site) -> Value:
    """Whether an ``output_shape`` asks for an odd total padding along an axis."""
    stated = _attribute(site, "output_shape")
    upsample = _upsample(site)
    if upsample is None or not stated or None in upsample.sizes:
        return _of_transposed(site, lambda one: None if stated else False)
    extra = _attribute(site, "output_padding") or [0] * upsample.rank
    return any(
        (axis.stride * (size - 1) + abs(axis.step) * (axis.taps - 1) + 1 + more - asked) % 2
        for axis, size, more, asked in zip(
            upsample.axes,
            (size or 0 for size in upsample.sizes),
            extra,
            stated[-upsample.rank :],
            strict=True,
        )
    )


def _pads(site: Site) -> tuple[int, ...] | None:
    if site.layer.op not in ("Conv", "ConvTranspose"):
        return None
    return tuple(_attribute(site, "pads") or ())


def _asymmetric(site: Site) -> Value:
    pads = _pads(site)
    if pads is None:
        return None
    half = len(pads) // 2
    return pads[:half] != pads[half:]


def _padded(site: Site) -> Value:
    pads = _pads(site)
    return None if pads is None else any(pads)


def _output_padding(site: Site) -> Value:
    return _of_transposed(site, lambda one: any(_attribute(one, "output_padding") or ()))


def _taps_below_stride(site: Site) -> Value:
    geometry = site.geometry
    if geometry is None or geometry.kernel is None:
        return None
    pairs = zip(geometry.kernel, geometry.stride, strict=False)
    return any(taps < stride for taps, stride in pairs)


def _taps_equal_stride(site: Site) -> Value:
    geometry = site.geometry
    return (
        None if geometry is None or geometry.kernel is None else geometry.kernel == geometry.stride
    )


def _dynamic_sizes(site: Site) -> Value:
    if isinstance(site, SkippedSite) and site.reason.code in _ONLY_DYNAMIC:
        return True
    if isinstance(site, ResampleSite):
        return None in site.shape[2:]
    if isinstance(site, ConcatSite):
        return None in site.conv.sizes
    sizes = getattr(site, "sizes", None)
    return None if sizes is None else None in sizes


_ONLY_DYNAMIC = ("dynamic-output-shape", "dynamic-sizes")
"""Reasons for which a layer is left alone only if its sizes are not known."""


def _pixels(site: Site) -> Value:
    """The input pixels of one channel, if all sizes are known."""
    sizes: tuple[int | None, ...] = ()
    if isinstance(site, (UpsampleSite, ShuffleSite)):
        sizes = site.sizes
    elif isinstance(site, ResampleSite):
        sizes = site.shape[2:]
    known = [size for size in sizes if size is not None]
    return prod(known) if known and len(known) == len(sizes) else None


def _batch(site: Site) -> Value:
    if isinstance(site, ResampleSite):
        return site.shape[0]
    return getattr(site.conv if isinstance(site, ConcatSite) else site, "batch", None)


def _scale_per_channel(site: Site) -> Value:
    upsample = _upsample(site)
    if upsample is None:
        return None
    quantized = upsample.weight.quantized
    return quantized is not None and quantized.scale.size > 1


def _bias(site: Site) -> Value:
    upsample = _upsample(site)
    return None if upsample is None else upsample.bias is not None


def _mode(site: Site) -> Value:
    if site.layer.op != "DepthToSpace":
        return None
    return str(_attribute(site, "mode", "DCR"))


def _channels(at: int) -> Callable[[Site], Value]:
    def of(site: Site) -> Value:
        upsample = _upsample(site)
        return None if upsample is None else upsample.channels[at]

    return of


def _interpolation(name: str) -> Callable[[Site], Value]:
    def of(site: Site) -> Value:
        return getattr(site.how, name) if isinstance(site, ResampleSite) else None

    return of


def _of_resize(
    of: Callable[[ResampleSite], Value], of_nearest: Callable[[gs.Node], Value]
) -> Callable[[Site], Value]:
    """Read a fact of a Resize by itself, or of the nearest one that is part of a layer."""

    def read(site: Site) -> Value:
        if isinstance(site, ResampleSite):
            return of(site)
        node = nearest_of(site.nodes)
        return None if node is None else of_nearest(node)

    return read


def _of_resample(of: Callable[[ResampleSite], Value]) -> Callable[[Site], Value]:
    return lambda site: of(site) if isinstance(site, ResampleSite) else None


def _of_named_axes(of: Callable[[list[int]], Value]) -> Callable[[Site], Value]:
    def value(site: Site) -> Value:
        axes = named_axes(site)
        return None if axes is None else of(axes)

    return value


FACTS: Mapping[str, Fact] = {
    "pattern": Fact(
        str, lambda site: site.pattern, "the pattern, as `inspect` shows it", get_args(Pattern)
    ),
    "operator": Fact(str, lambda site: str(site.layer.op), "the operator that the layer ends in"),
    "rank": Fact(int, _rank, "number of spatial axes"),
    "dtype": Fact(str, lambda site: site.dtype, "element type of the weight, as it is stored"),
    "quantized": Fact(
        bool, lambda site: site.has_integer_weight, "the weight is integers in Q/DQ format"
    ),
    "scale_per_channel": Fact(
        bool, _scale_per_channel, "the integers of the weight have several scales"
    ),
    "stride": Fact(int, _axes("stride", max), "the largest stride"),
    "least_stride": Fact(int, _axes("stride", min), "the smallest stride"),
    "equal_strides": Fact(bool, _equal_axes, "all axes have the same stride"),
    "kernel": Fact(int, _axes("kernel", max), "the largest kernel size"),
    "kernel_is_stride": Fact(bool, _taps_equal_stride, "kernel and stride are the same"),
    "kernel_below_stride": Fact(bool, _taps_below_stride, "a kernel size is below the stride"),
    "zero_phases": Fact(bool, _zero_phases, "a phase of a ConvTranspose has no tap, only the bias"),
    "dilated": Fact(bool, _dilated, "a dilation is above 1"),
    "span_within_stride": Fact(
        bool,
        span_within_stride,
        "along an axis, the first and the last tap are less than a stride apart",
    ),
    "over_depth": Fact(
        bool, over_depth, "along the first of three axes, the kernel or the stride is above 1"
    ),
    "states_kernel": Fact(
        bool, states_kernel, "a Conv or ConvTranspose has the attribute kernel_shape"
    ),
    "group": Fact(int, _group, "number of groups"),
    "depthwise": Fact(bool, _depthwise, "as many groups as channels"),
    "grouped": Fact(bool, _grouped, "several groups, but not depthwise"),
    "bias": Fact(bool, _bias, "the layer has a bias"),
    "auto_pad": Fact(
        str,
        _auto_pad,
        "the attribute auto_pad of a Conv or ConvTranspose",
        ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"),
    ),
    "padded": Fact(bool, _padded, "a pad of a Conv or ConvTranspose is not 0"),
    "asymmetric_pads": Fact(bool, _asymmetric, "pads at the beginning and the end differ"),
    "output_padding": Fact(bool, _output_padding, "a ConvTranspose has an output_padding"),
    "output_shape": Fact(bool, _has_output_shape, "a ConvTranspose has an output_shape"),
    "odd_output_shape": Fact(
        bool, _odd_output_shape, "an output_shape asks for an odd total padding"
    ),
    "channels_in": Fact(int, _channels(0), "input channels"),
    "channels_out": Fact(int, _channels(1), "output channels"),
    "pixels": Fact(int, _pixels, "input pixels of one channel, if they are known"),
    "batch": Fact(int, _batch, "the batch, if it is known"),
    "dynamic_batch": Fact(bool, lambda site: _batch(site) is None, "the batch is not known"),
    "dynamic_sizes": Fact(bool, _dynamic_sizes, "a spatial size is not known"),
    "depth_to_space_mode": Fact(
        str, _mode, "the mode of a DepthToSpace, `DCR` or `CRD`", ("DCR", "CRD")
    ),
    "resize_mode": Fact(
        str,
        _of_resize(lambda site: site.how.mode, lambda node: "nearest"),
        "`linear`, `cubic` or `nearest`, also of a nearest Resize in front of a Conv",
        ("linear", "cubic", "nearest"),
    ),
    "coordinates": Fact(
        str,
        _of_resize(lambda site: site.how.coordinates, coordinates_of),
        "coordinate_transformation_mode of a Resize",
        get_args(Coordinates),
    ),
    "nearest_mode": Fact(
        str,
        _of_resize(
            lambda site: site.how.nearest_mode if site.is_nearest else None, nearest_mode_of
        ),
        "nearest_mode of a nearest Resize",
        get_args(NearestMode),
    ),
    "antialias": Fact(bool, _interpolation("antialias"), "antialias of an interpolating Resize"),
    "exclude_outside": Fact(
        bool, _interpolation("exclude_outside"), "exclude_outside of an interpolating Resize"
    ),
    "usual_coefficient": Fact(
        bool,
        _of_resample(lambda site: site.how.cubic_coeff_a == -0.75),
        "cubic_coeff_a is -0.75, or is not stated",
    ),
    "rounded_length": Fact(
        bool,
        _of_resample(rounds),
        "the output length of an interpolating Resize is rounded, as its scale gives a fraction,"
        " or may be if sizes are dynamic",
    ),
    "by_sizes": Fact(
        bool, _of_resample(lambda site: site.by_sizes), "a Resize is given sizes, not scales"
    ),
    "named_axes": Fact(
        int, _of_named_axes(len), "how many axes the attribute axes of a Resize names"
    ),
    "negative_axes": Fact(
        bool,
        _of_named_axes(lambda axes: min(axes, default=0) < 0),
        "the attribute axes of a Resize counts from the last axis",
    ),
    "channels_last": Fact(
        bool,
        _of_resample(lambda site: any(axis.resized and axis.position == 1 for axis in site.axes)),
        "a Resize changes axis 1, as it does if channels are last",
    ),
    "keeps_an_axis": Fact(
        bool, _of_resample(keeps_an_axis), "an axis of a Resize after the second keeps its size"
    ),
    "only_last_axis": Fact(
        bool, _of_resample(only_last_axis), "a Resize changes the last axis and no other"
    ),
    "whole_scale": Fact(
        bool,
        _of_resample(lambda site: all(is_whole(axis.scale) for axis in site.axes)),
        "a Resize enlarges or shrinks by whole numbers",
    ),
    "enlarges": Fact(
        bool,
        _of_resample(lambda site: site.enlarges),
        "an interpolating Resize makes an axis longer",
    ),
    "shrinks": Fact(
        bool,
        _of_resample(lambda site: any(axis.scale < 1 for axis in site.axes)),
        "an interpolating Resize makes an axis shorter",
    ),
    "single_output": Fact(
        bool,
        _of_resample(lambda site: any(axis.outputs == 1 for axis in site.axes if axis.resized)),
        "an interpolating Resize leaves one pixel along an axis",
    ),
}
"""Every fact by the name that a rule's ``when`` gives it."""
