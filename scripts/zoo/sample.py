"""What there is to say about one sample model; needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

Exporter = Literal["dynamo", "legacy"]
"""``torch.onnx.export(..., dynamo=True)``, or ``dynamo=False`` (by TorchScript)."""

Dtype = Literal["float32", "float16", "bool"]
Quantization = Literal["int8", "uint8", "symmetric"]
"""Type of the activations; ``symmetric`` is int8 without zero points and with float biases.

The weights are int8 in each case. TensorRT reads the symmetric one only.
"""
Pattern = Literal[
    "conv_transpose", "nearest_resize", "pixel_shuffle", "zero_insertion", "interpolating_resize"
]


@dataclass(frozen=True)
class Input:
    """A graph input: the shape it is exported with, and names for its dynamic axes."""

    name: str
    shape: tuple[int, ...]
    dtype: Dtype = "float32"
    dynamic: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    """An upsampling layer as the architecture has it, `count` times.

    ``stride`` is the upsampling factor per spatial axis. ``kernel``, ``dilation`` and ``group``
    are those of the ConvTranspose, or of the Conv that belongs to the layer: in front of a pixel
    shuffle, behind a nearest Resize or a zero insertion.
    """

    pattern: Pattern
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...] = ()
    group: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not self.dilation:
            object.__setattr__(self, "dilation", (1,) * len(self.stride))


@dataclass(frozen=True)
class Sample:
    """A network, and how it becomes ``models/<name>.onnx``."""

    name: str
    description: str
    source: str
    """Where the architecture comes from."""
    build: Callable[[], nn.Module]
    inputs: tuple[Input, ...]
    output: str
    layers: tuple[Layer, ...]
    """The upsampling layers, known from the architecture and not read from the export."""
    exporter: Exporter
    opset: int
    dtype: Dtype = "float32"
    """What the weights are converted to before the export."""
    quantized: Quantization | None = None
    """How it is quantized once it is exported."""

    @property
    def file(self) -> str:
        return f"{self.name}.onnx"
