"""OpenVINO, tract and MNN: each where it is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import deployconv
from deployconv.cli import main
from deployconv.errors import BackendUnavailable
from deployconv.runtimes import RUNTIMES, get_backend
from tests.build import conv_transpose, integers
from tests.runtimes.cpu_libraries import INSTALLED, NAMES, needs

LAYER = conv_transpose(integers(2, 3, 4, 4), (5, 6), strides=[2, 2], pads=[1] * 4)
MODELS = Path(__file__).parent.parent.parent / "models"


@pytest.mark.parametrize("name", INSTALLED)
def test_a_layer_is_rewritten_compared_and_timed(name: str, tmp_path: Path) -> None:
    result = deployconv.rewrite(LAYER, output=tmp_path / "out.onnx", backend=name)
    assert [site.status for site in result.sites] == ["rewritten"]
    assert result.parity is not None
    assert result.parity.passed
    assert result.parity.backend == name
    assert "compared with onnxruntime" in (result.parity.note or "")
    assert result.latency is not None
    assert result.latency.runtime.split()[0].lower() == name
    assert result.latency.before_ms.median > 0


@pytest.mark.parametrize("name", INSTALLED)
def test_a_model_with_several_inputs_and_outputs(name: str) -> None:
    path = MODELS / "unet_decoder.onnx"
    expected = get_backend("ort").prepare(path)
    rng = np.random.default_rng(0)
    feeds = {
        spec.name: rng.standard_normal([int(size or 0) for size in spec.shape]).astype(np.float32)
        for spec in expected.inputs
    }
    found = get_backend(name).prepare(path, threads=1).run(feeds)
    for key, array in expected.run(feeds).items():
        np.testing.assert_allclose(found[key], array, atol=1e-4)


@pytest.mark.parametrize("name", INSTALLED)
def test_a_dynamic_model_runs_at_several_sizes(name: str) -> None:
    dynamic = conv_transpose(integers(2, 3, 4, 4), ("h", "w"), strides=[2, 2], pads=[1] * 4)
    result = deployconv.rewrite(dynamic, backend=name, bench=False, shape={"x": (1, 2, 5, 7)})
    assert result.parity is not None
    assert result.parity.passed


@pytest.mark.parametrize("name", INSTALLED)
def test_a_run_does_not_change_the_next(name: str) -> None:
    session = get_backend(name).prepare(LAYER.SerializeToString(), threads=1)
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 2, 5, 6)).astype(np.float32)}
    first = session.run(feeds)["y"]
    for _ in range(3):
        session.timed_run(feeds)
    np.testing.assert_array_equal(session.run(feeds)["y"], first)


@pytest.mark.parametrize("name", INSTALLED)
def test_float16_goes_in_and_out(name: str) -> None:
    path = MODELS / "dcgan_fp16.onnx"
    result = deployconv.rewrite(path, backend=name, bench=False)
    assert result.parity is not None
    assert result.parity.passed


@pytest.mark.parametrize("name", INSTALLED)
def test_external_data_is_found(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    layer = onnx.ModelProto()
    layer.CopyFrom(LAYER)  # saving it moves its weights
    onnx.save(layer, path, save_as_external_data=True, size_threshold=0, location="weights.bin")
    feeds = {"x": np.ones((1, 2, 5, 6), np.float32)}
    found = get_backend(name).prepare(path, threads=1).run(feeds)["y"]
    np.testing.assert_allclose(found, get_backend("ort").prepare(path).run(feeds)["y"], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_without_the_library_the_status_is_3_and_one_line_says_why(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent() -> None:
        raise BackendUnavailable(f"backend {name!r} needs {RUNTIMES[name].package}: pip install")

    monkeypatch.setattr("deployconv.runtimes.registry.Runtime.load", lambda row: absent())
    path = tmp_path / "model.onnx"
    onnx.save(LAYER, path)
    for command in (["rewrite"], ["bench"], ["verify", str(path)], ["check"]):
        assert main([*command, str(path), "--backend", name]) == 3
        assert len(capsys.readouterr().err.splitlines()) == 1


@needs("mnn")
def test_mnn_computes_by_winograd_unless_it_is_told_not_to() -> None:
    path = MODELS / "espcn_x3.onnx"
    feeds = {"luminance": np.random.default_rng(0).standard_normal((1, 1, 24, 32))}
    feeds = {"luminance": feeds["luminance"].astype(np.float32)}
    expected = get_backend("ort").prepare(path).run(feeds)["y"]
    found = get_backend("mnn").prepare(path, optimise=False).run(feeds)["y"]
    assert np.abs(found - expected).max() < 1e-5


@needs("mnn")
def test_what_mnn_cannot_convert_is_refused_with_its_last_words() -> None:
    with pytest.raises(BackendUnavailable, match=r"converter failed .*Converted Failed!"):
        get_backend("mnn").prepare(MODELS / "dcgan_int8.onnx")


@needs("tract")
def test_tract_takes_symbols_in_the_shapes_of_tensors() -> None:
    path = MODELS / "dynamic_upsampler.onnx"
    session = get_backend("tract").prepare(path)
    (spec,) = session.inputs
    shape = [
        size if isinstance(size, int) else 1 + 6 * (axis > 0)
        for axis, size in enumerate(spec.shape)
    ]
    feeds = {spec.name: np.ones(shape, np.float32)}
    (found,) = session.run(feeds).values()
    (expected,) = get_backend("ort").prepare(path).run(feeds).values()
    np.testing.assert_allclose(found, expected, atol=1e-4)


@needs("tract")
def test_tract_says_what_it_does_not_know() -> None:
    from deployconv.runtimes.tract import load

    with pytest.raises(BackendUnavailable, match="parse failed: ") as caught:
        load("tract").prepare(b"")
    assert "Stack backtrace" not in str(caught.value)
