"""A model whose tensors do not fit into memory is refused before anything is allocated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import deployconv
from deployconv.proof import memory
from tests.match.graphs import NEAREST, floats, parsed, upsampled

SMALL = 10_000
"""Bytes: less than the models of these tests need."""


def resize(scale: float, dims: str = "1,1,4,4") -> ModelProto:
    return parsed('y = Resize<mode="linear">(x, , s)', {"s": floats(1, 1, scale, scale)}, dims)


def image(height: int, width: int) -> dict[str, Any]:
    # All rows are one: it takes no memory of its own.
    return {"x": np.broadcast_to(np.float32(0), (1, 1, height, width))}


@pytest.mark.parametrize("dims", ["1,1,4,4", "n,1,h,w"])
def test_a_tensor_of_a_tebibyte(dims: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "physical_memory", lambda: 1 << 38)
    with pytest.raises(deployconv.UsageError, match="y:1,1,1048576,1048576 needs 1,024 GiB"):
        memory.require_memory(resize(1 << 18, dims), image(4, 4))
    memory.require_memory(resize(1 << 16, dims), image(4, 4))


@pytest.mark.parametrize("policy", ["all", "cost", "fastest"])
def test_nothing_is_run(policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "physical_memory", lambda: SMALL)
    original = upsampled(f"z = Resize<{NEAREST}>(x, , s)", "1,2,4,4", s=floats(1, 1, 32, 32))
    with pytest.raises(deployconv.UsageError, match="this machine has") as raised:
        deployconv.rewrite(original, policy=policy)
    assert "\n" not in str(raised.value)
    with pytest.raises(deployconv.UsageError, match="this machine has"):
        deployconv.verify(original, original)
    assert deployconv.rewrite(original, verify=False, bench=False).sites


def test_another_size_that_does_not_fit_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "physical_memory", lambda: 20_000)
    original = resize(2, "n,1,h,w")
    parity = deployconv.verify(original, original)[0]
    assert parity.passed
    assert any("this machine has" in (size.reason or "") for size in parity.other_sizes)


@pytest.mark.parametrize("dims", ["1,1,4,4", "n,1,h,w"])
def test_a_filter_that_is_larger_than_it_is_worth_is_not_made(dims: str) -> None:
    done = deployconv.rewrite(resize(1e9, dims), resample=True, verify=False, bench=False)
    (site,) = done.sites
    assert site.reason is not None
    assert site.reason.code == "too-large"


def test_where_the_memory_is_not_known_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "physical_memory", lambda: None)
    memory.require_memory(resize(1 << 18), image(4, 4))
