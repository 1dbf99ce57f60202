"""tensorrt-rtx in tests: it parses and compiles without a GPU, on the systems that have it.

What it refuses, in which words, and which kernels it makes depend on its version. ``rtx.json``
records that, one row per version. A test that relies on it has the mark `needs_record`, and is
skipped with a version that has no row.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

import deployconv
from deployconv.results import BuildReport, TargetBuild
from tests.build import node, upsampler

PACKAGED = (platform.system(), platform.machine()) == ("Linux", "x86_64")

needs_rtx = pytest.mark.skipif(
    not PACKAGED, reason="tensorrt-rtx is packaged for Linux on x86-64 only"
)

MODELS = Path(__file__).parents[2] / "models"
RECORDS = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class Record:
    """What was seen of one version. A message is a pattern of `words`, beginning with the stage.

    Attributes:
        targets: all targets that it compiles for without their GPU.
        scratch_bytes: memory between layers, by sample model, for sm89.
        kernels: number of kernels for sm89, by sample model, as exported and rewritten.
        kernels_that_dequantize: how many an int8 layer has, as exported and rewritten.
        models: sample models that build only after they were rewritten, and what it says of them.
        models_for_onnxruntime: those that do not parse, as they were quantized for onnxruntime.
        layers: layers that fail, as exported and rewritten, with the message by target. ``all``
            stands for every target without a message of its own.
        misread_pads: layers whose padding it reads otherwise than ONNX states it, and what it
            reads: before and after the image, by axis.
        bias_left_out_on_the_border: whether it leaves out a computed bias where output_padding
            lengthens the output.
    """

    targets: list[str]
    scratch_bytes: Mapping[str, int]
    kernels: Mapping[str, Mapping[str, int]]
    kernels_that_dequantize: Mapping[str, int]
    models: Mapping[str, str]
    models_for_onnxruntime: Mapping[str, str]
    layers: Mapping[str, Mapping[str, Mapping[str, str]]]
    misread_pads: Mapping[str, list[list[int]]]
    bias_left_out_on_the_border: bool

    def fails(self, layer: str, *targets: str, rewritten: bool = False) -> dict[str, str]:
        """Return the messages by target for those of ``targets`` that ``layer`` fails for."""
        said = self.layers.get(layer, {}).get("rewritten" if rewritten else "exported", {})
        found = {target: said.get(target, said.get("all")) for target in targets}
        return {target: message for target, message in found.items() if message is not None}


def read_records() -> dict[str, Record]:
    """Read all records, by version (``major.minor``), the newest last."""
    rows = json.loads(RECORDS.read_text("utf-8"))
    return {version: Record(**rows[version]) for version in sorted(rows, key=_numbers)}


def record_for(version: str | None) -> tuple[Record, str | None]:
    """Return the record of ``version``, and why tests that rely on it are skipped, or None.

    Tests that are skipped, or that fail as nothing is installed (``version`` is None), are listed
    with the newest record.
    """
    records = read_records()
    newest = [*records.values()][-1]
    if version is None:
        return newest, None
    row = ".".join(version.split(".")[:2])
    if row in records:
        return records[row], None
    return newest, (
        f"not run: nothing is recorded for tensorrt_rtx {row}; add a row to tests/runtimes/rtx.json"
    )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _installed() -> str | None:
    try:
        return metadata.version("tensorrt_rtx")
    except metadata.PackageNotFoundError:
        return None


RECORD, _NOT_RUN = record_for(_installed())

needs_record = pytest.mark.skipif(_NOT_RUN is not None, reason=_NOT_RUN or "")


def build(model: ModelProto | Path, *targets: str, **options: Any) -> BuildReport:
    return deployconv.build(model, target=targets or ("sm89",), backend="tensorrt-rtx", **options)


def build_one(model: ModelProto | Path, target: str = "sm89", **options: Any) -> TargetBuild:
    (built,) = build(model, target, **options).targets
    return built


def words(built: TargetBuild) -> str:
    """What TensorRT said, and at which stage."""
    assert built.failure is not None
    return f"{built.failure.name}: {built.failure.reason}"


def assert_fails(report: BuildReport, fails: Mapping[str, str]) -> None:
    """Hold that the model fails for these targets, so worded, and builds for all others."""
    assert {built.target for built in report.targets if not built.builds} == set(fails)
    for built in report.targets:
        if built.target in fails:
            assert re.match(fails[built.target], words(built)), words(built)


def tells(text: str, message: str) -> bool:
    """Whether ``text`` holds what TensorRT says according to ``message``, a recorded one."""
    return re.search(message.partition(": ")[2].removeprefix(".*"), text) is not None


def with_unknown_operator() -> ModelProto:
    """A model that no version parses: its last node, 'odd', is of an operator nobody has."""
    proto = upsampler()
    proto.graph.node[0].output[0] = "h"
    odd = node("NoSuchOperator", ["h"], ["y"], name="odd")
    odd.domain = "nowhere"
    proto.graph.node.append(odd)
    proto.opset_import.add(domain="nowhere", version=1)
    return proto
