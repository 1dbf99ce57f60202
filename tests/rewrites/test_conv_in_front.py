"""1x1 Convs before the Resizes of their images: what is moved, and that nothing else changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, parser

from deployconv.graph.load import load
from deployconv.options import RewriteOptions
from deployconv.proof.certificate import certify_sites
from deployconv.rewrites.planning import apply
from deployconv.search.candidates import Candidates
from tests.build import Array, ops, rewrite, run, tensor
from tests.match.graphs import floats, ints

COST = RewriteOptions(policy="cost")
IN_FRONT = "1x1 conv in front"
LINEAR = 'Resize<mode="linear">'
CUBIC = 'Resize<mode="cubic">'
CORNERS = 'Resize<mode="linear", coordinate_transformation_mode="align_corners">'


def network(
    body: str,
    inputs: Mapping[str, str],
    constants: Mapping[str, Array] | None = None,
    *,
    opset: int = 17,
    dtype: Any = np.float32,
) -> ModelProto:
    """The nodes of ``body`` from images of these shapes to ``y``.

    A weight ``wC_D`` is a 1x1 Conv from C to D channels, ``bD`` its bias; ``xN`` are scales of 2-D
    images. In opset 11 and 12 an empty region may not be left out: `` e`` is one.
    """
    named = {1: "float", 10: "float16", 11: "double"}
    kind = named[helper.np_dtype_to_tensor_dtype(np.dtype(dtype))]
    given = ", ".join(f"{kind}[{shape}] {name}" for name, shape in inputs.items())
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> net ({given}) => ({kind} y) {{ {body} }}'
    )
    known: dict[str, Array] = dict(constants or {})
    rng = np.random.default_rng(5)
    for name in {name for node in model.graph.node for name in node.input} - known.keys():
        if name[:1] == "w" and "_" in name:
            read, made = map(int, name[1:].split("_")[:2])
            known[name] = rng.standard_normal((made, read, 1, 1)).astype(dtype)
        elif name[:1] == "b" and name[1:].isdigit():
            known[name] = rng.standard_normal(int(name[1:])).astype(dtype)
        elif name[:1] == "x" and name[1:].isdigit():
            known[name] = floats(1, 1, int(name[1:]), int(name[1:]))
        elif name == "e":
            known[name] = np.zeros(0, np.float32)
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(tensor(k, v) for k, v in known.items() if k in used)
    return model


def moved(model: ModelProto, form: str = "auto") -> ModelProto | None:
    """``model`` with the first site that offers it in this form, certified; None if none does."""
    candidates = Candidates.of(load(model), COST)
    for planned in candidates.planning.default:
        for option in candidates.of_site(planned):
            if (option.choice.fusion, option.choice.form) == (IN_FRONT, form):
                choices = {planned.id: option.choice}
                planning = certify_sites(candidates.with_choices(choices), 0)
                for report in planning.reports:
                    assert report.certificate in ("exact", None), report.certificate_failure
                return apply(planning).proto
    return None


def moved_alike(
    before: ModelProto, form: str = "auto", sizes: Sequence[int] = (5, 8), atol: float = 2e-5
) -> ModelProto:
    """`moved`, where something must move and no result may change."""
    after = moved(before, form)
    assert after is not None
    assert_equal_results(before, after, sizes, atol)
    return after


def inputs_of(model: ModelProto, size: int, batch: int = 2) -> dict[str, Array]:
    rng = np.random.default_rng(size)
    found = {}
    for at, value in enumerate(model.graph.input):
        dims = value.type.tensor_type.shape.dim
        shape = [
            dim.dim_value or (batch if axis == 0 else size + 2 * axis)
            for axis, dim in enumerate(dims)
        ]
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        found[value.name] = rng.standard_normal(shape).astype(kind) + at
    return found


def assert_equal_results(
    before: ModelProto, after: ModelProto, sizes: Sequence[int] = (5, 8), atol: float = 2e-5
) -> None:
    """The same results of onnxruntime up to rounding, at these sizes of dynamic axes."""
    for size in sizes:
        given = inputs_of(before, size)
        expected, actual = run(before, given)["y"], run(after, given)["y"]
        assert expected.shape == actual.shape
        np.testing.assert_allclose(
            actual, expected, rtol=0, atol=atol * max(1, np.abs(expected).max())
        )


MOVES: dict[str, tuple[str, dict[str, str], Counter[str]]] = {
    "directly after it": (
        f"r = {LINEAR}(a, , x2) y = Conv(r, w8_4, b4)",
        {"a": "1,8,3,5"},
        Counter(Resize=1, Conv=1),
    ),
    "after a cubic Resize": (
        f"r = {CUBIC}(a, , x2) y = Conv(r, w8_4)",
        {"a": "2,8,3,5"},
        Counter(Resize=1, Conv=1),
    ),
    "through a Concat": (
        f"p = {LINEAR}(a, , x4) q = {LINEAR}(b, , x2) c = Concat<axis=1>(p, d, q)"
        " y = Conv(c, w24_6, b6)",
        {"a": "1,8,2,3", "b": "1,10,4,6", "d": "1,6,8,12"},
        Counter(Resize=2, Conv=3, Add=2),
    ),
    "through an Add": (
        f"p = {LINEAR}(a, , x4) q = {LINEAR}(b, , x2) c = Add(q, p) y = Conv(c, w8_2)",
        {"a": "1,8,2,3", "b": "1,8,4,6"},
        Counter(Resize=2, Conv=2, Add=1),
    ),
    "one after the other": (
        f"r = {LINEAR}(a, , x2) c = Conv(r, w8_6, b6) y = Conv(c, w6_2, b2)",
        {"a": "1,8,3,5"},
        Counter(Resize=1, Conv=1),
    ),
    "with those before it": (
        f"f = Conv(a, w4_9, b9) r = {LINEAR}(f, , x2) y = Conv(r, w9_2, b2)",
        {"a": "1,4,3,5"},
        Counter(Resize=1, Conv=1),
    ),
    "images that are not resized share one Conv": (
        f"p = {LINEAR}(a, , x4) c = Concat<axis=1>(d, p, f) y = Conv(c, w24_6, b6)",
        {"a": "1,8,2,3", "f": "1,10,8,12", "d": "1,6,8,12"},
        Counter(Resize=1, Conv=2, Add=1, Concat=1),
    ),
    "with a nearest Resize beside it": (
        f'p = {LINEAR}(a, , x4) q = Resize<mode="nearest">(b, , x2) c = Concat<axis=1>(q, p)'
        " y = Conv(c, w18_6, b6)",
        {"a": "1,8,2,3", "b": "1,10,4,6"},
        Counter(Resize=2, Conv=2, Add=1),
    ),
    "an image of one pixel becomes a bias": (
        f"p = {LINEAR}(g, , x8) c = Concat<axis=1>(d, p) y = Conv(c, w24_6, b6)",
        {"g": "2,8,1,1", "d": "2,16,8,8"},
        Counter(Conv=2, Add=1),
    ),
    "of three axes": (
        f"r = {LINEAR}(a, , s) y = Conv(r, v, b2)",
        {"a": "1,8,2,3,4"},
        Counter(Resize=1, Conv=1),
    ),
    "of one axis": (
        f"r = {LINEAR}(a, , t) y = Conv(r, u, b2)",
        {"a": "2,8,7"},
        Counter(Resize=1, Conv=1),
    ),
    "to sizes, with other channels": (
        f"r = {CORNERS}(a, , , z) y = Conv(r, w8_3, b3)",
        {"a": "1,8,4,5"},
        Counter(Resize=1, Conv=1),
    ),
    "with a BatchNormalization and factors": (
        f"r = {LINEAR}(a, , x2) h = Mul(r, k) c = Conv(h, w8_3, b3)"
        " n = BatchNormalization(c, g, b3, m, g) y = Sub(n, m1)",
        {"a": "1,8,4,5"},
        Counter(Resize=1, Conv=1),
    ),
    "of groups": (
        f"r = {LINEAR}(a, , x2) y = Conv<group=2>(r, o, b4)",
        {"a": "1,8,4,5"},
        Counter(Resize=1, Conv=1),
    ),
    "taken off another image": (
        f"r = {LINEAR}(a, , x4) c = Sub(d, r) y = Conv(c, w8_2, b2)",
        {"a": "1,8,2,3", "d": "1,8,8,12"},
        Counter(Resize=1, Conv=2, Add=1),
    ),
    "with products of tokens before it": (
        "f = Reshape(a, flat) f1 = Transpose<perm=[0,2,1]>(f) h = MatMul(f1, p4_9) i = Add(b9, h)"
        f" j = Transpose<perm=[0,2,1]>(i) l = Reshape<allowzero=1>(j, image) r = {LINEAR}(l, , x2)"
        " q = Concat<axis=1>(r, d) y = Conv(q, w14_2, b2)",
        {"a": "2,4,3,5", "d": "2,5,6,10"},
        Counter(Resize=1, Conv=2, Add=1),
    ),
    "a product of pixels, channels last": (
        f"r = {LINEAR}(a, , x2) f = Transpose<perm=[0,2,3,1]>(r) h = MatMul(f, p9_4)"
        " i = Add(h, b4) y = Transpose<perm=[0,3,1,2]>(i)",
        {"a": "1,9,3,5"},
        Counter(Resize=1, Conv=1),
    ),
    "a Resize that changes nothing is left out": (
        f"p = {LINEAR}(a, , , z) q = {LINEAR}(b, , , z) c = Concat<axis=1>(p, q)"
        " y = Conv(c, w16_3, b3)",
        {"a": "1,8,4,5", "b": "1,8,9,12"},
        Counter(Resize=1, Conv=2, Add=1),
    ),
}
EXTRA = {
    "flat": ints(2, 4, -1),
    "image": ints(2, 9, 3, 5),
    "p4_9": np.random.default_rng(2).standard_normal((4, 9)).astype(np.float32),
    "p9_4": np.random.default_rng(3).standard_normal((9, 4)).astype(np.float32),
    "s": floats(1, 1, 2, 2, 1),
    "t": floats(1, 1, 3),
    "z": ints(1, 8, 9, 12),
    "v": np.random.default_rng(1).standard_normal((2, 8, 1, 1, 1)).astype(np.float32),
    "u": np.random.default_rng(1).standard_normal((2, 8, 1)).astype(np.float32),
    "o": np.random.default_rng(1).standard_normal((4, 4, 1, 1)).astype(np.float32),
    "k": floats(*range(1, 9)).reshape(8, 1, 1),
    "g": floats(1, 2, 0.5),
    "m": floats(1, -2, 3),
    "m1": floats(0.5, -1, 2).reshape(1, 3, 1, 1),
}


@pytest.mark.parametrize("case", MOVES.values(), ids=MOVES)
def test_it_runs_on_the_small_image(case: tuple[str, dict[str, str], Counter[str]]) -> None:
    body, inputs, expected = case
    extra = {name: values for name, values in EXTRA.items() if name not in inputs}
    assert ops(moved_alike(network(body, inputs, extra))) == expected


STAYS: dict[str, tuple[str, dict[str, str]]] = {
    "something else reads the Resize": (
        f"r = {LINEAR}(a, , x2) c = Conv(r, w8_3) f = ReduceSum(r, one) y = Add(c, f)",
        {"a": "1,8,4,5"},
    ),
    "something else reads what is between": (
        f"r = {LINEAR}(a, , x2) q = {LINEAR}(b, , x2) h = Add(r, q) c = Conv(h, w8_3)"
        " f = ReduceSum(h, one) y = Add(c, f)",
        {"a": "1,8,4,5", "b": "1,8,4,5"},
    ),
    "an activation is between": (
        f"r = {LINEAR}(a, , x2) h = Relu(r) y = Conv(h, w8_3)",
        {"a": "1,8,4,5"},
    ),
    "a Conv of nine taps": (f"r = {LINEAR}(a, , x2) y = Conv(r, v)", {"a": "1,8,4,5"}),
    "a Conv with a stride": (
        f"r = {LINEAR}(a, , x2) y = Conv<strides=[2,2]>(r, w8_3)",
        {"a": "1,8,4,5"},
    ),
    "the Conv makes far more channels": (
        f"r = {LINEAR}(a, , x2) y = Conv(r, w4_64)",
        {"a": "1,4,4,5"},
    ),
    "the Resize makes the image smaller": (
        f"r = {LINEAR}(a, , half) y = Conv(r, w8_8)",
        {"a": "1,8,8,6"},
    ),
    "it takes a region": (
        'r = Resize<mode="linear", coordinate_transformation_mode="tf_crop_and_resize">(a, roi, x2)'
        " y = Conv(r, w8_3)",
        {"a": "1,8,4,5"},
    ),
    "it changes the channels": (
        f"r = {LINEAR}(a, , s) y = Conv(r, w8_3)",
        {"a": "1,4,4,5"},
    ),
    "a weight that is an input": (
        f"r = {LINEAR}(a, , x2) y = Conv(r, w)",
        {"a": "1,8,4,5", "w": "3,8,1,1"},
    ),
    "a product of two images": (
        f"r = {LINEAR}(a, , x2) h = Mul(r, b) y = Conv(h, w8_3)",
        {"a": "1,8,4,5", "b": "1,8,8,10"},
    ),
    "what is added to a sum alone": (
        f"f = Conv(a, w8_8) r = {LINEAR}(f, , x2) y = Add(r, b)",
        {"a": "1,8,4,5", "b": "1,8,8,10"},
    ),
}
OTHERS = {
    "one": ints(1),
    "half": floats(1, 1, 0.5, 0.5),
    "same": floats(1, 1, 1.05, 1.05),
    "s": floats(1, 2, 2, 2),
    "roi": floats(0, 0, 0, 0, 1, 1, 1, 1),
    "v": np.ones((3, 8, 3, 3), np.float32),
}


@pytest.mark.parametrize("case", STAYS.values(), ids=STAYS)
def test_nothing_moves_if(case: tuple[str, dict[str, str]]) -> None:
    body, inputs = case
    assert moved(network(body, inputs, OTHERS)) is None


CONSTANTS: dict[str, tuple[str, dict[str, str]]] = {
    "a batch of one, beside a dynamic one": (
        f"p = {LINEAR}(a, , x4) q = {LINEAR}(b, , , t) s = Concat<axis=1>(p, q) y = Conv(s, w16_2)",
        {"a": "n,8,2,2", "b": "n,8,1,1"},
    ),
    "sizes, beside dynamic ones": (
        f"p = {LINEAR}(a, , x4) q = {LINEAR}(b, , , t) s = Sub(p, q) y = Conv(s, w8_2)",
        {"a": "1,8,h,w", "b": "1,8,1,1"},
    ),
}


@pytest.mark.parametrize("case", CONSTANTS.values(), ids=CONSTANTS)
def test_sizes_that_were_exported_as_constants_beside_dynamic_ones(
    case: tuple[str, dict[str, str]],
) -> None:
    body, inputs = case
    model = network(body, inputs, {"t": ints(1, 8, 8, 8)})
    shape = {"a": (1, 8, 2, 2), "b": (1, 8, 1, 1)}
    for resample in (False, True):
        done, _ = rewrite(model, policy="cost", resample=resample, shape=shape, verify=False)
        assert "failed" not in {site.certificate for site in done.sites}
    assert moved(model) is None


def test_an_image_that_is_resized_again_and_read_as_it_is_too() -> None:
    body = f"r = {LINEAR}(a, , x2) c = Conv(r, w8_3) q = {LINEAR}(c, , same) y = Add(c, q)"
    moved_alike(network(body, {"a": "1,8,4,5"}, OTHERS))


@pytest.mark.parametrize(
    "end",
    [
        "y = Conv(c, w6_3)",
        "l = Transpose<perm=[0, 2, 3, 1]>(c) m = MatMul(l, p) y = Transpose<perm=[0, 3, 1, 2]>(m)",
    ],
    ids=["Conv", "MatMul"],
)
def test_weights_for_fewer_channels_than_the_image_has(end: str) -> None:
    """The runtime refuses such a model; it may come from a Resize that also makes channels."""
    body = (
        f"k = Conv(a, w8_2) g = {CUBIC}(k, , , t) r = {CUBIC}(g, , x2)"
        f" c = Concat<axis=1>(r, r, r) {end}"
    )
    constants = {"t": ints(1, 8, 12, 4), "p": np.ones((6, 3), np.float32)}
    assert moved(network(body, {"a": "1,8,4,4"}, constants)) is None


def test_a_resize_that_is_skipped_stays_where_it_is() -> None:
    body = (
        f"p = {LINEAR}(a, , x4) q = {LINEAR}(b, , x2) c = Concat<axis=1>(p, q)"
        " y = Conv(c, w16_3, b3)"
    )
    model = network(body, {"a": "1,8,2,3", "b": "1,8,4,6"})
    second = Candidates.of(load(model), COST).planning.default[1].id
    candidates = Candidates.of(load(model), RewriteOptions(policy="cost", skip=(second,)))
    first, other = candidates.planning.default
    assert candidates.of_site(other) == ()
    (option,) = (
        one for one in candidates.of_site(first) if str(one.choice) == f"resize + {IN_FRONT}"
    )
    after = apply(candidates.with_choices({first.id: option.choice})).proto
    assert next(node.input[0] for node in after.graph.node if node.op_type == "Resize") == "b"
    assert_equal_results(model, after)


DYNAMIC = {
    "by scales": f"r = {LINEAR}(a, , x2) y = Conv(r, w8_4, b4)",
    "to the sizes of another image": (
        "s = Shape(d) hw = Slice(s, two, four) u = Shape(a) nc = Slice(u, zero, two)"
        f" to = Concat<axis=0>(nc, hw) r = {CORNERS}(a, , , to) c = Concat<axis=1>(d, r)"
        " y = Conv(c, w14_5, b5)"
    ),
    "one pixel to the sizes of another image": (
        "s = Shape(d) hw = Slice(s, two, four) g = GlobalAveragePool(a) u = Shape(g)"
        " nc = Slice(u, zero, two) to = Concat<axis=0>(nc, hw)"
        f" r = {LINEAR}(g, , , to) c = Concat<axis=1>(d, r) y = Conv(c, w14_5, b5)"
    ),
}
PARTS = {"zero": ints(0), "two": ints(2), "four": ints(4)}


@pytest.mark.parametrize("body", DYNAMIC.values(), ids=DYNAMIC)
def test_sizes_may_be_dynamic(body: str) -> None:
    inputs = {"a": "n,8,h,w"} | ({"d": "n,6,k,l"} if "d)" in body else {})
    after = moved_alike(network(body, inputs, PARTS), sizes=(1, 3, 7, 12))
    assert ops(after)["Resize"] == ("GlobalAveragePool" not in body)


@pytest.mark.parametrize("opset", [11, 13, 18, 19, 21])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_opsets_and_types(opset: int, dtype: Any) -> None:
    empty = "e" if opset < 13 else ""
    body = (
        f"p = {CORNERS}(a, {empty}, {empty}, z) q = {CORNERS}(b, {empty}, x2)"
        " c = Concat<axis=-3>(p, q) y = Conv(c, w16_3, b3)"
    )
    before = network(
        body, {"a": "2,8,2,3", "b": "2,8,4,6"}, {"z": ints(2, 8, 8, 12)}, opset=opset, dtype=dtype
    )
    moved_alike(before, atol=2e-2 if dtype == np.float16 else 2e-5)


@pytest.mark.parametrize("axes", [[2, 3], [-1, -2], [3]])
def test_axes_that_are_named(axes: list[int]) -> None:
    body = f'r = Resize<mode="linear", axes={axes}>(a, , , z) y = Conv(r, w8_3, b3)'
    moved_alike(network(body, {"a": "2,8,2,3"}, {"z": ints(7, 11)[: len(axes)]}, opset=18))


def test_the_resizes_may_become_products() -> None:
    body = (
        f"p = {CUBIC}(a, , x4) q = {CUBIC}(b, , x2)"
        " c = Concat<axis=1>(p, q, d) y = Conv(c, w22_3, b3)"
    )
    before = network(body, {"a": "1,8,5,3", "b": "1,8,10,6", "d": "1,6,20,12"})
    assert ops(moved_alike(before, "matrix")) == Counter(MatMul=4, Conv=3, Add=2)


@pytest.mark.parametrize("sizes", ["5,3", "4,5,3"], ids=["image", "volume"])
def test_linear_resizes_by_whole_factors_become_products_if_there_are_no_others(sizes: str) -> None:
    ones = ",".join("1" for _ in sizes.split(","))
    body = f"p = {LINEAR}(a, , x) y = Conv<kernel_shape=[{ones}]>(p, w)"
    rank = len(sizes.split(","))
    constants = {
        "x": floats(1, 1, *[2] * rank),
        "w": np.random.default_rng(6).standard_normal((3, 8, *[1] * rank)).astype(np.float32),
    }
    before = network(body, {"a": f"1,8,{sizes}"}, constants)
    found = ops(moved_alike(before, "matrix"))
    assert (found["MatMul"], found["Conv"], found["Resize"]) == (rank, 1, 0)


def test_a_linear_resize_by_whole_factors_stays_beside_others() -> None:
    body = (
        f"p = {CUBIC}(a, , x4) q = {LINEAR}(b, , x2) r = {LINEAR}(d, , , z)"
        " c = Concat<axis=1>(p, q, r) y = Conv(c, w24_3)"
    )
    images = {"a": "1,8,10,3", "b": "1,8,20,6", "d": "1,8,15,9"}
    after = moved_alike(network(body, images, {"z": ints(1, 8, 40, 12)}), "matrix")
    assert [node.input[3:] for node in after.graph.node if node.op_type == "Resize"] == [[]]


def test_a_layer_before_the_resize_merges_only_if_that_saves_multiplications() -> None:
    body = f"f = Conv(a, w64_2) r = {LINEAR}(f, , x2) h = Concat<axis=1>(r, d) y = Conv(h, w32_32)"
    before = network(body, {"a": "1,64,4,5", "d": "1,30,8,10"})
    after = moved(before)
    if after is not None:
        weights = {tuple(one.dims) for one in after.graph.initializer if len(one.dims) == 4}
        assert (32, 64, 1, 1) not in weights
        assert_equal_results(before, after)


def test_a_wrong_weight_fails_the_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    from deployconv.rewrites import affine

    right = affine._offset
    monkeypatch.setattr(affine, "_offset", lambda conv, rows: right(conv, rows) + 1)
    body = f"r = {LINEAR}(a, , x2) y = Conv(r, w8_4, b4)"
    with pytest.raises(AssertionError, match="elements differ"):
        moved(network(body, {"a": "1,8,3,5"}))


def test_a_resize_whose_weights_do_not_add_up_to_one_fails_the_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from deployconv.rewrites import conv_in_front

    monkeypatch.setattr(conv_in_front, "_ROUNDING", -1)
    with pytest.raises(AssertionError, match="its weight at"):
        moved(network(f"r = {LINEAR}(a, , x2) y = Conv(r, w8_4, b4)", {"a": "1,8,3,5"}))


def random_network(rng: np.random.Generator) -> ModelProto:
    """Images of one to three axes that are resized, joined and mixed at random."""
    rank, result = int(rng.integers(1, 4)), 0
    sizes = [int(size) for size in rng.integers(4, 9, rank)]
    images: dict[str, str] = {}
    constants: dict[str, Array] = {}
    lines: list[str] = []
    parts: list[tuple[str, int]] = []
    modes = ["linear", "nearest", *(["cubic"] if rank == 2 else [])]
    coordinates = ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"]
    for number in range(int(rng.integers(1, 4))):
        width, name = int(rng.integers(3, 12)), f"i{number}"
        small = [int(rng.integers(1, size + 1)) for size in sizes]
        resized = number == 0 or rng.random() < 0.7
        shape = [2, width, *(small if resized else sizes)]
        images[name] = ",".join(map(str, shape))
        if rng.random() < 0.4:
            above, made = int(rng.integers(2, 8)), f"f{number}"
            images[name] = ",".join(map(str, [2, above, *shape[2:]]))
            constants[f"u{number}"] = normal(rng, width, above, *(1,) * rank)
            lines.append(f"{made} = Conv({name}, u{number})")
            name = made
        if resized:
            mode, made = rng.choice(modes if number else ["linear"]), f"r{number}"
            constants[f"z{number}"] = ints(2, width, *sizes)
            chosen = rng.choice(coordinates)
            lines.append(
                f'{made} = Resize<mode="{mode}", coordinate_transformation_mode="{chosen}">'
                f"({name}, , , z{number})"
            )
            name = made
        parts.append((name, width))
    rng.shuffle(parts)
    joined, width = parts[0]
    if len(parts) > 1:
        joined, width = "c", sum(width for _, width in parts)
        lines.append(f"c = Concat<axis=1>({', '.join(name for name, _ in parts)})")
    for number in range(int(rng.integers(1, 4))):
        kind, made = rng.choice(["conv", "conv", "mul", "add", "norm", "self"]), f"t{number}"
        constants[f"v{number}"] = normal(rng, width, *(1,) * rank)
        constants[f"n{number}"] = np.abs(normal(rng, width)) + 0.5
        if kind == "conv":
            result = int(rng.integers(1, 8))
            constants[f"k{number}"] = normal(rng, result, width, *(1,) * rank)
            constants[f"b{number}"] = normal(rng, result)
            lines.append(f"{made} = Conv({joined}, k{number}, b{number})")
            width = result
        elif kind == "norm":
            read = ", ".join([f"n{number}"] * 4)
            lines.append(f"{made} = BatchNormalization({joined}, {read})")
        elif kind == "self":
            lines.append(f"{made} = Add({joined}, {joined})")
        else:
            op = {"mul": "Mul", "add": "Add"}[kind]
            order = f"v{number}, {joined}" if rng.random() < 0.5 else f"{joined}, v{number}"
            lines.append(f"{made} = {op}({order})")
        joined = made
    lines.append(f"y = Relu({joined})")
    return network(" ".join(lines), images, constants)


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("seed", range(40))
def test_random_networks_stay_equal(seed: int) -> None:
    before = random_network(np.random.default_rng(seed))
    for form in ("auto", "matrix"):
        after = moved(before, form)
        if after is not None:
            assert_equal_results(before, after, sizes=(seed,))


HEAD = (
    f"p = {LINEAR}(a, , x4) q = {LINEAR}(b, , x2) c = Concat<axis=1>(p, q, d)"
    " h = Conv(c, w192_64, b64) y = Relu(h)",
    {"a": "1,64,8,8", "b": "1,64,16,16", "d": "1,64,32,32"},
)


def test_policy_cost_moves_it_and_the_first_resize_stands_for_all() -> None:
    before = network(*HEAD)
    done, after = rewrite(before, policy="cost")
    first, second = done.sites
    assert (first.status, second.status) == ("rewritten", "rewritten")
    assert (first.certificate, second.certificate) == ("exact", "exact")
    assert first.macs is not None
    assert first.macs.before == 16 * 192 * 64
    assert first.macs.after == (1 + 4 + 16) * 64 * 64
    assert ops(after) == Counter(Conv=3, Resize=2, Add=2, Relu=1)
    chosen = [one.name for one in first.candidates if one.chosen]
    assert chosen == [f"resize + {IN_FRONT}"]
    assert_equal_results(before, after)


def test_policy_cost_moves_it_at_dynamic_sizes_too() -> None:
    body = (
        "s = Shape(d) hw = Slice(s, two, four) u = Shape(a) nc = Slice(u, zero, two)"
        f" to = Concat<axis=0>(nc, hw) r = {LINEAR}(a, , , to) c = Concat<axis=1>(d, r)"
        " h = Conv(c, w128_32, b32) y = Relu(h)"
    )
    before = network(body, {"a": "n,64,h,w", "d": "n,64,k,l"}, PARTS)
    done, after = rewrite(before, policy="cost", shape={"a": (1, 64, 8, 8), "d": (1, 64, 32, 32)})
    (site,) = done.sites
    assert site.status == "rewritten"
    assert ops(after)["Conv"] == 2
    assert_equal_results(before, after)


def test_policy_all_leaves_it_alone() -> None:
    before = network(*HEAD)
    done, after = rewrite(before)
    assert [site.status for site in done.sites] == ["kept", "kept"]
    assert after == before


def test_resample_moves_it_and_leaves_no_resize() -> None:
    before = network(*HEAD)
    done, after = rewrite(before, resample=True)
    assert [(site.status, site.certificate) for site in done.sites] == [("rewritten", "exact")] * 2
    assert done.sites[0].form == "matrix"
    assert ops(after) == Counter(Conv=3, MatMul=4, Add=2, Relu=1)
    assert_equal_results(before, after)


def test_resample_in_another_form_moves_nothing() -> None:
    before = network(*HEAD)
    _, after = rewrite(before, resample=True, form="polyphase")
    assert ops(after)["MatMul"] == 0
    assert ops(after)["Concat"] >= 1
    assert_equal_results(before, after)


def test_a_conv_of_nine_taps_after_a_linear_resize_has_no_other_form() -> None:
    model = network(f"r = {LINEAR}(a, , x2) y = Conv(r, v)", {"a": "1,8,4,5"}, OTHERS)
    candidates = Candidates.of(load(model), COST)
    (planned,) = candidates.planning.default
    assert [str(option.choice) for option in candidates.of_site(planned)] == ["matrix"]
