"""ConvTranspose, all of it.

    x, W, (B) -> ConvTranspose -> y

An output element ``o`` reads input ``(o + p - d*t) / s`` through tap ``t`` where that divides
(ONNX operator ConvTranspose). What the attributes leave open is settled in `_padding`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from deployconv.errors import ModelError
from deployconv.model.constants import Constant, Constants
from deployconv.model.view import Scope
from deployconv.polyphase import Axis
from deployconv.sites.site import Geometry, Parameter, Site, Skip, SkippedSite, UpsampleSite

_DTYPES = ("float16", "bfloat16", "float32", "float64")
_AUTO_PADS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


def recognise(node: gs.Node, scope: Scope, constants: Constants, name: str) -> Site | None:
    """The site that ``node`` is; None for any other operator.

    Raises ModelError for a node that no runtime could accept.
    """
    if node.op != "ConvTranspose" or node.domain not in (None, "", "ai.onnx"):
        return None

    def skip(reason: Skip, geometry: Geometry | None = None, dtype: str | None = None) -> Site:
        return SkippedSite(name, "conv_transpose", scope, (node,), geometry, dtype, reason)

    if any(isinstance(value, gs.Node.AttributeRef) for value in node.attrs.values()):
        return skip(Skip("attribute-reference", "its attributes are the function's parameters"))
    weight = constants.of(node.inputs[1], scope)
    if weight is None:
        return skip(Skip("runtime-weight", "its weight is computed while the model runs"))
    attributes = _Attributes.of(node, weight, name)
    geometry, dtype = attributes.geometry, weight.dtype.name
    has_bias = len(node.inputs) > 2 and bool(node.inputs[2].name)
    bias = constants.of(node.inputs[2], scope) if has_bias else None
    if has_bias and bias is None:
        text = "its bias is computed while the model runs"
        return skip(Skip("runtime-bias", text), geometry, dtype)
    if dtype not in _DTYPES:
        return skip(Skip("unsupported-dtype", f"its weight is {dtype}"), geometry, dtype)
    if attributes.rank > 3:
        text = f"it has {attributes.rank} spatial axes; Conv runs on 1 to 3"
        return skip(Skip("unsupported-rank", text), geometry, dtype)
    if not constants.frozen and (weight.overridable or (bias is not None and bias.overridable)):
        text = (
            "its weight or bias is a graph input with a default that a caller may override;"
            " --freeze-initializers takes the default as constant"
        )
        return skip(Skip("overridable-initializer", text), geometry, dtype)
    _check_input(node.inputs[0], attributes, weight, bias, name)
    sizes = _spatial_sizes(node.inputs[0], attributes.rank)
    padding = _padding(attributes, sizes)
    if isinstance(padding, Skip):
        return skip(padding, geometry, dtype)
    return UpsampleSite(
        id=name,
        pattern="conv_transpose",
        scope=scope,
        nodes=(node,),
        input=node.inputs[0].name,
        output=node.outputs[0].name,
        axes=tuple(
            Axis.transposed(stride, taps, dilation, (pad.begin, pad.end), pad.output_padding)
            for stride, taps, dilation, pad in zip(
                attributes.strides, attributes.kernel, attributes.dilations, padding, strict=True
            )
        ),
        geometry=geometry,
        weight=Parameter.of(weight),
        transposed=True,
        bias=Parameter.of(bias) if bias is not None else None,
        sizes=sizes,
        fixed_size=attributes.output_shape is not None,
        explicit_attributes=_explicit(attributes, padding),
    )


@dataclass(frozen=True)
class _Attributes:
    """The attributes of the node with their defaults, one value per spatial axis."""

    strides: tuple[int, ...]
    kernel: tuple[int, ...]
    dilations: tuple[int, ...]
    output_padding: tuple[int, ...]
    pads: tuple[int, ...]
    output_shape: tuple[int, ...] | None
    auto_pad: str
    group: int

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.strides, self.kernel, self.dilations, self.group)

    @classmethod
    def of(cls, node: gs.Node, weight: Constant, name: str) -> _Attributes:
        kernel = weight.shape[2:]
        rank = len(kernel)

        def invalid(what: str) -> ModelError:
            return ModelError(f"{name}: ConvTranspose {what}: export the model again")

        if rank < 1 or 0 in weight.shape:
            raise invalid(f"weight '{weight.name}' has shape {list(weight.shape)}")

        def ints(attribute: str, count: int, default: int, least: int) -> tuple[int, ...]:
            values = tuple(node.attrs.get(attribute, [default] * count))
            if len(values) != count:
                raise invalid(f"attribute '{attribute}' has {len(values)} values, not {count}")
            if min(values) < least:
                raise invalid(f"attribute '{attribute}' is {list(values)}, below {least}")
            return values

        if ints("kernel_shape", rank, 1, 1) != kernel and "kernel_shape" in node.attrs:
            raise invalid(
                f"attribute 'kernel_shape' is {list(node.attrs['kernel_shape'])}, its weight's"
                f" {list(kernel)}"
            )
        group = node.attrs.get("group", 1)
        if group < 1 or weight.shape[0] % group:
            raise invalid(f"attribute 'group' is {group} for {weight.shape[0]} input channels")
        auto_pad = node.attrs.get("auto_pad", "NOTSET")
        if auto_pad not in _AUTO_PADS:
            raise invalid(f"attribute 'auto_pad' is '{auto_pad}', none of {', '.join(_AUTO_PADS)}")
        has_output_shape = bool(node.attrs.get("output_shape"))
        return cls(
            ints("strides", rank, 1, 1),
            kernel,
            ints("dilations", rank, 1, 1),
            ints("output_padding", rank, 0, 0),
            ints("pads", 2 * rank, 0, 0),
            ints("output_shape", rank, 1, 1) if has_output_shape else None,
            auto_pad,
            group,
        )


@dataclass(frozen=True)
class _Padding:
    """Explicit padding of one axis."""

    begin: int
    end: int
    output_padding: int


def _padding(attributes: _Attributes, sizes: tuple[int | None, ...]) -> list[_Padding] | Skip:
    """Explicit padding per axis, as onnxruntime and the ONNX reference both compute it.

    ``auto_pad = SAME_*`` makes the output ``s`` times the input, ``output_shape`` states it;
    the padding is what that takes. Its odd element stands at the end for SAME_UPPER, else in
    front. Where the two implementations differ, the node is refused.
    """
    same = attributes.auto_pad.startswith("SAME")
    if attributes.auto_pad != "NOTSET" and any(attributes.pads):
        return Skip("ambiguous-same-pads", "it has both auto_pad and pads")
    found = []
    for axis in range(attributes.rank):
        stride, extra = attributes.strides[axis], attributes.output_padding[axis]
        reach = attributes.dilations[axis] * (attributes.kernel[axis] - 1) + 1
        if attributes.output_shape is not None:
            size = sizes[axis]
            if size is None:
                text = "its padding follows from output_shape and a size that is not static"
                return Skip("dynamic-output-shape", text)
            natural = stride * (size - 1) + reach
            total = natural + extra - attributes.output_shape[axis]
            beyond = attributes.output_shape[axis] - natural
            if not same and (beyond >= stride or 0 <= beyond < extra):
                text = "runtimes disagree on output_shape with this output_padding"
                return Skip("ambiguous-output-shape", text)
        elif same:
            total = reach + extra - stride
        else:
            begin, end = attributes.pads[axis], attributes.pads[attributes.rank + axis]
            found.append(_Padding(begin, end, extra))
            continue
        if total < 0 and same:
            text = "runtimes disagree on SAME padding for a kernel smaller than the stride"
            return Skip("ambiguous-same-pads", text)
        if total < 0:  # the output is longer than all taps reach: bias there, nothing else
            found.append(_Padding(0, 0, extra - total))
            continue
        begin = total // 2 if attributes.auto_pad == "SAME_UPPER" else total - total // 2
        found.append(_Padding(begin, total - begin, extra))
    return found


def _explicit(attributes: _Attributes, padding: list[_Padding]) -> dict[str, Any] | None:
    """Attributes that TensorRT's importer reads as the ONNX reference does; None if it does so.

    It puts the odd element of an output_shape's padding at the end, takes none that is
    negative, and ignores output_padding under SAME_*.
    """
    same_misread = attributes.auto_pad.startswith("SAME") and any(attributes.output_padding)
    shape_misread = attributes.output_shape is not None and any(
        pad.begin != pad.end or pad.output_padding for pad in padding
    )
    if not same_misread and not shape_misread:
        return None
    explicit: dict[str, Any] = {
        "auto_pad": None,
        "output_shape": None,
        "pads": [pad.begin for pad in padding] + [pad.end for pad in padding],
    }
    if any(pad.output_padding for pad in padding):
        explicit["output_padding"] = [pad.output_padding for pad in padding]
    return explicit


def _check_input(
    tensor: gs.Tensor, attributes: _Attributes, weight: Constant, bias: Constant | None, name: str
) -> None:
    """A graph that lies about its types or shapes is refused before anything is baked in."""
    shape = tensor.shape
    if shape is not None:
        if len(shape) != attributes.rank + 2:
            raise ModelError(
                f"{name}: input '{tensor.name}' has {len(shape)} dimensions where the weight"
                f" '{weight.name}' needs {attributes.rank + 2}: export the model again"
            )
        if isinstance(shape[1], int) and shape[1] != weight.shape[0]:
            raise ModelError(
                f"{name}: input '{tensor.name}' has {shape[1]} channels where the weight"
                f" '{weight.name}' has {weight.shape[0]}: export the model again"
            )
    if tensor.dtype is not None and _dtype_name(tensor.dtype) != weight.dtype.name:
        raise ModelError(
            f"{name}: input '{tensor.name}' is {_dtype_name(tensor.dtype)} where the weight"
            f" '{weight.name}' is {weight.dtype.name}: export the model again"
        )
    c_out = weight.shape[1] * attributes.group
    if bias is not None and (bias.shape != (c_out,) or bias.dtype != weight.dtype):
        raise ModelError(
            f"{name}: bias '{bias.name}' is {bias.dtype.name}{list(bias.shape)} where the weight"
            f" '{weight.name}' needs {weight.dtype.name}[{c_out}]: export the model again"
        )


def _dtype_name(dtype: Any) -> str:
    """Graphsurgeon gives a NumPy dtype, or the ONNX number where NumPy has none."""
    if isinstance(dtype, int):
        dtype = onnx.helper.tensor_dtype_to_np_dtype(dtype)
    return str(np.dtype(dtype).name)


def _spatial_sizes(tensor: gs.Tensor, rank: int) -> tuple[int | None, ...]:
    if tensor.shape is None:
        return (None,) * rank
    return tuple(size if isinstance(size, int) else None for size in tensor.shape[2:])
