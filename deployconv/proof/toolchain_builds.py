"""Convert a model with the toolchains of targets, and compare what they compute."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deployconv.errors import BackendUnavailable, UsageError
from deployconv.graph.load import LoadedModel
from deployconv.options import DEFAULT_RUNTIME, FeedOptions
from deployconv.proof.inputs import make_feeds
from deployconv.results import (
    BuildReport,
    Conversion,
    OutputParity,
    ShapeRange,
    StageName,
    StageResult,
    TargetBuild,
)
from deployconv.runtimes import get_backend
from deployconv.runtimes.base import Array, ModelSource
from deployconv.runtimes.shapes import input_specs, output_specs
from deployconv.runtimes.toolchains.call import Refusal, ToolchainProcess
from deployconv.runtimes.toolchains.catalogue import Device, Toolchain, toolchain_of
from deployconv.runtimes.toolchains.environments import installed, why_unusable
from deployconv.runtimes.worker_process import DEFAULT_LIMITS, Limits

_NO_FEED = FeedOptions()
_HALF = {"float16": 5e-3, "bfloat16": 3e-2}
"""The least tolerance of an output of this type."""


def build_with_toolchains(
    loaded: LoadedModel,
    source: ModelSource,
    targets: Sequence[str],
    feed: FeedOptions = _NO_FEED,
    limits: Limits = DEFAULT_LIMITS,
) -> BuildReport:
    """Convert ``source`` for ``targets``; ``loaded`` is the same model.

    Where the result can run here, its outputs are compared with those of onnxruntime.

    Raises:
        UsageError: there is no toolchain for a target, or inputs do not fit.
        BackendUnavailable: the toolchain of a target is not installed.
    """
    chosen = [(target, *_toolchain(target)) for target in dict.fromkeys(targets)]
    feeds = make_feeds(input_specs(loaded.proto), feed)
    expected, why = _expected(source, feeds.arrays)
    builds = []
    for target, toolchain, python in chosen:
        device = toolchain.targets[target]
        with ToolchainProcess(toolchain, python, limits, device.platform) as process:
            builds.append(_build(process, target, device, source, loaded, feeds.arrays, expected))
    sizes = {name: tuple(array.shape) for name, array in feeds.arrays.items()}
    ranges = tuple(ShapeRange(name, size, size, size) for name, size in sizes.items())
    runtimes = (built.conversion.runtime for built in builds if built.conversion)
    note = "; ".join(filter(None, (feeds.note, why))) or None
    return BuildReport(loaded.info, "; ".join(dict.fromkeys(runtimes)), ranges, tuple(builds), note)


def _toolchain(target: str) -> tuple[Toolchain, Path]:
    """The toolchain of ``target`` and the Python of its environment."""
    toolchain = toolchain_of(target)
    if toolchain is None:
        raise UsageError(f"--target {target}: there is no toolchain for it: nothing can be built")
    python = installed(toolchain)
    if python is None:
        missing = f"its toolchain is not installed: deployconv target install {target}"
        raise BackendUnavailable(f"--target {target}: {why_unusable(target) or missing}")
    return toolchain, python


def _expected(
    source: ModelSource, feeds: Mapping[str, Array]
) -> tuple[Mapping[str, Array] | None, str | None]:
    """What onnxruntime computes; None, and why, if it cannot."""
    try:
        return get_backend(DEFAULT_RUNTIME).prepare(source).run(feeds), None
    except BackendUnavailable as error:
        return None, f"nothing to compare with: {error}"


def _build(
    process: ToolchainProcess,
    target: str,
    device: Device,
    source: ModelSource,
    loaded: LoadedModel,
    feeds: Mapping[str, Array],
    expected: Mapping[str, Array] | None,
) -> TargetBuild:
    runtime = ""
    outputs: tuple[OutputParity, ...] = ()
    notes: Mapping[str, Any] = {}
    names = [spec.name for spec in output_specs(loaded.proto)]
    stages: dict[StageName, StageResult] = {}
    stage: StageName = "build"
    start = time.perf_counter()
    try:
        runtime = process.version()
        converted = process.convert(source, feeds, names)
        notes = converted.notes
        stages["build"] = StageResult("build", "ok", time.perf_counter() - start)
        if not converted.executes:
            stages["run"] = StageResult("run", "not-run", reason="nothing here executes it")
        else:
            stage, start = "run", time.perf_counter()
            computed, notes = process.run()
            seconds = time.perf_counter() - start
            outputs = _compared(dict(zip(names, computed, strict=False)), expected or {}, device)
            wrong = next((one for one in outputs if not one.passed), None)
            reason = None if wrong is None else _difference(wrong)
            stages["run"] = StageResult("run", "failed" if wrong else "ok", seconds, reason)
    except Refusal as refusal:
        stages[stage] = StageResult(stage, "failed", time.perf_counter() - start, str(refusal))
    return TargetBuild(
        target,
        (
            StageResult("check", "ok", 0.0),
            StageResult("parse", "not-run", reason="is part of the build"),
            stages["build"],
            StageResult("deserialize", "not-run", reason="is part of the run"),
            stages.get("run", StageResult("run", "not-run", reason="it was not built")),
            StageResult("profile", "not-run", reason="is not measured"),
        ),
        conversion=Conversion(runtime or target, outputs, notes),
    )


def _difference(wrong: OutputParity) -> str:
    if wrong.problem is not None:
        return f"output '{wrong.name}' {wrong.problem}"
    measure = f"differs by {wrong.max_rel:.2g} of its largest value"
    return f"output '{wrong.name}' {measure}, tolerance {wrong.tolerance:.2g}"


def _compared(
    computed: Mapping[str, Array], expected: Mapping[str, Array], device: Device
) -> tuple[OutputParity, ...]:
    return tuple(compare(name, computed[name], array, device) for name, array in expected.items())


def compare(
    name: str,
    actual: Array,
    expected: Array,
    device: Device,
    step: float = 0.0,
    dtype: str | None = None,
) -> OutputParity:
    """Compare one output with what onnxruntime computes, with the tolerance of ``device``.

    ``max_rel`` and ``tolerance`` are relative to the largest expected value. If the device computes
    in 8 bits, they are the root mean square relative to that of the expected values.

    Args:
        name: of the output.
        actual: what the toolchain computes.
        expected: what onnxruntime computes.
        device: what it was converted for.
        step: the quantization step of the output; 0 if it is not quantized.
        dtype: its element type; None for that of ``expected``.
    """
    if actual.shape != expected.shape:
        problem = f"has shape {list(actual.shape)} instead of {list(expected.shape)}"
        return OutputParity(name, float("inf"), float("inf"), device.tolerance, False, problem)
    wide = expected.astype(np.float64)
    difference = np.abs(actual.astype(np.float64) - wide)
    largest = float(np.abs(wide).max(initial=0.0)) or 1.0
    error = float(difference.max(initial=0.0))
    relative = error / largest
    if device.integer:
        relative = float(np.sqrt(np.mean(difference**2) / (np.mean(wide**2) or 1.0)))
    half = _HALF.get(dtype or str(expected.dtype), 0.0)
    tolerance = max(device.tolerance, half) + 1.01 * step / largest
    passed = relative <= tolerance  # also not if it is not a number
    return OutputParity(name, error, relative, tolerance, passed)
