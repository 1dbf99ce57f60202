"""What keeps a layer off the DLA, the deep learning accelerator of Jetson Xavier and Orin.

Rules and ranges are from

- "DLA Supported Layers and Restrictions", NVIDIA TensorRT documentation,
  https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/dla-layer-restrictions.html
- the comments "If executing this layer on DLA" in ``NvInfer.h`` of TensorRT 10, at
  IConvolutionLayer, IDeconvolutionLayer, IResizeLayer and ISliceLayer,
- the table of ONNX operators on Orin's DLA,
  https://github.com/NVIDIA/Deep-Learning-Accelerator-SW/tree/main/operators: DepthToSpace is
  not one of its layers there, only something that can be reconstructed as a ConvTranspose.

This was not tried on a device. An obstacle keeps a layer off the DLA for certain. A layer
without one may still fall back to the GPU, e.g. if memory is short.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from deployconv.match import Site
from deployconv.match.operators import Operators, Window
from deployconv.results import DlaCode, DlaNote, Obstacle
from deployconv.rewrites.base import Rewrite

SOURCE = (
    "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/"
    "dla-layer-restrictions.html"
)
VERSIONS = (
    "TensorRT drives a DLA up to 10.7, which JetPack 5 and 6 bring; not from 10.8 to 11.3; again "
    "from 11.4.1 on, on Jetson AGX Orin with JetPack 7.2.2"
)
"""See "Working with DLA" in the documentation of 11.4.1."""

_DTYPES = ("float16", "int8")
_LARGEST_SIZE = 8192
"""The largest size of every dimension but the batch."""
_CONV_KERNEL = _CONV_DILATION = range(1, 33)
_CONV_PADDING = range(32)
_CONV_STRIDE = range(1, 9)
_DECONV_WINDOW = range(1, 33)
_DECONV_LINE = (64, 96, 128)
"""Beyond that range, a deconvolution may have one of these on one axis and 1 on the other."""
_DECONV_DISABLED = range(23, 33)
"""Square kernels and strides that TensorRT keeps off the DLA: they take too long to compile."""
_RESIZE_FACTOR = range(1, 33)
_MOVES = frozenset({"Concat", "Identity", "Resize", "Slice", "Upsample"})
_POINTWISE = frozenset(
    {
        *("Abs", "Add", "BatchNormalization", "Clip", "LeakyRelu", "Max", "Min", "Mul", "PRelu"),
        *("Relu", "Sigmoid", "Sub", "Tanh", "QuantizeLinear", "DequantizeLinear"),
    }
)
_RESHAPES = frozenset({"Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators of TensorRT's Shuffle layer, which the DLA has for tensors of four dimensions."""


def dla_note(found: Site, rewrite: Rewrite | None) -> DlaNote:
    """What keeps a layer off the DLA, as exported and as it would be rewritten.

    Args:
        found: the layer in the original model.
        rewrite: what replaces it; None if it stays as it is.
    """
    operators = None if rewrite is None else rewrite.operators
    return DlaNote(
        _obstacles(found.operators), None if operators is None else _obstacles(operators)
    )


def _obstacles(layer: Operators) -> tuple[Obstacle, ...]:
    """What keeps any of the operators off the DLA, each obstacle once."""
    found: list[Obstacle] = []
    if layer.channels_to_batch:
        text = "Reshape of channels into the batch: the DLA keeps that apart"
        found.append(Obstacle("operator", text))
    if layer.window is None:
        found += _dtype_obstacles(layer.dtype)
    else:
        found += window_obstacles(layer.window)
    found += operator_obstacles(layer.pointwise_before)
    if layer.resize is not None:
        found += resize_obstacles(layer.resize)
    found += operator_obstacles(layer.others)
    found += size_obstacles(layer.sizes)
    return tuple(dict.fromkeys(found))


def _dtype_obstacles(dtype: str | None) -> Iterator[Obstacle]:
    """The element type, if the DLA does not compute in it."""
    if dtype is not None and dtype not in _DTYPES:
        remedy = " (TensorRT 10 converts it with --fp16)" if dtype == "float32" else ""
        text = f"{dtype}, where the DLA computes in float16 and int8{remedy}"
        yield Obstacle("dtype", text)


def size_obstacles(sizes: Iterable[int | None]) -> Iterator[Obstacle]:
    """A spatial size of input or output that is too large; None is an unknown size."""
    largest = max((size for size in sizes if size is not None), default=0)
    if largest > _LARGEST_SIZE:
        yield Obstacle("size", f"a size of {largest:,}, where {_LARGEST_SIZE:,} is the most")


