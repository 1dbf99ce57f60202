"""The corrected operators of the reference evaluator, compared with onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto

from deployconv.graph.evaluate import evaluate, result_size
from deployconv.graph.nearest import LARGEST
from deployconv.graph.not_evaluated import NotEvaluated
from tests.build import Array, integers, node, run
from tests.match.graphs import floats, ints, parsed


def evaluated(model: ModelProto, feeds: Mapping[str, Array]) -> Array:
    (opset,) = (entry.version for entry in model.opset_import)
    (result,) = evaluate(model.graph.node, opset, feeds, ["y"])
    return result


def assert_as_onnxruntime(model: ModelProto, constants: Mapping[str, Any], x: Array) -> None:
    expected = run(model, {"x": x})["y"]
    np.testing.assert_array_equal(evaluated(model, {**constants, "x": x}), expected, strict=True)


@st.composite
def scatters(draw: st.DrawFn) -> tuple[Array, Array, Array]:
    """Data, indices into its first axes without repetition, and updates."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    width = draw(st.integers(1, len(shape)))
    places = np.stack(np.unravel_index(np.arange(np.prod(shape[:width])), shape[:width]), -1)
    count = draw(st.integers(1, len(places)))
    order = draw(st.permutations(range(len(places))))
    indices = places[order[:count]].astype(np.int64)
    negative = draw(st.booleans())
    if negative:
        indices -= np.array(shape[:width])
    outer = (2, count // 2) if count % 2 == 0 and draw(st.booleans()) else (count,)
    updates = integers(*outer, *shape[width:], seed=5)
    return integers(*shape), indices.reshape(*outer, width), updates


@settings(max_examples=60)
@given(scatters(), st.sampled_from(["none", "add"]))
def test_scatter_nd(case: tuple[Array, Array, Array], reduction: str) -> None:
    data, indices, updates = case
    dims = ",".join(map(str, updates.shape))
    constants = {"data": data, "at": indices}
    model = parsed(f'y = ScatterND<reduction="{reduction}">(data, at, x)', constants, dims)
    assert_as_onnxruntime(model, constants, updates)


def test_scatter_nd_that_adds_twice_to_one_place() -> None:
    constants = {"data": integers(4), "at": ints(1, 1, 3).reshape(3, 1)}
    model = parsed('y = ScatterND<reduction="add">(data, at, x)', constants, "3")
    assert_as_onnxruntime(model, constants, integers(3, seed=1))


@pytest.mark.parametrize(
    ("reduction", "indices"), [("none", [1, 1]), ("none", [3, -1]), ("mul", [0, 1])]
)
def test_scatter_nd_whose_result_is_open_or_unknown(reduction: str, indices: list[int]) -> None:
    constants = {"data": integers(4), "at": ints(*indices).reshape(2, 1)}
    model = parsed(f'y = ScatterND<reduction="{reduction}">(data, at, x)', constants, "2")
    with pytest.raises(NotEvaluated):
        evaluated(model, {**constants, "x": integers(2)})


@pytest.mark.parametrize("opset", [9, 10, 11, 13, 16, 18])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("shape", [(2, 3), (1, 3), (2, 1), (1, 1)])
def test_scatter_elements(opset: int, axis: int, shape: tuple[int, int]) -> None:
    """Fewer indices than there are rows leave the other rows as they are."""
    order = np.array([[5, 2, 0], [1, 4, -3]]) if axis else np.array([[1, -2, 0], [0, 1, -1]])
    constants = {"data": integers(2, 6), "at": order[: shape[0], : shape[1]]}
    op = "Scatter" if opset < 11 else "ScatterElements"
    dims = ",".join(map(str, shape))
    model = parsed(f"y = {op}<axis={axis}>(data, at, x)", constants, dims, opset=opset)
    assert_as_onnxruntime(model, constants, integers(*shape, seed=1))


@pytest.mark.parametrize(("opset", "op"), [(9, "Scatter"), (18, "ScatterElements")])
def test_scatter_elements_that_writes_twice(opset: int, op: str) -> None:
    constants = {"data": integers(2, 6), "at": np.array([[1, 2, 1], [0, 3, 5]])}
    model = parsed(f"y = {op}<axis=1>(data, at, x)", constants, "2,3", opset=opset)
    with pytest.raises(NotEvaluated):
        evaluated(model, {**constants, "x": integers(2, 3)})


def test_scatter_elements_that_adds() -> None:
    constants = {"data": integers(2, 6), "at": np.array([[1, 2, 1], [0, 3, 5]])}
    body = 'y = ScatterElements<axis=1, reduction="add">(data, at, x)'
    assert_as_onnxruntime(parsed(body, constants, "2,3"), constants, integers(2, 3, seed=1))


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 13, 18, 19, 23])
def test_nearest_resize_at_every_opset(opset: int, scale: int) -> None:
    """Modes that are not stated are those that the operator has by default."""
    constants = {"scales": floats(1, 1, scale, 2), "roi": floats()}
    if opset < 9:
        body = f"y = Upsample<scales=[1.0,1.0,{scale}.0,2.0]>(x)"
    elif opset < 11:
        body = f"y = {'Upsample' if opset < 10 else 'Resize'}(x, scales)"
    else:
        body = f"y = Resize(x, {'roi' if opset < 13 else ''}, scales)"
    model = parsed(body, constants, "1,2,5,4", opset=opset)
    assert_as_onnxruntime(model, constants, integers(1, 2, 5, 4))


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_resize_that_interpolates_is_refused(mode: str) -> None:
    model = parsed(f'y = Resize<mode="{mode}">(x, , scales)', {"scales": floats(1, 1, 2, 2)})
    with pytest.raises(NotEvaluated):
        evaluated(model, {"x": integers(1, 2, 4, 3), "scales": floats(1, 1, 2, 2)})


