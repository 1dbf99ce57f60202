"""Sites in bodies of If, Loop and Scan, with weights from inside and from around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from tests.build import (
    FLOAT,
    assert_rewritten,
    feeds_for,
    graph,
    integers,
    model,
    node,
    reasons,
    rewrite,
    tensor,
    value,
)

SHAPE, UPSAMPLED = [1, 2, 4, 5], [1, 3, 8, 10]
PARAMETERS = [tensor("w", integers(2, 3, 4, 4)), tensor("b", integers(3, seed=1))]
BOOL, INT64 = TensorProto.BOOL, TensorProto.INT64


def up(source: str, result: str) -> NodeProto:
    geometry = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    return node("ConvTranspose", [source, "w", "b"], [result], name="up", **geometry)


def main(nodes: Sequence[NodeProto], shape: Sequence[int | None], inside: bool) -> ModelProto:
    """``x`` -> nodes -> ``z``, with a flag; the parameters are here or ``inside`` a body."""
    inputs = [value("x", FLOAT, SHAPE), value("yes", BOOL, [])]
    outer = [] if inside else PARAMETERS
    return model(graph(nodes, inputs, [value("z", FLOAT, shape)], [*outer, COUNT, TRUE]))


COUNT, TRUE = tensor("count", np.array(3)), tensor("true", np.array(True))


def branch(inside: bool, result: str = "t") -> GraphProto:
    own = PARAMETERS if inside else []
    return graph([up("x", result)], [], [value(result, FLOAT, UPSAMPLED)], own)


def other(result: str = "e") -> GraphProto:
    shape = node("Constant", [], ["shape"], value_ints=UPSAMPLED)
    fill = node("ConstantOfShape", ["shape"], [result])
    return graph([shape, fill], [], [value(result, FLOAT, UPSAMPLED)])


def choice(then: GraphProto, result: str) -> NodeProto:
    return node("If", ["yes"], [result], name="if", then_branch=then, else_branch=other())


def in_if(inside: bool) -> ModelProto:
    return main([choice(branch(inside), "z")], UPSAMPLED, inside)


def in_if_in_if(inside: bool) -> ModelProto:
    middle = graph([choice(branch(inside), "m")], [], [value("m", FLOAT, UPSAMPLED)])
    return main([choice(middle, "z")], UPSAMPLED, inside)


def in_loop(inside: bool) -> ModelProto:
    body = graph(
        [node("Identity", ["going"], ["still"]), up("x", "slice")],
        [value("round", INT64, []), value("going", BOOL, [])],
        [value("still", BOOL, []), value("slice", FLOAT, UPSAMPLED)],
        PARAMETERS if inside else [],
    )
    loop = node("Loop", ["count", "true"], ["z"], name="loop", body=body)
    return main([loop], [None, *UPSAMPLED], inside)


def in_scan(inside: bool) -> ModelProto:
    body = graph(
        [up("frame", "out")],
        [value("frame", FLOAT, SHAPE)],
        [value("out", FLOAT, UPSAMPLED)],
        PARAMETERS if inside else [],
    )
    frames = node("Concat", ["row", "row"], ["frames"], axis=0)
    nodes = [
        node("Constant", [], ["axes"], value_ints=[0]),
        node("Unsqueeze", ["x", "axes"], ["row"]),
        frames,
        node("Scan", ["frames"], ["z"], name="scan", body=body, num_scan_inputs=1),
    ]
    return main(nodes, [2, *UPSAMPLED], inside)


def in_loop_in_if(inside: bool) -> ModelProto:
    (loop,) = in_loop(inside).graph.node
    loop.output[0] = "stack"
    nodes = [
        loop,
        node("Constant", [], ["axes"], value_ints=[0]),
        node("ReduceSum", ["stack", "axes"], ["t"], keepdims=0),
    ]
    then = graph(nodes, [], [value("t", FLOAT, UPSAMPLED)])
    return main([choice(then, "z")], UPSAMPLED, inside)


PLACES = {
    in_if: "main/if.then_branch",
    in_if_in_if: "main/if.then_branch/if.then_branch",
    in_loop: "main/loop.body",
    in_scan: "main/scan.body",
    in_loop_in_if: "main/if.then_branch/loop.body",
}


@pytest.mark.parametrize("inside", [False, True], ids=["weights outside", "weights inside"])
@pytest.mark.parametrize(("build", "scope"), PLACES.items(), ids=[f.__name__ for f in PLACES])
def test_a_site_in_a_body(build: Callable[[bool], ModelProto], scope: str, inside: bool) -> None:
    original = build(inside)
    feeds = {"x": feeds_for(original)["x"], "yes": np.array(True)}
    assert_rewritten(original, feeds)
    done, _ = rewrite(original, verify=False)
    assert [(site.scope, site.id) for site in done.sites] == [(scope, f"{scope}/up")]


def test_a_weight_of_a_body_hides_one_around_it() -> None:
    """An inner name hides an outer one: the two nodes have different weights."""
    inner = graph(
        [up("x", "t")],
        [],
        [value("t", FLOAT, UPSAMPLED)],
        [tensor("w", integers(2, 3, 4, 4, seed=7))],
    )
    original = main(
        [choice(inner, "c"), up("x", "d"), node("Add", ["c", "d"], ["z"])], UPSAMPLED, False
    )
    original.graph.node[1].name = "outer"
    feeds = {"x": feeds_for(original)["x"], "yes": np.array(True)}
    done, _ = rewrite(original, verify=False)
    assert [site.status for site in done.sites] == ["rewritten", "rewritten"]
    assert_rewritten(original, feeds)


def test_a_weight_that_the_loop_carries_is_a_run_time_weight() -> None:
    body = graph(
        [
            node("Identity", ["going"], ["still"]),
            node("Neg", ["w"], ["next"]),
            up("x", "slice"),
        ],
        [value("round", INT64, []), value("going", BOOL, []), value("w", FLOAT, [2, 3, 4, 4])],
        [
            value("still", BOOL, []),
            value("next", FLOAT, [2, 3, 4, 4]),
            value("slice", FLOAT, UPSAMPLED),
        ],
    )
    loop = node("Loop", ["count", "true", "start"], ["", "z"], name="loop", body=body)
    original = main([loop], [None, *UPSAMPLED], True)
    original.graph.initializer.append(tensor("start", integers(2, 3, 4, 4)))
    original.graph.initializer.append(PARAMETERS[1])
    done, _ = rewrite(original, verify=False)
    assert [site.reason.code for site in done.sites if site.reason] == ["runtime-weight"]


# --- weights that are handed on


GOING = node("Identity", ["going"], ["still"])
CARRIED = [2, 3, 4, 4]


def carries(last: str, *nodes: NodeProto) -> NodeProto:
    """A Loop that carries ``w_in`` as ``w`` and hands on ``last``, which ``nodes`` make."""
    body = graph(
        [GOING, *nodes, up("x", "slice")],
        [value("round", INT64, []), value("going", BOOL, []), value("w", FLOAT, CARRIED)],
        [value("still", BOOL, []), value(last, FLOAT, CARRIED), value("slice", FLOAT, UPSAMPLED)],
    )
    return node("Loop", ["count", "true", "w_in"], ["w_out", "z"], name="loop", body=body)


def scans() -> NodeProto:
    """A Scan over rows of ``x`` with ``w_in`` as its state."""
    body = graph(
        [up("frame", "slice"), node("Identity", ["w"], ["same"])],
        [value("w", FLOAT, CARRIED), value("frame", FLOAT, SHAPE)],
        [value("same", FLOAT, CARRIED), value("slice", FLOAT, UPSAMPLED)],
    )
    return node("Scan", ["w_in", "rows"], ["w_out", "z"], name="scan", body=body, num_scan_inputs=1)


def with_weight(*nodes: NodeProto) -> ModelProto:
    original = main(nodes, [None, *UPSAMPLED], True)
    held = tensor("w_in", integers(*CARRIED))
    original.graph.initializer.extend([held, PARAMETERS[1], tensor("axis", np.array([0]))])
    return original


ROWS = node("Unsqueeze", ["x", "axis"], ["rows"])
IDENTITY = node("Identity", ["w"], ["same"])
HANDED_ON = {
    "by a Loop": [carries("w")],
    "by a Loop, with Identity": [carries("same", IDENTITY)],
    "by a Scan": [ROWS, scans()],
}


@pytest.mark.parametrize("nodes", HANDED_ON.values(), ids=list(HANDED_ON))
def test_a_weight_that_is_handed_on_unchanged_is_constant(nodes: list[NodeProto]) -> None:
    original = with_weight(*nodes)
    assert_rewritten(original, {"x": feeds_for(original)["x"], "yes": np.array(True)})


def test_a_weight_that_comes_out_of_a_loop_unchanged_is_constant() -> None:
    loop = carries("same", IDENTITY)
    after = up("x", "y")
    after.input[1] = "w_out"
    original = with_weight(loop, after)
    original.graph.output.append(value("y", FLOAT, UPSAMPLED))
    assert_rewritten(original, {"x": feeds_for(original)["x"], "yes": np.array(True)})


def test_a_loop_that_exchanges_two_weights_makes_them_run_time_weights() -> None:
    body = graph(
        [GOING, up("x", "slice")],
        [value("round", INT64, []), value("going", BOOL, [])]
        + [value(name, FLOAT, CARRIED) for name in ("w", "v")],
        [value("still", BOOL, [])]
        + [value(name, FLOAT, CARRIED) for name in ("v", "w")]
        + [value("slice", FLOAT, UPSAMPLED)],
    )
    inputs = ["count", "true", "w_in", "v_in"]
    original = with_weight(node("Loop", inputs, ["", "", "z"], name="loop", body=body))
    original.graph.initializer.append(tensor("v_in", integers(*CARRIED, seed=5)))
    assert reasons(original, verify=False) == ["runtime-weight"]


def integers_of(weight: str) -> list[NodeProto]:
    """DequantizeLinear makes ``weight`` of integers, one scale per output channel."""
    return [node("DequantizeLinear", ["q", "s"], [weight], axis=1)]


QUANTIZED = [
    tensor("q", integers(*CARRIED, dtype=np.int8)),
    tensor("s", np.array([0.5, 1, 2], np.float32)),
]


def test_integers_whose_values_are_handed_on_unchanged_stay_integers() -> None:
    original = with_weight(*integers_of("w_in"), carries("w"))
    original.graph.initializer.extend(QUANTIZED)
    (unused,) = [held for held in original.graph.initializer if held.name == "w_in"]
    original.graph.initializer.remove(unused)
    after = assert_rewritten(original, {"x": feeds_for(original)["x"], "yes": np.array(True)})
    (loop,) = (made for made in after.graph.node if made.op_type == "Loop")
    inside = [made.op_type for made in loop.attribute[0].g.node]
    assert "DequantizeLinear" in inside


# --- weights that are arguments of functions


def calls(*weights: str, computed: bool = False) -> ModelProto:
    """``x`` -> a function called once for each of ``weights``, whose results are added -> ``y``."""
    geometry = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [node("Neg", ["p"], ["w"]) if computed else node("Identity", ["p"], ["w"])]
    nodes.append(node("ConvTranspose", ["a", "w", "b"], ["c"], name="up", **geometry))
    opset = [helper.make_opsetid("", 17)]
    function = helper.make_function("local", "Up", ["a", "p", "b"], ["c"], nodes, opset)
    made = [
        node("Up", ["x", weight, "b"], [f"y{number}"], name=f"call{number}", domain="local")
        for number, weight in enumerate(weights)
    ]
    total = node("Sum", [f"y{number}" for number in range(len(weights))], ["y"])
    held = [tensor(name, integers(*CARRIED, seed=at)) for at, name in enumerate(("v", "w"))]
    body = graph(
        [*made, total],
        [value("x", FLOAT, SHAPE)],
        [value("y", FLOAT, UPSAMPLED)],
        [*held, PARAMETERS[1]],
    )
    return model(body, domains=["local"], functions=[function])


@pytest.mark.parametrize("weights", [["w"], ["w", "w"]], ids=["one call", "two calls"])
@pytest.mark.parametrize("computed", [False, True])
def test_a_weight_that_every_call_of_a_function_passes_is_constant(
    weights: list[str], computed: bool
) -> None:
    original = calls(*weights, computed=computed)
    assert_rewritten(original, {"x": integers(*SHAPE)})


@pytest.mark.parametrize("computed", [False, True])
def test_weights_that_differ_between_the_calls_of_a_function(computed: bool) -> None:
    done, _ = rewrite(calls("w", "v", computed=computed), verify=False)
    (site,) = done.sites
    assert site.reason is not None
    assert site.reason.code == "function-argument"
    assert "inline the function" in site.reason.text


def test_integers_whose_values_a_call_passes_stay_integers() -> None:
    original = calls("dequantized")
    original.graph.node.insert(0, integers_of("dequantized")[0])
    original.graph.initializer.extend(QUANTIZED)
    after = assert_rewritten(original, {"x": integers(*SHAPE)})
    assert "DequantizeLinear" in [made.op_type for made in after.functions[0].node]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_bias_that_a_function_casts_like_its_argument(dtype: type) -> None:
    """The element type of an argument is known from the calls alone."""
    nodes = [
        node("Constant", [], ["zero"], value_float=1.0),
        node("CastLike", ["zero", "a"], ["cast"]),
        node("Shape", ["w"], ["width"], start=1, end=2),
        node("Expand", ["cast", "width"], ["b"]),
        node("ConvTranspose", ["a", "w", "b"], ["c"], name="up", strides=[2, 2]),
    ]
    opset = [helper.make_opsetid("", 18)]
    function = helper.make_function("local", "Up", ["a", "w"], ["c"], nodes, opset)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    body = graph(
        [node("Up", ["x", "w"], ["y"], name="call", domain="local")],
        [value("x", kind, SHAPE)],
        [value("y", kind, [None] * 4)],
        [tensor("w", integers(*CARRIED, dtype=dtype))],
    )
    original = model(body, opset=18, domains=["local"], functions=[function])
    assert_rewritten(original, {"x": integers(*SHAPE, dtype=dtype)})
