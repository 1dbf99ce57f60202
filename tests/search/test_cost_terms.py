"""The work of single nodes, in whole numbers of the units."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import NodeProto, helper

from deployconv.search.cost_terms import Term, Work, work_of

BLOCK = 16

Shapes = dict[str, tuple[int, ...]]


def node(op: str, inputs: str = "x", **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs.split(), ["y"], **attributes)


def work(made: NodeProto, shapes: Shapes, block: int = BLOCK) -> dict[Term, float]:
    """The work without the launch, in single multiplications and elements."""
    found = work_of(made, shapes, block)
    assert found is not None
    assert found.pop("launches", 1.0) == 1.0
    scale = {"gemm_calls": 1e3, "forks": 1.0}
    return {term: round(amount * scale.get(term, 1e6)) for term, amount in found.items()}


CONVS: dict[str, tuple[tuple[int, ...], tuple[int, ...], int, Work]] = {
    "whole blocks": ((1, 32, 8, 8), (64, 32, 3, 3), 1, {"blocked": 64 * 32 * 9 * 64}),
    "output channels filled up": ((1, 32, 8, 8), (3, 32, 3, 3), 1, {"blocked": 16 * 32 * 9 * 64}),
    "input channels filled up": ((1, 20, 8, 8), (16, 20, 1, 1), 1, {"blocked": 16 * 32 * 64}),
    "fewer than a block are read as they are": (
        *((1, 3, 8, 8), (16, 3, 3, 3), 1),
        {"blocked": 16 * 3 * 9 * 64},
    ),
    "not in fours": (
        *((1, 22, 8, 8), (16, 22, 3, 3), 1),
        {"gemm": 16 * 22 * 9 * 64, "gemm_calls": 1, "columns": 22 * 9 * 64},
    ),
    "one channel a group": ((1, 32, 8, 8), (32, 1, 3, 3), 32, {"depthwise": 32 * 9 * 64}),
    "more than one from each": (
        *((1, 32, 8, 8), (64, 1, 3, 3), 32),
        {"gemm": 64 * 9 * 64, "gemm_calls": 32, "columns": 32 * 9 * 64},
    ),
    "groups of whole blocks": (
        *((1, 64, 8, 8), (64, 32, 3, 3), 2),
        {"blocked": 64 * 32 * 9 * 64},
    ),
    "groups of half blocks": (
        *((1, 32, 8, 8), (32, 8, 3, 3), 4),
        {"gemm": 32 * 8 * 9 * 64, "gemm_calls": 4, "columns": 32 * 9 * 64},
    ),
    "1-D": (
        *((2, 16, 64), (16, 16, 3), 1),
        {"gemm": 16 * 16 * 3 * 128, "gemm_calls": 2, "columns": 16 * 3 * 128},
    ),
    "3-D, one tap": (
        *((1, 16, 4, 4, 4), (8, 16, 1, 1, 1), 1),
        {"gemm": 8 * 16 * 64, "gemm_calls": 1},
    ),
}


@pytest.mark.parametrize(("x", "weight", "group", "expected"), CONVS.values(), ids=list(CONVS))
def test_conv(
    x: tuple[int, ...], weight: tuple[int, ...], group: int, expected: dict[Term, float]
) -> None:
    shapes = {"x": x, "w": weight, "y": (x[0], weight[0], *x[2:])}
    found = work(node("Conv", "x w", group=group), shapes)
    size = 1
    for extent in weight:
        size *= extent
    assert found == {"weights": size, "forks": 1, **expected}


def test_without_blocks_every_conv_multiplies_matrices() -> None:
    shapes = {"w": (64, 32, 3, 3), "y": (1, 64, 8, 8)}
    found = work(node("Conv", "x w"), shapes, block=0)
    assert found["gemm"] == 64 * 32 * 9 * 64
    assert "blocked" not in found


@pytest.mark.parametrize(
    ("x", "weight", "group", "expected"),
    [
        ((1, 8, 4, 4), (8, 4, 2, 2), 1, {"gemm": 2048, "gemm_calls": 1, "scattered": 256}),
        ((2, 8, 4, 4), (8, 1, 2, 2), 8, {"gemm": 1024, "gemm_calls": 16, "scattered": 1024}),
        ((1, 8, 16), (8, 4, 4), 1, {"gemm": 2048, "gemm_calls": 1, "scattered_nd": 256}),
    ],
    ids=["2-D", "groups and a batch", "1-D"],
)
def test_conv_transpose(
    x: tuple[int, ...], weight: tuple[int, ...], group: int, expected: dict[Term, float]
) -> None:
    found = work(node("ConvTranspose", "x w", group=group), {"x": x, "w": weight})
    assert found.pop("weights") > 0
    assert found.pop("forks") == 1
    assert found == expected


@pytest.mark.parametrize("op", ["ConvTranspose", "Relu"])
def test_elements_beyond_the_cache_count_twice(op: str) -> None:
    shapes = {"x": (1, 8, 512, 512), "w": (8, 4, 2, 2), "y": (1, 4, 1024, 1024)}
    found = work(node(op, "x w" if op == "ConvTranspose" else "x"), shapes)
    assert found["uncached"] == 4 * 1024 * 1024 - 1_000_000
    assert 4 * 1024 * 1024 in found.values()


@pytest.mark.parametrize(
    ("shape", "order", "term"),
    [
        ((2, 3, 4, 5), [0, 1, 2, 3], "copied"),
        ((2, 1, 4, 5), [0, 2, 1, 3], "copied"),
        ((6, 2, 35), [0, 2, 1], "transposed_axis"),
        ((6, 2, 5, 14), [0, 2, 1, 3], "transposed_rows"),
        ((1, 3, 2, 2, 5, 7), [0, 1, 4, 2, 5, 3], "transposed"),
        ((2, 3), None, "transposed_axis"),
    ],
)
def test_transpose(shape: tuple[int, ...], order: list[int] | None, term: Term) -> None:
    made = node("Transpose", **({} if order is None else {"perm": order}))
    size = 1
    for extent in shape:
        size *= extent
    assert work(made, {"x": shape, "y": shape}) == {term: size}


@pytest.mark.parametrize(
    ("strides", "pads", "image", "term"),
    [
        ([2, 2], None, (8, 8), "col2im_pairs"),
        ([2, 2], [0] * 4, (8, 8), "col2im_pairs"),
        ([2, 2], [1, 1, 0, 0], (7, 7), "col2im"),
        ([3, 3], None, (9, 9), "col2im"),
        ([1, 4], None, (3, 12), "col2im"),
        ([4, 1], [1, 0, 0, 0], (11, 3), "col2im_rows"),
        ([2, 1], None, (6, 3), "col2im_rows"),
        ([4], None, (16,), "col2im_nd"),
    ],
)
def test_col2im(
    strides: list[int], pads: list[int] | None, image: tuple[int, ...], term: Term
) -> None:
    given = {"strides": strides} if pads is None else {"strides": strides, "pads": pads}
    shapes = {"x": (1, 12, 16), "y": (1, 3, *image)}
    (found,) = work(node("Col2Im", "x i b", **given), shapes)
    assert found == term


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (node("Reshape", "x s"), {}),
        (node("Relu"), {"pointwise": 6}),
        (node("Sigmoid"), {"transcendental": 6}),
        (node("PRelu", "x s"), {"prelu": 6}),
        (node("Resize", "x r s"), {"repeated": 6}),
        (node("Slice", "x s e"), {"copied": 6}),
        (node("NonMaxSuppression"), {"copied": 6}),
        (
            node("DepthToSpace", blocksize=2),
            {"depth_to_space": 6, "depth_to_space_runs": 3},
        ),
    ],
    ids=lambda value: value.op_type if isinstance(value, NodeProto) else "",
)
def test_other_layers(made: NodeProto, expected: dict[Term, float]) -> None:
    assert work(made, {"x": (2, 3), "y": (2, 3)}) == expected


@pytest.mark.parametrize(
    ("one", "other", "made", "calls"),
    [
        ((1, 16), (2, 16, 30), (2, 1, 30), 2),
        ((2, 4, 16), (16, 30), (2, 4, 30), 2),
        ((4, 16), (16, 30), (4, 30), 1),
    ],
)
def test_a_product_reads_the_whole_second_matrix(
    one: tuple[int, ...], other: tuple[int, ...], made: tuple[int, ...], calls: int
) -> None:
    found = work(node("MatMul", "a b"), {"a": one, "b": other, "y": made})
    read, rows = 1, 1
    for extent in other:
        read *= extent
    for extent in made[:-1]:
        rows *= extent
    multiplied = rows * 16 * 30
    assert found == {"forks": 0, "gemm": multiplied, "gemm_calls": calls, "read": read}


@pytest.mark.parametrize(("columns", "shared"), [(30, False), (30_000, True)])
def test_a_small_product_wakes_no_other_threads(columns: int, shared: bool) -> None:
    shapes = {"a": (4, 16), "b": (16, columns), "y": (4, columns)}
    found = work_of(node("MatMul", "a b"), shapes, BLOCK)
    assert found is not None
    assert (found["forks"] == 1) is shared


@pytest.mark.parametrize(("channels", "forks"), [(1, 0), (3, 1)])
def test_threads_share_the_channels_of_a_linear_resize(channels: int, forks: int) -> None:
    made = node("Resize", "x r s", mode="linear")
    shapes = {"x": (1, channels, 4, 4), "y": (1, channels, 8, 8)}
    found = work_of(made, shapes, BLOCK)
    assert found is not None
    assert found["linear"] == channels * 64 / 1e6
    assert found.get("forks", 0) == forks


@pytest.mark.parametrize(
    ("op", "image", "made", "term"),
    [
        ("ReduceMean", (1, 4, 5, 6), (1, 1, 5, 6), "reduced"),
        ("ReduceSum", (1, 4, 5, 6), (1, 5, 6), "reduced"),
        ("ReduceMax", (1, 4, 5, 6), (1, 4, 5, 1), "pointwise"),
        ("ReduceMean", (1, 4, 5, 6), (), "pointwise"),
        ("ReduceMean", (1, 4, 64, 48), (1, 1, 64, 48), "reduced_pages"),
        ("ReduceMean", (1, 4, 64, 49), (1, 1, 64, 49), "reduced"),
    ],
)
def test_reductions_read_rows_faster_than_columns(
    op: str, image: tuple[int, ...], made: tuple[int, ...], term: Term
) -> None:
    size = 1
    for extent in image:
        size *= extent
    assert work(node(op), {"x": image, "y": made}) == {term: size}


def test_an_unknown_shape() -> None:
    assert work_of(node("Relu"), {"x": (2, 3)}, BLOCK) is None
    assert work_of(node("Conv", "x w"), {"y": (1, 2, 3, 4)}, BLOCK) is None
