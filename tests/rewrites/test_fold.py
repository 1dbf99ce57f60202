"""Affine layers behind a site: in its weight and bias, for every pattern and layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

import deployconv
from deployconv.graph.load import load
from deployconv.options import RewriteOptions
from deployconv.report.lines import rewriting_lines
from deployconv.rewrites.planning import apply, plan_model
from deployconv.search.cost_table import TABLES, CostTable, Rate
from tests.build import Array, ops, rewrite, run
from tests.match.graphs import feeds, floats, parsed

RNG = np.random.default_rng(5)


def drawn(*shape: int) -> Array:
    return RNG.uniform(0.5, 2.0, shape).astype(np.float32) * RNG.choice([-1, 1], shape).astype(
        np.float32
    )


NORMAL = {
    "gain": drawn(4),
    "offset": drawn(4),
    "mean": drawn(4),
    "variance": np.abs(drawn(4)),
}
CONSTANTS: dict[str, Any] = {
    **NORMAL,
    **{"w": drawn(2, 4, 4, 4), "b": drawn(4), "wg": drawn(4, 2, 3, 3), "wc": drawn(4, 2, 3, 3)},
    **{"c": drawn(4, 1, 1), "c4": drawn(1, 4, 1, 1), "s": floats(1.5), "k": floats(1, 1, 2, 2)},
}
UP = "z = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(x, w, b)"
BARE = "z = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(x, w)"
BATCH_NORM = "y = BatchNormalization<epsilon=0.01>(z, gain, offset, mean, variance)"
MEAN = "m = ReduceMean<axes=[1]>(z)"
NEAREST = (
    'u = Resize<mode="nearest", coordinate_transformation_mode="asymmetric",'
    ' nearest_mode="floor">(x, , k) z = Conv<pads=[1,1,1,1]>(u, wc)'
)

FOLDED = {
    "batch_norm": f"{UP} {BATCH_NORM}",
    "batch_norm_without_bias": f"{BARE} {BATCH_NORM}",
    "mul": f"{UP} y = Mul(z, c)",
    "mul_from_the_left": f"{BARE} y = Mul(c4, z)",
    "scalar": f"{UP} y = Mul(z, s)",
    "add": f"{BARE} y = Add(z, c)",
    "sub": f"{UP} y = Sub(z, c)",
    "sub_from_the_left": f"{UP} y = Sub(c, z)",
    "div": f"{UP} y = Div(z, c4)",
    "behind_an_identity": f"{UP} i = Identity(z) y = Add(i, c)",
    "between_identities": f"{UP} i = Identity(z) j = Identity(i) k2 = Mul(j, c) l = Identity(k2)"
    " y = Add(l, c)",
    "several": f"{UP} t = Mul(z, c) u = Add(t, s) y = Sub(c4, u)",
    "nearest_resize": f"{NEAREST} {BATCH_NORM}",
    "less_its_mean": f"{UP} {MEAN} y = Sub(z, m)",
    "less_its_mean_without_bias": f"{BARE} {MEAN} y = Sub(z, m)",
    "less_its_mean_by_another_axis": f"{UP} {MEAN.replace('[1]', '[-3]')} y = Sub(z, m)",
    "resize_less_its_mean": f"{NEAREST} {MEAN} y = Sub(z, m)",
    "scaled_before_and_behind": (
        f"{UP.replace('z =', 'p =')} z = Mul(p, c) {MEAN} d = Sub(z, m) y = Mul(d, c4)"
    ),
}
_FOLDABLE = frozenset({"BatchNormalization", "Mul", "Add", "Sub", "Div", "ReduceMean"})


@pytest.mark.parametrize("form", ["crop", "pad", "split"])
@pytest.mark.parametrize("body", FOLDED.values(), ids=FOLDED)
def test_what_is_folded_is_gone_and_the_output_is_the_same(body: str, form: str) -> None:
    model = parsed(body, CONSTANTS, "2,2,4,3")
    done, after = rewrite(model, form=form)
    (site,) = done.sites
    assert (site.status, site.certificate) == ("rewritten", "exact")
    assert not set(ops(after)) & _FOLDABLE
    given = feeds(2, 2, 4, 3)
    np.testing.assert_allclose(run(after, given)["y"], run(model, given)["y"], rtol=1e-5, atol=1e-5)


def test_groups_of_a_transposed_weight() -> None:
    body = f"z = ConvTranspose<strides=[2,2], group=2>(x, wg) {BATCH_NORM}"
    model = parsed(body, CONSTANTS, "1,4,4,3")
    _, after = rewrite(model)
    assert ops(after)["BatchNormalization"] == 0
    given = feeds(1, 4, 4, 3)
    np.testing.assert_allclose(run(after, given)["y"], run(model, given)["y"], rtol=1e-5, atol=1e-5)


def test_slices_and_affine_layers_in_turns() -> None:
    body = (
        f"{UP} t = Slice(z, a, e, h) q = Mul(t, c) r = Slice(q, a, e, v)"
        " y = BatchNormalization(r, gain, offset, mean, variance)"
    )
    bounds = {"a": [1], "e": [-1], "h": [2], "v": [3]}
    constants = {name: np.array(given, np.int64) for name, given in bounds.items()}
    model = parsed(body, {**CONSTANTS, **constants}, "1,2,4,3")
    done, after = rewrite(model)
    assert len(done.sites[0].nodes) == 5
    assert done.sites[0].certificate == "exact"
    given = feeds(1, 2, 4, 3)
    np.testing.assert_allclose(run(after, given)["y"], run(model, given)["y"], rtol=1e-5, atol=1e-5)


# What stands behind the layer and stays there.
LEFT = {
    "per_pixel": "y = Mul(z, pixels)",
    "itself": "y = Mul(z, z)",
    "something_computed": "t = ReduceMax(x) y = Mul(z, t)",
    "read_twice": "t = Mul(z, s) r = Relu(z) y = Add(t, r)",
    "quotient_of_a_constant": "y = Div(s, z)",
    "division_by_zero": "y = Div(z, zero)",
    "training": ("y, m, v = BatchNormalization<training_mode=1>(z, gain, offset, mean, variance)"),
    "variance_below_zero": "y = BatchNormalization(z, gain, offset, mean, negative)",
    "mean_over_rows": "m = ReduceMean<axes=[2]>(z) y = Sub(z, m)",
    "mean_over_more_than_channels": "m = ReduceMean<axes=[1, 2]>(z) y = Sub(z, m)",
    "mean_without_its_axis": (
        "m = ReduceMean<axes=[1], keepdims=0>(z) k1 = Unsqueeze(m, one) y = Sub(z, k1)"
    ),
    "largest_channel": "m = ReduceMax<axes=[1]>(z) y = Sub(z, m)",
    "mean_less_the_rest": f"{MEAN} y = Sub(m, z)",
    "mean_that_something_else_reads": f"{MEAN} d = Sub(z, m) y = Add(d, m)",
    "mean_of_something_else": "r = Relu(z) m = ReduceMean<axes=[1]>(r) y = Sub(z, m)",
    "what_something_else_reads": f"{MEAN} d = Sub(z, m) r = Relu(z) y = Add(d, r)",
}


@pytest.mark.parametrize("tail", LEFT.values(), ids=LEFT)
def test_what_is_not_affine_or_not_known_stays(tail: str) -> None:
    constants = {
        **{"pixels": drawn(1, 1, 8, 6), "zero": floats(0.0)},
        **{"negative": -np.abs(drawn(4)) - 1, "one": np.array([1])},
    }
    model = parsed(f"{UP} {tail}", {**CONSTANTS, **constants}, "1,2,4,3")
    done, after = rewrite(model, verify=False)
    assert len(done.sites[0].nodes) == 1
    assert ops(after)[model.graph.node[-1].op_type] == ops(model)[model.graph.node[-1].op_type]


def test_axes_that_are_an_input() -> None:
    body = f"{UP} m = ReduceMean(z, one) y = Sub(z, m)"
    model = parsed(body, {**CONSTANTS, "one": np.array([1])}, "1,2,4,3", opset=18)
    done, after = rewrite(model)
    assert done.sites[0].certificate == "exact"
    assert not set(ops(after)) & _FOLDABLE


def test_the_mean_of_one_group_is_not_that_of_all() -> None:
    body = f"z = ConvTranspose<strides=[2,2], group=2>(x, wg) {MEAN} y = Sub(z, m)"
    _, after = rewrite(parsed(body, CONSTANTS, "1,4,4,3"))
    assert ops(after)["ReduceMean"] == 1


def test_a_scale_that_a_caller_may_override_stays() -> None:
    model = parsed(f"{UP} y = Mul(z, s)", CONSTANTS, "1,2,4,3")
    given = model.graph.input.add()
    given.CopyFrom(model.graph.input[0])
    given.name = "s"
    del given.type.tensor_type.shape.dim[1:]
    given.type.tensor_type.shape.dim[0].dim_value = 1
    assert ops(rewrite(model, verify=False)[1])["Mul"] == 1
    frozen = rewrite(model, verify=False, freeze_initializers=True)[1]
    assert ops(frozen)["Mul"] == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_the_element_type_is_kept_and_products_are_rounded_once(dtype: Any) -> None:
    body = "z = ConvTranspose<strides=[2,2]>(x, v) y = Mul(z, g)"
    weight, gain = drawn(2, 3, 2, 2).astype(dtype), drawn(3, 1, 1).astype(dtype)
    model = parsed(body, {"v": weight, "g": gain}, "1,2,4,3", dtype=dtype)
    _, after = rewrite(model, shuffle="crd")
    arrays = [numpy_helper.to_array(one) for one in after.graph.initializer]
    (placed,) = [array for array in arrays if array.ndim == 4]
    exact = weight.astype(np.float64) * gain.astype(np.float64).reshape(1, 3, 1, 1)
    expected = exact.astype(dtype).transpose(1, 2, 3, 0).reshape(12, 2, 1, 1)
    np.testing.assert_array_equal(placed, expected)


def kept(model: ModelProto) -> ModelProto:
    """``model`` under a policy that has found no form to be faster."""
    planning = plan_model(load(model), RewriteOptions()).with_rewrites({})
    assert [site.status for site in planning.reports] == ["folded"]
    return apply(planning).proto


@pytest.mark.parametrize("body", FOLDED.values(), ids=FOLDED)
def test_a_layer_that_stays_takes_them_too(body: str) -> None:
    model = parsed(body, CONSTANTS, "2,2,4,3")
    after = kept(model)
    layer = model.graph.node[1 if "Resize" in body else 0].op_type
    assert ops(after)[layer] == 1
    assert not set(ops(after)) & _FOLDABLE
    given = feeds(2, 2, 4, 3)
    np.testing.assert_allclose(run(after, given)["y"], run(model, given)["y"], rtol=1e-5, atol=1e-5)


def test_a_layer_that_the_call_leaves_alone_takes_nothing() -> None:
    model = parsed(f"{UP} {BATCH_NORM}", CONSTANTS, "1,2,4,3")
    before = model.SerializeToString(deterministic=True)
    planning = plan_model(load(model), RewriteOptions(skip=("*",)))
    after = apply(planning).proto
    assert after.SerializeToString(deterministic=True) == before


@pytest.fixture
def nothing_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever replaces a layer costs more than the layer."""
    slow: Any = dict.fromkeys(
        ("depth_to_space", "transposed", "transposed_axis", "transposed_rows", "col2im_pairs"),
        Rate(0.0, 1e6),
    )
    monkeypatch.setitem(TABLES, "ort", CostTable(slow, block=0, margin=0.0, fitted=True))