@pytest.mark.parametrize("opset", [8, 9])
def test_upsample_that_interpolates_is_refused(opset: int) -> None:
    scales = "scales=[1.0,1.0,2.0,2.0], " if opset < 9 else ""
    inputs = "x" if opset < 9 else "x, scales"
    model = parsed(f'y = Upsample<{scales}mode="linear">({inputs})', opset=opset)
    with pytest.raises(NotEvaluated):
        evaluated(model, {"x": integers(1, 2, 4, 3), "scales": floats(1, 1, 2, 2)})


@pytest.mark.parametrize("other", [0, 2])
def test_no_resize_fills_the_memory(other: int) -> None:
    scales = floats(1, 1, LARGEST, other)
    model = parsed("y = Resize(x, , scales)", {"scales": scales})
    with pytest.raises(NotEvaluated):
        evaluated(model, {"x": integers(1, 2, 4, 3), "scales": scales})


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        (3, "strides={2}, pads={1}{0}, output_padding={1}"),
        (2, "strides={3}, dilations={2}"),
        (1, "strides={2}"),
        (4, "pads={0}{2}"),
    ],
)
def test_conv_transpose(kernel: int, attributes: str, rank: int, bias: bool, group: int) -> None:
    constants: dict[str, Array] = {"w": integers(4, 3, *[kernel] * rank)}
    if bias:
        constants["b"] = integers(3 * group, seed=2)
    stated = attributes
    for number in range(4):
        stated = stated.replace(f"{{{number}}}", f"[{','.join([str(number)] * rank)}]")
    stated = stated.replace("][", ",")
    body = f"y = ConvTranspose<group={group}, {stated}>({', '.join(['x', *constants])})"
    sizes = (3, 2, 4)[:rank]
    model = parsed(body, constants, ",".join(map(str, (2, 4, *sizes))))
    assert_as_onnxruntime(model, constants, integers(2, 4, *sizes, seed=3))


ENLARGING = {
    "Tile": ("y = Tile(x, counts)", {"counts": ints(3, 2)}),
    "Expand": ("y = Expand(x, shape)", {"shape": ints(5, 1, 3)}),
    "ConstantOfShape": ("y = ConstantOfShape(shape)", {"shape": ints(5, 7)}),
    "Range": ("y = Range(start, limit, step)",
              {"start": np.int64(9), "limit": np.int64(-4), "step": np.int64(-3)}),
    "Pad": ("y = Pad(x, pads)", {"pads": ints(1, 0, 2, 4)}),
    "Pad of one axis": ("y = Pad(x, pads, , axes)", {"pads": ints(1, 6), "axes": ints(-1)}),
    "Gather": ("y = Gather<axis=1>(x, at)", {"at": ints(0, 1, 1, 2, 0).reshape(1, 5)}),
    "Mul": ("y = Mul(x, column)", {"column": floats(1, 2, 3, 4).reshape(4, 1, 1)}),
}  # fmt: skip


@pytest.mark.parametrize(("body", "constants"), ENLARGING.values(), ids=ENLARGING)
def test_the_size_of_a_result_is_known_before_it_is_computed(
    body: str, constants: dict[str, Array]
) -> None:
    model = parsed(body, constants, "2,3", opset=18)
    feeds = {**constants, "x": integers(2, 3)}
    (node,) = model.graph.node
    expected = evaluated(model, feeds)
    given = [np.asarray(feeds[name]) if name else None for name in node.input]
    assert result_size(node, given) == expected.size


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("y = Tile(x, counts)", {"counts": ints(1 << 20, 1 << 20)}),
        ("y = Tile(x, counts)", {"counts": ints(*[1 << 10] * 5)}),
        ("y = Expand(x, shape)", {"shape": ints(1 << 40, 2, 3)}),
        ("y = ConstantOfShape(shape)", {"shape": ints(1 << 30, 1 << 30)}),
        ("y = Pad(x, pads)", {"pads": ints(1 << 40, 0, 0, 0)}),
    ],
    ids=["Tile", "Tile of another rank", "Expand", "ConstantOfShape", "Pad"],
)
def test_a_result_far_larger_than_its_inputs_is_not_computed(
    body: str, constants: dict[str, Array]
) -> None:
    model = parsed(body, constants, "2,3", opset=18)
    with pytest.raises(NotEvaluated, match="elements"):
        evaluated(model, {**constants, "x": integers(2, 3)})


@pytest.mark.parametrize(
    ("nodes", "feeds"),
    [
        ([node("NoSuchOperator", ["x"], ["y"])], {"x": integers(2)}),
        ([node("Reshape", ["x", "s"], ["y"])], {"x": integers(2), "s": ints(3)}),
        (
            [node("ConvTranspose", ["x", "w"], ["y"], auto_pad=1)],
            {"x": integers(1), "w": integers(1)},
        ),
        ([node("Resize", ["x", "", "", "s"], ["y"])], {"x": integers(2), "s": ints(4, 4)}),
    ],
    ids=[
        "an unknown operator",
        "sizes that do not fit",
        "a wrong attribute",
        "a Resize of other axes",
    ],
)
def test_what_cannot_be_run_raises_one_error(
    nodes: list[NodeProto], feeds: Mapping[str, Array]
) -> None:
    with pytest.raises(NotEvaluated):
        evaluate(nodes, 18, feeds, ["y"])
