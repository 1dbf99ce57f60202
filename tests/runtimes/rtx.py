"""tensorrt-rtx in tests: it parses and compiles without a GPU, on the systems that have it."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

import deployconv
from deployconv.results import BuildReport, TargetBuild

PACKAGED = (platform.system(), platform.machine()) == ("Linux", "x86_64")

needs_rtx = pytest.mark.skipif(
    not PACKAGED, reason="tensorrt-rtx is packaged for Linux on x86-64 only"
)

MODELS = Path(__file__).parents[2] / "models"
ALL_TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")


def build(model: ModelProto | Path, *targets: str, **options: Any) -> BuildReport:
    return deployconv.build(model, target=targets or ("sm89",), backend="tensorrt-rtx", **options)


def build_one(model: ModelProto | Path, target: str = "sm89", **options: Any) -> TargetBuild:
    (built,) = build(model, target, **options).targets
    return built


def words(built: TargetBuild) -> str:
    """What TensorRT said, and at which stage."""
    assert built.failure is not None
    return f"{built.failure.name}: {built.failure.reason}"
