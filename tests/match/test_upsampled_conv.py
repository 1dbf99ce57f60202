"""Layers between upsampling and Conv, other readers of these tensors, and scopes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, parser

import deployconv
from deployconv.match.movement import Movement
from deployconv.runtimes import get_backend
from tests.build import Array, assert_equal, integers, ops, rewrite, run, tensor
from tests.match.graphs import (
    CONV,
    NEAREST,
    assert_never_wrong,
    codes,
    dynamic_shapes,
    feeds,
    floats,
    ints,
    parsed,
)

DOUBLE = floats(1, 1, 2, 2)
RESIZE = f"r = Resize<{NEAREST}>(x, , scales)"
NEWEST = min(onnx.defs.onnx_opset_version(), 25)
"""onnxruntime runs no newer opset."""


def repeated(opset: int, source: str = "x", target: str = "r") -> tuple[str, dict[str, Array]]:
    """Repeat each pixel of ``source`` four times, by operators of ``opset``."""
    if opset < 9:
        return f'{target} = Upsample<mode="nearest", scales=[1.0,1.0,2.0,2.0]>({source})', {}
    given = {"scales": DOUBLE}
    if opset < 11:
        op = "Upsample" if opset < 10 else "Resize"
        return f'{target} = {op}<mode="nearest">({source}, scales)', given
    roi = "roi" if opset < 13 else ""
    return f"{target} = Resize<{NEAREST}>({source}, {roi}, scales)", {**given, "roi": floats()}


# --- layers between the upsampling and the Conv

POINTWISE = {
    "Relu": "z = Relu(r)",
    "LeakyRelu": "z = LeakyRelu<alpha=0.5>(r)",
    "Clip": "z = Clip(r, low, high)",
    "PRelu": "z = PRelu(r, slopes)",
    "BatchNormalization": "z = BatchNormalization<epsilon=0.0>(r, gains, gains, gains, ones)",
    "Mul by channel": "z = Mul(r, slopes)",
    "Add by channel": "z = Add(r, slopes)",
    "constant first": "z = Sub(slopes, r)",
    "two of them": "a = Add(r, slopes) z = Relu(a)",
}
PARAMETERS = {
    "low": np.float32(-1),
    "high": np.float32(3),
    "slopes": floats(2, -3).reshape(2, 1, 1),
    "gains": floats(2, 3),
    "ones": floats(1, 1),
}
KEEP_ZERO = {"Relu", "LeakyRelu", "Clip", "PRelu", "Mul by channel"}


def layered(upsampling: str, layer: str, **constants: Any) -> ModelProto:
    given = {"scales": DOUBLE, **PARAMETERS, **constants}
    return parsed(f"{upsampling} {layer} {CONV}", given)


@pytest.mark.parametrize("layer", POINTWISE.values(), ids=POINTWISE)
def test_a_pointwise_layer_runs_at_low_resolution(layer: str) -> None:
    original = layered(RESIZE, layer)
    assert codes(assert_never_wrong(original)) == [None]
    _, after = rewrite(original, verify=False)
    assert ops(after)["Resize"] == 0
    between = [proto.op_type for proto in original.graph.node][1:-1]
    assert [proto.op_type for proto in after.graph.node][: len(between)] == between


@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("zeros", ["padded", "inserted"])
def test_zeros_before_a_pointwise_layer_must_stay_zeros(name: str, zeros: str) -> None:
    upsampling = f"m = Resize<{NEAREST}>(x, , scales) r = Pad(m, pads)"
    if zeros == "inserted":
        upsampling = f"m = Resize<{NEAREST}>(x, , scales) r = Mul(m, mask)"
    mask = np.zeros((8, 6), np.float32)
    mask[::2, ::2] = 1
    original = layered(upsampling, POINTWISE[name], pads=ints(0, 0, 1, 2, 0, 0, 0, 1), mask=mask)
    expected = None if name in KEEP_ZERO else "shifted-zeros"
    assert codes(assert_never_wrong(original)) == [expected]


@pytest.mark.parametrize("layer", ["z = Softmax(r)", "z = CumSum(r, axis)", "z = Mul(r, rows)"])
def test_a_layer_that_is_not_pointwise_stays(layer: str) -> None:
    rows = np.arange(1, 9, dtype=np.float32).reshape(8, 1)
    sites = assert_never_wrong(layered(RESIZE, layer, rows=rows, axis=np.int64(2)))
    assert codes(sites) == ["no-conv"]


def test_what_changes_the_rank_is_not_followed_element_by_element(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The Reshape of a GroupNorm, at the size of the image."""
    monkeypatch.delattr(Movement, "index_map")
    original = parsed(f"z = Reshape(x, image) {CONV}", {"image": ints(1, 2, 4, 3)}, dims="1,2,12")
    assert deployconv.inspect(original).sites == ()


