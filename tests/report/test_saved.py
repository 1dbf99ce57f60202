from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployconv.errors import UsageError
from deployconv.report import document
from deployconv.report.saved import SavedTiming, read_timing
from tests.report import samples

ONE = replace(samples.LATENCY, after_ms=None, ratio=None)


@pytest.mark.parametrize(
    ("latencies", "models"),
    [
        ((samples.LATENCY,), ("a.onnx", "b.onnx")),
        ((ONE, ONE), ("a.onnx",)),
        ((samples.PROFILED, samples.LATENCY), ("a.onnx", "b.onnx")),
    ],
)
def test_what_was_printed_comes_back(
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
        ("", "not JSON"),
        ("[]", "schema_version None where 1 is known"),
        (json.dumps(timing(schema_version=2)), "schema_version 2 where 1 is known"),
        (json.dumps(document.of_check(samples.CHECK_REPORT)), "holds no timing"),
        (json.dumps(timing(models=["a"])), "do not fit together"),
        (json.dumps(timing(latency=[{"backend": "ort"}])), "holds no timing"),
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
def test_anything_else_is_a_usage_error(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "timing.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_timing(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_timing(tmp_path / "absent.json")
