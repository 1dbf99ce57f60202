"""The JSON documents, schema version 1. Times are milliseconds.

JSON has no NaN and no infinity: they are written as the strings ``"NaN"``, ``"Infinity"`` and
``"-Infinity"``, which no comparison takes for a small number.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from deployconv._version import __version__
from deployconv.results import (
    BuildReport,
    CheckReport,
    Compilation,
    Inspection,
    Latency,
    ModelCheck,
    Parity,
    Rewriting,
    TargetBuild,
)

SCHEMA_VERSION = 1

Document = dict[str, Any]


def of_inspection(inspection: Inspection) -> Document:
    """Describe what `inspect` found; ``target`` and ``note`` where it was asked of a target."""
    target = {"target": inspection.target, "note": inspection.note} if inspection.target else {}
    return _document(
        model=asdict(inspection.source),
        sites=[asdict(site) for site in inspection.sites],
        **target,
    )


def of_rewriting(rewriting: Rewriting) -> Document:
    """Describe what `rewrite` did; the rewritten model itself is not part of it."""
    return _document(
        model=asdict(rewriting.source),
        sites=[asdict(site) for site in rewriting.sites],
        parity=asdict(rewriting.parity) if rewriting.parity else None,
        latency=asdict(rewriting.latency) if rewriting.latency else None,
        output=asdict(rewriting.output) if rewriting.output else None,
        compiled=_of_compilation(rewriting.compiled) if rewriting.compiled else None,
        not_run=[asdict(step) for step in rewriting.not_run],
        warnings=rewriting.warnings,
    )


def of_verification(checks: Sequence[Parity]) -> Document:
    """Describe what `verify` found, one entry a backend."""
    return _document(parity=[asdict(check) for check in checks])


def of_timing(latencies: Sequence[Latency], models: Sequence[str]) -> Document:
    """Describe what `bench` measured of ``models``, one entry a backend."""
    return _document(models=list(models), latency=[asdict(latency) for latency in latencies])


def of_build(report: BuildReport) -> Document:
    """Describe what TensorRT made of a model: compile evidence, one entry a target."""
    return _document(
        model=asdict(report.source),
        evidence="compile",
        runtime=report.runtime,
        shapes=[asdict(bound) for bound in report.shapes],
        note=report.note,
        targets=[_of_target(built) for built in report.targets],
    )


def of_check(report: CheckReport) -> Document:
    """Describe what `check` found, one entry a model."""
    return _document(models=[_of_model_check(check) for check in report.models])


def dumps(document: Document) -> str:
    """Return ``document`` as JSON text."""
    return json.dumps(_finite(document), indent=2, allow_nan=False)


def write(document: Document) -> None:
    """Print ``document`` on standard output."""
    sys.stdout.write(dumps(document) + "\n")


def _document(**content: Any) -> Document:
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "deployconv", "version": __version__},
        **content,
    }


def _of_model_check(check: ModelCheck) -> Document:
    rewriting = check.rewriting
    return {
        "path": check.path,
        "status": check.status,
        "seconds": check.seconds,
        "message": check.message,
        "sites": [asdict(site) for site in rewriting.sites] if rewriting else [],
        "parity": asdict(rewriting.parity) if rewriting and rewriting.parity else None,
        "not_run": [asdict(step) for step in rewriting.not_run] if rewriting else [],
    }


def _of_compilation(compiled: Compilation) -> Document:
    return {
        "evidence": "compile",
        "runtime": compiled.after.runtime,
        "passed": compiled.passed,
        "targets": [
            {"target": before.target, "before": _of_target(before), "after": _of_target(after)}
            for before, after in compiled.pairs
        ],
    }


def _of_target(built: TargetBuild) -> Document:
    return {"builds": built.builds, **asdict(built)}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