def test_what_is_constant_by_channel_must_find_the_channels_in_place() -> None:
    """Between two Transposes the second axis holds rows, not channels."""
    body = (
        "t = Transpose<perm=[0,2,3,1]>(x) m = Mul(t, rows) u = Transpose<perm=[0,3,1,2]>(m)"
        f" z = Resize<{NEAREST}>(u, , scales) {CONV}"
    )
    rows = floats(2, -3).reshape(2, 1, 1)
    original = parsed(body, {"rows": rows, "scales": DOUBLE}, "1,2,2,2")
    assert codes(assert_never_wrong(original)) == [None]


@pytest.mark.parametrize("shape", [(1, 2, 1, 1, 1, 1), (1, 1, 1, 1, 1, 1)])
def test_a_constant_of_higher_rank_does_not_reach_the_low_resolution(
    shape: tuple[int, ...],
) -> None:
    body = (
        "a = Unsqueeze(x, axes) m = Mul(a, gain) e = Expand(m, tall) z = Reshape(e, flat) " + CONV
    )
    constants = {
        "axes": ints(3, 5),
        "gain": np.resize(floats(2, -3), shape),
        "tall": ints(1, 2, 4, 2, 3, 2),
        "flat": ints(1, 2, 8, 6),
    }
    assert_never_wrong(parsed(body, constants))


def test_one_hot_but_for_very_little_is_not_one_hot() -> None:
    """1e-9 of a neighbour is lost beside large numbers, not beside zeros."""
    kernel = np.zeros((2, 1, 3, 3), np.float32)
    kernel[:, :, 1, 1], kernel[:, :, 1, 2] = 1, 1e-9
    body = f"v = ConvTranspose<pads=[1,1,1,1], group=2>(x, k) z = Resize<{NEAREST}>(v, , scales)"
    original = parsed(f"{body} {CONV}", {"k": kernel, "scales": DOUBLE})
    after = assert_never_wrong(original)
    assert [site.pattern for site in after] == ["conv_transpose", "nearest_resize"]


# --- who else reads the upsampled tensor


def test_an_upsampling_stays_for_its_other_readers() -> None:
    original = parsed(
        f"{RESIZE} y = Conv<pads=[1,1,1,1]>(r, w, b) y2 = Relu(r)", {"scales": DOUBLE}
    )
    original.graph.output.append(helper.make_tensor_value_info("y2", 1, None))
    assert codes(assert_never_wrong(original)) == [None]
    _, after = rewrite(original, verify=False)
    assert ops(after) == {"Resize": 1, "Relu": 1, "Conv": 1, "DepthToSpace": 1, "Slice": 1}


def test_an_upsampling_that_is_an_output_stays() -> None:
    original = parsed(f"{RESIZE} y = Conv<pads=[1,1,1,1]>(r, w, b)", {"scales": DOUBLE})
    original.graph.output.append(helper.make_tensor_value_info("r", 1, None))
    assert codes(assert_never_wrong(original)) == [None]
    assert ops(rewrite(original, verify=False)[1])["Resize"] == 1


def test_two_convs_after_one_upsampling() -> None:
    body = f"{RESIZE} c = Conv<pads=[1,1,1,1]>(r, w, b) d = Conv<pads=[1,1,1,1]>(r, w, b)"
    original = parsed(f"{body} y = Add(c, d)", {"scales": DOUBLE})
    assert codes(assert_never_wrong(original)) == [None, None]
    assert ops(rewrite(original, verify=False)[1])["Resize"] == 0