@pytest.mark.usefixtures("nothing_wins")
def test_a_layer_that_stays_and_takes_its_neighbour_is_folded_certified_and_timed() -> None:
    model = parsed(f"{UP} {BATCH_NORM}", CONSTANTS, "1,2,4,3")
    done = deployconv.rewrite(model, policy="cost")
    (site,) = done.sites
    assert site.reason is not None
    assert (site.status, site.reason.code, site.certificate) == ("folded", "slower", "exact")
    assert (done.changed, done.latency is not None, site.left_alone) == (True, True, True)
    lines = rewriting_lines(done)
    assert lines[0] == "certificate: exact (1 site)"


@pytest.mark.usefixtures("nothing_wins")
def test_a_weight_that_two_layers_share_is_not_copied_for_a_fold() -> None:
    norm = BATCH_NORM.replace("y =", "n =")
    other = "o = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(x, w) y = Add(n, o)"
    model = parsed(f"{UP} {norm} {other}", CONSTANTS, "1,2,4,3")
    done, after = rewrite(model, policy="cost")
    assert [site.status for site in done.sites] == ["kept", "kept"]
    assert after == model


@pytest.mark.usefixtures("nothing_wins")
def test_a_model_that_stays_as_it_is_is_said_to_be_a_copy(tmp_path: Path) -> None:
    done = deployconv.rewrite(
        parsed("y = ConvTranspose<strides=[2,2]>(x, w)", CONSTANTS, "1,2,4,3"),
        output=tmp_path / "out.onnx",
        policy="cost",
    )
    assert not done.changed
    certificate, _, latency, wrote = rewriting_lines(done)
    assert (certificate, latency, wrote) == (
        "certificate: not run - no site was changed",
        "latency: not run - nothing was changed",
        f"wrote {tmp_path / 'out.onnx'}, a copy: nothing was changed",
    )
