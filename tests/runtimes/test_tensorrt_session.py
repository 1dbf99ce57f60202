"""Running models through the worker process, on a stand-in for TensorRT and its GPU.

These tests need no GPU: the stand-in library computes with the ONNX reference evaluator, and its
names are compared with those of the real library. What the real library does without a GPU is
tested with the real one.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

import deployconv
from deployconv.cli import main
from deployconv.errors import BackendUnavailable, ModelError, UsageError
from deployconv.options import FeedOptions
from deployconv.proof import parity as parity_module
from deployconv.proof.compare import RTOL
from deployconv.proof.latency import measure_latency
from deployconv.proof.parity import check_parity
from deployconv.results import LayerTime, Quantiles
from deployconv.runtimes import get_backend
from deployconv.runtimes.tensorrt.execution import make_profiler
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
from tests.runtimes import tiny
from tests.runtimes.rtx import RECORD, needs_record, needs_rtx, tells, with_unknown_operator

FAKE = Path(__file__).with_name("fake_gpu")
FAKE_RTX = Path(__file__).with_name("fake_rtx")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A worker that is started here finds the stand-ins for both libraries and their GPU.

    Returns the folder of the caches.
    """
    monkeypatch.syspath_prepend(FAKE)
    monkeypatch.syspath_prepend(FAKE_RTX)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache" / "deployconv" / "tensorrt"


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
        worker: Any = backend.worker._worker  # type: ignore[attr-defined]
        worker._process.kill()
        with pytest.raises(BackendUnavailable, match=r"model in memory: .*SIGKILL"):
            session.run({"x": np.ones(2, np.float32)})
        again = backend.prepare(proto)
        assert again.run({"x": np.ones(2, np.float32)})["y"].tolist() == [1, 1]

    @pytest.mark.parametrize("bound", [False, True])
    def test_after_a_crash_a_session_never_gives_the_results_of_another(self, bound: bool) -> None:
        backend: Any = get_backend("tensorrt")
        negative = backend.prepare(tiny.unary("Neg", shape=(2,)).SerializeToString())
        feeds = {"x": np.ones(2, np.float32)}
        if bound:
            assert negative.run(feeds)["y"].tolist() == [-1, -1]
        backend.worker._worker._process.kill()
        with pytest.raises(BackendUnavailable, match="SIGKILL"):
            negative.run(feeds)
        same = backend.prepare(tiny.unary("Identity", shape=(2,)).SerializeToString())
        assert same.run(feeds)["y"].tolist() == [1, 1]
        assert negative.run(feeds)["y"].tolist() == [-1, -1]
        assert same.run(feeds)["y"].tolist() == [1, 1]

    def test_after_a_crash_a_session_of_dynamic_sizes_is_built_again(self) -> None:
        backend: Any = get_backend("tensorrt")
        proto = upsampler(("h", "w"))
        session = backend.prepare(proto.SerializeToString())
        feeds = feeds_for(proto, size=5)
        session.run(feeds)
        backend.worker._worker._process.kill()
        with pytest.raises(BackendUnavailable, match="SIGKILL"):
            session.timed_run(feeds)
        np.testing.assert_array_equal(session.run(feeds)["y"], run(proto, feeds)["y"])

    def test_the_worker_goes_with_its_backend(self) -> None:
        backend = get_backend("tensorrt")
        session = backend.prepare(tiny.unary("Identity", shape=(2,)).SerializeToString())
        process = backend.worker._worker._process  # type: ignore[attr-defined]
        assert process.poll() is None
        del backend, session
        gc.collect()
        assert process.poll() is not None