def test_a_mask_that_two_read_stays_for_the_other() -> None:
    mask = np.zeros((8, 6), np.float32)
    mask[::2, ::2] = 1
    body = f"{RESIZE} z = Mul(r, mask) c = {CONV[4:]} y = Mul(c, mask)"
    original = parsed(body, {"scales": DOUBLE, "mask": mask})
    assert codes(assert_never_wrong(original)) == [None]


def test_a_conv_between_an_upsampling_and_a_pixel_shuffle_is_the_end_of_the_first() -> None:
    body = f'{RESIZE} c = Conv<pads=[1,1,1,1]>(r, w4) y = DepthToSpace<blocksize=2, mode="CRD">(c)'
    original = parsed(body, {"scales": DOUBLE, "w4": integers(12, 2, 3, 3)})
    for shuffle in ("auto", "dcr"):
        sites = assert_never_wrong(original, shuffle=shuffle)
        assert [site.pattern for site in sites] == ["nearest_resize", "pixel_shuffle"]
        assert codes(sites) == [None, "already-lowered"]


# --- a 1x1 Conv


@pytest.mark.parametrize("opset", range(7, NEWEST + 1))
@pytest.mark.parametrize("kernel", [1, 3])
def test_every_opset(opset: int, kernel: int) -> None:
    body, constants = repeated(opset)
    pads = [kernel // 2] * 4
    original = parsed(
        f"{body} y = Conv<pads={pads}>(r, v)",
        {**constants, "v": integers(3, 2, kernel, kernel)},
        "n,2,h,w",
        opset=opset,
    )
    sites = assert_never_wrong(original, dynamic_shapes())
    assert codes(sites) == [None]
    _, after = rewrite(original, verify=False)
    # Before IR version 4 new weights are nodes.
    found = [proto.op_type for proto in after.graph.node if proto.op_type != "Constant"]
    if kernel == 1:
        assert found == ["Conv", original.graph.node[0].op_type]
        assert sites[0].macs is not None
        assert sites[0].macs.before == 4 * sites[0].macs.after
        assert sites[0].form == "conv"
    else:
        assert found == ["Conv", "DepthToSpace", "Slice"]


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("opset", [9, 13, 18])
def test_a_pointwise_conv_moves_before_the_repetition(rank: int, opset: int) -> None:
    """Each pixel is repeated along all axes with Expand; the Conv has two groups."""
    axes = ints(*(3 + 2 * axis for axis in range(rank)))
    given = "axes" if opset >= 13 else ""
    unsqueeze = f"Unsqueeze(x, {given})" if given else f"Unsqueeze<axes={axes.tolist()}>(x)"
    sizes = (3, 2, 4)[:rank]
    tall = [1, 4] + [part for size in sizes for part in (size, 2)]
    flat = [1, 4, *(2 * size for size in sizes)]
    original = parsed(
        f"a = {unsqueeze} e = Expand(a, tall) z = Reshape(e, flat) y = Conv<group=2>(z, v)",
        {"axes": axes, "tall": ints(*tall), "flat": ints(*flat), "v": integers(6, 2, *[1] * rank)},
        ",".join(map(str, (1, 4, *sizes))),
        opset=opset,
    )
    assert codes(assert_never_wrong(original)) == [None]
    assert ops(rewrite(original, verify=False)[1])["Expand"] == 0


@pytest.mark.parametrize("pads", [[1, 1, 1, 1], [0, 0, 1, 0]])
def test_a_padded_1x1_conv_sees_zeros_that_are_no_copies(pads: list[int]) -> None:
    original = parsed(
        f"{RESIZE} y = Conv<pads={pads}>(r, v, b)", {"scales": DOUBLE, "v": integers(3, 2, 1, 1)}
    )
    assert codes(assert_never_wrong(original)) == [None]
    assert ops(rewrite(original, verify=False)[1])["Resize"] == 0


# --- graphs inside graphs


def conditional(then_body: str, else_body: str, constants: dict[str, Array]) -> ModelProto:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> parsed (float[1,2,4,3] x, bool c) => (float y) {'
        f" y = If(c)<then_branch = then () => (float t) {{ {then_body} }},"
        f" else_branch = other () => (float e) {{ {else_body} }}> }}"
    )
    weights = {"w": integers(3, 2, 3, 3, seed=1), "b": integers(3, seed=2), **constants}
    for name, values in weights.items():
        model.graph.initializer.append(tensor(name, values))
    return model


def assert_same_branches(original: ModelProto) -> Sequence[str | None]:
    done, after = rewrite(original, verify=False)
    for branch in (False, True):
        given = {**feeds(1, 2, 4, 3), "c": np.array(branch)}
        assert_equal(run(original, given), run(after, given))
    return codes(done.sites)


def test_in_the_branches_of_an_if() -> None:
    conv = "Conv<pads=[1,1,1,1]>(r, w, b)"
    original = conditional(
        f"{RESIZE} t = {conv}",
        f"{RESIZE} p = Relu(r) e = Conv<pads=[1,1,1,1]>(p, w, b)",
        {"scales": DOUBLE},
    )
    assert assert_same_branches(original) == [None, None]


def test_branches_may_call_different_tensors_by_one_name() -> None:
    """``q`` is [1,2,4,3] here and [1,2,2,3] there; only once is 8x6 twice its size."""
    resize = f"r = Resize<{NEAREST}>(q, , , fixed)"
    original = conditional(
        f"q = Relu(x) {resize} t = Conv<pads=[1,1,1,1]>(r, w, b)",
        f"q = Slice(x, k0, k2, k2) {resize} e = Conv<pads=[1,1,1,1]>(r, w, b)",
        {"fixed": ints(1, 2, 8, 6), "k0": ints(0), "k2": ints(2)},
    )
    assert_same_branches(original)


def test_in_the_body_of_a_loop() -> None:
    """What the loop carries grows: 4x3, 8x6, 16x12, .. ."""
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> parsed (float[1,2,4,3] x) => (float y) {'
        " y = Loop(trips, always, x)<body = step (int64 i, bool go, float[1,2,h,v] q)"
        " => (bool on, float[1,2,hh,vv] p) {"
        f" on = Identity(go) r = Resize<{NEAREST}>(q, , scales)"
        " p = Conv<pads=[1,1,1,1]>(r, v2) }> }"
    )
    for name, values in {
        "trips": np.int64(3),
        "always": np.array(True),
        "scales": DOUBLE,
        "v2": integers(2, 2, 3, 3),
    }.items():
        model.graph.initializer.append(tensor(name, values))
    assert codes(assert_never_wrong(model, [(1, 2, 4, 3)])) == [None]


def function_model(body: str, nodes: str) -> ModelProto:
    """``nodes`` call the function ``own.up``, whose ``body`` makes ``y`` of ``q`` and ``w``."""
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "own" : 1]>'
        f" parsed (float[1,2,4,3] x) => (float y) {{ {nodes} }}"
        ' <domain: "own", opset_import: ["" : 17]> up (q, w) => (y) {' + body + "}"
    )
    constants = {"w": integers(3, 2, 3, 3), "k0": ints(0), "k2": ints(2)}
    used = {name for proto in model.graph.node for name in proto.input}
    for name, values in constants.items():
        if name in used:
            model.graph.initializer.append(tensor(name, values))
    return model


