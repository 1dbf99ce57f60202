"""Sizes that a model declares for tensors inside it count only where inference agrees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, ValueInfoProto

from deployconv.graph.load import load
from deployconv.options import RewriteOptions, Shuffle
from deployconv.rewrites.planning import plan_model
from deployconv.runtimes import get_backend
from tests.build import (
    FLOAT,
    Size,
    assert_equal,
    graph,
    integers,
    model,
    node,
    rewrite,
    run,
    tensor,
    value,
)
from tests.match.graphs import NEAREST, floats, parsed

WEIGHTS = {
    **{"k": integers(2, 3, 2, 2), "k1": integers(2, 3, 2), "kq": integers(6, 2, 2, 2)},
    **{"w2": integers(3, 2, 3, 3), "w3": integers(3, 3, 1, 1), "twice": floats(1, 1, 2, 2)},
}
STALE = {
    "square": ("y = ConvTranspose<strides=[2,2]>(a, k)", "1,2,4,6"),
    "same": ('y = ConvTranspose<strides=[2,1], auto_pad="SAME_UPPER">(a, k)', "1,2,4,6"),
    "unequal": ("y = ConvTranspose<strides=[3,2]>(a, k)", "1,2,4,6"),
    "one_axis": ("y = ConvTranspose<strides=[2]>(a, k1)", "1,2,5"),
    "nearest": (f"u = Resize<{NEAREST}>(a, , twice) y = Conv<pads=[1,1,1,1]>(u, w2)", "1,2,4,6"),
    "two_layers": (
        "t = ConvTranspose<strides=[3,2]>(a, k) s = Conv(t, w3) q = Concat<axis=1>(s, s)"
        " y = ConvTranspose<strides=[2,3]>(q, kq)",
        "1,2,4,6",
    ),
}


def made_dynamic(body: str, shape: str, axes: Sequence[int]) -> ModelProto:
    """A static model that declares all shapes, whose input is then made dynamic along ``axes``."""
    static = parsed(f"a = Relu(x) {body}", WEIGHTS, shape, opset=18)
    static.graph.output[0].type.tensor_type.ClearField("shape")
    made = onnx.shape_inference.infer_shapes(static)
    for axis in axes:
        for end in (made.graph.input[0], made.graph.output[0]):
            end.type.tensor_type.shape.dim[axis].dim_param = f"{end.name}{axis}"
    return made


def sizes(declared: ValueInfoProto) -> list[int | str | None]:
    return [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in declared.type.tensor_type.shape.dim
    ]


@pytest.mark.parametrize("shuffle", ["auto", "transpose", "col2im", "channels-last"])
@pytest.mark.parametrize("all_axes", [False, True], ids=["batch", "all"])
@pytest.mark.parametrize("case", STALE.values(), ids=STALE)
def test_a_model_made_dynamic_by_hand_runs_at_other_sizes(
    case: tuple[str, str], all_axes: bool, shuffle: Shuffle
) -> None:
    body, shape = case
    static = tuple(map(int, shape.split(",")))
    axes = [0, *range(2, len(static))] if all_axes else [0]
    original = made_dynamic(body, shape, axes)
    done, after = rewrite(original, shuffle=shuffle)
    assert all(site.status == "rewritten" for site in done.sites)
    session = get_backend("ort").prepare(after.SerializeToString(), threads=1)
    for step in (0, 1, 3):
        given = [size + step if axis in axes else size for axis, size in enumerate(static)]
        feeds = {"x": integers(*given)}
        assert_equal(run(original, feeds), session.run(feeds))


def test_what_does_not_follow_from_the_inputs_is_no_longer_declared() -> None:
    original = made_dynamic(*STALE["two_layers"], axes=[0, 2, 3])
    original.graph.output.append(next(v for v in original.graph.value_info if v.name == "q"))
    _, after = rewrite(original, verify=False)
    declared = {v.name: sizes(v) for v in (*after.graph.value_info, *after.graph.output)}
    assert declared["a"] == [None, 2, None, None]
    # An output that a node reads as well; the last one is what the model states to the outside.
    assert declared["q"] == [None, 6, None, None]
    assert declared["y"] == sizes(original.graph.output[0])
    assert after.graph.input == original.graph.input
    assert {v.name for v in after.graph.value_info} == {v.name for v in original.graph.value_info}


def test_what_inference_confirms_stays_declared() -> None:
    original = made_dynamic(*STALE["unequal"], axes=[0])
    before = {v.name: sizes(v) for v in original.graph.value_info}
    assert before["a"] == [1, 2, 4, 6]
    _, after = rewrite(original, verify=False)
    assert {v.name: sizes(v) for v in after.graph.value_info} == before
    original = made_dynamic(*STALE["unequal"], axes=[0, 3])
    _, after = rewrite(original, verify=False)
    assert sizes(after.graph.value_info[0]) == [None, 2, 4, None]


def test_no_shapes_are_declared_that_were_not() -> None:
    original = made_dynamic(*STALE["two_layers"], axes=[0, 2, 3])
    del original.graph.value_info[:]
    _, after = rewrite(original, verify=False)
    assert not after.graph.value_info


def looped(shape: Sequence[Size], opset: int = 18) -> ModelProto:
    """A Loop whose body declares a state of 1x2x4x6, for an input of ``shape``."""
    state = [1, 2, 4, 6]
    body = graph(
        [
            node("Identity", ["on"], ["on_"]),
            node("ConvTranspose", ["s", "k"], ["u"], strides=[2, 1], name="up"),
            node("MaxPool", ["u"], ["s_"], strides=[2, 1], kernel_shape=[3, 2]),
        ],
        [
            value("i", TensorProto.INT64, []),
            value("on", TensorProto.BOOL, []),
            value("s", FLOAT, state),
        ],
        [value("on_", TensorProto.BOOL, []), value("s_", FLOAT, state)],
        [tensor("k", integers(2, 2, 3, 2))],
    )
    main = graph(
        [node("Loop", ["n", "", "x"], ["y"], body=body, name="loop")],
        [value("x", FLOAT, shape)],
        [value("y", FLOAT, [None] * 4)],
        [tensor("n", np.array(2))],
    )
    return model(main, opset)


@pytest.mark.parametrize("shuffle", ["auto", "col2im"])
def test_states_of_a_loop_have_the_sizes_that_it_begins_with_and_keeps(shuffle: Shuffle) -> None:
    original = looped([None, 2, None, None])
    done, after = rewrite(original, shuffle=shuffle)
    assert done.sites[0].status == "rewritten"
    session = get_backend("ort").prepare(after.SerializeToString(), threads=1)
    for shape in ((1, 2, 4, 6), (2, 2, 5, 7), (0, 2, 4, 6)):
        feeds = {"x": integers(*shape)}
        assert_equal(run(original, feeds), session.run(feeds))
    # Sizes that hold in every iteration are known; sizes that the Loop does not keep are not.
    assert plan_model(load(looped([1, 2, 4, 6])), RewriteOptions(shuffle="two-step")).warnings == ()
    shrinking = looped([1, 2, 4, 6])
    shrinking.graph.node[0].attribute[0].g.node[2].attribute[0].ints[0] = 1
    assert plan_model(load(shrinking), RewriteOptions(shuffle="two-step")).warnings
