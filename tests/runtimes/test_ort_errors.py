from __future__ import annotations

import pytest

from deployconv.runtimes.ort_errors import one_line


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (
            "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for X",
            "Could not find an implementation for X",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Reshape "
            "node. Name:'r' Status Message: /onnxruntime_src/core/reshape_helper.h:91 onnxruntime"
            "::ReshapeHelper::ReshapeHelper(const onnxruntime::TensorShape&, bool) a == b was "
            "false. Input shape:{2,2}, requested shape:{3,5}\n",
            "Reshape node 'r': a == b was false. Input shape:{2,2}, requested shape:{3,5}",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : tensorprotoutils.cc:1730 ValidateSize "
            "Initializer 'w': raw_data size (140 bytes) does not match",
            "Initializer 'w': raw_data size (140 bytes) does not match",
        ),
        ("first\n  second\tthird\n", "first second third"),
    ],
    ids=["prefix", "node and signature", "bare function", "white space"],
)
def test_one_line(raw: str, line: str) -> None:
    assert one_line(raw) == line


def test_a_very_long_message_is_cut() -> None:
    line = one_line("word " * 1000)
    assert len(line) == 400
    assert line.endswith("...")