WEIGHTS = "k = Constant<value_floats=[1.0,2.0,-1.0,0.0]>() s = Constant<value_ints=[1,2,2,1]>()"
OWN_CONV = f"{WEIGHTS} v = Reshape(k, s) y = Conv(r, v)"


def test_in_a_function() -> None:
    scales = "scales = Constant<value_floats=[1.0,1.0,2.0,2.0]>()"
    body = f"{scales} r = Resize<{NEAREST}>(q, , scales) {OWN_CONV}"
    original = function_model(body, "y = own.up(x, w)")
    assert codes(assert_never_wrong(original)) == [None]


def test_a_function_may_be_called_on_tensors_of_any_shape() -> None:
    """This holds even if a tensor of the main graph has the same name as one of the function."""
    sizes = "to = Constant<value_ints=[1,2,8,6]>()"
    body = f"{sizes} r = Resize<{NEAREST}>(q, , , to) {OWN_CONV}"
    nodes = "q = Relu(x) p = Slice(x, k0, k2, k2) a = own.up(q, w) c = own.up(p, w) y = Add(a, c)"
    assert_never_wrong(function_model(body, nodes))


# --- element types


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("kernel", [1, 3])
def test_other_element_types(dtype: Any, kernel: int) -> None:
    pads = [kernel // 2] * 4
    original = parsed(
        f"{RESIZE} y = Conv<pads={pads}>(r, v)",
        {"scales": DOUBLE, "v": integers(3, 2, kernel, kernel).astype(dtype)},
        opset=22,
        dtype=dtype,
    )
    done, after = rewrite(original)
    assert [site.certificate for site in done.sites] == ["exact"]
    assert done.parity is not None
    assert done.parity.passed
    weights = [t for t in after.graph.initializer if len(t.dims) == 4]
    assert [t.data_type for t in weights] == [original.graph.input[0].type.tensor_type.elem_type]
    if np.dtype(dtype) == np.float16:
        given = feeds(1, 2, 4, 3, dtype=dtype)
        assert_equal(run(original, given), run(after, given))


def test_dynamic_sizes_stay_dynamic() -> None:
    original = parsed(f"{RESIZE} y = Conv<pads=[1,1,1,1]>(r, w, b)", {"scales": DOUBLE}, "n,2,h,v")
    _, after = rewrite(original, verify=False)
    session = get_backend("ort").prepare(after.SerializeToString())
    for shape in dynamic_shapes():
        output = session.run(feeds(*shape))["y"]
        assert output.shape == (shape[0], 3, 2 * shape[2], 2 * shape[3])


CASTS = {
    "behind the resize": f"r = Resize<{NEAREST}>(x, , scales) z = Cast<to=10>(r)",
    "around the resize": f"a = Cast<to=1>(x) r = Resize<{NEAREST}>(a, , scales) z = Cast<to=10>(r)",
    "with a layer": (
        f"a = Cast<to=1>(x) r = Resize<{NEAREST}>(a, , scales) l = LeakyRelu<alpha=0.5>(r)"
        " z = Cast<to=10>(l)"
    ),
    "channels last": (
        "t = Transpose<perm=[0,2,3,1]>(x) a = Cast<to=1>(t)"
        f" r = Resize<{NEAREST}>(a, , last_scales) h = Cast<to=10>(r)"
        " z = Transpose<perm=[0,3,1,2]>(h)"
    ),
    "behind zero insertion": (
        "a = Cast<to=1>(x) u = Unsqueeze(a, axes) p = Pad(u, zeros) r = Reshape(p, doubled)"
        " z = Cast<to=10>(r)"
    ),
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("body", CASTS.values(), ids=list(CASTS))
def test_a_cast_between_upsampling_and_conv(body: str, dtype: Any) -> None:
    """Islands of float16 in a float32 model, and of float32 in a float16 model."""
    constants = {
        "scales": floats(1, 1, 2, 2),
        "last_scales": floats(1, 2, 2, 1),
        "axes": ints(3, 5),
        "zeros": ints(*[0] * 9, 1, 0, 1),
        "doubled": ints(0, 0, 8, 6),
        "v": integers(3, 2, 3, 3).astype(np.float16),
    }
    tail = "c = Conv<pads=[1,1,1,1]>(z, v) y = Cast<to=1>(c)"
    tail = tail if dtype is np.float32 else "y = Conv<pads=[1,1,1,1]>(z, v)"
    original = parsed(f"{body} {tail}", constants, dtype=dtype)
    done, after = rewrite(original)
    assert [(site.status, site.certificate) for site in done.sites] == [("rewritten", "exact")]
    assert not {"Resize", "Pad"} & set(ops(after))
    x = integers(1, 2, 4, 3, dtype=dtype)
    assert_equal(run(original, {"x": x}), run(after, {"x": x}))


def test_before_a_fused_conv_it_is_listed() -> None:
    """As onnxruntime saves an optimised model."""
    original = parsed(f"z = Resize<{NEAREST}>(x, , scales) {CONV}", {"scales": floats(1, 1, 2, 2)})
    (conv,) = (proto for proto in original.graph.node if proto.op_type == "Conv")
    conv.op_type, conv.domain = "FusedConv", "com.microsoft"
    conv.attribute.append(helper.make_attribute("activation", "Relu"))
    original.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert run(original, {"x": integers(1, 2, 4, 3)})["y"].shape == (1, 3, 8, 6)
    (site,) = deployconv.inspect(original).sites
    assert site.reason is not None
    assert (site.pattern, site.reason.code) == ("nearest_resize", "fused-operator")
