"""What is printed about several models can be read back as it was."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from deployconv.errors import UsageError
from deployconv.report import document
from deployconv.report.read_back import SavedTiming, read_batch, read_timing
from deployconv.results import BatchReport, Compilation, ModelRun
from tests.report import samples

COMPILED = replace(
    samples.REWRITING,
    compiled=Compilation(
        replace(samples.BUILD_REPORT, shapes=(), note=None),
        replace(samples.FAILED_BUILD_REPORT, shapes=(), note=None, targets=(samples.NOT_BUILT,)),
    ),
)
RESULTS = {
    "check": (samples.REWRITING, samples.FAILED_REWRITING, samples.FASTEST, samples.PREDICTED),
    "rewrite": (samples.UNPROVED, samples.WITHOUT_SITES, COMPILED),
    "inspect": (samples.INSPECTION, replace(samples.INSPECTION, target="dla", note="")),
    "build": (samples.BUILD_REPORT, samples.FAILED_BUILD_REPORT),
}


@pytest.mark.parametrize("command", RESULTS)
def test_the_same_results(command: str, tmp_path: Path) -> None:
    made = [
        replace(samples.REWRITING, sites=(one,)) if one is samples.PREDICTED else one
        for one in RESULTS[command]
    ]
    runs = [ModelRun(f"{at}.onnx", "passed", 0.5, one) for at, one in enumerate(made)]
    runs.append(ModelRun("broken.onnx", "error", 0.0, None, "not a model"))
    report = BatchReport(
        tuple(runs), command, {"seed": 3}, "SIGTERM", ("last.onnx",), warnings=("one at a time",)
    )
    path = tmp_path / "run.json"
    path.write_text(document.dumps(document.of_batch(report)))
    assert read_batch(path, "--resume") == report


def test_numbers_that_json_cannot_write(tmp_path: Path) -> None:
    parity = replace(samples.FAILED_PARITY, outputs=(samples.NAN_OUTPUT,))
    run = ModelRun("a.onnx", "failed", 1.0, replace(samples.REWRITING, parity=parity))
    path = tmp_path / "run.json"
    path.write_text(document.dumps(document.of_batch(BatchReport((run,)))))
    (read,) = read_batch(path, "--resume").models
    assert repr(read) == repr(run)


BAD: list[tuple[Any, str]] = [
    ("", "is empty: > FILE empties a file before it is read"),
    ("{", "not JSON"),
    ("[]", "schema_version None"),
    ({"schema_version": 2}, "schema_version 2 where 1 is known"),
    (document.of_inspection(samples.INSPECTION), "is about one model"),
    ({"schema_version": 1, "command": "check", "models": [{"path": "a"}]}, "not a document of"),
    ({"schema_version": 1, "command": "check", "models": 3}, "not a document of"),
]


@pytest.mark.parametrize(("content", "words"), BAD)
def test_other_files_are_one_line(content: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UsageError, match=words) as caught:
        read_batch(path, "--resume")
    assert str(caught.value).startswith(f"--resume {path}: ")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_batch(tmp_path / "none.json", "--resume")


ONE = replace(samples.LATENCY, after_ms=None, ratio=None)


@pytest.mark.parametrize(
    ("latencies", "models"),
    [
        ((samples.LATENCY,), ("a.onnx", "b.onnx")),
        ((ONE, ONE), ("a.onnx",)),
        ((samples.PROFILED, samples.LATENCY), ("a.onnx", "b.onnx")),
    ],
)
def test_a_timing_comes_back(
    tmp_path: Path, latencies: tuple[Any, ...], models: tuple[str, ...]
) -> None:
    path = tmp_path / "timing.json"
    path.write_text(document.dumps(document.of_timing(latencies, models)))
    assert read_timing(path) == SavedTiming(models, latencies)


def test_a_file_of_a_version_without_profiles_is_read(tmp_path: Path) -> None:
    content = document.of_timing([samples.LATENCY], ["a", "b"])
    for latency in content["latency"]:
        del latency["profiles"], latency["cuda_graph"]
    path = tmp_path / "timing.json"
    path.write_text(json.dumps(content))
    assert read_timing(path).latencies == (samples.LATENCY,)


def timing(**changed: Any) -> dict[str, Any]:
    return {**document.of_timing([samples.LATENCY], ["a", "b"]), **changed}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(document.of_batch(samples.CHECK_REPORT)), "holds no timing"),
        (json.dumps(timing(models=["a"])), "do not fit together"),
        (json.dumps(timing(latency=[{"backend": "ort"}])), "holds no timing"),
        (json.dumps(timing(latency=[{**asdict(samples.LATENCY), "runs": "30"}])), "'30' is no int"),
        (json.dumps(timing(conditions=[])), "holds no timing"),
        (
            document.dumps(
                document.of_timing(
                    [replace(samples.PROFILED, profiles=(samples.PROFILE,))], ["a", "b"]
                )
            ),
            "do not fit together",
        ),
    ],
)
def test_what_is_no_timing_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "timing.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_timing(path)
    assert "\n" not in str(caught.value)
