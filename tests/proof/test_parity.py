from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

from deployconv.errors import BackendUnavailable, ModelError, UsageError
from deployconv.options import FeedOptions
from deployconv.proof import floor, parity
from deployconv.proof.parity import check_parity
from deployconv.results import Parity
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


def check(reference: ModelProto, candidate: ModelProto, feed: FeedOptions | None = None) -> Parity:
    blobs = reference.SerializeToString(), candidate.SerializeToString()
    return check_parity(*blobs, "ort", feed or FeedOptions(), threads=1)


def with_bias(proto: ModelProto, bias: float) -> ModelProto:
    """``proto`` with a bias on its ConvTranspose."""
    dtype = proto.graph.initializer[0].data_type
    proto.graph.initializer.append(constant("b", [bias] * 3, dtype))
    proto.graph.node[0].input.append("b")
    return proto


def test_equal_models_pass() -> None:
    found = check(upsampler(), upsampler())
    assert (found.passed, found.backend, found.note) == (True, "ort", None)
    (output,) = found.outputs
    assert (output.name, output.max_abs, output.passed) == ("y", 0.0, True)
    assert output.tolerance > 0


@pytest.mark.parametrize(
    ("candidate", "passed"),
    [
        (upsampler(scale=1.00001), True),
        (upsampler(scale=1.01), False),
        (with_bias(upsampler(), 1e-6), True),
        (with_bias(upsampler(), 0.1), False),
        (upsampler(strides=[2, 1], pads=[1, 1, 1, 1]), False),
    ],
    ids=["scale 1e-5", "scale 1e-2", "bias 1e-6", "bias 0.1", "shape"],
)
def test_a_perturbed_model(candidate: ModelProto, passed: bool) -> None:
    assert check(upsampler(), candidate).passed is passed


def test_inputs_that_make_a_run_slow_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "LONGEST_RUN", 0.0)
    note = check(upsampler(), upsampler()).note
    assert note is not None
    assert "on invented inputs (x:1,2,5,5): --inputs FILE.npz gives others" in note


