"""What else reads a parameter keeps it; what nothing reads any more is gone; names stay unique."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from deployconv.graph.load import load
from deployconv.graph.splice import AttributeEdit, splice
from deployconv.graph.view import view
from deployconv.options import RewriteOptions
from deployconv.rewrites.planning import apply, plan_model
from tests.build import (
    FLOAT,
    assert_equal,
    assert_rewritten,
    feeds_for,
    graph,
    integers,
    model,
    node,
    owners,
    rewrite,
    run,
    run_reference,
    tensor,
    upsampler,
    value,
)

GEOMETRY = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
WEIGHT = tensor("w", integers(2, 2, 4, 4))


def up(source: str, result: str, weight: str = "w", name: str = "") -> NodeProto:
    return node("ConvTranspose", [source, weight], [result], name=name or result, **GEOMETRY)


def network(
    nodes: Sequence[NodeProto], results: Sequence[str], *initializers: TensorProto
) -> ModelProto:
    """From ``x [1, 2, 5, 6]`` to ``results``, by ``nodes`` that read the weight ``w``."""
    outputs = [value(result, FLOAT, [None] * 4) for result in results]
    return model(graph(nodes, [value("x", FLOAT, [1, 2, 5, 6])], outputs, [WEIGHT, *initializers]))


def initializers(model: ModelProto) -> list[str]:
    return [
        initializer.name
        for owner in owners(model)
        if isinstance(owner, GraphProto)
        for initializer in owner.initializer
    ]


def weights(model: ModelProto) -> list[str]:
    """Names of the tensors of more than one dimension."""
    return [tensor.name for tensor in model.graph.initializer if len(tensor.dims) > 1]


# --- what feeds the node


def test_a_weight_that_nothing_reads_any_more_is_gone() -> None:
    after = assert_rewritten(upsampler())
    assert {"w", "b"}.isdisjoint(initializers(after))


def test_a_weight_that_a_conv_reads_too_stays() -> None:
    conv = node("Conv", ["x", "w"], ["c"], name="conv", pads=[2, 2, 2, 2])
    after = assert_rewritten(network([up("x", "y"), conv], ["y", "c"]))
    assert "w" in initializers(after)
    assert [proto for proto in after.graph.node if proto.name == "conv"] == [conv]


def test_a_weight_of_a_node_that_stays_is_kept() -> None:
    after = assert_rewritten(network([up("x", "a"), up("a", "y")], ["y"]), left=1, only=["a"])
    assert "w" in initializers(after)


def test_a_weight_that_is_an_output_stays() -> None:
    after = assert_rewritten(network([up("x", "y")], ["y", "w"]))
    assert "w" in initializers(after)


def test_a_weight_that_a_body_reads_stays() -> None:
    """Only the branch reads it once the node of the main graph is gone."""
    then = graph([node("Conv", ["x", "w"], ["t"])], [], [value("t", FLOAT, [None] * 4)])
    original = network(
        [
            up("x", "y"),
            node("Constant", [], ["yes"], value=tensor("", np.array(True))),
            node("If", ["yes"], ["z"], then_branch=then, else_branch=then),
        ],
        ["y", "z"],
    )
    assert "w" in initializers(assert_rewritten(original))


def test_a_chain_is_gone_as_far_as_nothing_else_reads_it() -> None:
    nodes = [
        node("Identity", ["w"], ["first"], name="first"),
        node("Neg", ["first"], ["second"], name="second"),
        node("Neg", ["second"], ["third"], name="third"),
        up("x", "y", "third"),
        node("Relu", ["first"], ["z"], name="relu"),
    ]
    after = assert_rewritten(network(nodes, ["y", "z"]))
    names = {proto.name for proto in after.graph.node}
    assert {"first", "relu"} <= names
    assert {"second", "third"}.isdisjoint(names)
    assert "w" in initializers(after)


# --- what is added


def test_a_weight_of_several_nodes_becomes_one_again() -> None:
    after = assert_rewritten(network([up("x", "a"), up("a", "d"), up("d", "y")], ["y"]))
    assert len(weights(after)) == 1


def test_equal_weights_of_two_names_are_stored_once() -> None:
    other = tensor("v", integers(2, 2, 4, 4))
    after = assert_rewritten(network([up("x", "a"), up("a", "y", "v")], ["y"], other))
    assert len(weights(after)) == 1


def branches(first: NodeProto, second: NodeProto, *more: TensorProto) -> ModelProto:
    """An If whose branches are these nodes; their weights stand in the main graph."""
    then, otherwise = (
        graph([inner], [], [value(inner.output[0], FLOAT, [None] * 4)]) for inner in (first, second)
    )
    yes = node("Constant", [], ["yes"], value=tensor("", np.array(True)))
    both = node("If", ["yes"], ["y"], then_branch=then, else_branch=otherwise)
    return network([yes, both], ["y"], *more)


def weights_inside(model: ModelProto) -> list[list[str]]:
    """The same of each subgraph."""
    return [
        [tensor.name for tensor in owner.initializer if len(tensor.dims) > 1]
        for owner in owners(model)
        if isinstance(owner, GraphProto) and owner is not model.graph
    ]


def test_a_weight_stands_in_the_graph_that_reads_it() -> None:
    """There onnxruntime runs its Conv on blocks of channels."""
    other = tensor("v", integers(2, 2, 4, 4, seed=9))
    after = assert_rewritten(branches(up("x", "a"), up("x", "b", "v"), other))
    assert weights(after) == []
    assert weights_inside(after) == [["a/weight"], ["b/weight"]]


def test_a_weight_that_two_branches_read_stands_around_them() -> None:
    other = tensor("v", integers(2, 2, 4, 4))
    after = assert_rewritten(branches(up("x", "a"), up("x", "b", "v"), other))
    assert len(weights(after)) == 1
    assert weights_inside(after) == [[], []]


def test_weights_that_differ_are_not_shared() -> None:
    other = tensor("v", integers(2, 2, 4, 4, seed=9))
    after = assert_rewritten(network([up("x", "a"), up("a", "y", "v")], ["y"], other))
    assert len(weights(after)) == 2


def test_names_that_are_taken_are_not_taken_again() -> None:
    suffixes = ["conv", "weight", "shuffle", "slice", "starts", "ends", "axes"]
    taken = [tensor(f"y/{suffix}", integers(2)) for suffix in suffixes]
    after = assert_rewritten(network([up("x", "y")], ["y", *(t.name for t in taken)], *taken))
    produced = Counter(initializers(after))
    produced.update(name for proto in after.graph.node for name in proto.output)
    assert set(produced.values()) == {1}


def test_a_name_that_only_a_body_uses_is_taken_too() -> None:
    then = graph([node("Relu", ["x"], ["y/conv"])], [], [value("y/conv", FLOAT, [None] * 4)])
    original = network(
        [
            up("x", "y"),
            node("Constant", [], ["yes"], value=tensor("", np.array(True))),
            node("If", ["yes"], ["z"], then_branch=then, else_branch=then),
        ],
        ["y", "z"],
    )
    after = assert_rewritten(original)
    assert "y/conv" not in {name for proto in after.graph.node for name in proto.output}


def test_nodes_without_a_name() -> None:
    nodes = [up("x", "a"), up("a", "y")]
    for proto in nodes:
        proto.ClearField("name")
    assert_unique(assert_rewritten(network(nodes, ["y"])))


def test_nodes_of_one_name() -> None:
    """onnxruntime refuses such a model, so the reference evaluator is the judge."""
    original = network([up("x", "a", name="same"), up("a", "y", name="same")], ["y"])
    done, after = rewrite(original, verify=False)
    assert [site.status for site in done.sites] == ["rewritten", "rewritten"]
    assert len({site.id for site in done.sites}) == 2
    assert_unique(after)
    feeds = feeds_for(original)
    assert_equal(run_reference(original, feeds), run(after, feeds))


def assert_unique(model: ModelProto) -> None:
    names = [proto.name for proto in model.graph.node]
    assert len(set(names)) == len(names)


# --- what reads the node


def test_an_output_that_others_read_and_that_leaves_the_graph() -> None:
    nodes = [
        up("x", "y"),
        node("Relu", ["y"], ["r"]),
        node("Neg", ["y"], ["n"]),
        node("Add", ["y", "y"], ["d"]),
    ]
    assert_rewritten(network(nodes, ["y", "r", "n", "d"]))


def test_nodes_in_a_row_without_anything_between() -> None:
    after = assert_rewritten(network([up("x", "a"), up("a", "d"), up("d", "y")], ["y"]))
    order = [name for proto in after.graph.node for name in (*proto.input, *proto.output)]
    # Topological: what one makes stands before what the next reads.
    assert order.index("a") < order.index("d") < order.index("y")


def test_a_constant_that_a_moved_layer_shares_stays_one() -> None:
    """The Mul moves in front of the Resize; another layer reads its factor too."""
    scales = tensor("scales", np.array([1, 1, 2, 2], np.float32))
    factor = tensor("factor", np.array(2, np.float32))
    moved = network(
        [
            node("Resize", ["x", "", "scales"], ["u"], mode="nearest"),
            node("Mul", ["u", "factor"], ["m"]),
            node("Conv", ["m", "w"], ["c"], name="conv"),
            node("Mul", ["c", "factor"], ["y"]),
        ],
        ["y"],
        scales,
        factor,
    )
    done, after = rewrite(moved)
    assert [site.certificate for site in done.sites] == ["exact"]
    names = Counter(initializers(after))
    assert names["factor"] == 1
    assert max(names.values()) == 1
    assert_equal(run(moved, feeds_for(moved)), run(after, feeds_for(moved)))


# --- copies


def test_one_view_serves_any_number_of_copies() -> None:
    """The model that is viewed does not change, not even its If bodies and attributes."""
    branch = graph([up("x", "t")], [], [value("t", FLOAT, [None] * 4)])
    other = graph([node("Identity", ["z"], ["e"])], [], [value("e", FLOAT, [None] * 4)])
    nodes = [up("x", "z"), node("If", ["c"], ["y"], then_branch=branch, else_branch=other)]
    inputs = [value("x", FLOAT, [1, 2, 5, 6]), value("c", TensorProto.BOOL, [])]
    proto = model(graph(nodes, inputs, [value("y", FLOAT, [None] * 4)], [WEIGHT]))
    loaded = load(proto)
    planning = plan_model(loaded, RewriteOptions())
    first, second = apply(planning), apply(planning)
    assert first.proto.SerializeToString() == second.proto.SerializeToString()
    assert first.added == second.added != frozenset()
    assert "ConvTranspose" in {found.op_type for found in planning.view.model.proto.graph.node}
    assert loaded.proto.SerializeToString() == proto.SerializeToString()
    assert all(
        found.op_type != "ConvTranspose" for owner in owners(first.proto) for found in owner.node
    )


def test_without_edits_the_copy_is_the_model() -> None:
    loaded = load(upsampler())
    after = splice(view(loaded), [])
    assert after.added == frozenset()
    assert after.proto is not loaded.proto
    assert after.proto.SerializeToString() == loaded.proto.SerializeToString()


def test_edits_name_positions() -> None:
    seen = view(load(network([up("x", "a"), up("a", "y")], ["y"])))
    (main,) = seen.scopes
    after = splice(seen, [AttributeEdit(main, 1, {"pads": [0, 0, 0, 0], "strides": None})]).proto
    assert after.graph.node[0] == seen.model.proto.graph.node[0]
    changed = {entry.name: list(entry.ints) for entry in after.graph.node[1].attribute}
    assert changed["pads"] == [0, 0, 0, 0]
    assert "strides" not in changed
