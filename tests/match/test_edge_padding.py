"""Padding between a nearest Resize and a Conv by the edge, or by a reflection below the scale.

Both are a padding of the small image by its edge. Whether that is faster is for a policy to decide:
without one the layer stays.
"""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

import deployconv
from deployconv.match.axis_map import AxisMap, fit_axis
from tests.build import Feeds, integers, ops, rewrite, run, tensor
from tests.match.graphs import NEAREST, assert_never_wrong, codes, feeds, floats, ints, parsed
from tests.search.forms import assert_every_form

DYNAMIC = "b,2,h,w"


def padded(
    mode: str,
    *pads: int,
    scale: int = 2,
    dims: str = "1,2,4,3",
    opset: int = 18,
    conv: str = "y = Conv(z, w, b)",
) -> ModelProto:
    """``x``, repeated, padded by (top, left, bottom, right), convolved."""
    top, left, bottom, right = pads
    constants = {
        "scales": floats(1, 1, scale, scale),
        "pads": ints(0, 0, top, left, 0, 0, bottom, right),
        "roi": floats(),
    }
    if opset < 11:
        given = f"pads=[0,0,{top},{left},0,0,{bottom},{right}]"
        body = f'm = Resize<mode="nearest">(x, scales) z = Pad<mode="{mode}", {given}>(m)'
    else:
        body = f'm = Resize<{NEAREST}>(x, roi, scales) z = Pad<mode="{mode}">(m, pads)'
    return parsed(f"{body} {conv}", constants, dims, opset=opset)


def at_sizes(original: ModelProto) -> list[Feeds]:
    """Inputs of several sizes if the model takes them."""
    dims = original.graph.input[0].type.tensor_type.shape.dim
    if all(dim.dim_value for dim in dims):
        return []
    return [feeds(*shape) for shape in ((1, 2, 5, 7), (2, 2, 2, 1), (0, 2, 4, 2), (1, 2, 17, 33))]


PADDED = {
    "edge": ("edge", (1, 1, 1, 1), 2),
    "edge on one side": ("edge", (0, 2, 0, 0), 2),
    "edge beyond the scale": ("edge", (3, 1, 2, 5), 2),
    "reflection": ("reflect", (1, 1, 1, 1), 2),
    "reflection on one side": ("reflect", (1, 0, 0, 1), 2),
    "reflection by two of three": ("reflect", (2, 2, 2, 2), 3),
}


@pytest.mark.parametrize("dims", ["1,2,4,3", DYNAMIC], ids=["static", "dynamic"])
@pytest.mark.parametrize(("mode", "pads", "scale"), PADDED.values(), ids=PADDED)
def test_each_form_pads_the_small_image(
    mode: str, pads: tuple[int, ...], scale: int, dims: str
) -> None:
    original = padded(mode, *pads, scale=scale, dims=dims)
    forms = assert_every_form(original, at_sizes(original))
    assert {"crop, col2im", "crop, dcr"} <= set(forms)


@pytest.mark.parametrize("opset", [10, 11, 13, 17])
def test_at_earlier_opsets(opset: int) -> None:
    original = padded("reflect", 1, 1, 1, 1, opset=opset, dims=DYNAMIC)
    assert assert_every_form(original, at_sizes(original))


def test_one_conv_per_phase_pads_for_each() -> None:
    original = padded("edge", 1, 2, 1, 0, dims=DYNAMIC, conv="y = Conv(z, k)")
    original.graph.initializer.append(tensor("k", integers(3, 2, 2, 2)))
    assert "split, dcr" in assert_every_form(original, at_sizes(original))


def test_one_axis_after_the_other() -> None:
    """And as products of matrices."""
    original = padded("reflect", 2, 2, 2, 2, scale=3, conv="y = Conv<group=2>(z, k)")
    original.graph.initializer.append(tensor("k", np.ones((2, 1, 5, 5), np.float32)))
    forms = assert_every_form(original)
    assert "matrix" in forms
    assert any(name.startswith("separable") for name in forms)


@pytest.mark.parametrize("mode", ["edge", "reflect"])
def test_without_a_policy_that_compares_it_stays_and_says_why(mode: str) -> None:
    (site,) = assert_never_wrong(padded(mode, 1, 1, 1, 1))
    assert (site.status, site.pattern) == ("kept", "nearest_resize")
    assert site.reason is not None
    assert site.reason.code == "non-zero-padding"
    assert "--policy cost" in site.reason.text


