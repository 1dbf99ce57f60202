"""A timing that was taken on another machine and kept as JSON, read to be shown here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployconv.errors import UsageError
from deployconv.report.document import SCHEMA_VERSION
from deployconv.results import Latency, LayerTime, Profile, Quantiles, SiteTime


@dataclass(frozen=True)
class SavedTiming:
    """What `bench --json` printed: one latency a backend, of one or two named models."""

    models: tuple[str, ...]
    latencies: tuple[Latency, ...]
    conditions: Mapping[str, str] = field(default_factory=dict)
    """What else was recorded of the machine, such as its power mode and clocks."""


def read_timing(path: Path) -> SavedTiming:
    """Read the file that `bench --json` or ``scripts/bench_jetson.sh`` wrote.

    Raises:
        UsageError: it cannot be read, or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--from {path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UsageError(f"--from {path}: not JSON: give what bench --json printed") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"--from {path}: schema_version {version} where {SCHEMA_VERSION} is known: give what "
            "bench --json printed"
        )
    try:
        latencies = tuple(map(_latency, content["latency"]))
        models = tuple(map(str, content["models"]))
        conditions = {str(key): str(one) for key, one in content.get("conditions", {}).items()}
        if any(
            len(models) != 1 + (one.after_ms is not None)
            or len(one.profiles) not in (0, len(models))
            for one in latencies
        ):
            raise ValueError("models and latencies do not fit together")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"--from {path}: holds no timing of bench ({type(error).__name__}: {error})"
        ) from error
    return SavedTiming(models, latencies, conditions)


def _latency(fields: Mapping[str, Any]) -> Latency:
    after = fields["after_ms"]
    return Latency(
        backend=str(fields["backend"]),
        provider=str(fields["provider"]),
        threads=int(fields["threads"]),
        runs=int(fields["runs"]),
        machine=str(fields["machine"]),
        runtime=str(fields["runtime"]),
        before_ms=_quantiles(fields["before_ms"]),
        after_ms=None if after is None else _quantiles(after),
        ratio=None if after is None else float(fields["ratio"]),
        cuda_graph=bool(fields.get("cuda_graph", False)),
        profiles=tuple(map(_profile, fields.get("profiles", ()))),
    )


def _profile(fields: Mapping[str, Any]) -> Profile:
    return Profile(int(fields["runs"]), tuple(map(_site_time, fields["sites"])))


def _site_time(fields: Mapping[str, Any]) -> SiteTime:
    layers = (
        LayerTime(str(one["name"]), float(one["ms"]), tuple(map(str, one["nodes"])))
        for one in fields["layers"]
    )
    return SiteTime(tuple(map(str, fields["sites"])), float(fields["ms"]), tuple(layers))


def _quantiles(fields: Mapping[str, Any]) -> Quantiles:
    return Quantiles(float(fields["median"]), float(fields["p95"]))
