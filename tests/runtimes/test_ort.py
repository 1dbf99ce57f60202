"""onnxruntime: sessions, and its errors as one line each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper

from deployconv.errors import BackendUnavailable, DeployconvError, ModelError, UsageError
from deployconv.runtimes import get_backend
from deployconv.runtimes.base import Session
from deployconv.runtimes.machine import usable_cpus
from deployconv.runtimes.ort import clean_message
from deployconv.runtimes.registry import get_runtime
from tests.runtimes.tiny import (
    BFLOAT16,
    DOUBLE,
    FLOAT,
    INT64,
    constant,
    model,
    unary,
    upsampler,
    value,
)


def prepare(proto: ModelProto) -> Session:
    return get_backend("ort").prepare(proto.SerializeToString())


class TestSession:
    def test_runs_and_reports_what_it_is(self) -> None:
        session = get_backend("ort").prepare(unary("Neg").SerializeToString(), threads=1)
        assert (session.provider, session.threads) == ("CPUExecutionProvider", 1)
        (spec,) = session.inputs
        assert (spec.name, spec.dtype, spec.shape) == ("x", np.float32, ("n", 2))
        x = np.array([[1, -2]], np.float32)
        assert session.run({"x": x})["y"].tolist() == [[-1, 2]]

    def test_threads_default_to_the_usable_cpus(self) -> None:
        assert prepare(unary("Neg")).threads == usable_cpus()

    def test_a_file_is_read_with_its_external_data(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        proto = upsampler()
        expected = prepare(proto).run({"x": np.ones((1, 2, 5, 5), np.float32)})
        onnx.save(proto, path, save_as_external_data=True, size_threshold=0, location="w.bin")
        found = get_backend("ort").prepare(path).run({"x": np.ones((1, 2, 5, 5), np.float32)})
        assert np.array_equal(found["y"], expected["y"])

    @pytest.mark.parametrize("shape", [(), (0, 2), (2, 3)])
    def test_bfloat16_goes_in_and_comes_out(self, shape: tuple[int, ...]) -> None:
        session = prepare(unary("Identity", BFLOAT16, None))
        x = np.arange(np.prod(shape)).reshape(shape).astype(ml_dtypes.bfloat16)
        y = session.run({"x": x})["y"]
        assert y.dtype == ml_dtypes.bfloat16
        assert np.array_equal(y, x)
        session.timed_run({"x": x})

    @pytest.mark.parametrize("contiguous", [True, False])
    def test_timed_run_takes_any_memory_order(self, contiguous: bool) -> None:
        x = np.ones((1, 2, 5, 5), np.float32)
        session = prepare(upsampler())
        session.timed_run({"x": x if contiguous else x.transpose(0, 1, 3, 2)})

    def test_timed_run_takes_outputs_whose_size_differs_from_run_to_run(self) -> None:
        nodes = [
            helper.make_node("RandomNormalLike", ["x"], ["r"]),
            helper.make_node("Relu", ["r"], ["p"]),
            helper.make_node("NonZero", ["p"], ["y"]),
        ]
        proto = model(nodes, [value("x", FLOAT, [40])], [value("y", INT64, [1, None])])
        session, feeds = prepare(proto), {"x": np.zeros(40, np.float32)}
        for _ in range(20):
            session.timed_run(feeds)

    def test_a_sequence_comes_out_item_by_item(self) -> None:
        proto = model(
            [helper.make_node("SplitToSequence", ["x"], ["y"])],
            [value("x", FLOAT, [2, 3])],
            [helper.make_tensor_sequence_value_info("y", FLOAT, None)],
        )
        x = np.arange(6, dtype=np.float32).reshape(2, 3)
        session = prepare(proto)
        found = session.run({"x": x})
        assert {name: array.tolist() for name, array in found.items()} == {
            "y[0]": [[0, 1, 2]],
            "y[1]": [[3, 4, 5]],
        }
        session.timed_run({"x": x})

    def test_a_map_comes_out_as_keys_and_values(self) -> None:
        kind = helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, []))
        proto = model(
            [
                helper.make_node(
                    "ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[7, 3]
                )
            ],
            [value("x", FLOAT, [1, 2])],
            [helper.make_value_info("y", helper.make_sequence_type_proto(kind))],
        )
        proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
        found = prepare(proto).run({"x": np.array([[0.5, 2]], np.float32)})
        assert found.keys() == {"y[0][keys]", "y[0][values]"}
        assert dict(zip(found["y[0][keys]"], found["y[0][values]"], strict=True)) == {7: 0.5, 3: 2}
        assert found["y[0][values]"].dtype == np.float32

    def test_optimisation_can_be_switched_off(self) -> None:
        x = {"x": np.ones((1, 2, 5, 5), np.float32)}
        blob = upsampler().SerializeToString()
        on, off = (get_backend("ort").prepare(blob, optimise=flag).run(x) for flag in (True, False))
        np.testing.assert_allclose(on["y"], off["y"], rtol=1e-5)


class TestProviders:
    @pytest.mark.parametrize("name", ["ort:cuda", "ort:tensorrt"])
    def test_a_provider_that_the_build_lacks_is_unavailable(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"]
        )
        with pytest.raises(BackendUnavailable, match=r"has no \w+ExecutionProvider") as caught:
            get_backend(name).prepare(unary("Neg").SerializeToString())
        assert str(caught.value).endswith(get_runtime(name).install)
        assert "pip uninstall onnxruntime, then" in get_runtime(name).install
        assert "[cpu]" not in get_runtime(name).install

    @pytest.mark.skipif(
        "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
        reason="this build has CUDA, so the provider would not be replaced",
    )
    @pytest.mark.filterwarnings("ignore:Specified provider")
    @pytest.mark.parametrize("name", ["ort:cuda", "ort:tensorrt"])
    def test_a_silently_replaced_provider_is_unavailable(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        claimed = [f"{one}ExecutionProvider" for one in ("Tensorrt", "CUDA", "CPU")]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: claimed)
        with pytest.raises(BackendUnavailable, match="silently replaced") as caught:
            get_backend(name).prepare(unary("Neg").SerializeToString())
        assert caught.value.status == 3


def mistyped_output() -> ModelProto:
    proto = unary("Neg")
    proto.graph.output[0].type.tensor_type.elem_type = INT64
    return proto


def short_weight() -> ModelProto:
    proto = upsampler()
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-4]
    return proto


def dangling_input() -> ModelProto:
    proto = unary("Neg")
    proto.graph.node[0].input[0] = "nowhere"
    return proto


def cyclic() -> ModelProto:
    nodes = [helper.make_node("Neg", ["y"], ["a"]), helper.make_node("Neg", ["a"], ["y"])]
    return model(nodes, [value("x", FLOAT, [1])], [value("y", FLOAT, [1])])


def custom_operator() -> ModelProto:
    proto = unary("Neg")
    proto.graph.node[0].domain = "local"
    return proto


def future_ir() -> ModelProto:
    proto = unary("Neg")
    proto.ir_version = 999
    return proto


class TestErrors:
    @pytest.mark.parametrize(
        ("build", "error"),
        [
            (mistyped_output, ModelError),
            (short_weight, ModelError),
            (dangling_input, ModelError),
            (cyclic, ModelError),
            (lambda: unary("NoSuchOperator"), ModelError),
            (custom_operator, BackendUnavailable),
            (future_ir, BackendUnavailable),
            (lambda: upsampler(DOUBLE), BackendUnavailable),
            (lambda: upsampler(BFLOAT16), BackendUnavailable),
        ],
    )
    def test_loading(
        self,
        build: Callable[[], ModelProto],
        error: type[DeployconvError],
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        with pytest.raises(error) as caught:
            prepare(build())
        assert type(caught.value) is error
        assert "\n" not in str(caught.value)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("content", [b"", b"this is no model"])
    def test_a_file_that_is_no_model(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "broken.onnx"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"broken\.onnx"):
            get_backend("ort").prepare(path)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"gone\.onnx"):
            get_backend("ort").prepare(tmp_path / "gone.onnx")

    @pytest.mark.parametrize("threads", [0, -1])
    def test_threads_must_be_positive(self, threads: int) -> None:
        with pytest.raises(UsageError, match="--threads"):
            get_backend("ort").prepare(unary("Neg").SerializeToString(), threads=threads)

    @pytest.mark.parametrize(
        "feeds",
        [
            {},
            {"x": np.ones((1, 2), np.float64)},
            {"x": np.ones(2, np.float32)},
            {"x": np.ones((1, 3), np.float32)},
        ],
        ids=["missing", "dtype", "rank", "size"],
    )
    def test_feeds_that_do_not_fit(self, feeds: dict[str, np.ndarray]) -> None:
        with pytest.raises(UsageError, match="do not fit the model"):
            prepare(unary("Neg")).run(feeds)

    def test_an_operator_that_fails_names_itself(self, capfd: pytest.CaptureFixture[str]) -> None:
        proto = model(
            [helper.make_node("Reshape", ["x", "shape"], ["y"], name="squash")],
            [value("x", FLOAT, ["n"])],
            [value("y", FLOAT, None)],
            [constant("shape", [3, 5], TensorProto.INT64)],
        )
        with pytest.raises(BackendUnavailable, match="Reshape node 'squash'") as caught:
            prepare(proto).run({"x": np.ones(4, np.float32)})
        assert "\n" not in str(caught.value)
        assert "onnxruntime_src" not in str(caught.value)
        assert capfd.readouterr() == ("", "")

    def test_output_padding_that_onnxruntime_refuses(self) -> None:
        proto = upsampler(strides=[1, 1], dilations=[2, 2], output_padding=[1, 1])
        with pytest.raises(BackendUnavailable, match="output_padding"):
            prepare(proto).run({"x": np.ones((1, 2, 5, 5), np.float32)})


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
    assert clean_message(raw) == line


def test_a_very_long_message_is_cut() -> None:
    line = clean_message("word " * 1000)
    assert len(line) == 400
    assert line.endswith("...")
