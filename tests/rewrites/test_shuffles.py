"""Every spelling of the shuffle, for every rank and for static and dynamic sizes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
from onnx import ModelProto

from deployconv.options import Form, Shuffle
from tests.build import (
    Size,
    assert_equal,
    assert_rewritten,
    conv_transpose,
    integers,
    ops,
    reasons,
    rewrite,
    run,
)

STATIC: dict[int, tuple[int, ...]] = {1: (7,), 2: (5, 6), 3: (3, 4, 5)}
SHUFFLES: tuple[Shuffle, ...] = (
    *("dcr", "crd", "transpose", "two-step", "col2im", "channels-last"),
    *("dcr-steps", "crd-steps", "by-axis", "concat", "masks"),
)
STEPS: dict[Shuffle, str] = {"dcr-steps": "dcr", "crd-steps": "dcr"}


def upsampler(
    strides: Sequence[int],
    sizes: Sequence[Size] | None = None,
    *,
    group: int = 1,
    kernel: int = 5,
    batch: Size = 2,
    opset: int = 18,
) -> ModelProto:
    """4 to 6 channels; pads that leave something to crop at both ends."""
    rank = len(strides)
    return conv_transpose(
        integers(4, 6 // group, *[kernel] * rank),
        sizes or STATIC[rank],
        integers(6, seed=1),
        batch=batch,
        opset=opset,
        strides=strides,
        group=group,
        pads=[1] * rank + [2] * rank,
    )


def taken(model: ModelProto, shuffle: Shuffle) -> str | None:
    done, _ = rewrite(model, shuffle=shuffle, verify=False)
    (site,) = done.sites
    return site.shuffle


@pytest.mark.parametrize("form", ["crop", "pad", "split"])
@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize(
    "strides",
    [(2,), (3,), (2, 2), (3, 3), (4, 4), (1, 2), (3, 2), (2, 2, 2), (2, 2, 1), (1, 3, 2)],
)
def test_every_spelling_of_every_rank_computes_the_same(
    strides: tuple[int, ...], shuffle: Shuffle, form: Form
) -> None:
    assert_rewritten(upsampler(strides), shuffle=shuffle, form=form)


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize(
    "strides", [(2,), (2, 2), (3, 2), (2, 2, 1)], ids=["1-D", "2-D", "2-D unequal", "3-D"]
)
def test_dynamic_sizes(strides: tuple[int, ...], shuffle: Shuffle) -> None:
    static = STATIC[len(strides)]
    for dynamic in product((False, True), repeat=len(strides)):
        sizes = [None if free else size for free, size in zip(dynamic, static, strict=True)]
        original = upsampler(strides, sizes, batch=None)
        after = assert_rewritten(original, {"x": integers(3, 4, *static)}, shuffle=shuffle)
        # One model serves every size, so it must do for another one as well.
        others = [size + 4 if free else size for free, size in zip(dynamic, static, strict=True)]
        other = {"x": integers(1, 4, *others)}
        assert_equal(run(original, other), run(after, other))


@pytest.mark.parametrize("group", [2, 3])
@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_groups_keep_their_channels_together(shuffle: Shuffle, group: int) -> None:
    weight = integers(6, 6 // group, 4, 4)
    original = conv_transpose(weight, (4, 5), integers(6), opset=18, strides=[2, 2], group=group)
    assert_rewritten(original, shuffle=shuffle)


# (strides, group, opset, dynamic) -> the spelling taken for each that is asked for
FITS = [
    ((2, 2), 1, 18, False, {s: s for s in SHUFFLES} | {"auto": "dcr"} | STEPS),
    ((4, 4), 1, 18, False, {s: s for s in SHUFFLES} | {"auto": "dcr"}),
    ((6, 6), 1, 18, True, {"dcr-steps": "dcr-steps", "concat": "dcr", "masks": "dcr"}),
    ((4, 4), 2, 18, False, {"dcr-steps": "crd", "crd-steps": "crd-steps", "concat": "crd"}),
    ((4, 4), 1, 10, False, {"dcr-steps": "dcr-steps", "crd-steps": "dcr"}),
    (
        (2, 2),
        1,
        18,
        True,
        {"auto": "dcr", "two-step": "dcr", "col2im": "col2im", "channels-last": "dcr"},
    ),
    (
        (2, 2),
        2,
        18,
        False,
        {"auto": "crd", "dcr": "crd", "two-step": "two-step", "channels-last": "crd"},
    ),
    ((2,), 1, 17, True, {"two-step": "transpose", "channels-last": "channels-last"}),
    ((2, 2), 1, 10, False, {"auto": "dcr", "crd": "dcr", "col2im": "dcr"}),
    ((2, 2), 2, 10, False, {"auto": "transpose", "dcr": "transpose", "crd": "transpose"}),
    ((2, 3), 1, 18, False, {"auto": "transpose", "dcr": "transpose", "crd": "transpose"}),
    ((2,), 1, 17, False, {"auto": "transpose", "dcr": "transpose", "col2im": "transpose"}),
    ((2, 2, 2), 1, 18, False, {"auto": "transpose", "crd": "transpose", "col2im": "col2im"}),
]


@pytest.mark.parametrize(("strides", "group", "opset", "dynamic", "expected"), FITS)
def test_a_spelling_that_does_not_fit_gives_way(
    strides: tuple[int, ...],
    group: int,
    opset: int,
    dynamic: bool,
    expected: dict[Shuffle, str],
) -> None:
    sizes: Sequence[Size] = [None] * len(strides) if dynamic else STATIC[len(strides)]
    original = upsampler(strides, sizes, group=group, opset=opset)
    assert {asked: taken(original, asked) for asked in expected} == expected
    for asked, found in expected.items():
        done, _ = rewrite(original, shuffle=asked, verify=False)
        assert bool(done.warnings) == (asked not in ("auto", found))


def test_stride_1_needs_no_shuffle() -> None:
    after = assert_rewritten(upsampler((1, 1)))
    assert set(ops(after)) == {"Conv"}


def test_old_opsets_cannot_reshape_several_dynamic_sizes() -> None:
    """onnxruntime multiplies int64 from opset 7 on; before, only one size may be unknown."""
    assert reasons(upsampler((2, 3), (None, None), opset=6), verify=False) == [
        "dynamic-sizes-old-opset"
    ]
    assert_rewritten(upsampler((2, 3), (None, 6), opset=6))
    assert_rewritten(upsampler((2, 3), (None, None), opset=7))


def test_column_to_image_takes_the_crop_with_it() -> None:
    after = assert_rewritten(upsampler((2, 2)), shuffle="col2im")
    assert set(ops(after)) == {"Conv", "Reshape", "Col2Im"}


def test_channels_last_begins_and_ends_with_a_transpose_that_a_runtime_can_cancel() -> None:
    after = assert_rewritten(upsampler((2, 2)), shuffle="channels-last")
    orders = [
        list(attribute.ints)
        for node in after.graph.node
        if node.op_type == "Transpose"
        for attribute in node.attribute
    ]
    assert orders == [[0, 2, 3, 1], [0, 2, 1, 3], [0, 3, 1, 2]]
    line = assert_rewritten(upsampler((2,)), shuffle="channels-last")
    assert ops(line)["Transpose"] == 2  # nothing is moved in between


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 13, 22])
@pytest.mark.parametrize("shuffle", ["dcr-steps", "concat", "masks"])
def test_shuffles_for_targets_at_other_opsets(shuffle: Shuffle, opset: int) -> None:
    assert taken(upsampler((4, 4), opset=opset), shuffle) == shuffle
    for form in ("auto", "split"):
        assert_rewritten(upsampler((4, 4), opset=opset), shuffle=shuffle, form=form)


@pytest.mark.parametrize("shuffle", ["concat", "masks"])
@pytest.mark.parametrize("group", [2, 4])
def test_joins_of_phases_need_one_conv_per_phase_with_groups(shuffle: Shuffle, group: int) -> None:
    weight = integers(4, 8 // group, 4, 4)
    original = conv_transpose(weight, (4, 5), integers(8), opset=18, strides=[2, 2], group=group)
    assert taken(original, shuffle) == "crd"
    after = assert_rewritten(original, shuffle=shuffle, form="split")
    assert ops(after)["Conv"] == 4
    assert "Split" not in ops(after)