def test_files_and_bytes_may_be_mixed(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(upsampler(), path)
    assert check_parity(path, upsampler().SerializeToString()).passed


class TestFeeds:
    def test_chosen_shapes_are_noted(self) -> None:
        dynamic = upsampler(shape=("n", 2, "h", "w"))
        note = check(dynamic, dynamic).note
        assert note == "shapes chosen by deployconv: x:1,2,64,64 (set with --shape)"

    def test_given_shapes_are_used(self) -> None:
        dynamic = upsampler(shape=("n", 2, "h", "w"))
        found = check(dynamic, dynamic, FeedOptions(shapes={"x": (2, 2, 3, 9)}))
        assert (found.passed, found.note) == (True, None)

    def test_a_candidate_with_static_sizes_decides(self) -> None:
        found = check(upsampler(shape=("n", 2, "h", "w")), upsampler())
        assert (found.passed, found.note) == (True, None)

    def test_given_arrays_are_used(self, tmp_path: Path) -> None:
        path = tmp_path / "inputs.npz"
        np.savez(path, x=np.zeros((1, 2, 5, 5), np.float32))
        assert check(upsampler(), upsampler(scale=2.0), FeedOptions(inputs=path)).passed

    def test_a_failure_on_chosen_shapes_says_which(self) -> None:
        fixed = model(
            [helper.make_node("Reshape", ["x", "s"], ["y"])],
            [value("x", FLOAT, ["n", "c"])],
            [value("y", FLOAT, None)],
            [constant("s", [3, 5], INT64)],
        )
        with pytest.raises(BackendUnavailable, match="x:1,64") as caught:
            check(fixed, fixed)
        assert "\n" not in str(caught.value)


class TestCandidate:
    def test_one_that_cannot_be_loaded_fails_the_check(self) -> None:
        broken = upsampler()
        broken.graph.node[0].op_type = "NoSuchOperator"
        found = check(upsampler(), broken)
        assert not found.passed
        assert found.outputs[0].problem is not None
        assert "does not run where the reference does" in found.outputs[0].problem

    def test_one_that_cannot_be_run_fails_the_check(self) -> None:
        shape = ("n", 2, "h", "w")
        refused = upsampler(shape=shape, strides=[1, 1], dilations=[2, 2], output_padding=[1, 1])
        found = check(upsampler(shape=shape), refused)
        assert not found.passed
        assert found.outputs[0].problem is not None
        assert "output_padding" in found.outputs[0].problem

    def test_another_interface_is_a_usage_error(self) -> None:
        with pytest.raises(UsageError, match="do not take the same input 'x'"):
            check(unary("Neg"), unary("Neg", DOUBLE))


class TestReference:
    def test_a_broken_one_is_a_model_error(self) -> None:
        with pytest.raises(ModelError):
            check(unary("NoSuchOperator"), unary("Neg"))

    def test_one_that_the_backend_cannot_run_is_unavailable(self) -> None:
        proto = unary("Neg")
        proto.graph.node[0].domain = "local"
        with pytest.raises(BackendUnavailable, match="local"):
            check(proto, unary("Neg"))

    @pytest.mark.parametrize("name", ["ort:cuda", "tensorrt"])
    def test_another_backend_does_not_stand_in(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
        with pytest.raises(BackendUnavailable, match=name):
            check_parity(b"", b"", name)


class TestTwins:
    @pytest.mark.parametrize("dtype", [BFLOAT16, DOUBLE])
    def test_what_onnxruntime_lacks_is_compared_in_float32(self, dtype: int) -> None:
        found = check(upsampler(dtype), upsampler(dtype))
        assert found.passed
        assert found.note is not None
        assert found.note.startswith("compared as float32 twins, because: ")
        assert "ConvTranspose" in found.note

    def test_a_wrong_twin_fails(self) -> None:
        assert not check(upsampler(BFLOAT16), upsampler(BFLOAT16, scale=1.5)).passed

    def test_arrays_in_the_models_own_type_are_widened(self, tmp_path: Path) -> None:
        path = tmp_path / "inputs.npz"
        np.savez(path, x=np.ones((1, 2, 5, 5), ml_dtypes.bfloat16))
        found = check(upsampler(BFLOAT16), upsampler(BFLOAT16), FeedOptions(inputs=path))
        assert found.passed

    def test_if_the_type_is_not_to_blame_the_first_error_stays(self) -> None:
        proto = upsampler(BFLOAT16)
        proto.graph.node[0].domain = "local"
        with pytest.raises(BackendUnavailable, match="local:ConvTranspose"):
            check(proto, proto)


class TestFloor:
    """How far the reference itself moves; a stand-in session moves as far as a test needs."""

    def moved(
        self,
        monkeypatch: pytest.MonkeyPatch,
        noise: float,
        error: float,
        by: str = "optimisation",
    ) -> Parity:
        """Parity of a reference that gives [1, 1] and a candidate that gives [1, 1 + error].

        The reference itself gives [1, 1 + noise] without optimisation or for another input,
        as ``by`` says.
        """
        real = parity.get_backend("ort")

        class Moving:
            name, runtime = real.name, real.runtime

            def prepare(
                self, source: Any, *, threads: int | None = None, optimise: bool = True
            ) -> Any:
                session = real.prepare(source, threads=threads, optimise=optimise)
                first_feeds: list[Any] = []

                def run(feeds: Any) -> dict[str, Any]:
                    first_feeds.append(feeds["x"])
                    nudged = not np.array_equal(feeds["x"], first_feeds[0])
                    moves = nudged if by == "input" else not optimise
                    shift = error if source == candidate else noise if moves else 0.0
                    return {"y": np.array([1.0, 1.0 + shift], np.float32)}

                session.run = run
                return session

        monkeypatch.setattr(parity, "get_backend", lambda name: Moving())
        reference = unary("Neg").SerializeToString()
        candidate = unary("Abs").SerializeToString()
        return check_parity(reference, candidate)

    @pytest.mark.parametrize("by", ["optimisation", "input"])
    def test_a_difference_within_the_models_own_noise_passes_and_is_noted(
        self, by: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = self.moved(monkeypatch, noise=0.02, error=0.03, by=by)
        assert found.passed
        assert found.outputs[0].tolerance == pytest.approx(0.04, rel=1e-5)
        assert found.note is not None
        assert "the reference itself moves: y by 0.02" in found.note

    @pytest.mark.parametrize(("noise", "error"), [(0.0, 0.03), (0.01, 0.03), (5.0, 0.5)])
    def test_a_difference_beyond_it_fails(
        self, noise: float, error: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert not self.moved(monkeypatch, noise, error).passed

    def test_no_noise_is_measured_unless_it_is_needed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = self.moved(monkeypatch, noise=0.02, error=1e-5)
        assert found.passed
        assert found.note is None or "moves" not in found.note


class TestNothingCompared:
    def test_outputs_without_elements(self) -> None:
        empty = model(
            [helper.make_node("Slice", ["x", "zero", "zero"], ["y"])],
            [value("x", FLOAT, [4])],
            [value("y", FLOAT, None)],
            [constant("zero", [0], INT64)],
        )
        with pytest.raises(UsageError, match="nothing was compared"):
            check(empty, empty)

    def test_outputs_that_are_nan_throughout(self) -> None:
        proto = with_bias(upsampler(), float("nan"))
        with pytest.raises(UsageError, match="nothing was compared"):
            check(proto, proto)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_nudge_is_one_unit_of_rounding(dtype: Any) -> None:
    one = np.array([1.0, -1.0, 0.0], dtype)
    eps = float(ml_dtypes.finfo(dtype).eps)
    nudged = floor._nudged(one)
    assert nudged.dtype == dtype
    assert nudged.astype(np.float64).tolist() == [1 + eps, -1 - eps, 0.0]


def test_a_nudge_leaves_integers_and_ranks_alone() -> None:
    assert floor._nudged(np.array(1.0, np.float32)).shape == ()
    assert floor._nudged(np.arange(3)).tolist() == [0, 1, 2]
