"""``fastest`` on a runtime that does not run some forms, or misreads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import deployconv
from deployconv.errors import CheckFailed
from deployconv.results import ShuffleName
from tests.build import conv_transpose, integers
from tests.runtimes.own_runtime import OwnBackend, install

LAYER = conv_transpose(
    integers(8, 8, 6, 6).astype(np.float32),
    (24, 24),
    strides=[2, 2],
    pads=[2] * 4,
    opset=18,
)


def fastest(**options: Any) -> tuple[Any, list[str]]:
    """The site, and the forms that were timed."""
    result = deployconv.rewrite(
        LAYER, policy="fastest", backend="own", bench=False, cache=False, budget=20.0, **options
    )
    (site,) = result.sites
    return site, [candidate.name for candidate in site.candidates]


def test_a_form_that_it_does_not_run_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, OwnBackend(refused=("DepthToSpace",)))
    site, timed = fastest()
    assert timed
    assert not any("dcr" in name or "crd" in name for name in timed)
    assert site.shuffle not in ("dcr", "crd")


def test_if_it_runs_no_form_the_layer_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, OwnBackend(refused=("DepthToSpace",)))
    site, timed = fastest(shuffle="dcr")
    assert (site.status, timed) == ("kept", [])


def test_a_form_that_it_misreads_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, OwnBackend((("DepthToSpace", "always", 0.5),)))
    site, timed = fastest()
    assert timed
    assert site.shuffle not in ("dcr", "crd")


def test_a_form_that_differs_where_the_original_was_run_too_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, OwnBackend((("DepthToSpace", "always", 0.5),)), runs_reference=True)
    with pytest.raises(CheckFailed, match="parity failed"):
        fastest(shuffle="dcr")


def test_only_the_shuffles_of_the_runtime_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    shuffles: tuple[ShuffleName, ...] = ("transpose", "dcr")
    install(monkeypatch, OwnBackend(), shuffles=shuffles)
    _, timed = fastest()
    assert timed
    assert all("transpose" in name or "dcr" in name or name == "as it was" for name in timed)