@pytest.mark.usefixtures("gpu")
class TestParityOnTheStandIn:
    """onnxruntime runs the reference, whatever TensorRT would compute for it."""

    def test_a_layer_that_only_builds_rewritten_is_proved_and_not_timed(self) -> None:
        model = conv_transpose(integers(2, 3, 3, 3), (5, 6), strides=[2, 2], dilations=[2, 2])
        done = deployconv.rewrite(model, backend="tensorrt")
        assert done.parity is not None
        assert (done.parity.backend, done.parity.passed) == ("tensorrt", True)
        assert (done.parity.note or "").startswith("compared with onnxruntime 1.")
        assert done.latency is None
        (step,) = done.not_run
        assert step.step == "latency"
        assert "build failed: Strided & Dilated Deconv" in step.reason

    def test_a_misread_model_differs_and_the_rewritten_does_not(self) -> None:
        same = {"auto_pad": "SAME_UPPER", "output_padding": [1, 1]}
        model = conv_transpose(integers(2, 3, 3, 3), (5, 6), strides=[2, 2], **same)
        assert not check_parity(*[model.SerializeToString()] * 2, "tensorrt").passed
        done = deployconv.rewrite(model, backend="tensorrt", bench=False)
        assert done.parity is not None
        assert done.parity.passed

    def test_what_neither_side_runs_is_no_matter_of_the_rewrite(self) -> None:
        model = conv_transpose(integers(2, 3, 3, 3), (5, 6), strides=[2, 2], dilations=[2, 2])
        blob = model.SerializeToString()
        with pytest.raises(BackendUnavailable, match="Strided & Dilated Deconv") as caught:
            check_parity(blob, blob, "tensorrt")
        assert caught.value.status == 3

    def test_a_candidate_alone_that_does_not_build_is_a_failed_check(self) -> None:
        good = conv_transpose(integers(2, 3, 3, 3), (5, 6), strides=[2, 2])
        bad = conv_transpose(integers(2, 3, 3, 3), (5, 6), strides=[2, 2], dilations=[2, 2])
        parity = check_parity(good.SerializeToString(), bad.SerializeToString(), "tensorrt")
        assert not parity.passed
        assert "does not run where the reference does" in (parity.outputs[0].problem or "")

    def test_bfloat16_runs_as_such_beside_a_float32_twin(self) -> None:
        model = tiny.unary("Neg", tiny.BFLOAT16, (3, 2))
        blob = model.SerializeToString()
        parity = check_parity(blob, blob, "tensorrt")
        assert parity.passed
        assert "compared as float32 twins" in (parity.note or "")
        magnitude = parity.outputs[0].tolerance / RTOL["bfloat16"]
        assert 0.1 < magnitude < 10

    def test_without_onnxruntime_the_original_on_tensorrt_has_to_do(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = parity_module.get_backend

        def only_tensorrt(name: str) -> Any:
            if name == "ort":
                raise BackendUnavailable("onnxruntime is not there")
            return real(name)

        monkeypatch.setattr(parity_module, "get_backend", only_tensorrt)
        parity = check_parity(*[upsampler().SerializeToString()] * 2, "tensorrt")
        assert parity.passed
        assert parity.note is None


@pytest.mark.usefixtures("gpu")
class TestBuildingOnTheStandIn:
    """What TensorRT 10 is told: the stand-in's engine holds its flags and shapes."""

    def test_float16_is_the_builders_choice_on_a_weakly_typed_network(self, tmp_path: Path) -> None:
        typed, free = self.built(tmp_path, fp16=False), self.built(tmp_path, fp16=True)
        assert typed["network"] == 1 << 0 | 1 << 1  # EXPLICIT_BATCH, STRONGLY_TYPED
        assert free["network"] == 1 << 0
        assert free["builder"] == typed["builder"] | 1 << 0  # FP16; TensorFloat-32 as it was
        assert typed["builder"] == 1 << 6

    def test_a_range_of_shapes_is_one_profile(self, tmp_path: Path) -> None:
        corners = (1, 2, 4, 4), (2, 2, 8, 9), (4, 2, 32, 32)
        proto = upsampler(("h", "w"), batch="n")
        place = tmp_path / "net.engine"
        report = deployconv.build(proto, backend="tensorrt", shape={"x": corners}, engine=place)
        assert report.builds
        _, shapes, _ = pickle.loads(place.read_bytes())
        assert shapes == {"x": corners}
        assert report.targets[0].stage("deserialize").status == "ok"

    def test_a_target_cannot_be_named(self) -> None:
        with pytest.raises(BackendUnavailable, match="compiles for the GPU of its machine only"):
            deployconv.build(upsampler(), backend="tensorrt", target="sm89")

    def test_the_command_takes_range_and_flag(self, tmp_path: Path) -> None:
        path, place = tmp_path / "net.onnx", tmp_path / "net.engine"
        onnx.save(upsampler(("h", "w")), path)
        flags = ["--shape", "x:1,2,4,4..1,2,8,9..1,2,32,32", "--fp16", "--engine", str(place)]
        assert main(["build", str(path), "--backend", "tensorrt", *flags]) == 0
        _, shapes, settings = pickle.loads(place.read_bytes())
        assert shapes == {"x": ((1, 2, 4, 4), (1, 2, 8, 9), (1, 2, 32, 32))}
        assert settings["builder"] & 1

    @staticmethod
    def built(folder: Path, **options: Any) -> dict[str, int]:
        place = folder / "net.engine"
        deployconv.build(upsampler(), backend="tensorrt", engine=place, force=True, **options)
        settings: dict[str, int] = pickle.loads(place.read_bytes())[2]
        return settings


@pytest.mark.usefixtures("gpu")
class TestGraphsAndProfiles:
    @pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
    def test_a_captured_graph_is_what_is_timed(self, name: str) -> None:
        blob = upsampler().SerializeToString()
        latency = measure_latency(blob, blob, name, runs=3, cuda_graph=True)
        # What a launch takes on the stand-in.
        assert latency.before_ms == latency.after_ms == Quantiles(0.125, 0.125)
        assert latency.cuda_graph
        plain = measure_latency(blob, None, name, runs=3)
        assert plain.before_ms.median != 0.125
        assert not plain.cuda_graph

    def test_a_graph_is_captured_anew_for_other_inputs(self) -> None:
        session: Any = get_backend("tensorrt").prepare(upsampler().SerializeToString())
        session.cuda_graph = True
        for seed in (2, 3):
            feeds = feeds_for(upsampler(), seed=seed)
            assert session.timed_run(feeds) == session.timed_run(feeds) == 0.125
            np.testing.assert_array_equal(session.run(feeds)["y"], run(upsampler(), feeds)["y"])

    def test_a_graph_that_cannot_be_captured_is_told(self) -> None:
        proto = tiny.unary("Identity", shape=(2,))
        proto.graph.name = "cannot be captured"
        session: Any = get_backend("tensorrt").prepare(proto.SerializeToString())
        session.cuda_graph = True
        feeds = {"x": np.ones(2, np.float32)}
        with pytest.raises(BackendUnavailable, match="run failed: the engine did not run"):
            session.timed_run(feeds)
        session.cuda_graph = False
        assert session.timed_run(feeds) >= 0

    def test_layers_come_with_their_nodes(self) -> None:
        session: Any = get_backend("tensorrt").prepare(with_relu_after().SerializeToString())
        feeds = feeds_for(with_relu_after())
        assert session.profile(feeds, 4) == (
            LayerTime("up + relu", 1.0, ("up", "relu")),
            LayerTime("node_of_y", 2.0, ("node_of_y",)),
        )
        # The profiler is gone again, and the results are what they were.
        np.testing.assert_array_equal(session.run(feeds)["y"], run(with_relu_after(), feeds)["y"])

    def test_a_profile_is_grouped_by_site(self) -> None:
        before = with_relu_after()
        after = deployconv.rewrite(before, bench=False).model
        assert after is not None
        pair = before.SerializeToString(), after.SerializeToString()
        latency = measure_latency(*pair, "tensorrt", runs=2, profile=True)
        first, second = latency.profiles
        assert [(one.sites, one.ms, len(one.layers)) for one in first.sites] == [
            (("main/up",), 1.0, 1),
            ((), 2.0, 1),
        ]
        # Conv, DepthToSpace and Slice with the Relu after it, in the name of the original site.
        assert [(one.sites, len(one.layers)) for one in second.sites] == [
            (("main/up",), 3),
            ((), 1),
        ]

    @pytest.mark.parametrize("option", ["profile", "cuda_graph"])
    def test_onnxruntime_has_neither(self, option: str) -> None:
        blob = upsampler().SerializeToString()
        with pytest.raises(UsageError, match=r"--\S+: backend 'ort' .* use --backend tensorrt or"):
            measure_latency(blob, None, "ort", **{option: True})  # type: ignore[arg-type]


class TestCaches:
    """A sound cache saves time; a damaged one has no effect."""

    def test_timings_are_kept_and_used(self, gpu: Path) -> None:
        assert self.kept("tensorrt", gpu) == b"|built"
        assert self.kept("tensorrt", gpu) == b"|built|built"

    def test_compiled_kernels_are_kept_and_used(self, gpu: Path) -> None:
        assert self.kept("tensorrt-rtx", gpu) == b"|compiled"
        assert self.kept("tensorrt-rtx", gpu) == b"|compiled|compiled"

    @pytest.mark.parametrize(
        ("name", "first"), [("tensorrt", b"|built"), ("tensorrt-rtx", b"|compiled")]
    )
    @pytest.mark.parametrize("content", [b"", b"garbage", b"x" * 100, None, b"of another GPU"])
    def test_what_is_damaged_or_foreign_is_not_used(
        self, gpu: Path, name: str, first: bytes, content: bytes | None
    ) -> None:
        self.kept(name, gpu)
        (file,) = gpu.glob("*.cache")
        if content is None:
            file.write_bytes(file.read_bytes()[:-1])
        elif content.startswith(b"of another"):  # sound, but the library refuses it
            file.write_bytes(hashlib.sha256(content).digest() + content)
        else:
            file.write_bytes(content)
        assert self.kept(name, gpu) == first

    def test_a_folder_that_cannot_be_written_is_no_error(self, gpu: Path) -> None:
        gpu.parent.mkdir(parents=True)
        gpu.write_bytes(b"a file where the folder would be")
        session = get_backend("tensorrt").prepare(upsampler().SerializeToString())
        feeds = feeds_for(upsampler())
        np.testing.assert_array_equal(session.run(feeds)["y"], run(upsampler(), feeds)["y"])

    @staticmethod
    def kept(name: str, folder: Path) -> bytes:
        """Build and run in a process of its own; returns the content of the only cache file."""
        proto = upsampler()
        feeds = feeds_for(proto)
        session = get_backend(name).prepare(proto.SerializeToString())
        np.testing.assert_array_equal(session.run(feeds)["y"], run(proto, feeds)["y"])
        (file,) = folder.iterdir()
        assert "Fake_GPU-sm87" in file.name
        content = file.read_bytes()
        assert hashlib.sha256(content[32:]).digest() == content[:32]
        return content[32:]


def with_relu_after() -> ModelProto:
    """A ConvTranspose, a Relu that is fused to it, and a layer of no site without a name."""
    proto = upsampler()
    proto.graph.node[0].output[0] = "raw"
    proto.graph.node.append(node("Relu", ["raw"], ["cut"], name="relu"))
    proto.graph.node.append(node("Neg", ["cut"], ["y"]))
    return proto


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
        proto = with_unknown_operator()
        with pytest.raises(
            BackendUnavailable, match=r"\(for sm89\): parse failed at node odd .*: ."
        ):
            get_backend("tensorrt-rtx").prepare(proto.SerializeToString())

    @needs_record
    def test_a_layer_that_does_not_compile_is_told_in_the_words_of_the_library(self) -> None:
        (message,) = RECORD.fails("2-D dilation", "sm89").values()
        proto = conv_transpose(integers(2, 3, 3, 3), (5, 5), strides=[2, 2], dilations=[2, 2])
        with pytest.raises(BackendUnavailable, match=r"\(for sm89\): build failed: ") as caught:
            get_backend("tensorrt-rtx").prepare(proto.SerializeToString())
        assert tells(str(caught.value), message)

    def test_what_it_would_take_in_silence_is_refused_before(self) -> None:
        proto = conv_transpose(integers(2, 3, 4, 4), (5, 6), strides=[2, 2], pads=[1, 1])
        with pytest.raises(ModelError, match=r"'up' \(ConvTranspose\) disagrees with itself"):
            get_backend("tensorrt-rtx").prepare(proto.SerializeToString())

    def test_threads_are_not_for_a_gpu(self) -> None:
        with pytest.raises(UsageError, match=r"--threads 2: .* leave it out"):
            get_backend("tensorrt-rtx").prepare(upsampler().SerializeToString(), threads=2)

    def test_the_stand_in_knows_no_name_that_the_real_library_lacks(self) -> None:
        import tensorrt_rtx

        only_in_tensorrt_10 = {"EXPLICIT_BATCH", "FP16", "DOUBLE", "Severity", "SM87"}
        known = {*vars(tensorrt_rtx.ILogger)}
        for statement in _stand_ins():
            if statement.name in only_in_tensorrt_10 | known:
                continue
            real = getattr(tensorrt_rtx, statement.name)
            for name in _members(statement) - only_in_tensorrt_10:
                assert hasattr(real, name), f"{statement.name}.{name}"
        assert {"FLOAT", "HALF", "BF16", "INT8", "INT32", "INT64", "BOOL", "UINT8"} <= set(
            tensorrt_rtx.DataType.__members__
        )

    def test_the_stand_in_takes_the_arguments_of_the_real_library(self) -> None:
        import tensorrt_rtx

        held = set()
        for statement in _stand_ins():
            for method in (one for one in statement.body if isinstance(one, ast.FunctionDef)):
                real = getattr(tensorrt_rtx, statement.name, None)
                documentation = getattr(getattr(real, method.name, None), "__doc__", None) or ""
                stated = _signatures(method.name, documentation)
                given = [argument.arg for argument in method.args.args][1:]
                if stated:
                    held.add(f"{statement.name}.{method.name}")
                    assert given in stated, f"{statement.name}.{method.name}: {stated}"
        assert held >= {
            "Builder.build_serialized_network",
            "EngineInspector.get_engine_information",
            "IBuilderConfig.create_timing_cache",
            "IBuilderConfig.set_timing_cache",
            "ICudaEngine.create_execution_context",
            "IExecutionContext.execute_async_v3",
            "IExecutionContext.set_input_shape",
            "IExecutionContext.set_tensor_address",
            "IOptimizationProfile.set_shape",
            "IProfiler.report_layer_time",
            "IRuntimeCache.deserialize",
            "IRuntimeConfig.set_runtime_cache",
            "OnnxParser.parse_from_file",
            "Runtime.deserialize_cuda_engine",
        }

    def test_the_real_library_takes_what_is_set_without_a_call(self) -> None:
        import tensorrt_rtx

        for owner, name in (
            (tensorrt_rtx.IExecutionContext, "profiler"),
            (tensorrt_rtx.EngineInspector, "execution_context"),
            (tensorrt_rtx.IRuntimeConfig, "dynamic_shapes_kernel_specialization_strategy"),
            (tensorrt_rtx.IBuilderConfig, "profiling_verbosity"),
            (tensorrt_rtx.IBuilderConfig, "builder_optimization_level"),
        ):
            assert getattr(owner, name).fset is not None, name
        assert hasattr(tensorrt_rtx.DynamicShapesKernelSpecializationStrategy, "EAGER")
        assert hasattr(tensorrt_rtx.LayerInformationFormat, "JSON")
        profiler = make_profiler(tensorrt_rtx)
        profiler.report_layer_time("up", 0.5)
        assert profiler.milliseconds == {"up": 0.5}


def _stand_ins() -> Iterator[ast.ClassDef]:
    """The public classes of both stand-ins."""
    for file in (FAKE / "tensorrt" / "__init__.py", FAKE_RTX / "tensorrt_rtx" / "__init__.py"):
        for statement in ast.parse(file.read_text()).body:
            if isinstance(statement, ast.ClassDef) and not statement.name.startswith("_"):
                yield statement


def _signatures(name: str, documentation: str) -> list[list[str]]:
    """The parameters of each overload as pybind11 documents them, without ``self``.

    A parameter with a default may be left out.
    """
    found = []
    for line in re.findall(rf"{name}\(self[^\n]*\) ->", documentation):
        names = re.findall(r"(?:^|[(,] ?)(\w+):", line)[1:]
        found.append(names)
        optional = {one for one in names if re.search(rf"\b{one}: [^,]* = ", line)}
        found.append([one for one in names if one not in optional])
    return found


def _members(statement: ast.ClassDef) -> set[str]:
    """Public methods and attributes that a class body defines."""
    names = set()
    for inner in statement.body:
        if isinstance(inner, ast.FunctionDef):
            names.add(inner.name)
        elif isinstance(inner, ast.Assign):
            names |= {target.id for target in inner.targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}
