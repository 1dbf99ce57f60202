"""Rewrite and prove every model of some folders in memory, as a gate for CI."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from deployconv.errors import BackendUnavailable, CheckFailed, DeployconvError, UsageError
from deployconv.results import CheckReport, ModelCheck, Rewriting, Verdict


def check_models(
    files: Iterable[Path],
    rewrite: Callable[[Path], Rewriting],
    on_result: Callable[[ModelCheck], None] | None = None,
) -> CheckReport:
    """Rewrite and check every model.

    Args:
        files: the model files.
        rewrite: rewrites and checks one model; raises if that fails.
        on_result: called with each verdict as it is known.
    """
    checks = []
    for path in files:
        checked = _check(path, rewrite)
        checks.append(checked)
        if on_result is not None:
            on_result(checked)
    return CheckReport(tuple(checks))


def _check(path: Path, rewrite: Callable[[Path], Rewriting]) -> ModelCheck:
    """Rewrite one model and turn the outcome into a verdict."""
    start = time.perf_counter()
    result: Rewriting | None = None
    message: str | None = None
    status: Verdict = "passed"
    try:
        result = rewrite(path)
    except CheckFailed as failure:
        status, result, message = "failed", failure.result, str(failure)
    except BackendUnavailable as missing:
        status, message = "not-run", str(missing)
    except DeployconvError as error:
        status, message = "error", str(error)
    return ModelCheck(str(path), status, time.perf_counter() - start, result, message)


def model_files(paths: Iterable[str | Path]) -> tuple[Path, ...]:
    """The files among ``paths``, and the models below the folders, sorted by path.

    Raises UsageError if a path does not exist, or a folder holds no model.
    """
    return tuple(_model_files(paths))


def _model_files(paths: Iterable[str | Path]) -> Iterator[Path]:
    for path in map(Path, paths):
        if not path.is_dir():
            if not path.exists():
                raise UsageError(f"{path}: no such file or folder: check the path")
            yield path
            continue
        found = sorted(
            file for file in path.rglob("*.onnx") if not file.name.endswith(".deploy.onnx")
        )
        if not found:
            raise UsageError(f"{path}: holds no .onnx file: name a model or another folder")
        yield from found
