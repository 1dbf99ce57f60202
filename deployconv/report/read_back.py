"""Read results back from a JSON document: those of several models, or a timing."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from deployconv.errors import UsageError
from deployconv.report.document import read_document
from deployconv.results import (
    BatchReport,
    BuildReport,
    Compilation,
    Inspection,
    Latency,
    ModelInfo,
    ModelRun,
    Rewriting,
    TargetBuild,
)

_NUMBERS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_KINDS: Mapping[str, type] = {"inspect": Inspection, "build": BuildReport}


def read_batch(path: Path, option: str) -> BatchReport:
    """Read what `rewrite`, `inspect`, `build` or `check` printed about several models.

    Args:
        path: the file.
        option: the flag that named it, for messages.

    Raises:
        UsageError: the file cannot be read, or is no such document.
    """
    where = f"{option} {path}"
    content = read_document(path, where, "--json")
    if "command" not in content:
        raise UsageError(f"{where}: is about one model: there is nothing to go on with")
    try:
        command = str(content["command"])
        runs = tuple(_run(_KINDS.get(command, Rewriting), one) for one in content["models"])
        rest = {name: content[name] for name in ("options", "interrupted")}
        remaining, warnings = tuple(content["remaining"]), tuple(content["warnings"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{where}: not a document of several models ({type(error).__name__}: {error})"
        ) from error
    return BatchReport(runs, command, remaining=remaining, warnings=warnings, **rest)


@dataclass(frozen=True)
class SavedTiming:
    """What `bench --json` printed: one latency per backend, of one or two named models."""

    models: tuple[str, ...]
    latencies: tuple[Latency, ...]
    conditions: Mapping[str, str] = field(default_factory=dict)
    """What else is known of the machine, such as its power mode and clocks."""


def read_timing(path: Path) -> SavedTiming:
    """Read a timing that `bench --json` or ``scripts/bench_jetson.sh`` wrote, perhaps elsewhere.

    Raises:
        UsageError: the file cannot be read, or holds no timing.
    """
    content = read_document(path, f"--from {path}", "bench --json")
    try:
        latencies: tuple[Latency, ...] = tuple(_of_kind(Latency, one) for one in content["latency"])
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


def _run(kind: type, row: Mapping[str, Any]) -> ModelRun:
    result = None if row["model"] is None else _of_kind(kind, row)
    seconds = float(row["seconds"])
    return ModelRun(row["path"], row["status"], seconds, result, row["message"])


def _of_kind(kind: type, data: Mapping[str, Any]) -> Any:
    """Make an object of a dataclass of `results` from its keys in a document."""
    unread = types.SimpleNamespace(ModelProto=object)  # no document holds a model
    hints = get_type_hints(kind, localns={"onnx": unread})
    given: dict[str, Any] = {}
    for one in fields(kind):
        key = "model" if one.name == "source" else one.name
        if one.name == "compiled":
            given["compiled"] = _compilation(data["compiled"], given["source"])
        elif key in data and (kind, one.name) != (Rewriting, "model"):
            given[one.name] = _value(hints[one.name], data[key])
    return kind(**given)


def _value(kind: Any, data: Any) -> Any:
    """Make a value of a type from JSON."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if data is None:
            return None
        choices = [one for one in inner if one is not type(None)]
        return _value(_fitting(choices, data), data)
    if origin is tuple:
        return tuple(_value(inner[0], one) for one in data)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {name: _value(inner[1], one) for name, one in data.items()}
    if is_dataclass(kind) and isinstance(kind, type):
        return _of_kind(kind, data)
    if kind is float:
        return _NUMBERS[data] if isinstance(data, str) else float(data)
    if origin is Literal and data not in inner:
        raise ValueError(f"{data!r} is none of {', '.join(map(str, inner))}")
    if kind in (bool, int, str) and type(data) is not kind:
        raise ValueError(f"{data!r} is no {kind.__name__}")
    return data


def _fitting(choices: list[Any], data: Any) -> Any:
    """The type of a union that ``data`` has, for a dataclass exactly the keys."""
    for kind in choices:
        if is_dataclass(kind) and {one.name for one in fields(kind)} == set(data):
            return kind
        if type(data) is kind:
            return kind
    return choices[0]


def _compilation(data: Mapping[str, Any] | None, source: ModelInfo) -> Compilation | None:
    if data is None:
        return None
    sides = (
        BuildReport(
            source,
            data["runtime"],
            (),
            tuple(_of_kind(TargetBuild, pair[side]) for pair in data["targets"]),
        )
        for side in ("before", "after")
    )
    return Compilation(*sides)
