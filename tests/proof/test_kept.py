"""A kept layer folds its affine neighbours into its weights, and is certified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import deployconv
from deployconv.errors import CheckFailed
from deployconv.graph.load import load
from deployconv.options import RewriteOptions
from deployconv.proof.certificate import certify_sites
from deployconv.results import SiteReport
from deployconv.rewrites import fold
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.fold import MeanFold
from deployconv.rewrites.kept import FoldedLayer
from deployconv.rewrites.planning import plan_model
from deployconv.search import cost_model
from tests.build import Array, ops, run
from tests.match.graphs import NEAREST, feeds, floats, parsed

Fault = Callable[[pytest.MonkeyPatch], None]
"""Introduces a mistake into every fold."""

RNG = np.random.default_rng(5)


def drawn(*shape: int) -> Array:
    signs = RNG.choice([-1, 1], shape)
    return (RNG.uniform(0.5, 2.0, shape) * signs).astype(np.float32)


CONSTANTS: dict[str, Array] = {
    **{"gain": drawn(4), "offset": drawn(4), "mean": drawn(4), "variance": np.abs(drawn(4))},
    **{"v": drawn(2, 4, 4, 4), "u": drawn(4), "vg": drawn(2, 2, 3, 3), "vc": drawn(4, 2, 3, 3)},
    **{"c": drawn(4, 1, 1), "s": floats(1.5), "k": floats(1, 1, 2, 2), "slope": drawn(4, 1, 1)},
}
UP = "z = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(x, v, u)"
BARE = "z = ConvTranspose<strides=[2,2], pads=[1,0,1,1]>(x, v)"
GROUPS = "z = ConvTranspose<strides=[2,1], group=2>(x, vg)"
RESIZED = f"e = Resize<{NEAREST}>(x, , k) z = Conv<pads=[1,1,1,1]>(e, vc)"
BATCH_NORM = "y = BatchNormalization<epsilon=0.01>(z, gain, offset, mean, variance)"
MINUS_MEAN = "m = ReduceMean<axes=[1]>(z) y = Sub(z, m)"

FOLDED = {
    "BatchNormalization": f"{UP} {BATCH_NORM}",
    "BatchNormalization without bias": f"{BARE} {BATCH_NORM}",
    "Mul": f"{UP} y = Mul(z, c)",
    "Mul of groups": f"{GROUPS} y = Mul(c, z)",
    "scalar": f"{UP} y = Mul(z, s)",
    "Add": f"{BARE} y = Add(z, c)",
    "Sub from the left": f"{UP} y = Sub(c, z)",
    "Div": f"{UP} y = Div(z, c)",
    "several": f"{UP} t = Mul(z, c) r = Add(t, s) y = Sub(c, r)",
    "minus its mean": f"{UP} {MINUS_MEAN}",
    "minus its mean without bias": f"{BARE} {MINUS_MEAN}",
    "both": f"{UP.replace('z =', 'p =')} z = Mul(p, c) m = ReduceMean<axes=[1]>(z) d = Sub(z, m)"
    " y = Mul(d, c)",
    "a Conv after Resize": f"{RESIZED} {BATCH_NORM}",
    "a Conv after Resize and another layer": (
        f"e = Resize<{NEAREST}>(x, , k) q = Relu(e) z = Conv<pads=[1,1,1,1]>(q, vc) {MINUS_MEAN}"
    ),
}


def model(body: str, **rest: Any) -> ModelProto:
    return parsed(body, CONSTANTS, "2,2,4,3", **rest)


def report(proto: ModelProto, seed: int = 0) -> SiteReport:
    """The report of the only site, kept and certified."""
    planning = plan_model(load(proto), RewriteOptions(policy="fastest")).with_rewrites({})
    (found,) = certify_sites(planning, seed).reports
    assert found.reason is not None
    status = "kept" if found.certificate is None else "folded"
    assert (found.status, found.reason.code) == (status, "slower")
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("body", FOLDED.values(), ids=FOLDED)
def test_a_kept_layer_that_takes_others_in_is_certified(body: str, seed: int) -> None:
    found = report(model(body), seed)
    assert (found.certificate, found.certificate_failure) == ("exact", None)
    assert found.parity_only == ()


@pytest.mark.parametrize("opset", [8, 12, 18])
def test_at_any_opset(opset: int) -> None:
    body = FOLDED["BatchNormalization"] if opset < 18 else FOLDED["several"]
    assert report(model(body, opset=opset)).certificate == "exact"


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_of_any_element_type(dtype: Any) -> None:
    constants = {name: CONSTANTS[name].astype(dtype) for name in ("v", "u", "c")}
    proto = parsed(FOLDED["Mul"], constants, "2,2,4,3", dtype=dtype)
    assert report(proto).certificate == "exact"


@pytest.mark.parametrize(
    "body", [f"{UP} y = Relu(z)", f"{UP} y = PRelu(z, slope)"], ids=["Relu", "PRelu"]
)
def test_a_kept_layer_that_takes_nothing_in_has_nothing_to_certify(body: str) -> None:
    found = report(model(body))
    assert (found.status, found.certificate) == ("kept", None)


# --- a wrong fold fails


def off_by_one(values: Array) -> Array:
    changed = np.array(values)
    changed.flat[-1] += 1
    return changed


def with_site(**change: Callable[[Array], Array]) -> Fault:
    """The kept layer is written with another weight or bias."""

    def introduce(monkeypatch: pytest.MonkeyPatch) -> None:
        emit = FoldedLayer.emit

        def wrong(rewrite: FoldedLayer, emitter: Emitter) -> None:
            changed = {}
            for name, by in change.items():
                given = getattr(rewrite.site, name)
                values = by(given.read())
                changed[name] = replace(given, read=lambda values=values: values)
            emit(FoldedLayer(replace(rewrite.site, **changed)), emitter)

        monkeypatch.setattr(FoldedLayer, "emit", wrong)

    return introduce


def with_result(name: str, change: Callable[[Array], Array]) -> Fault:
    """A function that folds a scale or a shift into a weight or bias gives another result."""

    def introduce(monkeypatch: pytest.MonkeyPatch) -> None:
        right = getattr(fold, name)
        monkeypatch.setattr(fold, name, lambda *given: change(right(*given)))

    return introduce


def without_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    emit = FoldedLayer.emit
    monkeypatch.setattr(
        FoldedLayer,
        "emit",
        lambda rewrite, emitter: emit(FoldedLayer(replace(rewrite.site, bias=None)), emitter),
    )


def mean_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean is subtracted from neither weight nor bias."""
    monkeypatch.setattr(MeanFold, "_less", lambda self, parameter, axis: parameter.read())


