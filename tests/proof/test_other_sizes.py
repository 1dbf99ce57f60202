"""Parity at a second size of every dynamic axis, and on an empty batch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

import deployconv
from deployconv.errors import CheckFailed
from deployconv.options import FeedOptions
from deployconv.proof import other_sizes
from deployconv.proof.other_sizes import trials_after
from deployconv.proof.parity import check_parity
from deployconv.results import Parity
from deployconv.runtimes.base import TensorSpec
from tests.build import FLOAT, graph, model, node, rewrite, tensor, upsampler, value

NO_NODES = ModelProto()
DYNAMIC = {"batch": "n", "sizes": ("h", "w")}


def trials(
    declared: Mapping[str, tuple[int | str | None, ...]],
    first: Mapping[str, tuple[int, ...]],
    seconds: float = 0.0,
) -> list[list[Mapping[str, tuple[int, ...]]]]:
    specs = [TensorSpec(name, np.dtype(np.float32), shape) for name, shape in declared.items()]
    return [list(trial.shapes) for trial in trials_after(specs, first, seconds, NO_NODES)]


@pytest.mark.parametrize(
    ("declared", "first", "second", "other", "empty"),
    [
        (("n", 3, "h", "w"), (1, 3, 64, 64), (2, 3, 32, 96), (1, 3, 32, 32), (0, 3, 64, 64)),
        (("n", 3, 64, 64), (1, 3, 64, 64), (2, 3, 64, 64), None, (0, 3, 64, 64)),
        (("n", 3, 64, 64), (4, 3, 64, 64), (1, 3, 64, 64), None, (0, 3, 64, 64)),
        ((1, 3, "h", "w"), (1, 3, 64, 64), (1, 3, 32, 96), (1, 3, 32, 32), None),
        ((1, 3, 64, None), (1, 3, 64, 64), (1, 3, 64, 32), (1, 3, 64, 32), None),
        ((1, 3, "h", "w"), (1, 3, 1, 1), (1, 3, 2, 2), (1, 3, 2, 2), None),
        ((1, 3, "h", "w"), (1, 3, 7, 5), (1, 3, 3, 7), (1, 3, 3, 2), None),
        ((1, 1, "d", "h", "w"), (1, 1, 32, 32, 32), (1, 1, 16, 48, 16), (1, 1, 16, 16, 16), None),
        ((3, "batch"), (3, 1), (3, 2), None, (3, 0)),
    ],
)
def test_shapes_after_the_first(
    declared: tuple[int | str | None, ...],
    first: tuple[int, ...],
    second: tuple[int, ...],
    other: tuple[int, ...] | None,
    empty: tuple[int, ...] | None,
) -> None:
    found = trials({"x": declared}, {"x": first})
    tried = [{"x": second}, *([{"x": other}] if other else [])]
    assert found == [tried, *([[{"x": empty}]] if empty else [])]


def test_a_static_model_has_one_size() -> None:
    assert trials({"x": (1, 3, 4, 5)}, {"x": (1, 3, 4, 5)}) == []


def test_equal_sizes_of_one_name_stay_equal() -> None:
    declared = {"x": ("n", 3, "h", "w"), "mask": ("n", 1, "h"), "other": ("m", 1, "h")}
    first = {"x": (1, 3, 8, 8), "mask": (1, 1, 8), "other": (3, 1, 12)}
    (second, _), (empty,) = trials(declared, first)
    assert second == {"x": (2, 3, 4, 12), "mask": (2, 1, 4), "other": (1, 1, 6)}
    assert empty == {"x": (0, 3, 8, 8), "mask": (0, 1, 8), "other": (0, 1, 12)}


def test_a_model_that_takes_long_is_run_at_smaller_sizes() -> None:
    first = {"x": (1, 3, 64, 64)}
    (second, *_), _ = trials({"x": ("n", 3, "h", "w")}, first, seconds=2.0)
    assert second == {"x": (2, 3, 32, 32)}


def check(proto: ModelProto, candidate: ModelProto | None = None, **feed: Any) -> Parity:
    blobs = [each.SerializeToString() for each in (proto, candidate or proto)]
    return check_parity(*blobs, feed=FeedOptions(**feed), threads=1)


def statuses(parity: Parity) -> dict[tuple[int, ...], str]:
    return {size.shapes["x"]: size.status for size in parity.other_sizes}


def test_a_dynamic_model_is_compared_at_every_size() -> None:
    parity = check(upsampler(**DYNAMIC))
    assert parity.passed
    assert parity.shapes == {"x": (1, 2, 64, 64)}
    assert statuses(parity) == {(2, 2, 32, 96): "passed", (0, 2, 64, 64): "passed"}
    assert [size.outputs[0].name for size in parity.other_sizes] == ["y", "y"]


def test_sizes_that_follow_from_given_ones() -> None:
    parity = check(upsampler(**DYNAMIC), shapes={"x": (3, 2, 8, 6)})
    assert statuses(parity) == {(1, 2, 4, 9): "passed", (0, 2, 8, 6): "passed"}


def test_given_arrays_are_the_only_size(tmp_path: Path) -> None:
    path = tmp_path / "inputs.npz"
    np.savez(path, x=np.zeros((1, 2, 5, 5), np.float32))
    parity = check(upsampler(**DYNAMIC), inputs=path)
    assert parity.other_sizes == ()
    assert parity.note == "compared at the sizes of the given inputs only"


def test_a_static_model_is_run_once() -> None:
    parity = check(upsampler())
    assert (parity.other_sizes, parity.note) == ((), None)


def fixed_at(*shape: int) -> ModelProto:
    """The upsampler, whose output a Reshape holds to one shape."""
    made = upsampler(**DYNAMIC)
    made.graph.node.append(node("Reshape", ["y", "shape"], ["z"], name="hold"))
    made.graph.initializer.append(tensor("shape", np.array(shape)))
    made.graph.output[0].name = "z"
    return made


def test_where_the_original_does_not_run_is_no_failure() -> None:
    parity = check(fixed_at(1, 3, 128, 128))
    assert parity.passed
    assert statuses(parity) == {
        **{(2, 2, 32, 96): "not-run", (1, 2, 32, 32): "not-run"},
        (0, 2, 64, 64): "not-run",
    }
    assert all("Reshape node 'hold'" in (size.reason or "") for size in parity.other_sizes)


def test_smaller_sizes_are_tried_if_the_original_does_not_run() -> None:
    """It takes square images only."""
    made = upsampler(**DYNAMIC)
    made.graph.node.append(node("Transpose", ["y"], ["t"], perm=[0, 1, 3, 2]))
    made.graph.node.append(node("Add", ["y", "t"], ["z"]))
    made.graph.output[0].name = "z"
    assert statuses(check(made)) == {
        **{(2, 2, 32, 96): "not-run", (1, 2, 32, 32): "passed", (0, 2, 64, 64): "passed"}
    }


def test_a_candidate_that_runs_at_the_first_size_only_has_failed() -> None:
    parity = check(upsampler(**DYNAMIC), fixed_at_as_y())
    assert not parity.passed
    assert all(output.passed for output in parity.outputs)
    assert set(statuses(parity).values()) == {"failed"}
    assert "does not run where the reference does" in (parity.other_sizes[0].reason or "")


def fixed_at_as_y() -> ModelProto:
    made = fixed_at(1, 3, 128, 128)
    made.graph.node[0].output[0] = made.graph.node[1].input[0] = "h"
    made.graph.node[1].output[0] = made.graph.output[0].name = "y"
    return made


def test_wrong_values_at_another_size_only() -> None:
    """The candidate adds 1 to wide images."""
    made = upsampler(**DYNAMIC)
    made.graph.node[0].output[0] = "h"
    made.graph.node.extend(
        [
            node("Shape", ["x"], ["s"], start=3),
            node("Greater", ["s", "limit"], ["wide"]),
            node("Cast", ["wide"], ["more"], to=FLOAT),
            node("Add", ["h", "more"], ["y"]),
        ]
    )
    made.graph.initializer.append(tensor("limit", np.array([64])))
    parity = check(upsampler(**DYNAMIC), made)
    assert not parity.passed
    assert statuses(parity) == {(2, 2, 32, 96): "failed", (0, 2, 64, 64): "passed"}
    assert [output.passed for output in parity.outputs] == [True]


def test_rewrite_fails_and_says_at_which_size(monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = fixed_at_as_y().SerializeToString()
    original = check_parity

    def swapped(reference: Any, _: Any, *rest: Any, **named: Any) -> Parity:
        return original(reference, candidate, *rest, **named)

    monkeypatch.setattr("deployconv.proof.parity.check_parity", swapped)
    with pytest.raises(CheckFailed, match=r"parity failed: at x:2,2,32,96: the candidate does not"):
        deployconv.rewrite(upsampler(**DYNAMIC), bench=False)


def test_an_empty_batch_is_not_tried_where_the_process_may_end() -> None:
    """onnxruntime 1.32 aborts in a GRU over a sequence of no element."""
    made = upsampler(**DYNAMIC)
    made.graph.node.append(node("Gelu", ["y"], ["z"], domain="com.microsoft"))
    made.graph.output[0].name = "z"
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    parity = check(made)
    assert statuses(parity) == {(2, 2, 32, 96): "passed", (0, 2, 64, 64): "not-run"}
    assert parity.other_sizes[1].reason == (
        "not tried, as Gelu may end the process on an empty tensor"
    )


def test_a_local_function_may_get_an_empty_batch() -> None:
    opsets = [helper.make_opsetid("", 17)]
    body = [node("Relu", ["a"], ["b"])]
    made = upsampler(**DYNAMIC)
    made.functions.append(helper.make_function("local", "Twice", ["a"], ["b"], body, opsets))
    made.graph.node.append(node("Twice", ["y"], ["z"], domain="local"))
    made.graph.output[0].name = "z"
    made.opset_import.append(helper.make_opsetid("local", 1))
    assert set(statuses(check(made)).values()) == {"passed"}


def test_a_model_that_takes_very_long_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_sizes, "LONGEST_RUN", 0.0)
    parity = check(upsampler(**DYNAMIC))
    assert parity.passed
    assert statuses(parity) == {(2, 2, 32, 96): "not-run", (0, 2, 64, 64): "passed"}
    assert "one run of the original takes" in (parity.other_sizes[0].reason or "")


def test_float32_twins_at_every_size() -> None:
    """onnxruntime has no ConvTranspose of float64."""
    made = upsampler(**DYNAMIC)
    weights = [tensor("w", np.ones((2, 3, 4, 4))), tensor("b", np.ones(3))]
    x, y = value("x", 11, ["n", 2, "h", "w"]), value("y", 11, None)
    parity = check(model(graph(made.graph.node, [x], [y], weights)))
    assert set(statuses(parity).values()) == {"passed"}


def test_a_rewritten_model_runs_at_every_size() -> None:
    done, _ = rewrite(upsampler(**DYNAMIC))
    assert done.parity is not None
    assert [size.status for size in done.parity.other_sizes] == ["passed", "passed"]


def test_an_unchanged_copy_is_run_once() -> None:
    done, _ = rewrite(upsampler(**DYNAMIC), skip="*")
    assert done.parity is not None
    assert done.parity.other_sizes == ()
