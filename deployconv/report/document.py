"""The JSON documents, schema version 1. Times are milliseconds. `read_back` makes results of them.

JSON has no NaN and no infinity: they are written as the strings ``"NaN"``, ``"Infinity"`` and
``"-Infinity"``, which no script mistakes for a small number.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deployconv._version import __version__
from deployconv.errors import UsageError
from deployconv.results import (
    BatchReport,
    BuildReport,
    Compilation,
    Details,
    Inspection,
    Latency,
    ModelDifference,
    ModelRun,
    Parity,
    Rewriting,
    Target,
    TargetBuild,
)

SCHEMA_VERSION = 1

Document = dict[str, Any]


def of_inspection(inspection: Inspection) -> Document:
    """Describe what `inspect` found; with ``target`` and ``note`` if it was asked for a target."""
    return _document(**_of_inspection(inspection))


def of_rewriting(rewriting: Rewriting) -> Document:
    """Describe what `rewrite` did; the rewritten model itself is not part of it."""
    return _document(**_of_rewriting(rewriting))


def of_targets(targets: Sequence[Target]) -> Document:
    """Describe targets: all that come with deployconv, or one."""
    return _document(targets=[asdict(one) for one in targets])


def of_verification(checks: Sequence[Parity], details: Details | None = None) -> Document:
    """Describe what `verify` found, one entry per backend; with ``details`` for a report."""
    more = {"details": asdict(details)} if details else {}
    return _document(parity=[asdict(check) for check in checks], **more)


def of_timing(latencies: Sequence[Latency], models: Sequence[str]) -> Document:
    """Describe what `bench` measured of ``models``, one entry per backend."""
    return _document(models=list(models), latency=[asdict(latency) for latency in latencies])


def of_build(report: BuildReport) -> Document:
    """Describe what a model was compiled to, one entry per target."""
    return _document(**_of_build(report))


def of_difference(difference: ModelDifference) -> Document:
    """Describe what differs between two models."""
    return _document(equal=difference.equal, **asdict(difference))


def of_batch(report: BatchReport) -> Document:
    """Describe what became of several models, one entry per model.

    An entry has the keys of the document of one model besides its own.
    """
    return _document(
        command=report.command,
        options=report.options,
        models=[_of_run(report.command, run) for run in report.models],
        interrupted=report.interrupted,
        remaining=report.remaining,
        warnings=report.warnings,
    )


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


def _of_inspection(inspection: Inspection) -> Document:
    target = {"target": inspection.target, "note": inspection.note} if inspection.target else {}
    targets = {"targets": [asdict(one) for one in inspection.targets]} if inspection.targets else {}
    return {
        "model": asdict(inspection.source),
        "sites": [asdict(site) for site in inspection.sites],
        **target,
        **targets,
    }


def _of_rewriting(rewriting: Rewriting) -> Document:
    return {
        "model": asdict(rewriting.source),
        "sites": [asdict(site) for site in rewriting.sites],
        "parity": asdict(rewriting.parity) if rewriting.parity else None,
        "latency": asdict(rewriting.latency) if rewriting.latency else None,
        "output": asdict(rewriting.output) if rewriting.output else None,
        "compiled": _of_compilation(rewriting.compiled) if rewriting.compiled else None,
        "not_run": [asdict(step) for step in rewriting.not_run],
        "warnings": rewriting.warnings,
        "changed": rewriting.changed,
        "details": asdict(rewriting.details) if rewriting.details else None,
        "targets": [asdict(one) for one in rewriting.targets],
    }


def _of_build(report: BuildReport) -> Document:
    return {
        "model": asdict(report.source),
        "evidence": "run" if any(built.conversion for built in report.targets) else "compile",
        "runtime": report.runtime,
        "shapes": [asdict(bound) for bound in report.shapes],
        "note": report.note,
        "targets": [_of_target(built) for built in report.targets],
    }


_LISTS = {"inspect": ("sites",), "build": ("shapes", "targets")}
"""Keys that are an empty list for a model that ended with an error, by command."""
_NULLS = {"inspect": ("model",), "build": ("model", "runtime", "note")}
"""Keys that are null then."""


def _of_run(command: str, run: ModelRun) -> Document:
    result = run.result
    lists = _LISTS.get(command, ("sites", "not_run", "warnings", "targets"))
    nulls = ("model", "parity", "latency", "output", "compiled", "changed", "details")
    content: Document = dict.fromkeys(_NULLS.get(command, nulls))
    content |= {key: [] for key in lists}
    if isinstance(result, Rewriting):
        content = _of_rewriting(result)
    elif isinstance(result, Inspection):
        content = _of_inspection(result)
    elif isinstance(result, BuildReport):
        content = _of_build(result)
    return {
        "path": run.path,
        "status": run.status,
        "seconds": run.seconds,
        "message": run.message,
        **content,
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
    """Return ``value`` with strings in place of the floats that JSON cannot write."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def read_document(path: Path, where: str, printed_by: str) -> Document:
    """Read a JSON document of this schema version.

    Args:
        path: the file.
        where: what messages call it, with the flag that named it.
        printed_by: the command that prints such a document.

    Raises:
        UsageError: the file cannot be read, or holds no such document.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if not text.strip():
            raise UsageError(f"{where}: is empty: > FILE empties a file before it is read: use two")
        content = json.loads(text)
    except OSError as error:
        raise UsageError(f"{where}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UsageError(f"{where}: not JSON: give what {printed_by} printed") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"{where}: schema_version {version} where {SCHEMA_VERSION} is known: give what "
            f"{printed_by} printed"
        )
    return dict(content)
