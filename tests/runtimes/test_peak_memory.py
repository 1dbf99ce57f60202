"""The peak memory of a model, measured in a process of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from deployconv.runtimes import peak_memory as measured
from deployconv.runtimes.peak_memory import high_water, peak_memory
from tests.build import conv_transpose, integers

MEGABYTE = 1 << 20


def saved(folder: Path, size: int) -> tuple[Path, dict[str, np.ndarray]]:
    """A layer that makes an image of 8 channels twice as large as its input."""
    path = folder / f"{size}.onnx"
    onnx.save(conv_transpose(integers(2, 8, 2, 2), (size, size), strides=[2, 2]), path)
    return path, {"x": integers(1, 2, size, size)}


def test_a_larger_image_takes_more(tmp_path: Path) -> None:
    """The image that is made, and the columns that it is made of, 8 MiB each."""
    small = peak_memory(*saved(tmp_path, 8), threads=1)
    large = peak_memory(*saved(tmp_path, 256), threads=1)
    assert small is not None
    assert large is not None
    assert 0 < small < large - 14 * MEGABYTE


def test_an_input_may_have_any_name(tmp_path: Path) -> None:
    proto = conv_transpose(integers(2, 8, 2, 2), (4, 4), strides=[2, 2])
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "file"
    onnx.save(proto, tmp_path / "model.onnx")
    assert peak_memory(tmp_path / "model.onnx", {"file": integers(1, 2, 4, 4)}, threads=1)


def test_what_does_not_run_has_none(tmp_path: Path) -> None:
    path, _ = saved(tmp_path, 8)
    assert peak_memory(path, {"other": integers(1)}, threads=1) is None
    assert peak_memory(tmp_path / "missing.onnx", {"x": integers(1)}, threads=1) is None


def test_without_a_process_memory_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured.sys, "executable", str(tmp_path / "missing"))
    assert peak_memory(*saved(tmp_path, 8), threads=1) is None


def test_what_was_freed_counts() -> None:
    array = np.ones(32 * MEGABYTE)
    size = array.nbytes
    del array
    assert high_water() > size
