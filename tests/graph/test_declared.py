"""Sizes that a model declares for tensors inside it count only where inference agrees."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import pytest
from onnx import ModelProto, ValueInfoProto

from deployconv.options import Shuffle
from deployconv.runtimes import get_backend
from tests.build import assert_equal, integers, rewrite, run
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
    model = parsed(f"a = Relu(x) {body}", WEIGHTS, shape, opset=18)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model = onnx.shape_inference.infer_shapes(model)
    (given,), (made,) = model.graph.input, model.graph.output
    for axis in axes:
        for value in (given, made):
            value.type.tensor_type.shape.dim[axis].dim_param = f"{value.name}{axis}"
    return model


def sizes(value: ValueInfoProto) -> list[int | str | None]:
    return [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in value.type.tensor_type.shape.dim
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
    declared = {
        value.name: sizes(value) for value in (*after.graph.value_info, *after.graph.output)
    }
    assert declared["a"] == [None, 2, None, None]
    # An output that a node reads as well; the last one is what the model states to the outside.
    assert declared["q"] == [None, 6, None, None]
    assert declared["y"] == sizes(original.graph.output[0])
    assert after.graph.input == original.graph.input
    assert {value.name for value in after.graph.value_info} == {
        value.name for value in original.graph.value_info
    }


def test_what_inference_confirms_stays_declared() -> None:
    original = made_dynamic(*STALE["unequal"], axes=[0])
    before = {value.name: sizes(value) for value in original.graph.value_info}
    assert before["a"] == [1, 2, 4, 6]
    _, after = rewrite(original, verify=False)
    assert {value.name: sizes(value) for value in after.graph.value_info} == before
    original = made_dynamic(*STALE["unequal"], axes=[0, 3])
    _, after = rewrite(original, verify=False)
    assert sizes(after.graph.value_info[0]) == [None, 2, 4, None]


def test_no_shapes_are_declared_that_were_not() -> None:
    original = made_dynamic(*STALE["two_layers"], axes=[0, 2, 3])
    del original.graph.value_info[:]
    _, after = rewrite(original, verify=False)
    assert not after.graph.value_info
