"""The way through the worker to an engine and back.

No GPU is at hand where these tests run: a stand-in library computes with the ONNX reference
evaluator, and its names are held against the real one. What the real one does without a GPU
is tested with the real one.
"""

from __future__ import annotations

import ast
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployconv.backends import get_backend
from deployconv.errors import BackendUnavailable, UsageError
from deployconv.options import FeedOptions
from deployconv.proof.latency import measure_latency
from deployconv.proof.parity import check_parity
from tests.backends import tiny
from tests.backends.rtx import needs_rtx
from tests.build import (
    conv_transpose,
    feeds_for,
    graph,
    integers,
    model,
    node,
    run,
    upsampler,
    value,
)

FAKE = Path(__file__).with_name("fake_gpu")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is started here finds the stand-in for TensorRT and its GPU."""
    monkeypatch.syspath_prepend(FAKE)


@pytest.mark.usefixtures("gpu")
class TestOnTheStandIn:
    def test_a_run_gives_what_the_model_computes(self) -> None:
        proto = upsampler()
        feeds = feeds_for(proto)
        backend = get_backend("tensorrt")
        session = backend.prepare(proto.SerializeToString())
        assert backend.runtime == "tensorrt 10.13.fake"
        assert session.provider == "Fake GPU"
        assert [(spec.name, spec.shape) for spec in session.inputs] == [("x", (1, 2, 5, 6))]
        expected, actual = run(proto, feeds), session.run(feeds)
        assert actual.keys() == expected.keys()
        np.testing.assert_array_equal(actual["y"], expected["y"], strict=True)

    @pytest.mark.parametrize(
        ("dtype", "kind"),
        [
            (tiny.FLOAT, "float32"),
            (10, "float16"),
            (tiny.BFLOAT16, "bfloat16"),
            (7, "int64"),
            (9, "bool"),
        ],
    )
    def test_every_type_comes_back_as_it_went(self, dtype: int, kind: str) -> None:
        proto = tiny.unary("Identity", dtype, (3, 2))
        session = get_backend("tensorrt").prepare(proto.SerializeToString())
        (spec,) = session.inputs
        assert spec.dtype.name == kind
        feeds = {"x": np.arange(6).reshape(3, 2).astype(spec.dtype)}
        actual = session.run(feeds)["y"]
        assert actual.dtype == spec.dtype
        assert actual.tolist() == feeds["x"].tolist()

    def test_an_array_of_any_strides_is_taken(self) -> None:
        session = get_backend("tensorrt").prepare(tiny.unary("Identity").SerializeToString())
        turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
        np.testing.assert_array_equal(session.run({"x": turned})["y"], turned)

    def test_dynamic_sizes_are_built_as_they_come(self) -> None:
        proto = upsampler(("h", "w"), batch="n")
        session = get_backend("tensorrt").prepare(proto.SerializeToString())
        for size in (5, 5, 8):
            feeds = feeds_for(proto, size=size)
            np.testing.assert_array_equal(session.run(feeds)["y"], run(proto, feeds)["y"])

    def test_parity_and_latency_of_two_models_in_one_worker(self) -> None:
        model, wrong = upsampler(), upsampler()
        wrong.graph.initializer[0].raw_data = bytes(len(wrong.graph.initializer[0].raw_data))
        pair = model.SerializeToString(), model.SerializeToString()
        assert check_parity(*pair, "tensorrt").passed
        assert not check_parity(pair[0], wrong.SerializeToString(), "tensorrt").passed
        latency = measure_latency(*pair, "tensorrt", FeedOptions(), runs=5)
        assert (latency.provider, latency.runs) == ("Fake GPU", 5)
        assert 0 < latency.before_ms.median < 1000

    def test_the_time_is_the_devices_own(self) -> None:
        proto = tiny.unary("Identity")
        session = get_backend("tensorrt").prepare(proto.SerializeToString())
        feeds = {"x": np.zeros((3, 2), np.float32)}
        measured = [session.timed_run(feeds) for _ in range(3)]
        assert all(isinstance(one, float) and one > 0 for one in measured)

    def test_a_refused_operator_is_named(self) -> None:
        body = graph(
            [node("Refused", ["x"], ["y"], domain="refused")],
            [value("x", tiny.FLOAT, [2])],
            [value("y", tiny.FLOAT, [2])],
        )
        with pytest.raises(BackendUnavailable) as caught:
            get_backend("tensorrt").prepare(model(body, domains=["refused"]).SerializeToString())
        assert str(caught.value) == (
            "backend 'tensorrt': model in memory: parse failed at node wrong (Refused): "
            "No importer registered for op: Refused"
        )

    def test_a_type_without_counterpart_and_a_wrong_input_are_refused(self) -> None:
        backend = get_backend("tensorrt")
        double = backend.prepare(tiny.unary("Identity", tiny.DOUBLE, (2,)).SerializeToString())
        with pytest.raises(BackendUnavailable, match=r"run failed: .*'x' is DOUBLE"):
            double.run({"x": np.zeros(2)})
        single = backend.prepare(tiny.unary("Identity", shape=(2,)).SerializeToString())
        with pytest.raises(BackendUnavailable, match="'x' is float64, the engine takes float32"):
            single.run({"x": np.zeros(2)})
        with pytest.raises(UsageError, match="no such input; it has 'x'"):
            single.run({"z": np.zeros(2, np.float32)})
        assert single.run({"x": np.ones(2, np.float32)})["y"].tolist() == [1, 1]

    def test_a_worker_that_dies_is_an_error_and_the_next_one_starts(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend = get_backend("tensorrt")
        proto = tiny.unary("Identity", shape=(2,)).SerializeToString()
        session = backend.prepare(proto)
        worker: Any = backend._worker  # type: ignore[attr-defined]
        worker._process.kill()
        with pytest.raises(BackendUnavailable, match=r"model in memory: .*SIGKILL"):
            session.run({"x": np.ones(2, np.float32)})
        again = backend.prepare(proto)
        assert again.run({"x": np.ones(2, np.float32)})["y"].tolist() == [1, 1]

    def test_the_worker_goes_with_its_backend(self) -> None:
        backend = get_backend("tensorrt")
        session = backend.prepare(tiny.unary("Identity", shape=(2,)).SerializeToString())
        process = backend._worker._process  # type: ignore[attr-defined]
        assert process.poll() is None
        del backend, session
        gc.collect()
        assert process.poll() is not None


@needs_rtx
class TestWithoutAGpu:
    def test_what_builds_is_told_and_not_run(self) -> None:
        backend = get_backend("tensorrt-rtx")
        assert backend.name == "tensorrt-rtx"
        with pytest.raises(BackendUnavailable) as caught:
            backend.prepare(upsampler().SerializeToString())
        assert caught.value.status == 3
        assert "builds for sm89, but deserialize: not run - no CUDA driver" in str(caught.value)

    def test_what_does_not_build_is_told_as_well(self) -> None:
        proto = conv_transpose(integers(2, 3, 3, 3), (5, 5), strides=[2, 2], dilations=[2, 2])
        with pytest.raises(
            BackendUnavailable, match=r"\(for sm89\): build failed: .*Strided & Dil"
        ):
            get_backend("tensorrt-rtx").prepare(proto.SerializeToString())

    def test_threads_are_not_for_a_gpu(self) -> None:
        with pytest.raises(UsageError, match=r"--threads 2: .* leave it out"):
            get_backend("tensorrt-rtx").prepare(upsampler().SerializeToString(), threads=2)

    def test_the_stand_in_knows_no_name_that_the_real_library_lacks(self) -> None:
        import tensorrt_rtx

        only_in_tensorrt_10 = {"EXPLICIT_BATCH", "FP16", "DOUBLE", "Severity"}
        known = {*vars(tensorrt_rtx.ILogger)}
        tree = ast.parse((FAKE / "tensorrt" / "__init__.py").read_text())
        for statement in tree.body:
            if not isinstance(statement, ast.ClassDef) or statement.name.startswith("_"):
                continue
            if statement.name in only_in_tensorrt_10 | known:
                continue
            real = getattr(tensorrt_rtx, statement.name)
            for name in _members(statement) - only_in_tensorrt_10:
                assert hasattr(real, name), f"{statement.name}.{name}"
        assert {"FLOAT", "HALF", "BF16", "INT8", "INT32", "INT64", "BOOL", "UINT8"} <= set(
            tensorrt_rtx.DataType.__members__
        )


def _members(statement: ast.ClassDef) -> set[str]:
    """Public methods and attributes that a class body defines."""
    names = set()
    for inner in statement.body:
        if isinstance(inner, ast.FunctionDef):
            names.add(inner.name)
        elif isinstance(inner, ast.Assign):
            names |= {target.id for target in inner.targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}
