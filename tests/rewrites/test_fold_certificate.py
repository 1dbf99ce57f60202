"""Layers that are folded into weights are part of the certificate, in whatever form and if kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deployconv.graph.load import load
from deployconv.match import UpsampleSite
from deployconv.options import Form, RewriteOptions
from deployconv.proof.certificate import certify
from deployconv.rewrites import fold
from deployconv.rewrites.base import Rewrite
from deployconv.rewrites.kept import FoldedLayer, folded_in_place
from deployconv.rewrites.planned_site import PlannedSite
from deployconv.rewrites.planning import plan_model
from tests.build import Array, integers
from tests.match.graphs import NEAREST, floats, ints, parsed
from tests.rewrites.plans import verdict
from tests.rewrites.products import products

CONSTANTS: dict[str, Any] = {
    **{"wa": integers(2, 4, 4, 4, seed=1), "ba": integers(4, seed=2)},
    **{"wn": integers(4, 2, 3, 3, seed=8), "slopes": floats(0.5, 3).reshape(2, 1, 1)},
    **{"wg": integers(4, 2, 3, 3, seed=6), "wd": np.tile(products(1, 4, 4), (4, 1, 1, 1))},
    **{"c": floats(3, -1, 5, 7).reshape(4, 1, 1), "one": ints(1), "k": floats(1, 1, 2, 2)},
    **{"alike": floats(3, 3, 3, 3).reshape(4, 1, 1)},
    **{"g": floats(3, -1, 5, 7), "o": floats(1, 2, 3, 4), "v": floats(1, 2, 3, 4)},
}
UP = "a = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(x, wa, ba)"
REPEAT = f"r = Resize<{NEAREST}>(x, , k)"

FOLDED = {
    "batch_norm": "y = BatchNormalization(a, g, o, v, v)",
    "mul": "y = Mul(a, c)",
    "mul_from_the_left": "y = Mul(c, a)",
    "div": "y = Div(a, c)",
    "add": "y = Add(a, c)",
    "sub": "y = Sub(a, c)",
    "sub_from_the_left": "y = Sub(c, a)",
    "several": "t = Mul(a, c) u = Add(t, c) y = BatchNormalization(u, g, o, v, v)",
}
MEANS = {
    "mean": "m = ReduceMean(a, one) y = Sub(a, m)",
    "mean_between_scales": ("t = Mul(a, c) m = ReduceMean(t, one) d = Sub(t, m) y = Mul(d, c)"),
}
LAYERS = {
    "conv_transpose": UP,
    "without_bias": UP.replace(", ba", ""),
    "resize_and_conv": f"{REPEAT} a = Conv<pads=[1,1,1,1]>(r, wn)",
    "prelude": (f"{REPEAT} s = PRelu(r, slopes) a = Conv<pads=[1,1,1,1]>(s, wn)"),
}


def planned(body: str, dims: str = "2,2,5,3", form: Form = "auto") -> PlannedSite:
    """The one site of a model."""
    model = parsed(body, CONSTANTS, dims, opset=20)
    (site,) = plan_model(load(model), RewriteOptions(form=form)).sites
    return site


def folded(body: str, layer: str = UP, form: Form = "auto") -> tuple[Rewrite, FoldedLayer]:
    """The rewrite of a layer with what it absorbed, and the layer if it stays."""
    site = planned(f"{layer} {body}", form=form)
    assert site.rewrite is not None
    assert isinstance(site.site, UpsampleSite)
    assert site.site.absorbed
    kept = folded_in_place(site.site)
    assert kept is not None
    return site.rewrite, kept


@pytest.mark.parametrize("form", ["crop", "pad", "split"])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("body", {**FOLDED, **MEANS}.values(), ids={**FOLDED, **MEANS})
def test_folds_are_covered_by_the_certificate(body: str, layer: str, form: Form) -> None:
    for rewrite in folded(body, layer, form):
        found = certify(rewrite, "main/tested")
        assert (found.verdict, found.trial.parity_only) == ("exact", ())


@pytest.mark.parametrize("body", FOLDED.values(), ids=FOLDED)
def test_a_fold_into_other_channels_does_not_pass_the_certificate(
    body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = fold.affine

    def turned(*given: Any) -> tuple[Array, ...]:
        return tuple(np.roll(values, 1) for values in right(*given))

    both = folded(body)
    assert [verdict(rewrite) for rewrite in both] == ["exact", "exact"]
    monkeypatch.setattr(fold, "affine", turned)
    assert [verdict(rewrite) for rewrite in both] == ["failed", "failed"]


def test_a_scale_in_other_groups_does_not_pass_the_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A transposed weight has the channels of a group on axis 1, and the groups on axis 0."""
    layer = "a = ConvTranspose<strides=[2,2], group=2>(x, wg)"
    site = planned(f"{layer} y = Mul(a, c)", "2,4,5,3")
    assert site.rewrite is not None
    assert verdict(site.rewrite) == "exact"

    def one_group(of: UpsampleSite, scale: Array) -> Array:
        first, second = np.broadcast_to(scale, 4).reshape(2, 2)
        del second
        return np.asarray(of.weight.read() * first.reshape(1, 2, 1, 1), np.float32)

    monkeypatch.setattr(fold, "_scaled_weight", one_group)
    assert verdict(site.rewrite) == "failed"


@pytest.mark.parametrize("body", MEANS.values(), ids=MEANS)
@pytest.mark.parametrize("fault", ["nothing taken off", "of the inputs", "of the weight alone"])
def test_a_wrong_mean_does_not_pass_the_certificate(
    body: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = fold.MeanFold._less

    def wrong(mean: fold.MeanFold, parameter: Any, axis: int) -> Array:
        if fault == "nothing taken off" or (fault == "of the weight alone" and axis == 0):
            return np.asarray(parameter.read())
        return right(mean, parameter, 0 if fault == "of the inputs" else axis)

    both = folded(body)
    assert [verdict(rewrite) for rewrite in both] == ["exact", "exact"]
    monkeypatch.setattr(fold.MeanFold, "_less", wrong)
    assert [verdict(rewrite) for rewrite in both] == ["failed", "failed"]


@pytest.mark.parametrize("form", ["separable", "matrix"])
def test_a_fold_into_factors(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    """The product of matrices has one kernel for all channels, and so one scale."""
    scale = "alike" if form == "matrix" else "c"
    body = f"a = ConvTranspose<strides=[2,2], group=4>(x, wd, ba) y = Mul(a, {scale})"
    site = planned(body, "2,4,5,3", form)
    assert site.report.form == form
    assert site.rewrite is not None
    found = certify(site.rewrite, "main/tested")
    assert (found.verdict, found.trial.parity_only) == ("exact", ())
    right = fold.affine

    def wrong(*given: Any) -> tuple[Array, Array]:
        scale, shift = right(*given)
        return (-scale if form == "matrix" else np.roll(scale, 1)), shift

    monkeypatch.setattr(fold, "affine", wrong)
    assert verdict(site.rewrite) == "failed"
