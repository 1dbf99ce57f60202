"""Run the forms, as exported and rewritten, with one toolchain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

import deployconv
from deployconv.errors import DeployconvError
from deployconv.proof.toolchain_builds import compare
from deployconv.runtimes.toolchains.call import Refusal, ToolchainProcess
from deployconv.runtimes.toolchains.catalogue import Device, Toolchain
from deployconv.runtimes.worker_process import Limits

from .forms import FORMS, Array, Form
from .further import EVERY
from .record import EXPORTED, Outcome, Run

SPELLINGS = ("pad-dcr", "crop-dcr", "crop-crd", "crop-transpose", "crop-two-step")
"""Forms and shuffles that are tried beside ``default`` and ``target``."""
RESIZE_SPELLINGS = ("matrix", "polyphase-dcr", "polyphase-crd")
"""The same for a Resize."""
_LIMITS = Limits(seconds=180, memory=8 << 30)


def runs(
    toolchain: Toolchain, python: Path, target: str, forms: Iterable[str], spellings: Iterable[str]
) -> Iterator[Run]:
    """Each form in each spelling; two spellings that are one model are run once."""
    device = toolchain.targets[target]
    if device.layer_tolerance is not None:
        device = replace(device, tolerance=device.layer_tolerance)
    asked = tuple(spellings)
    with ToolchainProcess(toolchain, python, _LIMITS, device.platform) as process:
        for name in forms:
            done: dict[bytes, Run] = {}
            for spelling in asked:
                model = spelled(name, spelling, target)
                if model is None:
                    continue
                if model not in done:
                    done[model] = run(process, device, EVERY[name], spelling, model)
                yield replace(done[model], spelling=spelling)


def run(process: ToolchainProcess, device: Device, form: Form, spelling: str, model: bytes) -> Run:
    """Convert and run one model, and compare its output with onnxruntime's."""
    try:
        converted = process.convert(model, {"x": form.input()}, ["y"])
        if not converted.executes:
            return Run(form.name, spelling, "converted", notes=converted.notes)
        (actual, *_), notes = process.run()
    except Refusal as refusal:
        outcome: Outcome = "crashed" if refusal.crashed else "refused"
        return Run(form.name, spelling, outcome, str(refusal))
    outcome, words, error = compared(form, actual, device)
    return Run(form.name, spelling, outcome, words, error, notes)


def compared(form: Form, actual: Array, device: Device) -> tuple[Outcome, str, float | None]:
    """The outcome of a run, how the output differs from onnxruntime's, and by how much."""
    expected = expectation(form.name)
    compared = compare("y", actual, expected, device, form.step, str(form.input().dtype))
    if compared.problem is not None:
        return "misread", compared.problem, None
    error = float(f"{compared.max_rel:.2g}")  # more digits would differ from run to run
    if compared.passed:
        return "right", "", error
    allowed = compared.tolerance * float(np.abs(expected).max())
    wrong = float(np.mean(np.abs(actual.astype(np.float64) - expected) > allowed))
    return "misread", f"{wrong:.1%} of the elements differ", error


@cache
def expectation(name: str) -> Array:
    """What onnxruntime computes for a form; it has no bfloat16, and so runs that in float32.

    It has no cubic Resize of one axis: there it is what the ONNX reference evaluator computes.
    """
    form = EVERY[name]
    model, given = form.model(), form.input()
    if form.dtype == TensorProto.BFLOAT16:
        model, given = _in_float32(model), given.astype(np.float32)
    if name == "cub_1d":
        (computed,) = ReferenceEvaluator(model).run(None, {"x": given})
        return np.asarray(computed, np.float64)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (computed,) = session.run(None, {"x": given})
    return np.asarray(computed, np.float64)


def _in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    for tensor in twin.graph.initializer:
        value = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    del twin.graph.value_info[:]
    for value_info in (*twin.graph.input, *twin.graph.output):
        value_info.type.tensor_type.elem_type = TensorProto.FLOAT
    return twin


def spelled(name: str, spelling: str, target: str) -> bytes | None:
    """A form in one spelling; None if it cannot be written so, or stays as it is."""
    original = EVERY[name].model()
    if spelling == EXPORTED:
        return bytes(original.SerializeToString(deterministic=True))
    form, _, shuffle = spelling.partition("-")
    whole = spelling in ("default", "target")
    options: dict[str, Any] = {} if whole else {"form": form, "shuffle": shuffle or "auto"}
    if spelling == "target":
        options["target"] = target
    elif name not in FORMS:
        options["resample"] = True
    try:
        result = deployconv.rewrite(
            original, bench=False, verify=False, shape=_sizes(EVERY[name]), **options
        )
    except DeployconvError as error:
        if spelling == "target":
            print(f"{name}: --target {target}: {error}", flush=True)
        return None
    if not whole and {(site.form, site.shuffle or "") for site in result.sites} != {
        (form, shuffle)
    }:
        return None
    assert result.model is not None
    return bytes(result.model.SerializeToString(deterministic=True))


def _sizes(form: Form) -> dict[str, tuple[int, ...]]:
    dynamic = any(isinstance(size, str) for size in form.shape)
    return {"x": form.sizes()} if dynamic else {}
