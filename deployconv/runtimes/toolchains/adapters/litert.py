"""onnx2tf and LiteRT, and vela for the Ethos-U, whose models have 8-bit weights and activations.

LiteRT computes the outputs on the CPU, also those of a model for vela: vela adds its estimate of
cycles, and the operators that it leaves to the CPU.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import onnx
import onnx2tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType

if TYPE_CHECKING:
    from deployconv.runtimes.toolchains.program import Feeds, Job

_PLACED = re.compile(r"Warning \(supported operators\) operator: ([A-Z_0-9]+)")


def version() -> str:
    """The libraries and their versions."""
    named = (f"{name} {version_of(name)}" for name in ("onnx2tf", "ai-edge-litert", "ethos-u-vela"))
    return ", ".join(named)


class Session:
    """A converted model, ready to run."""

    def __init__(self, interpreter: Any, shapes: list[list[int]], notes: dict[str, Any]) -> None:
        self._interpreter = interpreter
        self._shapes = shapes
        self.notes = notes

    def run(self, feeds: Feeds) -> list[Any]:
        """Compute the outputs."""
        for given in self._interpreter.get_input_details():
            array = np.asarray(feeds[_name(given["name"])], np.float32)
            self._interpreter.set_tensor(given["index"], _to_integers(array, given))
        self._interpreter.invoke()
        details = self._interpreter.get_output_details()
        arrays = [_to_floats(self._interpreter.get_tensor(one["index"]), one) for one in details]
        return [
            _channels_first(array, shape) for array, shape in zip(arrays, self._shapes, strict=True)
        ]


def prepare(job: Job) -> Session:
    """Convert the model of ``job``, and compile it with vela for an Ethos-U."""
    os.chdir(job.folder)
    integer = job.platform.startswith("ethos")
    model = _with_shapes(job)
    data = []
    for name, array in job.feeds.items():
        np.save(job.folder / f"{name}.npy", np.asarray(array, np.float32))
        data.append([name, str(job.folder / f"{name}.npy"), *([0.0, 1.0] if integer else [])])
    target = job.folder / "converted"
    error: BaseException | None = None
    with job.output() as written:
        try:
            onnx2tf.convert(
                input_onnx_file_path=str(job.model),
                output_folder_path=str(target),
                keep_ncw_or_nchw_or_ncdhw_input_names=list(job.feeds),
                output_integer_quantized_tflite=integer,
                custom_input_op_name_np_data_path=data,  # else it may download some
                non_verbose=True,
            )
        except (Exception, SystemExit) as raised:
            error = raised
    kind = "full_integer_quant" if integer else "float32"
    file = target / f"{job.model.stem}_{kind}.tflite"
    if error is not None or not file.exists():
        raise RuntimeError(f"onnx2tf: {_errors(written.text) or error}")
    with job.output() as written:
        # XNNPACK of LiteRT 2.1.0 ignores the zero point of the second input of an int8
        # BATCH_MATMUL, so integers are computed with LiteRT's own kernels.
        own = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = Interpreter(
            str(file),
            num_threads=job.threads,
            experimental_op_resolver_type=own if integer else OpResolverType.AUTO,
        )
        interpreter.allocate_tensors()
    operators = [one["op_name"] for one in interpreter._get_ops_details()]
    notes: dict[str, Any] = {"operators": " ".join(one for one in operators if one != "DELEGATE")}
    if integer:
        notes |= _vela(file, job)
    shapes = [
        [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in model.graph.output
    ]
    return Session(interpreter, shapes, notes)


def _with_shapes(job: Job) -> onnx.ModelProto:
    """The model of ``job`` with the sizes of its inputs, written in its place."""
    model = onnx.load(job.model)
    for value in model.graph.input:
        if value.name in job.feeds:
            sizes = value.type.tensor_type.shape.dim
            for size, length in zip(sizes, job.feeds[value.name].shape, strict=True):
                size.dim_value = length
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    onnx.save(model, job.model)
    return model


def _vela(file: Path, job: Job) -> dict[str, Any]:
    target = job.folder / "vela"
    command = [str(Path(sys.executable).parent / "vela"), str(file)]
    command += ["--accelerator-config", job.platform, "--output-dir", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    said = done.stdout + done.stderr
    if done.returncode:
        raise RuntimeError(f"vela: {_errors(said) or said.strip().splitlines()[-1]}")
    (summary,) = target.glob("*_summary_*.csv")
    with summary.open(encoding="utf-8") as lines:
        row = next(csv.DictReader(lines))
    notes: dict[str, Any] = {"cycles": round(float(row["cycles_total"]))}
    on_cpu = " ".join(_PLACED.findall(said))
    return {**notes, "cpu": on_cpu} if on_cpu else notes


def _name(name: str) -> str:
    return name.removeprefix("serving_default_").split(":")[0]


def _to_integers(array: Any, tensor: Any) -> Any:
    kind = tensor["dtype"]
    if not np.issubdtype(kind, np.integer):
        return array.astype(kind)
    scale, zero = tensor["quantization"]
    limits = np.iinfo(kind)
    return np.clip(np.round(array / scale) + zero, limits.min, limits.max).astype(kind)


def _to_floats(array: Any, tensor: Any) -> Any:
    if not np.issubdtype(array.dtype, np.integer):
        return array
    scale, zero = tensor["quantization"]
    return (array.astype(np.float32) - zero) * scale


def _channels_first(array: Any, shape: list[int]) -> Any:
    """An output in the layout of ONNX: onnx2tf puts the channels of an image last."""
    turned = np.moveaxis(array, -1, 1) if array.ndim > 2 else array
    if list(array.shape) == shape or (len(shape) > 1 and turned.shape[1] != shape[1]):
        return array
    return turned


def _errors(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if "rror" in line]
    return lines[-1].removeprefix("ERROR:").strip() if lines else ""
