"""What the upsampling layers of a model take, and what follows from that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from bench.floor import Floor, Rates
from bench.share import Share, limit, moving_part, upsampling_share
from bench.subjects import MODELS
from bench.work import Work

import deployconv
from tests.build import FLOAT, graph, model, node, upsampler, value

RATES = Rates(threads=1, matmul=100.0, conv=0.5, bytes={1: 1.0})
WORK = Work(macs=1000, needed=0, moved=0)
FLOOR = Floor(WORK, WORK, macs=700, multiply_ms=7.0, copy_ms=0.0, ms=7.0)


def test_the_layers_that_stay_and_the_fewest_multiplications_of_the_others() -> None:
    """Half of 20 ms stays; 400 multiplications are left of 700, which take 4 ms."""
    assert limit(Share(0.5, macs=700), FLOOR, RATES, before_ms=20.0) == pytest.approx(20 / 14)


def test_a_layer_cannot_need_longer_than_it_took() -> None:
    assert limit(Share(0.5, macs=10_000), FLOOR, RATES, before_ms=20.0) == pytest.approx(1.0)


def test_where_multiplications_are_not_known_the_layers_may_take_nothing() -> None:
    assert limit(Share(0.5, macs=None), FLOOR, RATES, before_ms=20.0) == pytest.approx(2.0)
    unknown = replace(FLOOR, before=Work(None, 0, None))
    assert limit(Share(0.5, macs=700), unknown, RATES, before_ms=20.0) == pytest.approx(2.0)


@pytest.mark.parametrize(
    "name", ["text_detector_head", "subpixel_zero_insertion", "if_branch", "vae_block"]
)
def test_the_layers_are_found_as_onnxruntime_calls_them(name: str) -> None:
    """Transposed, in blocks with an activation, in branches, in blocks behind a Resize."""
    found = upsampling_share(MODELS / f"{name}.onnx", {}, threads=1)
    assert 0 < found.time < 1
    assert found.macs


def test_a_model_of_one_layer(tmp_path: Path) -> None:
    onnx.save(upsampler((64, 64)), tmp_path / "net.onnx")
    found = upsampling_share(tmp_path / "net.onnx", {}, threads=1)
    assert found == Share(time=1.0, macs=2 * 64 * 64 * 3 * 16)


def test_a_model_without_one(tmp_path: Path) -> None:
    body = graph(
        [node("Relu", ["x"], ["y"], name="relu")],
        [value("x", FLOAT, [2, 3])],
        [value("y", FLOAT, [2, 3])],
    )
    onnx.save(model(body), tmp_path / "net.onnx")
    assert upsampling_share(tmp_path / "net.onnx", {}, threads=1) == Share(time=0.0, macs=0)


def test_what_a_rewrite_moves(tmp_path: Path) -> None:
    """A shuffle and a crop behind the Conv; nothing where nothing is rewritten."""
    path, output = tmp_path / "net.onnx", tmp_path / "out.onnx"
    onnx.save(upsampler((64, 64)), path)
    deployconv.rewrite(path, output=output, bench=False)
    assert 0 < moving_part(path, output, {}, threads=1) < 1
    assert moving_part(path, path, {}, threads=1) == 0.0


def test_what_the_original_moves_does_not_count(tmp_path: Path) -> None:
    body = graph(
        [node("DepthToSpace", ["x"], ["y"], name="shuffle", blocksize=2)],
        [value("x", FLOAT, [1, 8, 64, 64])],
        [value("y", FLOAT, [1, 2, 128, 128])],
    )
    onnx.save(model(body), tmp_path / "net.onnx")
    assert moving_part(tmp_path / "net.onnx", tmp_path / "net.onnx", {}, threads=1) == 0.0
