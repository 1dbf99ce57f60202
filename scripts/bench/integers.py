"""Compare quantized models: latency, and error against the float model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from zoo.quantize import Feeds, quantize, random_batches

from bench import command
from bench import rows as base
from bench.process import on_one_line
from bench.rows import Rows, Table
from bench.speed import Effort, time_pair
from bench.subjects import Shapes, Subject, exported
from deployconv.runtimes import get_backend

CALIBRATION_SEED, TEST_SEED, TEST_BATCHES = 34, 1, 4


@dataclass(frozen=True)
class Errors:
    """Root mean square of the difference from the float model's output, relative to the output's.

    ``before`` is the error of the quantized original, ``after`` that of the rewritten model, both
    on inputs that neither was calibrated on.
    """

    before: float
    after: float

    @property
    def ratio(self) -> float:
        return self.after / self.before


@dataclass(frozen=True)
class Row(base.Row):
    """A row with the ``errors`` of the two models that were timed."""

    errors: Errors | None = None


def _cells(row: Row) -> str:
    return f"  {row.errors.before:.4f} -> {row.errors.after:.4f}" if row.errors else ""


def _extremes(rows: Sequence[Row]) -> dict[str, Any]:
    return {"most_error": max(row.errors.ratio for row in rows if row.errors)}


def _extremes_line(found: Mapping[str, Any]) -> str:
    return f"error at most {found['most_error']:.3f} times"


def _error(rows: Rows) -> str:
    errors = max((row["errors"] for row in rows), key=lambda one: one["after"])
    return f"{errors['before']:.4f} -> {errors['after']:.4f}"


TABLE = Table(
    "  error to float", _cells, _extremes, _extremes_line, {"error against float": _error}
)
"""The table of errors; in Markdown the error is that of the row with the largest."""

Order = Literal["quantize, then rewrite", "rewrite, then quantize"]


def measure(
    order: Order, subject: Subject, policy: base.Policy, threads: int, effort: Effort, folder: Path
) -> Row:
    """Compare the quantized model with one that is quantized and rewritten in this ``order``."""
    rewritten = folder / f"{subject.name}.{policy}.{threads}.onnx"
    try:
        original = exported(subject, folder)
        before = _quantized(original, folder, subject.shapes)
        asked = (subject, policy, threads, effort)
        if order == "quantize, then rewrite":
            done = command.rewrite(before, rewritten, *asked)
            after = rewritten
        else:
            # The quantizer passes a scale on through Transpose and Reshape, not DepthToSpace.
            done = command.rewrite(original, rewritten, *asked, shuffle="channels-last")
            after = _quantized(rewritten, folder, subject.shapes)
        speed = time_pair(before, after, subject.shapes, threads, effort)
        errors = compare(original, (before, after), subject.shapes)
    except Exception as error:
        return Row(subject.name, policy, threads, error=on_one_line(error))
    sites = tuple(asdict(site) for site in done.sites)
    return Row(subject.name, policy, threads, sites, speed, errors)


def _quantized(model: Path, folder: Path, shapes: Shapes) -> Path:
    """The quantized ``model`` in ``folder``; the first call makes it."""
    path = folder / f"{model.stem}.int8.onnx"
    if not path.exists():
        batches = random_batches(shapes, CALIBRATION_SEED)
        onnx.save(quantize(onnx.load(model), batches), path)
    return path


def compare(reference: Path, models: tuple[Path, Path], shapes: Shapes) -> Errors:
    """The errors of both models against ``reference``, on inputs not used for calibration."""
    batches = random_batches(shapes, TEST_SEED, TEST_BATCHES)
    expected = _outputs(reference, batches)
    scale = np.sqrt(np.square(expected).mean())
    before, after = (
        float(np.sqrt(np.square(_outputs(model, batches) - expected).mean()) / scale)
        for model in models
    )
    return Errors(before, after)


def _outputs(model: Path, batches: Sequence[Feeds]) -> NDArray[np.float64]:
    """All elements of all outputs in one array."""
    session = get_backend("ort").prepare(model)
    arrays = [array for batch in batches for array in session.run(batch).values()]
    return np.concatenate([array.astype(np.float64).ravel() for array in arrays])


def benchmark(
    description: str | None,
    subjects: command.Groups,
    policies: tuple[base.Policy, ...],
    order: Order,
) -> command.Benchmark[Row]:
    """The benchmark that compares in this ``order``, for `command.main`."""
    return command.Benchmark(
        *(description, subjects, policies, TABLE),
        prepare=lambda threads: (partial(measure, order), {"order": order}),
    )
