"""What NVIDIA documents about layers on the DLA, the deep learning accelerator of Xavier and Orin.

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
from dataclasses import dataclass

from deployconv.results import DlaCode, Obstacle

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


@dataclass(frozen=True)
class Window:
    """A Conv or ConvTranspose; tuples have one value per spatial axis.

    Attributes:
        transposed: True for ConvTranspose.
        kernel, stride, dilation: those of the node.
        pads: (begin, end) of each axis; for a ConvTranspose the end is less its output_padding,
            so negative if that adds a border. None if they are not known.
        group: number of channel groups.
        channels: (C_in, C_out).
        dtype: element type, None if it is not known.
    """

    transposed: bool
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: tuple[tuple[int, int], ...] | None
    group: int
    channels: tuple[int, int]
    dtype: str | None


def window_obstacles(layer: Window) -> tuple[Obstacle, ...]:
    """List what keeps a Conv or ConvTranspose off the DLA."""
    rules = _deconvolution if layer.transposed else _convolution
    return tuple(Obstacle(code, text) for code, text in rules(layer))


def dtype_obstacle(dtype: str | None) -> tuple[Obstacle, ...]:
    """List the element type if the DLA does not compute in it."""
    return tuple(Obstacle(code, text) for code, text in _dtype(dtype))


def size_obstacle(sizes: Iterable[int | None]) -> tuple[Obstacle, ...]:
    """List a spatial size of input or output that is too large; None is not known."""
    largest = max((size for size in sizes if size is not None), default=0)
    if largest <= _LARGEST_SIZE:
        return ()
    return (Obstacle("size", f"a size of {largest:,}, where {_LARGEST_SIZE:,} is the most"),)


def resize_obstacles(factors: Sequence[int]) -> tuple[Obstacle, ...]:
    """List what keeps a nearest Resize by whole factors off the DLA."""
    if len(factors) != 2:
        return (Obstacle("rank", f"{len(factors)} spatial axes, where the DLA resizes 2"),)
    if any(factor not in _RESIZE_FACTOR for factor in factors):
        return (
            Obstacle(
                "stride", f"Resize by {_by(factors)}, where the DLA takes {_of(_RESIZE_FACTOR)}"
            ),
        )
    return ()


def operator_obstacles(operators: Iterable[tuple[str, int | None]]) -> tuple[Obstacle, ...]:
    """List the operators, besides Conv and ConvTranspose, that the DLA does not have.

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
    found = []
    if absent:
        listed = ", ".join(dict.fromkeys(absent))
        found.append(Obstacle("operator", f"{listed}, which the DLA does not have"))
    if deep:
        listed = ", ".join(dict.fromkeys(deep))
        found.append(Obstacle("operator", f"{listed}, where the DLA shuffles tensors of 4"))
    return tuple(found)


_Found = Iterator[tuple[DlaCode, str]]


def _convolution(layer: Window) -> _Found:
    yield from _dtype(layer.dtype)
    if len(layer.kernel) != 2:
        yield "rank", f"{len(layer.kernel)} spatial axes, where the DLA convolves 2"
        return
    if any(size not in _CONV_KERNEL for size in layer.kernel):
        yield "kernel", f"kernel {_by(layer.kernel)}, where a convolution takes {_of(_CONV_KERNEL)}"
    if any(step not in _CONV_STRIDE for step in layer.stride):
        yield "stride", f"stride {_by(layer.stride)}, where a convolution takes {_of(_CONV_STRIDE)}"
    if any(step not in _CONV_DILATION for step in layer.dilation):
        yield (
            "dilation",
            f"dilation {_by(layer.dilation)}, where the DLA takes {_of(_CONV_DILATION)}",
        )
    for pads, size in zip(layer.pads or (), layer.kernel, strict=False):
        if any(pad not in _CONV_PADDING or pad >= size for pad in pads):
            yield (
                "padding",
                f"pads {_pads(layer)}, where a convolution takes {_of(_CONV_PADDING)}, less than "
                f"its kernel {_by(layer.kernel)}",
            )
            break
    yield from _channels(layer)


def _deconvolution(layer: Window) -> _Found:
    yield from _dtype(layer.dtype)
    if len(layer.kernel) != 2:
        yield "rank", f"{len(layer.kernel)} spatial axes, where the DLA convolves 2"
        return
    if layer.group != 1:
        yield "group", f"{layer.group} groups, where a deconvolution takes 1"
    if any(step != 1 for step in layer.dilation):
        yield "dilation", f"dilation {_by(layer.dilation)}, where a deconvolution takes 1"
    if any(begin or end for begin, end in layer.pads or ()):
        yield "padding", f"pads {_pads(layer)}, where a deconvolution takes none"
    yield from _extent("kernel", layer.kernel)
    yield from _extent("stride", layer.stride)
    yield from _channels(layer)


def _extent(what: DlaCode, sizes: tuple[int, ...]) -> _Found:
    line = 1 in sizes and max(sizes) in _DECONV_LINE
    if not line and any(size not in _DECONV_WINDOW for size in sizes):
        lines = ", ".join(map(str, _DECONV_LINE))
        yield (
            what,
            f"{what} {_by(sizes)}, where a deconvolution takes {_of(_DECONV_WINDOW)}, or {lines} "
            "by 1",
        )
    elif len(set(sizes)) == 1 and sizes[0] in _DECONV_DISABLED:
        yield (
            what,
            f"{what} {_by(sizes)}: TensorRT keeps square ones of {_of(_DECONV_DISABLED)} off",
        )


def _channels(layer: Window) -> _Found:
    if max(layer.channels) > _LARGEST_SIZE:
        counts = " to ".join(f"{count:,}" for count in layer.channels)
        yield "channels", f"{counts} channels, where {_LARGEST_SIZE:,} is the most"


def _dtype(dtype: str | None) -> _Found:
    if dtype is not None and dtype not in _DTYPES:
        yield (
            "dtype",
            f"{dtype}, where the DLA computes in float16 and int8"
            + (" (TensorRT 10 converts it with --fp16)" if dtype == "float32" else ""),
        )


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _of(values: range) -> str:
    return f"{values.start} to {values.stop - 1}"


def _pads(layer: Window) -> str:
    return ", ".join(map(str, layer.pads or ()))
