"""Differences from onnxruntime that a runtime makes, and not the rewrite."""

from __future__ import annotations

from typing import Any

import onnx
import pytest

import deployconv
from deployconv.errors import BackendUnavailable
from deployconv.options import FeedOptions
from deployconv.proof.parity import check_parity
from deployconv.results import Parity
from deployconv.runtimes import get_backend
from deployconv.runtimes.base import Array, Feeds
from tests.build import conv_transpose, integers
from tests.runtimes.own_runtime import OwnBackend, OwnSession, install

MODEL = conv_transpose(integers(2, 3, 4, 4), (5, 6), strides=[2, 2], pads=[1] * 4)
DYNAMIC = conv_transpose(integers(2, 3, 4, 4), ("h", "w"), batch="n", strides=[2, 2], pads=[1] * 4)


@pytest.fixture
def parity(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The parity of a model and its rewrite, in a runtime that is wrong as told."""

    def check(
        *wrong: tuple[str, str, float], inexact: bool = False, model: onnx.ModelProto = MODEL
    ) -> Parity:
        install(monkeypatch, OwnBackend(wrong), optimises_inexactly=inexact)
        after = deployconv.rewrite(model, verify=False, bench=False).model
        assert after is not None
        sources = model.SerializeToString(), after.SerializeToString()
        return check_parity(*sources, "own", FeedOptions(), of_rewrite=True)

    return check


def test_a_misread_original_does_not_matter(parity: Any) -> None:
    found = parity(("ConvTranspose", "always", 0.5))
    assert found.passed
    assert found.note == f"compared with {get_backend('ort').runtime} on the CPU"


def test_a_rewritten_model_that_is_wrong_fails(parity: Any) -> None:
    assert not parity(("DepthToSpace", "always", 0.5)).passed
    assert not parity(("DepthToSpace", "always", 0.5), inexact=True).passed


def test_what_it_misreads_in_both_models_is_told_apart(parity: Any) -> None:
    found = parity(("y", "always", 0.5))
    assert found.passed
    assert "own 1.0 computes the original itself differently (y by 0.5)" in found.note


def test_an_original_and_a_rewrite_that_are_wrong_by_different_amounts_fail(parity: Any) -> None:
    assert not parity(("ConvTranspose", "always", 0.5), ("DepthToSpace", "always", 0.6)).passed


def test_optimisations_that_compute_less_exactly_are_told_apart(parity: Any) -> None:
    assert not parity(("DepthToSpace", "optimised", 0.02)).passed
    found = parity(("DepthToSpace", "optimised", 0.02), inexact=True)
    assert found.passed
    assert "held against the tolerance of float16, as own 1.0 computes float32" in found.note
    assert "(y by 0.02)" in found.note


def test_optimisations_that_are_far_off_fail(parity: Any) -> None:
    assert not parity(("DepthToSpace", "optimised", 5.0), inexact=True).passed


def test_both_at_once(parity: Any) -> None:
    note = parity(("y", "always", 0.5), ("DepthToSpace", "optimised", 0.02), inexact=True).note
    assert "computes the original itself differently" in note
    assert "held against the tolerance of float16" in note


def test_sizes_at_which_it_runs_neither_model_are_no_failure(
    parity: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = OwnSession.run

    def refusing(self: OwnSession, feeds: Feeds) -> dict[str, Array]:
        if not all(array.size for array in feeds.values()):
            raise BackendUnavailable("own 1.0 cannot run an empty batch")
        return run(self, feeds)

    monkeypatch.setattr(OwnSession, "run", refusing)
    found = parity(model=DYNAMIC)
    assert found.passed
    assert [size.status for size in found.other_sizes] == ["passed", "not-run"]
    assert "neither model runs there: own 1.0 cannot" in found.other_sizes[1].reason


def test_what_it_misreads_is_told_apart_at_other_sizes_too(parity: Any) -> None:
    found = parity(("y", "always", 0.5), model=DYNAMIC)
    assert found.passed
    first, _ = found.other_sizes
    assert "computes the original itself differently" in (first.reason or "")
