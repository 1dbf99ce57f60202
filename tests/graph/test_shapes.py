"""Concrete shapes, of static and of dynamic models, and of graphs inside graphs."""

from __future__ import annotations

import pytest
from onnx import ModelProto, TensorProto, helper, parser

from deployconv.graph.load import load
from deployconv.graph.shapes import Shapes
from deployconv.graph.skeleton import skeleton
from deployconv.graph.view import view
from tests.match.graphs import floats, parsed


def shapes(model: ModelProto) -> Shapes:
    return Shapes(skeleton(model))


def test_a_static_model_has_one_set() -> None:
    found = shapes(parsed("r = Relu(x) y = Conv(r, w, b)", dims="1,2,5,6"))
    assert not found.dynamic
    (instance,) = found.instances("x", "r", "y", "w")
    assert [instance[name] for name in ("x", "r", "y", "w")] == [
        (1, 2, 5, 6),
        (1, 2, 5, 6),
        (1, 3, 3, 4),
        (3, 2, 3, 3),
    ]


def test_a_dynamic_model_has_two_that_differ_in_every_open_size() -> None:
    found = shapes(parsed("y = Conv(x, w, b)", dims="n,2,h,v"))
    assert found.dynamic
    first, second = found.instances("x", "y")
    assert first["x"][1] == second["x"][1] == 2
    for axis in (0, 2, 3):
        assert first["x"][axis] != second["x"][axis]
    assert len({first["x"][2], first["x"][3], second["x"][2]}) == 3 or (
        first["x"][2] / first["x"][3] != second["x"][2] / second["x"][3]
    )


def test_equal_names_of_two_inputs_are_equal_sizes() -> None:
    model = parsed("y = Add(x, z)", dims="n,2,s,s")
    model.graph.input.append(model.graph.input[0])
    model.graph.input[1].name = "z"
    for instance in shapes(model).instances("x", "z"):
        assert instance["x"] == instance["z"]
        assert instance["x"][2] != instance["x"][3]


def test_sizes_without_a_name_are_unequal() -> None:
    for instance in shapes(parsed("y = Relu(x)", dims="?,2,?,?")).instances("x"):
        assert len(set(instance["x"])) == 4 or instance["x"][0] == 2


def test_deep_encoders_have_larger_ones() -> None:
    """64 divides them, so that an encoder with a stride of 64 and its decoder fit together."""
    halves = " ".join(
        f"p{i + 1} = MaxPool<kernel_shape=[2,2], strides=[2,2]>({f'p{i}' if i else 'x'})"
        for i in range(6)
    )
    body = f"{halves} r = Resize(p6, , scales) y = Add(r, x)"
    found = shapes(parsed(body, {"scales": floats(1, 1, 64, 64)}, "n,2,h,v"))
    instances = found.instances("y")
    assert len(instances) == 2
    assert all(size % 64 == 0 for instance in instances for size in instance["y"][2:])


def test_no_set_where_a_shape_is_not_known() -> None:
    found = shapes(parsed("y = NonZero(x)"))
    assert found.instances("x")
    assert found.instances("x", "y") == ()
    assert found.instances("unheard_of") == ()


BRANCHES = (
    '<ir_version: 8, opset_import: ["" : 17]> g (float[1,2,4,3] x, bool c) => (float y) {'
    " y = If(c)<then_branch = then () => (float t) { q = Relu(x) only = Neg(q) t = Neg(only) },"
    " else_branch = other () => (float e) { q = Transpose(x) e = Neg(q) }> }"
)


def test_a_name_that_several_graphs_have_means_none_of_them() -> None:
    found = shapes(parser.parse_model(BRANCHES))
    assert found.instances("q") == ()
    (instance,) = found.instances("only", "x")
    assert instance["only"] == (1, 2, 4, 3)


@pytest.mark.parametrize("path", ["main", "function:up"])
def test_a_function_has_no_shapes(path: str) -> None:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "own" : 1]> g (float[1,2,4,3] x) => (float y)'
        ' { q = Relu(x) y = own.up(q) } <domain: "own", opset_import: ["" : 17]> up (q) => (r)'
        " { r = Neg(q) }"
    )
    seen = view(load(model))
    (scope,) = (scope for scope in seen.scopes if scope.path == path)
    (tensor,) = (
        tensor
        for node in scope.nodes
        for tensor in (*node.inputs, *node.outputs)
        if tensor.name == "q" and (path == "main") == (tensor in node.outputs)
    )
    assert len(seen.instances(scope, tensor)) == (path == "main")


LOST = (
    '<ir_version: 8, opset_import: ["" : 17]> g (float[n,2,4] x, int64[3] s) => (float y)'
    " { a = Relu(x) b = Reshape(a, s) c = Neg(b) y = Abs(c) }"
)


def test_sizes_that_are_given() -> None:
    found = shapes(parser.parse_model(LOST)).at({"x": (5, 2, 4)})
    assert found["a"] == (5, 2, 4)
    assert "c" not in found


def test_what_is_known_inside_goes_on_from_there() -> None:
    known = helper.make_tensor_value_info("b", TensorProto.FLOAT, [10, 4, 1])
    found = shapes(parser.parse_model(LOST)).at({"x": (5, 2, 4)}, [known])
    assert (found["a"], found["b"], found["c"]) == ((5, 2, 4), (10, 4, 1), (10, 4, 1))
