from __future__ import annotations

import pytest

from deployconv.results import StageResult
from deployconv.runtimes.tensorrt.protocol import Done, Event, Stage, Unavailable, decode, encode

FAILED = StageResult("build", "failed", 0.25, "no\nsuch luck", node="up", operator="ConvTranspose")


@pytest.mark.parametrize(
    "event",
    [Stage(FAILED), Done({"engine_bytes": 3, "kernels": None}), Unavailable("no CUDA driver")],
)
def test_an_event_is_one_line_and_comes_back(event: Event) -> None:
    line = encode(event)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line) == event


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[TRT] [I] building",
        b"\xff\xfe",
        b"7",
        b"[]",
        b"{}",
        b'{"Stage": {}}',
        b'{"Stage": {"result": {"name": "parse"}}}',
        b'{"Stage": {"result": {"name": "guess", "status": "ok"}}}',
        b'{"Stage": {"result": {"name": "parse", "status": "fine"}}}',
        b'{"Done": {"value": 7}}',
        b'{"Done": {"value": {}}, "Stage": {}}',
        b'{"Other": {}}',
    ],
)
def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"not an event|not a stage|Expecting|to unpack"):
        decode(line)
