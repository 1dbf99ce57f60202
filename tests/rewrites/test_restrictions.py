"""What is written keeps to what a target takes; else the layer stays, with what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from deployconv.graph.load import load
from deployconv.graph.view import view
from deployconv.options import LayerRequest, RewriteOptions
from deployconv.restrictions import Restrictions
from deployconv.results import Reason
from deployconv.rewrites.planning import apply, plan_model
from deployconv.rewrites.within import broken_by_nodes
from deployconv.search.candidates import Candidates
from tests.build import (
    FLOAT,
    Size,
    assert_equal,
    conv_transpose,
    feeds_for,
    graph,
    integers,
    model,
    node,
    ops,
    run,
    tensor,
    upsampler,
    value,
)
from tests.match.graphs import NEAREST, floats, ints, parsed
from tests.match.test_channels_last_shuffle import CONSTANTS
from tests.match.test_channels_last_shuffle import REWRITTEN as CHANNELS_LAST
from tests.quantized import Layer, quantized
from tests.rewrites.limited import disobeyed, limited

NUMBERS = {"reshape_zero": False, "reshape_minus_one": False, "computed_shapes": False}


def only(operators: str, **rest: object) -> Restrictions:
    return Restrictions(operators=frozenset(operators.split()), **rest)  # type: ignore[arg-type]


def layer(
    strides: Sequence[int],
    sizes: Sequence[Size] | None = None,
    *,
    batch: Size = 2,
    group: int = 1,
    kernel: int = 5,
    **rest: object,
) -> ModelProto:
    """4 to 6 channels; pads that leave something to crop at both ends."""
    rank = len(strides)
    attributes = {"strides": strides, "group": group, "pads": [1] * rank + [2] * rank, **rest}
    return conv_transpose(
        integers(4, 6 // group, *[kernel] * rank),
        sizes or (3, 4, 5)[:rank],
        integers(6, seed=1),
        batch=batch,
        opset=18,
        **attributes,  # type: ignore[arg-type]
    )


def form_and_shuffle(model: ModelProto, restrictions: Restrictions, **request: object) -> str:
    (site,), _ = limited(model, restrictions, **request)
    assert site.reason is None, site.reason
    return ", ".join(filter(None, (site.form, site.shuffle)))


def reason(model: ModelProto, restrictions: Restrictions) -> str:
    (site,), after = limited(model, restrictions)
    assert site.reason is not None
    assert (site.status, site.reason.code) == ("skipped", "target-restrictions")
    assert after == model
    return site.reason.text


OPERATORS = [
    ("Conv DepthToSpace", "pad, dcr"),
    ("Conv Reshape Transpose", "pad, transpose"),
    ("Conv Reshape Col2Im", "pad, col2im"),
    ("Conv Split Concat Reshape", "pad, concat"),
    ("Conv Concat Reshape", "split, concat"),
    ("Conv Split Resize Mul Add", "pad, masks"),
    ("Conv Resize Mul Add", "split, masks"),
    ("Conv Concat Reshape Resize Mul Add", "split, concat"),
]


@pytest.mark.parametrize(("operators", "written"), OPERATORS)
def test_the_first_form_whose_operators_are_all_taken(operators: str, written: str) -> None:
    assert form_and_shuffle(layer((2, 2)), only(operators)) == written


@pytest.mark.parametrize("strides", [(2,), (4, 4), (3, 1), (2, 3)])
@pytest.mark.parametrize("operators", [operators for operators, _ in OPERATORS[1:]])
def test_every_set_of_operators_for_every_stride(strides: Sequence[int], operators: str) -> None:
    assert form_and_shuffle(layer(strides), only(f"{operators} Slice", **NUMBERS))


def test_up_to_64_phases_are_joined() -> None:
    limits = only("Conv Concat Reshape Slice")
    assert form_and_shuffle(layer((8, 8), kernel=9), limits) == "split, concat"
    assert reason(layer((8, 9), kernel=9), limits).endswith(("needs Transpose", "needs Col2Im"))


def test_the_operator_that_is_missing_is_named() -> None:
    text = reason(layer((2, 2)), only("Conv Relu"))
    assert text == (
        "the target takes none of its forms: 'pad, dcr' comes closest and needs DepthToSpace"
    )
    assert reason(layer((2,)), only("Conv Reshape")).endswith("needs Transpose")


@pytest.mark.parametrize(
    ("body", "operator"),
    [
        ("y = Slice(x, b, e)", "Slice"),
        ("y = Reshape(x, b)", "Reshape"),
        ("y = DepthToSpace<blocksize=2>(x)", "DepthToSpace"),
        ('y = Pad<mode="edge">(x, b)', "Pad"),
        ("y = ConvTranspose<pads=[1,1,1,1]>(x, w)", "ConvTranspose"),
        ("y = MatMul(f, x)", "MatMul"),
    ],
)
def test_an_operator_that_is_missing_is_named_once(body: str, operator: str) -> None:
    nothing = Restrictions(
        frozenset({"Relu"}),
        {},
        crops=False,
        transposed_pads=False,
        edge_pads=False,
        matrix_first=False,
        reshape_zero=False,
    )
    constants = {"b": ints(0, 0, 0, 0), "e": ints(1, 1, 1, 1), "f": np.ones((4, 4), np.float32)}
    given = parsed(body, constants, "1,4,4,3", opset=18)
    nodes = view(load(given)).scopes[0].nodes
    assert broken_by_nodes(nodes, nothing) == (operator,)
    assert operator not in broken_by_nodes(nodes, replace(nothing, operators=None))


def test_several_things_that_are_missing_are_one_sentence() -> None:
    text = reason(layer((2, 3)), only("Conv Relu", max_rank=4))
    assert text.endswith("'crop, two-step' comes closest and needs Reshape, Transpose and Slice")


def test_what_was_asked_for_is_taken_if_the_target_takes_it() -> None:
    anything = Restrictions(max_rank=6)
    assert form_and_shuffle(layer((2, 2)), anything, shuffle="two-step") == "pad, two-step"
    assert form_and_shuffle(layer((2, 2)), anything, form="split") == "split, dcr"
    narrow = Restrictions(max_rank=4)
    assert form_and_shuffle(layer((2, 2)), narrow, shuffle="transpose") == "pad, dcr"


@pytest.mark.parametrize(
    ("strides", "most", "written"),
    [
        ((2,), 4, "pad, transpose"),
        ((2,), 3, "pad, two-step"),
        ((3, 2), 4, "crop, two-step"),
        ((2, 3), 6, "crop, transpose"),
        ((2, 2, 2), 5, "pad, two-step"),
        ((1, 2, 3), 5, "crop, two-step"),
    ],
)
def test_no_tensor_has_more_dimensions(strides: Sequence[int], most: int, written: str) -> None:
    assert form_and_shuffle(layer(strides), Restrictions(max_rank=most)) == written
    text = reason(layer(strides), Restrictions(max_rank=len(strides) + 1))
    assert f"a tensor of {len(strides) + 2} dimensions" in text


def test_batches_and_groups_within_four_dimensions() -> None:
    limits = only("Conv Reshape Transpose", max_rank=4, crops=False, **NUMBERS)
    for batch in (1, 3):
        for group in (1, 2):
            assert form_and_shuffle(layer((2, 2), batch=batch, group=group), limits)


BLOCKS = [
    (2, {"DCR": (2,)}, "dcr"),
    (2, {"CRD": None}, "crd"),
    (3, {"DCR": (2,)}, "transpose"),
    (4, {"DCR": (2,)}, "dcr-steps"),
    (4, {"CRD": (2, 3)}, "crd-steps"),
    (4, {"CRD": None, "DCR": (2,)}, "crd"),
    (6, {"DCR": (2, 3)}, "dcr-steps"),
    (8, {"CRD": (2, 4)}, "crd-steps"),
    (2, {}, "transpose"),
]


@pytest.mark.parametrize(("stride", "blocks", "shuffle"), BLOCKS)
def test_depth_to_space_by_channel_order_and_block_size(
    stride: int, blocks: dict[str, tuple[int, ...] | None], shuffle: str
) -> None:
    limits = Restrictions(depth_to_space=blocks)  # type: ignore[arg-type]
    assert form_and_shuffle(layer((stride, stride)), limits).endswith(f", {shuffle}")


def test_a_shuffle_in_twos_where_that_is_wanted() -> None:
    limits = Restrictions(shuffle_in_twos=True)
    assert form_and_shuffle(layer((4, 4)), limits) == "pad, dcr-steps"
    assert form_and_shuffle(layer((4, 4), group=2), limits) == "pad, crd-steps"
    assert form_and_shuffle(layer((2, 2)), limits) == "pad, dcr"


@pytest.mark.parametrize("sizes", [(3, 4), (None, 4), (3, None), (None, None)])
@pytest.mark.parametrize("batch", [1, None])
def test_sizes_are_written_out_where_they_are_known(sizes: Sequence[Size], batch: Size) -> None:
    original = layer((2, 3), sizes, batch=batch)
    unknown = [batch, *sizes].count(None)
    (site,), _ = limited(original, only("Conv Reshape Transpose Slice", reshape_zero=False))
    assert (site.reason is None) == (unknown <= 1)
    (site,), _ = limited(original, only("Conv Reshape Transpose Slice", **NUMBERS))
    assert (site.reason is None) == (unknown == 0)
    assert site.reason is None or "for a size that is not static" in site.reason.text


def test_sizes_that_would_have_to_be_computed_are_refused() -> None:
    dynamic = layer((2, 3), (None, None), batch=None)
    assert "sizes that are computed as the model runs" in reason(
        dynamic, Restrictions(computed_shapes=False)
    )
    # A DepthToSpace states no sizes.
    square = layer((2, 2), (None, None), batch=None)
    assert form_and_shuffle(square, Restrictions(**NUMBERS)) == "pad, dcr"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("strides", "sizes"),
    [
        ((2,), (None,)),
        ((2, 2), (None, None)),
        ((3, 2), (None, 4)),
        ((1, 2), (None, None)),
        ((2, 3, 2), (None, 3, None)),
    ],
)
def test_dynamic_sizes_without_more_dimensions_or_computed_sizes(
    strides: Sequence[int], sizes: Sequence[Size]
) -> None:
    original = layer(strides, sizes, batch=1)
    operators = "Conv Reshape Transpose Unsqueeze Slice"
    limits = only(operators, max_rank=max(3, 2 + len(strides)), computed_shapes=False)
    for more in (0, 3):
        feeds = {"x": integers(1, 4, *(size or 2 + at + more for at, size in enumerate(sizes)))}
        (site,), _ = limited(original, limits, feeds)
        assert site.shuffle == ("channels-last" if len(strides) == 1 else "by-axis")


@pytest.mark.parametrize("strides", [(2,), (2, 2), (3, 2), (4, 4), (2, 2, 1)])
@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("pads", [0, 1, 5])
def test_nothing_is_cropped_by_a_slice(strides: Sequence[int], extra: int, pads: int) -> None:
    rank = len(strides)
    original = layer(
        strides,
        (6, 5, 5)[:rank],
        kernel=4,
        pads=[pads] * rank + [2] * rank,
        output_padding=[min(extra, step - 1) for step in strides],
    )
    (site,), after = limited(original, Restrictions(crops=False))
    assert site.form == "pad"
    whole = all(
        dim.dim_value % step == 0
        for dim, step in zip(
            onnx.shape_inference.infer_shapes(after).graph.output[0].type.tensor_type.shape.dim[2:],
            strides,
            strict=True,
        )
    )
    # The Conv that crops is needed only where the output is no multiple of the stride.
    assert ops(after)["Conv"] == (1 if whole else 2)


@pytest.mark.parametrize("group", [1, 2])
def test_a_crop_by_a_conv_at_dynamic_sizes(group: int) -> None:
    original = layer((2, 2), (None, None), batch=None, kernel=4, group=group)
    for size in (4, 7):
        feeds = {"x": integers(3, 4, size, size + 1)}
        limited(original, Restrictions(crops=False), feeds)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("operators", ["Conv Concat Reshape", "Conv Split Resize Mul Add"])
def test_other_element_types(dtype: type, operators: str) -> None:
    original = conv_transpose(
        integers(4, 6, 4, 4, dtype=dtype), (3, 4), strides=[2, 2], pads=[1] * 4, opset=18
    )
    feeds = {"x": integers(1, 4, 3, 4, dtype=dtype)}
    if dtype is np.float64:  # onnxruntime has no such ConvTranspose
        planning = plan_model(
            load(original),
            RewriteOptions(request_for=lambda _: LayerRequest(restrictions=only(operators))),
        )
        assert planning.reports[0].status == "rewritten"
        return
    limited(original, only(operators, crops=False), feeds)


@pytest.mark.parametrize("shuffle", ["dcr-steps", "crd-steps", "concat", "masks"])
def test_integer_weights(shuffle: str) -> None:
    original = quantized(Layer(kernel=(4, 4), attributes={"strides": [4, 4]}), (3, 4))
    (site,), _ = limited(original, Restrictions(max_rank=4), shuffle=shuffle)
    assert site.shuffle == shuffle


def test_symbols_are_left_out() -> None:
    original = upsampler((None, None), opset=18, batch="N")
    original.graph.value_info.append(value("inner", FLOAT, ["N", 3, "H", "W"]))
    original.graph.node[0].output[0] = "inner"
    original.graph.node.append(node("Relu", ["inner"], ["y"]))
    _, after = limited(original, Restrictions())
    assert [one.name for one in after.graph.value_info] == ["inner"]
    _, after = limited(original, Restrictions(symbolic_shapes=False))
    assert not after.graph.value_info


def shuffled(op: str, **attributes: object) -> ModelProto:
    """Conv and a pixel shuffle by 2 in one of its encodings."""
    weight = tensor("w", integers(8, 3, 3, 3))
    body = [node("Conv", ["x", "w"], ["c"], pads=[1] * 4)]
    constants = [weight]
    if op == "DepthToSpace":
        body.append(node(op, ["c"], ["y"], name="up", blocksize=2, **attributes))
    else:
        constants.append(tensor("apart", np.array([1, 2, 2, 2, 4, 5])))
        constants.append(tensor("together", np.array([1, 2, 8, 10])))
        body += [
            node("Reshape", ["c", "apart"], ["a"]),
            node("Transpose", ["a"], ["t"], perm=[0, 1, 4, 2, 5, 3]),
            node("Reshape", ["t", "together"], ["y"], name="up"),
        ]
    made = graph(
        body, [value("x", FLOAT, [1, 3, 4, 5])], [value("y", FLOAT, [1, 2, 8, 10])], constants
    )
    return model(made, 18)


def test_a_pixel_shuffle_that_the_target_takes_stays() -> None:
    limits = only("Conv DepthToSpace Reshape Transpose", depth_to_space={"CRD": None})
    (site,), _ = limited(shuffled("DepthToSpace", mode="CRD"), limits)
    assert site.status == "kept"
    (site,), _ = limited(shuffled("Reshape"), only("Conv Reshape Transpose"))
    assert (site.status, site.reason and site.reason.code) == ("kept", "already-lowered")


@pytest.mark.parametrize(
    ("original", "limits", "shuffle"),
    [
        (shuffled("DepthToSpace", mode="DCR"), Restrictions(depth_to_space={"CRD": None}), "crd"),
        (shuffled("DepthToSpace", mode="CRD"), Restrictions(depth_to_space={"DCR": None}), "dcr"),
        (
            shuffled("DepthToSpace", mode="CRD"),
            only("Conv Reshape Transpose", max_rank=4),
            "two-step",
        ),
        (shuffled("Reshape"), Restrictions(max_rank=4), "crd"),
        (shuffled("Reshape"), only("Conv Split Concat Reshape", max_rank=4, **NUMBERS), "concat"),
        (shuffled("Reshape"), only("Conv Concat Reshape"), "concat"),
        (shuffled("DepthToSpace", mode="DCR"), only("Conv Resize Mul Add"), "masks"),
    ],
)
def test_a_pixel_shuffle_that_the_target_lacks_is_written_anew(
    original: ModelProto, limits: Restrictions, shuffle: str
) -> None:
    (site,), _ = limited(original, limits)
    assert (site.status, site.shuffle) == ("rewritten", shuffle)


@pytest.mark.parametrize("name", CHANNELS_LAST)
def test_pixel_shuffles_of_channels_last_within_four_dimensions(name: str) -> None:
    original = parsed(CHANNELS_LAST[name], CONSTANTS, "1,2,3,4")
    limits = only("Conv Reshape Transpose", max_rank=4, reshape_zero=False, reshape_minus_one=False)
    sites, _ = limited(original, limits)
    fits = name == "one axis after the other"
    assert [site.status for site in sites] == ["kept" if fits else "rewritten"]


def test_a_pixel_shuffle_whose_channels_are_the_last_axis_says_what_it_needs() -> None:
    body = "r = Reshape(x, six) t = Transpose<perm=[0,1,3,2,4,5]>(r) y = Reshape(t, flat)"
    original = parsed(body, {"six": ints(1, 3, 4, 2, 2, 2), "flat": ints(1, 6, 8, 2)}, "1,3,4,8")
    (site,), _ = limited(original, Restrictions(max_rank=4))
    assert site.reason is not None
    assert site.reason.text.endswith("needs a tensor of 6 dimensions")


def test_a_pixel_shuffle_that_cannot_be_written_is_skipped() -> None:
    (site,), _ = limited(shuffled("DepthToSpace", mode="CRD"), only("Conv Reshape"))
    assert site.status == "skipped"
    assert site.reason is not None
    assert site.reason.code == "target-restrictions"


def test_a_layer_that_the_target_wants_kept_stays_under_every_policy() -> None:
    kept = Reason("slower", "the target runs it faster as it is")
    options = RewriteOptions(request_for=lambda _: LayerRequest(keep=kept))
    planning = plan_model(load(upsampler()), options)
    assert [(one.status, one.reason) for one in planning.reports] == [("kept", kept)]
    assert not apply(planning).changed
    candidates = Candidates(planning)
    assert [candidates.of_site(one) for one in planning.sites] == [()]


def test_each_site_has_its_own_restrictions() -> None:
    weight = tensor("w", integers(2, 2, 4, 4))
    nodes = [
        node("ConvTranspose", [x, "w"], [y], name=y, strides=[2, 2], pads=[1] * 4)
        for x, y in (("x", "a"), ("a", "b"))
    ]
    ends = [value("x", FLOAT, [1, 2, 3, 4])], [value("b", FLOAT, [1, 2, 12, 16])]
    two = model(graph(nodes, *ends, [weight]), 18)
    limits = {
        "main/a": only("Conv DepthToSpace", crops=False),
        "main/b": only("Conv Concat Reshape Slice"),
    }
    options = RewriteOptions(request_for=lambda site: LayerRequest(restrictions=limits[site.id]))
    reports = plan_model(load(two), options).reports
    assert [(one.form, one.shuffle) for one in reports] == [("pad", "dcr"), ("split", "concat")]


@pytest.mark.parametrize("operators", ["Conv DepthToSpace", "Conv Concat Reshape"])
def test_policies_choose_among_what_is_taken(operators: str) -> None:
    options = RewriteOptions(
        "cost", request_for=lambda _: LayerRequest(restrictions=only(operators, crops=False))
    )
    candidates = Candidates.of(load(upsampler()), options)
    (planned,) = candidates.planning.sites
    found = candidates.of_site(planned)
    assert found
    for option in found:
        after = apply(candidates.with_choices({planned.id: option.choice})).proto
        assert set(ops(after)) <= set(operators.split())


def test_no_restriction_changes_nothing() -> None:
    plain = apply(plan_model(load(layer((4, 4))), RewriteOptions())).proto
    asked = RewriteOptions(request_for=lambda _: LayerRequest())
    assert apply(plan_model(load(layer((4, 4))), asked)).proto == plain


HEAD = (
    "a = ConvTranspose<strides=[2,2]>(x, up, bias) r = Relu(a)"
    " y = ConvTranspose<strides=[2,2]>(r, up)"
)
JOINED = (
    "half = Conv<pads=[1,1,1,1], strides=[2,2]>(x, down)"
    f" r = Resize<{NEAREST}>(half, , two) t = Concat<axis=1>(x, r)"
    " y = Conv<pads=[1,1,1,1]>(t, wide, bias)"
)


@pytest.mark.parametrize("body", [HEAD, JOINED])
@pytest.mark.parametrize(
    "limits",
    [
        only("Conv Relu Concat Reshape Transpose Add", max_rank=4, crops=False, **NUMBERS),
        Restrictions(depth_to_space={"CRD": (2,)}, max_rank=5, crops=False),
    ],
)
def test_layers_that_are_fused_keep_to_the_restrictions(body: str, limits: Restrictions) -> None:
    constants = {
        "up": integers(2, 2, 2, 2),
        "bias": integers(2, seed=1),
        "down": integers(3, 2, 3, 3),
        "wide": integers(2, 5, 3, 3),
        "two": floats(1, 1, 2, 2),
    }
    original = parsed(body, constants, "1,2,8,12", opset=18)
    asked = LayerRequest(restrictions=limits)
    options = RewriteOptions("cost", request_for=lambda _: asked)
    candidates = Candidates.of(load(original), options)
    feeds = feeds_for(original)
    tried = 0
    for planned in candidates.planning.sites:
        for option in candidates.of_site(planned):
            after = apply(candidates.with_choices({planned.id: option.choice})).proto
            assert list(disobeyed(original, after, limits)) == []
            assert_equal(run(original, feeds), run(after, feeds))
            tried += 1
    assert tried >= 2
