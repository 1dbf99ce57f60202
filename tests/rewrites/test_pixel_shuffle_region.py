"""A Conv and its pixel shuffle are one layer, and run together with a Conv behind that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deployconv.graph.load import load
from deployconv.match import ShuffleSite
from deployconv.match.pixel_shuffle import shuffled_conv
from deployconv.options import Form, RewriteOptions, Shuffle
from deployconv.proof.certificate import certify_sites
from deployconv.rewrites.planning import apply, plan_model
from deployconv.rewrites.region import Region
from deployconv.search.candidates import Candidates
from tests.build import assert_equal, integers, ops, run
from tests.match.graphs import feeds, ints, parsed
from tests.rewrites.plans import region_of, with_first

CONV = "c = Conv<pads=[1,1,1,1]>(x, wc, bc)"
CRD = f'{CONV} a = DepthToSpace<blocksize=2, mode="CRD">(c)'
DCR = f"{CONV} a = DepthToSpace<blocksize=2>(c)"
SPELLED = (
    f"{CONV} s = Reshape(c, split) m = Transpose<perm=[0,1,4,2,5,3]>(s) a = Reshape(m, merged)"
)
UNEQUAL = f"{CONV} s = Reshape(c, thirds) m = Transpose<perm=[0,1,4,2,5,3]>(s) a = Reshape(m, wide)"
LAST = "t = Relu(a) y = Conv<pads=[1,1,1,1]>(t, wl, bl)"
WEIGHTS: dict[str, Any] = {
    **{"wc": integers(12, 2, 3, 3, seed=1), "bc": integers(12, seed=2)},
    **{"wl": integers(2, 3, 3, 3, seed=3), "bl": integers(2, seed=4)},
    **{"split": ints(2, 3, 2, 2, 5, 4), "merged": ints(2, 3, 10, 8)},
    **{"thirds": ints(2, 3, 1, 4, 5, 4), "wide": ints(2, 3, 5, 16)},
    **{"ws": integers(12, 2, 2, 1, seed=5), "wg": integers(12, 1, 3, 3, seed=6)},
}
LAYERS = {"crd": CRD, "dcr": DCR, "spelled_out": SPELLED, "unequal": UNEQUAL}


@pytest.mark.parametrize("shuffle", ["crd", "transpose", "col2im"])
@pytest.mark.parametrize("form", ["pad", "split"])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_the_bits_stay(layer: str, form: Form, shuffle: Shuffle) -> None:
    model = parsed(f"{layer} {LAST}", WEIGHTS, "2,2,5,4", opset=18)
    planning = certify_sites(with_first(model, form, shuffle), seed=0)
    (site,) = planning.sites
    assert isinstance(site.site, ShuffleSite)
    assert isinstance(site.rewrite, Region)
    assert site.rewrite.last is not None
    assert (site.report.status, site.report.certificate) == ("rewritten", "exact")
    assert (site.report.form, site.report.conv_kernel) == (form, (3, 3))
    after = apply(planning).proto
    assert ops(after)["Conv"] == (8 if form == "split" else 2)
    assert_equal(run(model, feeds(2, 2, 5, 4)), run(after, feeds(2, 2, 5, 4)))


@pytest.mark.parametrize("form", ["pad", "split"])
def test_other_kernels(form: Form) -> None:
    layer = CRD.replace("wc", "ws").replace("[1,1,1,1]", "[2,0,1,3]")
    model = parsed(f"{layer} {LAST}", WEIGHTS, "2,2,5,4", opset=18)
    planning = certify_sites(with_first(model, form), seed=0)
    assert planning.reports[0].conv_kernel == (2, 1)
    assert planning.reports[0].certificate == "exact"
    after = apply(planning).proto
    assert_equal(run(model, feeds(2, 2, 5, 4)), run(after, feeds(2, 2, 5, 4)))


@pytest.mark.parametrize("order", ["CRD", "DCR"])
def test_its_kernel_is_that_of_a_conv_transpose(order: str) -> None:
    """Of stride 2 and kernel 6: ``ConvTranspose`` turns its kernel round."""
    model = parsed(f"{CRD if order == 'CRD' else DCR} y = Relu(a)", WEIGHTS, "1,2,5,4")
    site = plan_model(load(model), RewriteOptions()).sites[0].site
    assert isinstance(site, ShuffleSite)
    layer = shuffled_conv(site)
    assert layer is not None
    kernel = layer.kernel(WEIGHTS["wc"])
    assert (kernel.shape, layer.channels, layer.stride) == ((3, 2, 6, 6), (2, 3), (2, 2))
    turned = np.ascontiguousarray(kernel.swapaxes(0, 1)[..., ::-1, ::-1])
    up = "a = ConvTranspose<strides=[2,2], pads=[2,2,2,2]>(x, wt)"
    other = parsed(f"{up} y = Relu(a)", {"wt": turned}, "1,2,5,4")
    plain = parsed(
        f"{CRD if order == 'CRD' else DCR} y = Relu(a)".replace(", bc", ""), WEIGHTS, "1,2,5,4"
    )
    assert_equal(run(plain, feeds(1, 2, 5, 4)), run(other, feeds(1, 2, 5, 4)))


NOT_ONE = {
    "groups": CRD.replace("Conv<", "Conv<group=2, ").replace("wc", "wg"),
    "a_stride": CRD.replace("Conv<", "Conv<strides=[2,2], "),
    "no_conv": 'c = Concat<axis=1>(x, x) a = DepthToSpace<blocksize=2, mode="CRD">(c)',
}


@pytest.mark.parametrize("layer", NOT_ONE.values(), ids=NOT_ONE)
def test_what_is_no_such_layer(layer: str) -> None:
    model = parsed(f"{layer} y = Relu(a)", WEIGHTS, "1,2,6,4")
    site = plan_model(load(model), RewriteOptions()).sites[0].site
    assert isinstance(site, ShuffleSite)
    assert shuffled_conv(site) is None
    planning = with_first(model, "pad")
    assert region_of(planning) is None
    after = apply(planning).proto
    assert_equal(run(model, feeds(1, 2, 6, 4)), run(after, feeds(1, 2, 6, 4)))


@pytest.mark.parametrize(("opset", "shuffle"), [(18, "col2im"), (17, "crd"), (9, "transpose")])
def test_both_forms_are_worth_a_measurement(opset: int, shuffle: str) -> None:
    layer = CRD if opset > 10 else DCR
    model = parsed(f"{layer} {LAST}", WEIGHTS, "1,2,5,4", opset=opset)
    candidates = Candidates.of(load(model), RewriteOptions())
    found = candidates.of_site(candidates.planning.sites[0])
    names = [str(option.choice) for option in found if option.choice.fusion == "region + conv"]
    assert names == [f"{form}, {shuffle} + region + conv" for form in ("pad", "split")]