FAULTS = {
    "one weight off by one": with_site(weight=off_by_one),
    "one bias off by one": with_site(bias=off_by_one),
    "the bias is dropped": without_bias,
    "output channels exchanged": with_site(weight=lambda values: values[:, ::-1].copy()),
    "the kernel flipped": with_site(weight=lambda values: values[..., ::-1].copy()),
    "scales of other channels": with_result("_scaled_weight", lambda values: values[:, ::-1]),
    "shifts of other channels": with_result("_shifted_bias", lambda values: values[::-1]),
    "the other sign": with_result("_shifted_bias", lambda values: -values),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_broken_fold_fails(fault: Fault, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    found = report(model(FOLDED["BatchNormalization"]), seed)
    assert found.certificate == "failed"
    assert found.certificate_failure is not None
    assert "first at [" in found.certificate_failure


@pytest.mark.parametrize("body", [FOLDED["minus its mean"], FOLDED["both"]])
def test_a_mean_that_is_not_subtracted_fails(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mean_ignored(monkeypatch)
    assert report(model(body)).certificate == "failed"


# --- from the model to the file


@pytest.fixture
def every_layer_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost model rewrites no layer."""
    tables = {name: replace(table, margin=1e9) for name, table in cost_model.TABLES.items()}
    monkeypatch.setattr(cost_model, "TABLES", tables)


@pytest.mark.usefixtures("every_layer_is_kept")
@pytest.mark.parametrize("body", [FOLDED["BatchNormalization"], FOLDED["minus its mean"]])
def test_the_folded_layer_is_written_and_reported(body: str) -> None:
    before = model(body)
    done = deployconv.rewrite(before, policy="cost", bench=False)
    (site,) = done.sites
    assert site.reason is not None
    assert (site.status, site.reason.code, site.certificate) == ("folded", "slower", "exact")
    assert done.model is not None
    assert ops(done.model) == {"ConvTranspose": 1}
    given = feeds(2, 2, 4, 3)
    expected, actual = run(before, given)["y"], run(done.model, given)["y"]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("every_layer_is_kept")
def test_a_broken_fold_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS["one weight off by one"](monkeypatch)
    output, folder = tmp_path / "out.onnx", tmp_path / "dump"
    with pytest.raises(CheckFailed, match=r"certificate failed: main/.* \(.*first at \["):
        deployconv.rewrite(
            model(FOLDED["Mul"]), output=output, policy="cost", dump=folder, bench=False
        )
    assert [entry.name for entry in tmp_path.iterdir()] == ["dump"]
    (kept_models,) = folder.iterdir()
    assert sorted(file.name for file in kept_models.iterdir()) == [
        "inputs.npz",
        "new.onnx",
        "old.onnx",
    ]
