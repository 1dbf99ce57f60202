"""``build``: flags reach TensorRT, its verdict reaches the reader and the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployconv.cli import main
from deployconv.cli.parameters import parse_ranges
from deployconv.errors import BackendUnavailable, UsageError
from tests.cli.conftest import FakeApi
from tests.report import samples

DEFAULTS = {
    "target": (),
    "backend": None,
    "shape": {},
    "engine": None,
    "fp16": False,
    "force": False,
}


@pytest.mark.parametrize(
    ("flags", "changed"),
    [
        ([], {}),
        (["--target", "sm86", "--target", "sm89"], {"target": ("sm86", "sm89")}),
        (["--backend", "tensorrt", "--fp16"], {"backend": "tensorrt", "fp16": True}),
        (["--engine", "net.engine", "--force"], {"engine": Path("net.engine"), "force": True}),
        (["--shape", "x:1,8..1,16..4,32"], {"shape": {"x": ((1, 8), (1, 16), (4, 32))}}),
    ],
)
def test_flags(api: FakeApi, flags: list[str], changed: dict[str, object]) -> None:
    assert main(["build", "net.onnx", *flags]) == 0
    assert api.calls == [("build", (Path("net.onnx"),), {**DEFAULTS, **changed})]


def test_a_model_that_builds_for_every_target(
    api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "net.onnx"]) == 0
    captured = capsys.readouterr()
    assert "compile evidence" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_target_that_fails_is_status_1(
    api: FakeApi, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    api.answers["build"] = samples.FAILED_BUILD_REPORT
    assert main(["build", "net.onnx", *flags]) == 1
    captured = capsys.readouterr()
    assert captured.err == (
        "deployconv: error: net.onnx: sm89: parse failed at node up (ConvTranspose): "
        "no negative pads\n"
    )
    if flags:
        targets = json.loads(captured.out)["targets"]
        assert [(built["target"], built["builds"]) for built in targets] == [
            ("sm86", True),
            ("sm89", False),
        ]


def test_without_tensorrt_is_status_3(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.answers["build"] = BackendUnavailable("backend 'tensorrt-rtx': not there: pip install it")
    assert main(["build", "net.onnx", "--target", "sm89"]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


def test_ranges() -> None:
    assert parse_ranges(["a:b:1,2", "x:1,8..1,16..4,32"]) == {
        "a:b": ((1, 2), (1, 2), (1, 2)),
        "x": ((1, 8), (1, 16), (4, 32)),
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["x:1,8..4,32"], "expected NAME:MIN..OPT..MAX, or one shape"),
        (["x:1..2..3..4"], "or one shape"),
        (["x:1,8....4,32"], "whole numbers"),
        (["1,2"], "expected NAME:SIZE"),
        (["x:1", "x:2"], "has a shape already"),
    ],
)
def test_ranges_that_are_none(values: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_ranges(values)
