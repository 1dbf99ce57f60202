from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from deployconv.graph.float32_twin import float32_twin
from deployconv.proof.twins import twin_of
from tests.runtimes.tiny import DOUBLE, FLOAT, upsampler


class TestTwinOf:
    def test_a_file_with_external_data(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        expected = float32_twin(upsampler(DOUBLE)).graph.initializer[0].raw_data
        onnx.save(
            upsampler(DOUBLE), path, save_as_external_data=True, size_threshold=0, location="w.bin"
        )
        twin = twin_of(path)
        assert twin is not None
        assert twin.input_dtypes == {"x": np.dtype(np.float64)}
        weight = onnx.load_model_from_string(twin.model).graph.initializer[0]
        assert weight.raw_data == expected

    def test_nothing_to_convert(self) -> None:
        assert twin_of(upsampler(FLOAT).SerializeToString()) is None

    def test_too_large(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        onnx.save(
            upsampler(DOUBLE), path, save_as_external_data=True, size_threshold=0, location="w.bin"
        )
        monkeypatch.setattr("deployconv.proof.twins._LARGEST", path.stat().st_size + 1)
        assert twin_of(path) is None

    def test_unreadable(self, tmp_path: Path) -> None:
        assert twin_of(b"this is no model") is None
        assert twin_of(tmp_path / "gone.onnx") is None
