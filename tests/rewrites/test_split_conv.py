"""A Conv after a Concat of images of which some are upsampled: one Conv for each, and their sum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

import deployconv
from deployconv.graph.load import load
from deployconv.options import RewriteOptions
from deployconv.proof.certificate import certify
from deployconv.rewrites.split_conv import SplitConv
from deployconv.search.candidates import Candidates
from tests.build import (
    Array,
    Feeds,
    assert_equal,
    graph,
    integers,
    node,
    ops,
    rewrite,
    run,
    tensor,
)
from tests.match.graphs import NEAREST, assert_never_wrong, codes, feeds, floats, ints, parsed
from tests.search.forms import assert_every_form

DYNAMIC = "n,2,h,w"
SIZES = ((1, 2, 4, 12), (2, 2, 8, 4), (0, 2, 4, 4), (3, 2, 16, 20))
HALF = "half = Conv<pads=[1,1,1,1], strides=[2,2]>(x, small)"
"""Three channels of half the size."""
QUARTER = "quarter = AveragePool<kernel_shape=[2,2], strides=[2,2]>(half)"
TWICE = f"up = Resize<{NEAREST}>(half, , two)"
CONV = "y = Conv<pads=[1,1,1,1]>(t, k, b)"
BATCH_NORM = "gain, offset, mean, variance"
NEAREST_MODES = {
    "mode": "nearest",
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "floor",
}

CONSTANTS: dict[str, Array] = {
    "small": integers(3, 2, 3, 3, seed=5),
    "two": floats(1, 1, 2, 2),
    "four": floats(1, 1, 4, 4),
    "gain": floats(1, 2, 4),
    "offset": floats(1, -1, 3),
    "mean": floats(2, 0, 1),
    "variance": floats(1, 4, 4),
    "slopes": floats(2, -1, 0.5).reshape(3, 1, 1),
    "no_edges": ints(0, 0, 1, 0, 0, 0, 0, 1),
    "edges": ints(0, 0, 1, 1, 0, 0, 1, 1),
    "first": ints(1, 0),
    "last": ints(-1, 1 << 40),
    "spatial": ints(2, 3),
}


def joined(body: str, kernel: tuple[int, ...], dims: str = DYNAMIC, opset: int = 18) -> ModelProto:
    """The nodes of ``body`` from ``x`` to ``y``; ``k`` is a kernel of that shape."""
    constants = {**CONSTANTS, "k": integers(*kernel, seed=6), "b": integers(kernel[0], seed=7)}
    return parsed(body, constants, dims, opset=opset)


SPLIT: dict[str, tuple[str, tuple[int, ...]]] = {
    "upsampled last": (f"{HALF} {TWICE} t = Concat<axis=1>(x, up) {CONV}", (3, 5, 3, 3)),
    "upsampled first": (f"{HALF} {TWICE} t = Concat<axis=-3>(up, x) {CONV}", (3, 5, 3, 3)),
    "upsampled in the middle": (
        f"{HALF} {TWICE} n = Neg(x) t = Concat<axis=1>(x, up, n) {CONV}",
        (3, 7, 3, 3),
    ),
    "two of one size": (
        f"{HALF} {TWICE} h = Neg(half) v = Resize<{NEAREST}>(h, , two)"
        f" t = Concat<axis=1>(up, x, v) {CONV}",
        (3, 8, 3, 3),
    ),
    "two of different sizes": (
        f"{HALF} {TWICE} {QUARTER} v = Resize<{NEAREST}>(quarter, , four)"
        f" t = Concat<axis=1>(up, v, x) {CONV}",
        (3, 8, 3, 3),
    ),
    "all of them upsampled": (
        f"{HALF} {TWICE} h = Neg(half) v = Resize<{NEAREST}>(h, , two)"
        f" t = Concat<axis=1>(up, v) {CONV}",
        (3, 6, 3, 3),
    ),
    "one image twice": (f"{HALF} {TWICE} t = Concat<axis=1>(x, up, x, up) {CONV}", (3, 10, 3, 3)),
    "layers before the Concat": (
        f"{HALF} {TWICE} r = Relu(up) m = Mul(r, slopes) t = Concat<axis=1>(x, m) {CONV}",
        (3, 5, 3, 3),
    ),
    "layers before and after the Concat": (
        f"{HALF} {TWICE} m = Mul(up, slopes) a = Abs(x) c = Concat<axis=1>(m, x, a) t = Relu(c)"
        f" {CONV}",
        (3, 7, 3, 3),
    ),
    "an affine layer after the Conv": (
        f"{HALF} {TWICE} t = Concat<axis=1>(x, up) c = Conv<pads=[1,1,1,1]>(t, k, b)"
        f" y = BatchNormalization<epsilon=0.0>(c, {BATCH_NORM})",
        (3, 5, 3, 3),
    ),
    "no bias": (
        f"{HALF} {TWICE} t = Concat<axis=1>(x, up) y = Conv<pads=[0,1,2,1]>(t, k)",
        (3, 5, 3, 3),
    ),
    "dilated": (
        f"{HALF} {TWICE} t = Concat<axis=1>(x, up)"
        " y = Conv<pads=[2,2,2,2], dilations=[2,2]>(t, k, b)",
        (3, 5, 3, 3),
    ),
    "same padding": (
        f'{HALF} {TWICE} t = Concat<axis=1>(x, up) y = Conv<auto_pad="SAME_UPPER">(t, k, b)',
        (3, 5, 2, 4),
    ),
    "a crop after the Conv": (
        f"{HALF} {TWICE} t = Concat<axis=1>(x, up) c = Conv<pads=[1,1,1,1]>(t, k, b)"
        " y = Slice(c, first, last, spatial)",
        (3, 5, 3, 3),
    ),
    "padded before the Concat": (
        f"{HALF} {TWICE} p = Pad(up, no_edges) q = Pad(x, no_edges)"
        f" t = Concat<axis=1>(q, p) {CONV}",
        (3, 5, 3, 3),
    ),
    "reflected before the Concat": (
        f'{HALF} {TWICE} p = Pad<mode="reflect">(up, edges) q = Pad<mode="edge">(x, edges)'
        " t = Concat<axis=1>(q, p) y = Conv(t, k, b)",
        (3, 5, 3, 3),
    ),
    "a 1x1 Conv": (f"{HALF} {TWICE} t = Concat<axis=1>(up, x) y = Conv(t, k, b)", (4, 5, 1, 1)),
    "groups": (
        f"{HALF} {TWICE} m = Neg(up) t = Concat<axis=1>(up, m, x, x, x)"
        " y = Conv<pads=[1,1,1,1], group=4>(t, k, b)",
        (8, 3, 3, 3),
    ),
    "depthwise": (
        f"{HALF} {TWICE} t = Concat<axis=1>(up, x) y = Conv<pads=[1,1,1,1], group=5>(t, k, b)",
        (10, 1, 3, 3),
    ),
}


def fed(original: ModelProto) -> list[Feeds]:
    return [feeds(*shape) for shape in SIZES]


@pytest.mark.parametrize(("body", "kernel"), SPLIT.values(), ids=SPLIT)
def test_each_form_is_exact(body: str, kernel: tuple[int, ...]) -> None:
    original = joined(body, kernel)
    (site,) = assert_never_wrong(original)
    assert (site.status, site.reason and site.reason.code) == ("kept", "concat-before-conv")
    assert assert_every_form(original, fed(original))


def test_with_an_image_that_is_constant() -> None:
    body = f"{HALF} {TWICE} t = Concat<axis=1>(places, up) {CONV}"
    places = integers(1, 2, 4, 8, seed=8)
    constants = {**CONSTANTS, "places": places, "k": integers(3, 5, 3, 3), "b": integers(3)}
    assert assert_every_form(parsed(body, constants, "1,2,4,8"))


def test_in_a_branch_with_an_image_from_outside() -> None:
    inner = graph(
        [
            node("Resize", ["half", "", "two"], ["up"], **NEAREST_MODES),
            node("Concat", ["up", "x"], ["t"], axis=1),
            node("Conv", ["t", "k"], ["c"], pads=[1] * 4),
        ],
        [],
        [_output("c")],
    )
    outer = joined(f"{HALF} y = Neg(x)", (3, 5, 3, 3))
    other = graph([node("Conv", ["x", "small"], ["d"], pads=[1] * 4)], [], [_output("d")])
    del outer.graph.node[-1]
    outer.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    branches = {"then_branch": inner, "else_branch": other}
    outer.graph.node.append(node("If", ["flag"], ["y"], **branches))
    for name in ("two", "k"):
        values = {**CONSTANTS, "k": integers(3, 5, 3, 3, seed=6)}[name]
        outer.graph.initializer.append(tensor(name, values))
    flags = [np.array(value) for value in (True, False)]
    assert assert_every_form(outer, [{**feeds(1, 2, 6, 4), "flag": flag} for flag in flags])


def test_a_conv_that_a_pixel_shuffle_follows_belongs_to_the_shuffle() -> None:
    body = (
        f"{HALF} {TWICE} t = Concat<axis=1>(x, up) c = Conv<pads=[1,1,1,1]>(t, k, b)"
        " y = DepthToSpace<blocksize=2>(c)"
    )
    sites = deployconv.inspect(joined(body, (4, 5, 3, 3))).sites
    assert [(site.pattern, *codes([site])) for site in sites] == [
        ("nearest_resize", "no-conv"),
        ("pixel_shuffle", "already-lowered"),
    ]


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types_have_a_certificate(dtype: Any) -> None:
    body = f"{HALF} {TWICE} r = Relu(up) t = Concat<axis=1>(x, r) {CONV}"
    constants = {
        **{name: values for name, values in CONSTANTS.items() if name == "two"},
        "small": integers(3, 2, 3, 3, dtype=dtype),
        "k": integers(3, 5, 3, 3, dtype=dtype),
    }
    original = parsed(body, constants, DYNAMIC, dtype=dtype)
    made = forms(original)
    assert {certify(one, "site").verdict for one in made} == {"exact"}


@pytest.mark.parametrize("dims", ["1,2,8,12", "2,2,4,4"])
def test_with_static_sizes(dims: str) -> None:
    body, kernel = SPLIT["two of different sizes"]
    assert "crop, two-step" in assert_every_form(joined(body, kernel, dims))


@pytest.mark.parametrize("opset", [9, 10, 11, 13, 21])
def test_at_other_opsets(opset: int) -> None:
    up = f"up = Resize<{NEAREST}>(half, roi, two)"
    if opset < 11:
        up = f'up = {"Upsample" if opset < 10 else "Resize"}<mode="nearest">(half, two)'
    body = f"{HALF} {up} r = Relu(up) t = Concat<axis=1>(x, r) {CONV}"
    constants = {
        **CONSTANTS,
        "roi": floats(),
        "k": integers(3, 5, 3, 3, seed=6),
        "b": integers(3, seed=7),
    }
    original = parsed(body, constants, DYNAMIC, opset=opset)
    assert assert_every_form(original, fed(original))


def test_one_axis() -> None:
    constants = {
        "small": integers(3, 2, 3, seed=5),
        "scale": floats(1, 1, 3),
        "k": integers(4, 5, 5, seed=6),
    }
    body = (
        "half = Conv<strides=[3], pads=[1,1]>(x, small)"
        f" up = Resize<{NEAREST}>(half, , scale) t = Concat<axis=1>(up, x)"
        " y = Conv<pads=[2,2]>(t, k)"
    )
    original = parsed(body, constants, "n,2,l")
    assert assert_every_form(original, [feeds(1, 2, 3), feeds(2, 2, 15)])


def test_the_bias_is_added_once_and_by_the_image_that_is_not_upsampled() -> None:
    body, kernel = SPLIT["upsampled first"]
    rewrites = forms(joined(body, kernel))
    for made in rewrites:
        biases = [part.conv.site.bias is not None for part in made.parts]
        assert biases == [False, True]


def test_images_of_one_size_share_a_conv() -> None:
    found = {name: forms(joined(*SPLIT[name])) for name in SPLIT}
    members = {name: [part.members for part in made[0].parts] for name, made in found.items()}
    assert members["two of one size"] == [(0, 2), (1,)]
    assert members["two of different sizes"] == [(0,), (1,), (2,)]
    assert members["all of them upsampled"] == [(0, 1)]
    assert members["groups"] == [(0, 1), (2, 3, 4)]


def forms(original: ModelProto) -> list[SplitConv]:
    """The rewrites of its first site."""
    candidates = Candidates.of(load(original), RewriteOptions(policy="cost"))
    made = [one.rewrite for one in candidates.of_site(candidates.planning.default[0])]
    rewrites = [one for one in made if isinstance(one, SplitConv)]
    assert len(rewrites) == len(made) > 0
    return rewrites


@pytest.mark.parametrize("name", ["upsampled first", "two of different sizes", "depthwise"])
@pytest.mark.parametrize("change", ["a channel", "a tap", "the bias"])
def test_its_certificate_fails_if_a_weight_is_wrong(
    name: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deployconv.rewrites import split_conv

    right = split_conv._taken

    def wrong(parameter: Any, places: Any, axis: int, site: str) -> Any:
        made = right(parameter, places, axis, site)
        if (change == "the bias") != (len(parameter.shape) == 1):
            return made
        if change == "a tap":
            return _replaced(made, lambda values: values[..., ::-1])
        return _replaced(made, lambda values: np.roll(values, 1, 0))

    monkeypatch.setattr(split_conv, "_taken", wrong)
    if change == "the bias" and name != "depthwise":
        monkeypatch.setattr(
            split_conv,
            "_layer",
            lambda site, members, has_bias, made=split_conv._layer: made(site, members, True),
        )
    assert {certify(made, "site").verdict for made in forms(joined(*SPLIT[name]))} == {"failed"}


def _replaced(parameter: Any, change: Any) -> Any:
    from dataclasses import replace

    return replace(parameter, read=lambda: np.ascontiguousarray(change(parameter.read())))


def _refused(between: str, conv: str, kernel: tuple[int, ...]) -> ModelProto:
    return joined(f"{HALF} {TWICE} {between} {conv}", kernel)


NOT_SPLIT = {
    "a group reads both images": (
        _refused(
            "t = Concat<axis=1>(up, x, up)",
            "y = Conv<pads=[1,1,1,1], group=2>(t, k, b)",
            (4, 4, 3, 3),
        ),
        "concat-before-conv",
    ),
    "a Conv with a stride": (
        _refused("t = Concat<axis=1>(up, x)", "y = Conv<strides=[2,2]>(t, k, b)", (3, 5, 3, 3)),
        "strided-conv",
    ),
    "joined along the rows": (
        _refused("t = Concat<axis=2>(up, up)", CONV, (3, 3, 3, 3)),
        "no-conv",
    ),
    "another layer after the Concat": (
        _refused("c = Concat<axis=1>(up, x) t = Softmax<axis=1>(c)", CONV, (3, 5, 3, 3)),
        "no-conv",
    ),
}


@pytest.mark.parametrize(("original", "code"), NOT_SPLIT.values(), ids=NOT_SPLIT)
def test_what_is_not_split_says_why(original: ModelProto, code: str) -> None:
    sites = assert_never_wrong(original, policy="cost")
    assert code in codes(sites)
    assert {site.status for site in sites} == {"skipped"}


def test_a_scale_per_channel_after_the_concat_is_named() -> None:
    scales = floats(2, 1, 0.5, 4, 1).reshape(5, 1, 1)
    body = f"{HALF} {TWICE} c = Concat<axis=1>(up, x) t = Mul(c, scales) {CONV}"
    constants = {**CONSTANTS, "scales": scales, "k": integers(3, 5, 3, 3), "b": integers(3)}
    (site,) = assert_never_wrong(parsed(body, constants, DYNAMIC), policy="cost")
    assert (site.status, codes([site])) == ("skipped", ["concat-before-conv"])
    assert site.reason is not None
    assert "Mul" in site.reason.text


def test_a_quantized_weight_is_named() -> None:
    body = (
        f"{HALF} {TWICE} t = Concat<axis=1>(up, x) d = DequantizeLinear(q, s)"
        " y = Conv<pads=[1,1,1,1]>(t, d)"
    )
    constants = {**CONSTANTS, "q": integers(3, 5, 3, 3, dtype=np.int8), "s": np.float32(0.5)}
    (site,) = assert_never_wrong(parsed(body, constants, DYNAMIC), policy="cost")
    assert (site.status, codes([site])) == ("skipped", ["concat-before-conv"])
    assert site.reason is not None
    assert "quantized" in site.reason.text


def test_the_concat_stays_for_others_that_read_it() -> None:
    body = f"{HALF} {TWICE} t = Concat<axis=1>(up, x) {CONV} z = Relu(t)"
    original = joined(body, (3, 5, 3, 3))
    original.graph.output.append(_output("z"))
    assert assert_every_form(original, fed(original))


def _output(name: str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4)


def neck(channels: int, kernel: int) -> ModelProto:
    """A neck of an object detector: an upsampled image, one of its size, and two Convs of both."""
    constants = {
        "two": floats(1, 1, 2, 2),
        "small": integers(channels, channels, 1, 1, seed=5),
        "k": integers(channels, 2 * channels, kernel, kernel, seed=6),
        "l": integers(channels, 2 * channels, kernel, kernel, seed=7),
    }
    pads = f"pads=[{', '.join([str(kernel // 2)] * 4)}]"
    body = (
        f"half = Conv<strides=[2,2]>(x, small) up = Resize<{NEAREST}>(half, , two)"
        f" t = Concat<axis=1>(up, x) y = Conv<{pads}>(t, k) z = Conv<{pads}>(t, l)"
    )
    original = parsed(body, constants, f"1,{channels},h,w")
    original.graph.output.append(_output("z"))
    return original


def test_cost_splits_where_that_is_faster() -> None:
    original = neck(64, 3)
    done, after = rewrite(original, policy="cost", shape={"x": (1, 64, 64, 64)})
    assert [site.status for site in done.sites] == ["rewritten"] * 2
    assert ops(after)["Resize"] == 0
    assert ops(after)["Concat"] == 0
    for size in (2, 18):
        given = feeds(1, 64, size, size + 2)
        assert_equal(run(original, given), run(after, given))


def test_cost_splits_a_1x1_conv_and_repeats_its_result() -> None:
    original = neck(64, 1)
    done, after = rewrite(original, policy="cost", threads=1, shape={"x": (1, 64, 64, 64)})
    assert [site.status for site in done.sites] == ["rewritten"] * 2
    assert [site.form for site in done.sites] == ["conv"] * 2
    assert ops(after)["Resize"] == 2
    assert ops(after)["Concat"] == 0
    given = feeds(1, 64, 6, 10)
    assert_equal(run(original, given), run(after, given))


def test_cost_leaves_a_small_one_as_it_is() -> None:
    done, after = rewrite(neck(2, 1), policy="cost", shape={"x": (1, 2, 4, 4)})
    assert codes(done.sites) == ["slower", "slower"]
    assert ops(after)["Concat"] == 1


def test_only_and_skip_name_the_conv() -> None:
    original = neck(64, 3)
    names = [site.id for site in deployconv.inspect(original).sites]
    done, _ = rewrite(original, policy="cost", shape={"x": (1, 64, 64, 64)}, skip=names[0])
    assert codes(done.sites) == ["not-selected", None]