def resize_obstacles(factors: Sequence[int]) -> Iterator[Obstacle]:
    """What keeps a nearest Resize by whole factors off the DLA."""
    if len(factors) != 2:
        yield Obstacle("rank", f"{len(factors)} spatial axes, where the DLA resizes 2")
    elif any(factor not in _RESIZE_FACTOR for factor in factors):
        text = f"Resize by {_by(factors)}, where the DLA takes {_of(_RESIZE_FACTOR)}"
        yield Obstacle("stride", text)


def operator_obstacles(operators: Iterable[tuple[str, int | None]]) -> Iterator[Obstacle]:
    """The operators, besides Conv and ConvTranspose, that the DLA does not have.

    Args:
        operators: name, and the rank of its largest tensor if that is known.
    """
    absent: list[str] = []
    deep: list[str] = []
    for name, rank in operators:
        if name in _RESHAPES:
            if rank is not None and rank > 4:
                deep.append(f"{name} over {rank} dimensions")
        elif name not in _MOVES and name not in _POINTWISE:
            absent.append(name)
    for names, problem in (
        (absent, "which the DLA does not have"),
        (deep, "where the DLA shuffles tensors of 4"),
    ):
        if names:
            yield Obstacle("operator", f"{', '.join(dict.fromkeys(names))}, {problem}")


def window_obstacles(layer: Window) -> Iterator[Obstacle]:
    """What keeps a Conv or ConvTranspose off the DLA."""
    yield from _dtype_obstacles(layer.dtype)
    if len(layer.kernel) != 2:
        yield Obstacle("rank", f"{len(layer.kernel)} spatial axes, where the DLA convolves 2")
        return
    yield from _deconvolution(layer) if layer.transposed else _convolution(layer)
    if max(layer.channels) > _LARGEST_SIZE:
        counts = " to ".join(f"{count:,}" for count in layer.channels)
        yield Obstacle("channels", f"{counts} channels, where {_LARGEST_SIZE:,} is the most")


def _convolution(layer: Window) -> Iterator[Obstacle]:
    limits: tuple[tuple[DlaCode, tuple[int, ...], range, str], ...] = (
        ("kernel", layer.kernel, _CONV_KERNEL, "a convolution"),
        ("stride", layer.stride, _CONV_STRIDE, "a convolution"),
        ("dilation", layer.dilation, _CONV_DILATION, "the DLA"),
    )
    for what, values, allowed, taker in limits:
        if any(value not in allowed for value in values):
            yield Obstacle(what, f"{what} {_by(values)}, where {taker} takes {_of(allowed)}")
    if any(
        pad not in _CONV_PADDING or pad >= size
        for pads, size in zip(layer.pads or (), layer.kernel, strict=False)
        for pad in pads
    ):
        yield Obstacle(
            "padding",
            f"pads {_pads(layer)}, where a convolution takes {_of(_CONV_PADDING)}, less than "
            f"its kernel {_by(layer.kernel)}",
        )


def _deconvolution(layer: Window) -> Iterator[Obstacle]:
    if layer.group != 1:
        yield Obstacle("group", f"{layer.group} groups, where a deconvolution takes 1")
    if any(step != 1 for step in layer.dilation):
        text = f"dilation {_by(layer.dilation)}, where a deconvolution takes 1"
        yield Obstacle("dilation", text)
    if any(begin or end for begin, end in layer.pads or ()):
        yield Obstacle("padding", f"pads {_pads(layer)}, where a deconvolution takes none")
    yield from _extent("kernel", layer.kernel)
    yield from _extent("stride", layer.stride)


def _extent(what: DlaCode, sizes: tuple[int, ...]) -> Iterator[Obstacle]:
    """A kernel or stride of a deconvolution that is out of range or switched off."""
    line = 1 in sizes and max(sizes) in _DECONV_LINE
    if not line and any(size not in _DECONV_WINDOW for size in sizes):
        lines = ", ".join(map(str, _DECONV_LINE))
        yield Obstacle(
            what,
            f"{what} {_by(sizes)}, where a deconvolution takes {_of(_DECONV_WINDOW)}, or {lines} "
            "by 1",
        )
    elif len(set(sizes)) == 1 and sizes[0] in _DECONV_DISABLED:
        text = f"{what} {_by(sizes)}: TensorRT keeps square ones of {_of(_DECONV_DISABLED)} off"
        yield Obstacle(what, text)


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _of(values: range) -> str:
    return f"{values.start} to {values.stop - 1}"


def _pads(layer: Window) -> str:
    return ", ".join(map(str, layer.pads or ()))
