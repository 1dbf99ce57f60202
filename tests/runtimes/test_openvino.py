"""What only OpenVINO does; `test_cpu_libraries` has what it shares with others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import deployconv
from deployconv.errors import BackendUnavailable, UsageError
from deployconv.runtimes import get_backend
from tests.build import FLOAT, conv_transpose, graph, integers, model, node, value
from tests.runtimes.cpu_libraries import needs

pytestmark = needs("openvino")

BFLOAT16 = onnx.TensorProto.BFLOAT16
MODELS = Path(__file__).parent.parent.parent / "models"


def layer(*spatial: Any, **attributes: Any) -> onnx.ModelProto:
    attributes = {"strides": [2, 2], "pads": [1] * 4, **attributes}
    return conv_transpose(integers(2, 3, 4, 4), spatial or (5, 6), **attributes)


def test_the_report_says_that_it_runs_in_float32() -> None:
    session = get_backend("openvino").prepare(layer().SerializeToString(), threads=1)
    assert session.provider == "CPU in f32"
    assert session.threads == 1


def test_a_quantized_model_says_which_integers_it_runs_in() -> None:
    session = get_backend("openvino").prepare(MODELS / "unet_decoder_int8.onnx", threads=1)
    assert session.provider == "CPU in f32 and u8"


@pytest.mark.parametrize("name", ["unet_decoder_int8", "upsampler_int8"])
def test_a_quantized_model_is_held_against_onnxruntime(name: str) -> None:
    result = deployconv.rewrite(MODELS / f"{name}.onnx", backend="openvino", bench=False)
    assert result.parity is not None
    assert result.parity.passed


def test_threads_have_to_be_positive() -> None:
    with pytest.raises(UsageError, match="--threads 0"):
        get_backend("openvino").prepare(layer().SerializeToString(), threads=0)


def test_an_operator_that_it_does_not_know_is_one_line() -> None:
    strange = model(
        graph(
            [node("Mystery", ["x"], ["y"], domain="nobody")],
            [value("x", FLOAT, (1, 2))],
            [value("y", FLOAT, (1, 2))],
        ),
        domains=["nobody"],
    )
    with pytest.raises(BackendUnavailable, match="cannot load the model: ") as caught:
        get_backend("openvino").prepare(strange.SerializeToString())
    message = str(caught.value)
    assert "Mystery" in message
    assert "\n" not in message
    assert ".cpp" not in message


def test_one_session_runs_any_size() -> None:
    dynamic = layer("h", "w").SerializeToString()
    session = get_backend("openvino").prepare(dynamic)
    expected = get_backend("ort").prepare(dynamic)
    for size in (5, 6), (9, 3), (1, 1):
        feeds = {"x": np.random.default_rng(0).standard_normal((1, 2, *size)).astype(np.float32)}
        np.testing.assert_allclose(
            session.run(feeds)["y"], expected.run(feeds)["y"], rtol=1e-5, atol=1e-5
        )


def test_bfloat16_goes_in_and_out() -> None:
    import ml_dtypes

    body = graph(
        [node("Add", ["x", "x"], ["y"])],
        [value("x", BFLOAT16, (2, 3))],
        [value("y", BFLOAT16, (2, 3))],
    )
    session = get_backend("openvino").prepare(model(body).SerializeToString())
    given = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
    found = session.run({"x": given})["y"]
    assert found.dtype == given.dtype
    np.testing.assert_array_equal(found.astype(np.float32), 2 * given.astype(np.float32))


def test_its_import_reports_nothing_to_anyone() -> None:
    code = (
        "import sys; from deployconv.runtimes import get_backend; get_backend('openvino');"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_peak_memory_is_measured() -> None:
    from deployconv.runtimes.peak_memory import peak_memory

    feeds = {"luminance": np.zeros((1, 1, 24, 32), np.float32)}
    peak = peak_memory(MODELS / "fsrcnn_x3.onnx", feeds, 1, "openvino")
    assert peak is not None
    assert peak > 0