REFUSED = {
    "reflection by the scale": padded("reflect", 2, 1, 1, 1),
    "reflection by the scale at the end": padded("reflect", 1, 1, 1, 2, dims=DYNAMIC),
    "periodic": padded("wrap", 1, 1, 1, 1, opset=19),
    "zeros around the edge": padded("edge", 1, 1, 1, 1, conv="y = Conv<pads=[1,1,1,1]>(z, w, b)"),
}


@pytest.mark.parametrize("original", REFUSED.values(), ids=REFUSED)
def test_other_padding_is_refused(original: ModelProto) -> None:
    assert codes(assert_never_wrong(original, policy="cost")) == ["non-zero-padding"]
    assert [site.status for site in deployconv.inspect(original).sites] == ["skipped"]


@pytest.mark.parametrize(
    ("layers", "ends"),
    [
        ("d = Conv(r, k1) y = Relu(d)", {"chain", "region"}),
        ("d = Conv(r, k1) e = Add(d, r) y = Conv<pads=[1,1,1,1]>(e, k3)", {"region + conv"}),
    ],
)
def test_layers_after_it_run_at_low_resolution_too(layers: str, ends: set[str]) -> None:
    original = padded("edge", 3, 0, 1, 2, conv=f"c = Conv(z, k3) r = Relu(c) {layers}")
    original.graph.initializer.append(tensor("k3", integers(2, 2, 3, 3, seed=1)))
    original.graph.initializer.append(tensor("k1", integers(2, 2, 1, 1, seed=4)))
    fusions = {name.partition(" + ")[2] for name in assert_every_form(original)}
    assert ends <= fusions


def test_sizes_that_do_not_follow_from_the_input_do_not_matter() -> None:
    """PyTorch's older exporter computes pads in a way that shape inference cannot follow."""
    computed = (
        "turned = Slice(pairs, last, first, rows, back) t = Transpose<perm=[1,0]>(turned)"
        ' p = Reshape(t, flat) q = Pad<mode="reflect">(x, p)'
    )
    constants = {
        "pairs": ints(1, 1, 1, 1, 0, 0, 0, 0).reshape(4, 2),
        "last": ints(-1),
        "first": ints(-(1 << 62)),
        "rows": ints(0),
        "back": ints(-1),
        "flat": ints(-1),
        "scales": floats(1, 1, 2, 2),
        "pads": ints(0, 0, 1, 1, 0, 0, 1, 1),
    }
    body = f'{computed} m = Resize<{NEAREST}>(q, , scales) z = Pad<mode="edge">(m, pads)'
    original = parsed(f"{body} y = Conv(z, w, b)", constants)
    assert assert_every_form(original)


def test_cost_pads_the_small_image_where_that_is_faster() -> None:
    original = padded("reflect", 1, 1, 1, 1, dims="1,64,h,w", conv="y = Conv(z, k)", opset=17)
    original.graph.initializer.append(tensor("k", integers(64, 64, 3, 3)))
    done, after = rewrite(original, policy="cost", shape={"x": (1, 64, 32, 32)})
    assert [site.status for site in done.sites] == ["rewritten"]
    assert ops(after)["Resize"] == 0
    for size in (1, 13):
        given = feeds(1, 64, size, size + 2)
        np.testing.assert_array_equal(run(after, given)["y"], run(original, given)["y"])


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ([0, 0, 0, 1, 1, 2, 2, 2], AxisMap(2, 1, True, 8, 3, edge=True)),
        ([0, 1, 1, 2, 2, 2], AxisMap(2, -1, True, 6, 3, edge=True)),
        ([0, 0, 1, 2, 2], AxisMap(1, 1, False, 5, 3, edge=True)),
        ([0, 0, 0, 0, 1, 1, 1, 2, 2, 2], AxisMap(3, 1, True, 10, 3, edge=True)),
        ([0, 0, 1, 1, 2, 2], AxisMap(2, 0, True, 6, 3)),
        ([1, 0, 0, 1, 1, 2, 2], None),
        ([0, 0, 0, 1, 1, 2, 2, 2, -1], None),
        ([0, 0, 1, 0, 1, 2], None),
    ],
)
def test_the_map_of_an_axis_with_its_edges_repeated(
    sources: list[int], found: AxisMap | None
) -> None:
    assert fit_axis(np.array(sources), 3, edges=True) == found
    if found is not None and found.edge:
        assert fit_axis(np.array(sources), 3) is None
