"""ncnn on the CPU, converted by pnnx. ncnn knows no batch: the first axis is taken away."""

from __future__ import annotations

import subprocess
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ncnn
import numpy as np
import pnnx

if TYPE_CHECKING:
    from deployconv.runtimes.toolchains.program import Feeds, Job

_KINDS = {"float32": "f32", "float16": "f16", "int64": "i64", "int32": "i32", "int8": "i8"}


def version() -> str:
    """The library and its version."""
    return f"ncnn {version_of('ncnn')}, pnnx {version_of('pnnx')}"


class Session:
    """A converted model, ready to run."""

    def __init__(self, net: Any, outputs: int) -> None:
        self._net = net
        self._outputs = outputs
        self.notes: dict[str, Any] = {}

    def run(self, feeds: Feeds) -> list[Any]:
        extractor = self._net.create_extractor()
        held = []
        for index, array in enumerate(feeds.values()):
            held.append(ncnn.Mat(np.ascontiguousarray(array[0], np.float32)).clone())
            extractor.input(f"in{index}", held[-1])
        results = []
        for index in range(self._outputs):
            code, result = extractor.extract(f"out{index}")
            if code != 0:
                raise RuntimeError(f"extract returned {code}")
            results.append(np.array(result)[None])
        return results


def prepare(job: Job) -> Session:
    """Convert and load the model of ``job``."""
    shapes = ",".join(
        f"{list(array.shape)}{_KINDS.get(str(array.dtype), str(array.dtype))}".replace(" ", "")
        for array in job.feeds.values()
    )
    command = [str(Path(pnnx.__file__).parent / "pnnx"), str(job.model)]
    command += [f"inputshape={shapes}", "fp16=0"]
    done = subprocess.run(
        command, cwd=job.folder, capture_output=True, text=True, errors="replace", check=False
    )
    said = done.stdout + done.stderr
    files = [job.model.with_suffix(".ncnn.param"), job.model.with_suffix(".ncnn.bin")]
    if done.returncode or not all(file.exists() for file in files):
        raise RuntimeError(f"pnnx ended with status {done.returncode}: {_errors(said)}")
    net = ncnn.Net()
    net.opt.num_threads = job.threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    with job.output() as written:
        codes = [net.load_param(str(files[0])), net.load_model(str(files[1]))]
    if any(codes):
        raise RuntimeError(f"ncnn cannot load it: {_errors(written.text)}")
    return Session(net, len(job.outputs))


def _errors(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    known = ("not supported", "not exists", "unknown", "failed", "ignore", "rror", "unsupported")
    errors = [line for line in lines if any(word in line for word in known)]
    return "; ".join(errors[:2] or lines[-1:] or ["no message"])
