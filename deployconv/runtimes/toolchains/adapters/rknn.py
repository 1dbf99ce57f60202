"""RKNN: Rockchip's compiler, its simulator, and its estimate of cycles.

The devices of `_INTEGER` compute in integers only: their models are quantized with the inputs.
"""

from __future__ import annotations

import os
import re
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from rknn.api import RKNN

if TYPE_CHECKING:
    from deployconv.runtimes.toolchains.program import Feeds, Job

_INTEGER = ("rv1106",)
_LAYER = re.compile(
    r"^D RKNN: \[[\d:.]+\] \d+ +(?P<kind>\S+) +(?P<dtype>\S+) +(?P<unit>NPU|CPU|GPU) .*?"
    r"(?P<cycles>\d+/\d+/\d+)",
    re.MULTILINE,
)


def version() -> str:
    """The library and its version."""
    return f"rknn-toolkit2 {version_of('rknn-toolkit2')}"


class Session:
    """A converted model, ready to run in the simulator."""

    def __init__(self, rknn: Any, notes: dict[str, Any], job: Job) -> None:
        self._rknn = rknn
        self._job = job
        self.notes = notes

    def run(self, feeds: Feeds) -> list[Any]:
        """Compute the outputs."""
        given = [np.asarray(array, np.float32) for array in feeds.values()]
        with self._job.output() as written:
            results = self._rknn.inference(
                given, data_format=["nchw" if array.ndim == 4 else "undefined" for array in given]
            )
        if results is None:
            raise RuntimeError(_errors(written.text))
        return list(results)


def prepare(job: Job) -> Session:
    """Compile the model of ``job``, and load it into the simulator."""
    os.chdir(job.folder)  # it writes files of its own
    model = onnx.load(job.model)
    feeds = {
        value.name: job.feeds[value.name] for value in model.graph.input if value.name in job.feeds
    }
    rknn = RKNN(verbose=True)
    quantized = job.platform in _INTEGER
    with job.output() as written:
        rknn.config(target_platform=job.platform)
        code = rknn.load_onnx(
            str(job.model),
            inputs=list(feeds),
            input_size_list=[list(array.shape) for array in feeds.values()],
        )
        if code == 0:
            dataset = _dataset(job) if quantized else None
            code = rknn.build(do_quantization=quantized, dataset=dataset)
    if code != 0:
        raise RuntimeError(_errors(written.text))
    layers = [
        (found["kind"], found["unit"], int(found["cycles"].split("/")[-1]))
        for found in _LAYER.finditer(written.text)
        if found["kind"] not in ("InputOperator", "OutputOperator")
    ]
    notes: dict[str, Any] = {
        "cycles": sum(cycles for *_, cycles in layers),
        "npu": " ".join(kind for kind, unit, _ in layers if unit == "NPU"),
    }
    on_cpu = " ".join(kind for kind, unit, _ in layers if unit != "NPU")
    if on_cpu:
        notes["cpu"] = on_cpu
    with job.output() as written:
        code = rknn.init_runtime(target=None)
    if code != 0:
        raise RuntimeError(_errors(written.text))
    return Session(rknn, notes, job)


def _dataset(job: Job) -> str:
    """A file that names the inputs, for the ranges of the quantization."""
    files = []
    for index, array in enumerate(job.feeds.values()):
        files.append(job.folder / f"input_{index}.npy")
        np.save(files[-1], np.asarray(array, np.float32))
    listed = job.folder / "dataset.txt"
    listed.write_text(" ".join(map(str, files)) + "\n", encoding="utf-8")
    return str(listed)


def _errors(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line[2:] for line in lines if line.startswith("E ") and "====" not in line]
    named = [line for line in errors if re.search(r"Error\b|rror:|not support", line)]
    return (named or errors or lines or ["no message"])[-1].strip()
