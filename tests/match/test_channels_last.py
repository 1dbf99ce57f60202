"""Upsampling of channels-last images, with and without layers before the Conv.

The low-resolution image has its channels last, or lacks an axis that the Conv has, and the layer
begins with a Transpose or an Unsqueeze of that image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

import deployconv
from deployconv.graph.load import load
from deployconv.match import ImageAxes
from deployconv.options import RewriteOptions
from deployconv.proof.certificate import certify_sites
from deployconv.rewrites.chain import Chain
from deployconv.rewrites.conv import PolyphaseConv
from deployconv.rewrites.planning import apply, plan_model
from deployconv.rewrites.region import Region
from deployconv.search.choice import FusionScope
from tests.build import assert_equal, integers, ops, rewrite, run
from tests.match.graphs import NEAREST, assert_never_wrong, codes, feeds, floats, ints, parsed
from tests.rewrites.plans import verdict, with_first

FIRST = "z = Transpose<perm=[0,3,1,2]>(u)"
"""The channels of ``u`` become the first axis after the batch, for the Conv."""
CONV = "y = Conv<pads=[1,1,1,1]>(z, w, b)"
KERAS = "a = Unsqueeze(x, k3) at = Tile(a, t3) r = Reshape(at, s3) c = Unsqueeze(r, k2)"
KERAS_STATIC = f"{KERAS} ct = Tile(c, t2) u = Reshape(ct, s2)"
BY_SIZES = (
    "s = Shape(x) n = Slice(s, k0, k1) h = Slice(s, k1, k2) v = Slice(s, k2, k3)"
    " h2 = Mul(h, k2) v2 = Mul(v, k2)"
)


@dataclass(frozen=True)
class Case:
    """Nodes from ``x`` to ``y``, and the shapes to compare at; the first is the declared one."""

    body: str
    shapes: tuple[tuple[int, ...], ...] = ((1, 4, 3, 2),)
    dims: str = "1,4,3,2"
    opset: int = 17
    constants: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> ModelProto:
        numbers = {f"k{number}": ints(number) for number in range(5)}
        return parsed(self.body, {**numbers, **self.constants}, self.dims, opset=self.opset)


DYNAMIC = ((1, 4, 3, 2), (3, 1, 1, 2), (2, 7, 9, 2), (1, 17, 6, 2))


def dynamic(body: str, **constants: Any) -> Case:
    return Case(f"{body} {FIRST} {CONV}", DYNAMIC, "n,h,w,2", constants=constants)


def static(body: str, **constants: Any) -> Case:
    return Case(f"{body} {FIRST} {CONV}", constants=constants)


NHWC = floats(1, 2, 3, 1)
RESIZED = f"r = Resize<{NEAREST}>(x, , by)"
VALUES: dict[str, Any] = {
    "by": NHWC,
    "scale": floats(2, -1),
    "offset": floats(-3, 2),
    "wide": floats(2, -1).reshape(1, 1, 1, 2),
    "none": np.float32(0),
    "six": np.float32(6),
}
W1 = integers(3, 2, 3, seed=1)
UPSAMPLED = {
    "resize by scales": dynamic(f"u = Resize<{NEAREST}>(x, , by)", by=NHWC),
    "resize by sizes": static(f"u = Resize<{NEAREST}>(x, , , to)", to=ints(1, 8, 9, 2)),
    "resize in another mode": static(
        'u = Resize<mode="nearest", coordinate_transformation_mode="half_pixel",'
        ' nearest_mode="round_prefer_floor">(x, , , to)',
        to=ints(1, 8, 6, 2),
    ),
    "keras": static(
        KERAS_STATIC,
        t3=ints(1, 1, 1, 2, 1),
        s3=ints(1, 4, 6, 2),
        t2=ints(1, 1, 2, 1, 1),
        s2=ints(1, 8, 6, 2),
    ),
    "keras with dynamic sizes": dynamic(
        f"{BY_SIZES} to = Concat<axis=0>(n, h2, v, k2) to2 = Concat<axis=0>(n, h2, v2, k2)"
        " a = Unsqueeze(x, k2) at = Tile(a, t2) r = Reshape(at, to)"
        " c = Unsqueeze(r, k3) ct = Tile(c, t3) u = Reshape(ct, to2)",
        t2=ints(1, 1, 2, 1, 1),
        t3=ints(1, 1, 1, 2, 1),
    ),
    "expand": static(
        "a = Reshape(x, apart) e = Expand(a, larger) u = Reshape(e, to)",
        apart=ints(1, 4, 1, 3, 1, 2),
        larger=ints(1, 4, 2, 3, 2, 2),
        to=ints(1, 8, 6, 2),
    ),
    "gather": static(
        "r = Gather<axis=1>(x, rows) u = Gather<axis=2>(r, columns)",
        rows=np.repeat(np.arange(4), 2),
        columns=np.repeat(np.arange(3), 2),
    ),
    "zero insertion": static(
        "a = Reshape(x, apart) p = Pad(a, pads) u = Reshape(p, to)",
        apart=ints(1, 4, 1, 3, 1, 2),
        pads=ints(0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0),
        to=ints(1, 8, 9, 2),
    ),
    "rows here and columns there": dynamic(
        f"h2 = Resize<{NEAREST}>(x, , rows) c = Transpose<perm=[0,2,1,3]>(h2)"
        f" u2 = Resize<{NEAREST}>(c, , rows) u = Transpose<perm=[0,2,1,3]>(u2)",
        rows=floats(1, 2, 1, 1),
    ),
    "one dimension": Case(
        f"u = Resize<{NEAREST}>(x, , by) z = Transpose<perm=[0,2,1]>(u)"
        " y = Conv<pads=[1,1]>(z, w, b)",
        ((1, 5, 2), (3, 1, 2), (2, 8, 2)),
        "n,t,2",
        constants={"by": floats(1, 2, 1), "w": W1},
    ),
    "one dimension through two": Case(
        f"a = Unsqueeze(x, k2) r = Resize<{NEAREST}>(a, , by) u = Squeeze(r, k2)"
        " z = Transpose<perm=[0,2,1]>(u) y = Conv<pads=[1,1]>(z, w, b)",
        ((1, 5, 2), (3, 1, 2), (2, 8, 2)),
        "n,t,2",
        constants={"by": floats(1, 2, 1, 1), "w": W1},
    ),
    "one dimension into a two-dimensional Conv": Case(
        f"r = Resize<{NEAREST}>(x, , by) u = Unsqueeze(r, k1) {FIRST}"
        " y = Conv<pads=[0,1,0,1]>(z, w, b)",
        ((1, 5, 2), (3, 1, 2), (2, 8, 2)),
        "n,t,2",
        constants={"by": floats(1, 2, 1), "w": W1.reshape(3, 2, 1, 3)},
    ),
    "the same before opset 13": Case(
        f"r = Resize<{NEAREST}>(x, roi, by) u = Unsqueeze<axes=[1]>(r) {FIRST}"
        " y = Conv<pads=[0,1,0,1]>(z, w, b)",
        ((1, 5, 2), (3, 1, 2), (2, 8, 2)),
        "n,t,2",
        opset=11,
        constants={
            "roi": np.zeros(0, np.float32),
            "by": floats(1, 2, 1),
            "w": W1.reshape(3, 2, 1, 3),
        },
    ),
    "a row of pixels that is neither batch nor channels": Case(
        f"r = Resize<{NEAREST}>(x, , by) z = Unsqueeze(r, front) y = Conv<pads=[1,1,1,1]>(z, w, b)",
        ((4, 3), (1, 5), (9, 2)),
        "h,w",
        constants={
            "by": floats(2, 3),
            "front": ints(0, 1),
            "w": integers(3, 1, 3, 3, seed=1),
        },
    ),
    "height and width exchanged": Case(
        f"r = Resize<{NEAREST}>(x, , by) z = Transpose<perm=[0,3,2,1]>(r) {CONV}",
        DYNAMIC,
        "n,h,w,2",
        constants={"by": NHWC},
    ),
    "one channel": Case(
        f"u = Resize<{NEAREST}>(x, , by) {FIRST} {CONV}",
        ((1, 4, 3, 1), (2, 1, 5, 1)),
        "n,h,w,1",
        constants={"by": NHWC, "w": integers(3, 1, 3, 3, seed=1)},
    ),
    "a Conv of one tap": Case(
        f"u = Resize<{NEAREST}>(x, , by) {FIRST} y = Conv(z, w, b)",
        DYNAMIC,
        "n,h,w,2",
        constants={"by": NHWC, "w": integers(3, 2, 1, 1, seed=1)},
    ),
    "three dimensions": Case(
        f"u = Resize<{NEAREST}>(x, , by) z = Transpose<perm=[0,4,1,2,3]>(u)"
        " y = Conv<pads=[1,1,1,1,1,1]>(z, w, b)",
        ((1, 2, 3, 4, 2), (2, 3, 1, 2, 2)),
        "n,d,h,w,2",
        constants={"by": floats(1, 2, 2, 2, 1), "w": integers(3, 2, 3, 3, 3, seed=1)},
    ),
}
"""Each way to upsample an image whose channels are last."""


@pytest.mark.parametrize("case", UPSAMPLED.values(), ids=UPSAMPLED)
def test_channels_last_image(case: Case) -> None:
    assert codes(assert_never_wrong(case.model, case.shapes)) == [None]


def test_a_transpose_of_the_small_image_comes_first() -> None:
    _, after = rewrite(static(f"u = Resize<{NEAREST}>(x, , by)", by=floats(1, 2, 2, 1)).model)
    first, *others = after.graph.node
    assert (first.op_type, list(first.attribute[0].ints)) == ("Transpose", [0, 3, 1, 2])
    assert [node.op_type for node in others] == ["Conv", "DepthToSpace", "Slice"]


def test_the_size_of_the_image_does_not_matter() -> None:
    """A map of every pixel would not fit in memory."""
    body = f"r = Resize<{NEAREST}>(x, , by) m = Mul(r, scale) u = Relu(m) {FIRST} {CONV}"
    model = Case(body, dims="1,40000,40000,2", constants=VALUES).model
    assert codes(deployconv.inspect(model).sites) == [None]


def test_in_a_function_without_known_shapes() -> None:
    case = UPSAMPLED["resize by scales"]
    model = case.model
    opsets = [helper.make_opsetid("", 17)]
    constants = [
        helper.make_node("Constant", [], [one.name], value=one) for one in model.graph.initializer
    ]
    nodes = [*constants, *model.graph.node]
    model.functions.append(helper.make_function("own", "layer", ["x"], ["y"], nodes, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.append(helper.make_node("layer", ["x"], ["y"], domain="own"))
    assert codes(assert_never_wrong(model, case.shapes)) == [None]


def test_two_layers_of_one_image() -> None:
    body = f"u = Resize<{NEAREST}>(x, , by) {FIRST} p = Conv<pads=[1,1,1,1]>(z, w, b)"
    constants = {"by": NHWC, "v": integers(3, 2, 5, 5, seed=4)}
    body += " q = Conv<pads=[2,2,2,2]>(z, v, b) y = Concat<axis=1>(p, q)"
    case = Case(body, DYNAMIC, "n,h,w,2", constants=constants)
    assert codes(assert_never_wrong(case.model, case.shapes)) == [None, None]


BETWEEN = {
    "batch normalization and relu": "m = Mul(r, scale) a = Add(m, offset) u = Relu(a)",
    "constants of all axes": "m = Mul(r, wide) u = Sub(m, wide)",
    "constants in front": "m = Mul(scale, r) u = Sub(offset, m)",
    "slopes": "u = PRelu(r, scale)",
    "clip": "a = Add(r, offset) u = Clip(a, none, six)",
    "two branches": "m = Mul(r, scale) u = Max(m, r)",
}
"""Layers between the upsampling and the Conv, one value per channel, which is the last axis."""


@pytest.mark.parametrize("layers", BETWEEN.values(), ids=BETWEEN)
def test_layers_with_one_value_per_channel(layers: str) -> None:
    case = dynamic(f"{RESIZED} {layers}", **VALUES)
    assert codes(assert_never_wrong(case.model, case.shapes)) == [None]


@pytest.mark.parametrize("layers", BETWEEN.values(), ids=BETWEEN)
def test_the_same_behind_an_image_with_its_channels_first(layers: str) -> None:
    """Neither Transpose is needed."""
    body = f"l = Transpose<perm=[0,2,3,1]>(x) {RESIZED.replace('(x', '(l')} {layers}"
    constants = {**VALUES, "by": floats(1, 2, 2, 1)}
    case = Case(f"{body} {FIRST} {CONV}", dims="n,2,h,w", constants=constants)
    shapes = ((1, 2, 4, 3), (3, 2, 1, 1), (2, 2, 7, 9))
    assert codes(assert_never_wrong(case.model, shapes)) == [None]
    _, after = rewrite(case.model)
    assert ops(after)["Resize"] == ops(after)["Transpose"] == 0


def test_layers_before_the_upsampling_in_other_axes() -> None:
    """The constants of the axes that the Keras layers add for a moment."""
    body = "a = Unsqueeze(x, k3) at = Tile(a, twice) m = Mul(at, scale) u = Reshape(m, to)"
    case = static(body, **VALUES, twice=ints(1, 1, 1, 2, 1), to=ints(1, 4, 6, 2))
    assert codes(assert_never_wrong(case.model, case.shapes)) == [None]


INSERTED = "a = Reshape(x, apart) p = Pad(a, pads) r = Reshape(p, to)"
INSERTION: dict[str, Any] = {
    "apart": ints(1, 4, 1, 3, 1, 2),
    "pads": ints(0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0),
    "to": ints(1, 8, 6, 2),
}


@pytest.mark.parametrize(
    ("layers", "code"),
    [
        ("u = Mul(r, scale)", None),
        ("a1 = Add(r, offset) u = Sub(a1, offset)", None),
        ("u = Add(r, offset)", "shifted-zeros"),
    ],
)
def test_inserted_zeros_with_one_value_per_channel(layers: str, code: str | None) -> None:
    case = static(f"{INSERTED} {layers}", **{**INSERTION, **VALUES})
    assert codes(assert_never_wrong(case.model, case.shapes)) == [code]


def test_values_along_the_width_are_not_per_channel() -> None:
    """A row of six pixels, each with a factor of its own: no layer of one kernel does that."""
    case = static(f"{RESIZED} u = Mul(r, columns)", **VALUES, columns=integers(9, 1, seed=4) + 9)
    assert codes(assert_never_wrong(case.model, case.shapes)) == ["no-conv"]


@pytest.mark.parametrize("axis", ["channels", "pixels"])
def test_as_many_channels_as_columns(axis: str) -> None:
    """Which of the two axes of equal size the values belong to makes the difference."""
    constants = {**VALUES, "by": floats(1, 2, 1, 1), "factors": floats(2, -1)}
    if axis == "pixels":
        constants["factors"] = floats(2, -1).reshape(2, 1)
    body = f"r = Resize<{NEAREST}>(x, , by) u = Mul(r, factors) {FIRST} {CONV}"
    model = Case(body, dims="1,4,2,2", constants=constants).model
    assert codes(assert_never_wrong(model)) == [None if axis == "channels" else "no-conv"]


def test_a_mask_for_rows_and_one_for_columns_insert_zeros() -> None:
    masks = {"rows": np.tile(floats(1, 0), 4).reshape(8, 1, 1), "columns": np.tile([1, 0, 0], 3)}
    masks["columns"] = masks["columns"].astype(np.float32).reshape(9, 1)
    case = static(f"{RESIZED} m = Mul(r, rows) u = Mul(m, columns)", by=NHWC, **masks)
    (site,) = assert_never_wrong(case.model, case.shapes)
    assert (site.pattern, site.status) == ("zero_insertion", "rewritten")


LOW_RESOLUTION = {
    "a dense layer": ("g = MatMul(x, dense) t = Reshape(g, image)", "n,3"),
    "a bias in each channel": ("t = Add(x, offset)", "n,4,3,2"),
    "a residual": ("p = Abs(x) t = Add(x, p)", "n,4,3,2"),
    "pooling over channels": ("p = ReduceMax<axes=[3]>(x) t = Sub(x, p)", "n,4,3,2"),
}
"""What makes the small channels-last image."""


@pytest.mark.parametrize(("body", "dims"), LOW_RESOLUTION.values(), ids=LOW_RESOLUTION)
def test_what_stands_before_the_upsampling(body: str, dims: str) -> None:
    constants = {**VALUES, "dense": integers(3, 24, seed=5), "image": ints(0, 4, 3, 2)}
    layer = f"{body} {RESIZED.replace('(x', '(t')} z = Transpose<perm=[0,3,1,2]>(r) {CONV}"
    case = Case(layer, dims=dims, constants=constants)
    rest = tuple(int(size) for size in dims.split(",")[1:])
    sites = assert_never_wrong(case.model, [(1, *rest), (3, *rest)])
    assert codes(sites) == [None]


FORMS: list[tuple[str, str]] = [
    *(("crop", shuffle) for shuffle in ("dcr", "crd", "transpose", "two-step", "col2im")),
    *((form, "auto") for form in ("pad", "split")),
]


@pytest.mark.parametrize(("form", "shuffle"), FORMS)
def test_every_form(form: str, shuffle: str) -> None:
    body = f"{RESIZED} m = Mul(r, scale) u = Relu(m) {FIRST} {CONV}"
    model = Case(body, dims="2,4,3,2", opset=18, constants=VALUES).model
    assert codes(assert_never_wrong(model, form=form, shuffle=shuffle)) == [None]


@pytest.mark.parametrize("form", ["separable", "matrix"])
def test_forms_of_a_depthwise_layer(form: str) -> None:
    depthwise = np.tile(np.outer(floats(1, 2, 1), floats(1, 3, 1)), (2, 1, 1, 1))
    body = f"{RESIZED} u = Relu(r) {FIRST} y = Conv<pads=[1,1,1,1], group=2>(z, w)"
    case = Case(body, dims="1,4,3,2", constants={**VALUES, "w": depthwise.astype(np.float32)})
    (site,) = assert_never_wrong(case.model, form=form)
    assert (site.form, site.status) == (form, "rewritten")


@pytest.mark.parametrize("fusion", ["chain", "region + conv"])
def test_layers_after_it_run_at_low_resolution_too(fusion: FusionScope) -> None:
    last = {"v": integers(8, 3, 1, 1, seed=6), "o": integers(2, 2, 3, 3, seed=7)}
    body = (
        f"{RESIZED} u = Relu(r) {FIRST} c = Conv<pads=[1,1,1,1]>(z, w, b) t = Relu(c)"
        ' e = Conv(t, v) d = DepthToSpace<blocksize=2, mode="CRD">(e) y = Relu(d)'
    )
    if fusion != "chain":
        body = body[: body.index("e = ")] + "e = Relu(t) y = Conv<pads=[1,1,1,1]>(e, o)"
        last["o"] = integers(2, 3, 3, 3, seed=7)
    model = Case(body, dims="2,4,3,2", opset=18, constants={**VALUES, **last}).model
    planning = certify_sites(with_first(model, "pad", "crd", fusion), seed=0)
    site = planning.sites[0]
    assert isinstance(site.rewrite, Chain if fusion == "chain" else Region)
    assert site.report.certificate == "exact"
    given = feeds(2, 4, 3, 2)
    assert_equal(run(model, given), run(apply(planning).proto, given))


def test_the_shuffle_after_it_runs_with_the_sizes_of_this_model_only() -> None:
    constants = {
        **VALUES,
        "w": integers(8, 2, 3, 3, seed=1),
        "apart": ints(2, 2, 2, 2, 8, 9),
        "to": ints(2, 2, 16, 18),
    }
    body = (
        f"{RESIZED} z = Transpose<perm=[0,3,1,2]>(r) c = Conv<pads=[1,1,1,1]>(z, w) t = Relu(c)"
        " s = Reshape(t, apart) m = Transpose<perm=[0,1,4,2,5,3]>(s) d = Reshape(m, to)"
        " y = Relu(d)"
    )
    model = Case(body, dims="2,4,3,2", opset=18, constants=constants).model
    planning = certify_sites(with_first(model, "pad", "crd", "chain"), seed=0)
    assert isinstance(planning.sites[0].rewrite, Chain)
    assert planning.sites[0].report.certificate == "exact"
    given = feeds(2, 4, 3, 2)
    assert_equal(run(model, given), run(apply(planning).proto, given))


@pytest.mark.parametrize("mistake", ["axes", "constant"])
def test_channels_and_columns_exchanged_do_not_pass_the_certificate(mistake: str) -> None:
    """There are as many of them."""
    body = f"r = Resize<{NEAREST}>(x, , , to) u = Mul(r, scale) {FIRST} {CONV}"
    constants = {**VALUES, "to": ints(1, 8, 2, 2)}
    model = Case(body, dims="1,4,2,2", constants=constants).model
    (planned,) = plan_model(load(model), RewriteOptions()).sites
    made = planned.rewrite
    assert isinstance(made, PolyphaseConv)
    assert verdict(made) == "exact"
    assert made.site.input_axes == ImageAxes((0, 3, 1, 2))
    if mistake == "axes":
        wrong = replace(made.site, input_axes=ImageAxes((0, 2, 1, 3)))
    else:
        (layers,) = made.site.pointwise_before
        moved = {name: replace(known, shape=(1, 1, 2)) for name, known in layers.reshaped.items()}
        wrong = replace(made.site, pointwise_before=(replace(layers, reshaped=moved),))
    assert verdict(replace(made, site=wrong)) == "failed"


REASONS = {
    "no Conv": (f"r = Resize<{NEAREST}>(x, , by) y = Relu(r)", "no-conv"),
    "pooled": (f"{RESIZED} z = Transpose<perm=[0,3,1,2]>(r) y = GlobalMaxPool(z)", "no-conv"),
    "rounded up": (
        f"r = Resize<{NEAREST.replace('floor', 'ceil')}>(x, , by)"
        f" z = Transpose<perm=[0,3,1,2]>(r) {CONV}",
        "unsupported-rounding",
    ),
    "strided": (
        f"{RESIZED} z = Transpose<perm=[0,3,1,2]>(r)"
        " y = Conv<pads=[1,1,1,1], strides=[2,2]>(z, w, b)",
        "strided-conv",
    ),
}


@pytest.mark.parametrize(("body", "code"), REASONS.values(), ids=REASONS)
@pytest.mark.parametrize("dims", ["1,4,3,2", "n,h,w,2"])
def test_it_stays_and_says_why(body: str, code: str, dims: str) -> None:
    model = Case(body, dims=dims, constants=VALUES).model
    assert codes(deployconv.inspect(model).sites) == [code]
