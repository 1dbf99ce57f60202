"""The layers of one site, cut out of a model, compute what they compute within it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from deployconv.graph.load import load
from deployconv.options import RewriteOptions
from deployconv.runtimes.base import Array
from deployconv.search.candidates import Candidates
from deployconv.search.small_model import SmallModel
from tests.build import FLOAT, graph, integers, model, node, run, tensor, value
from tests.search.nets import head, net, pair, shuffled_twice, up, upsampled_and_shuffled


def site_of(proto: ModelProto, name: str) -> tuple[Candidates, SmallModel | None]:
    candidates = Candidates.of(load(proto), RewriteOptions(policy="fastest"))
    planned = next(one for one in candidates.planning.default if one.id == f"main/{name}")
    rewrites = [option.rewrite for option in candidates.of_site(planned)]
    return candidates, SmallModel.around(candidates.planning.view, rewrites)


def inside(proto: ModelProto, names: tuple[str, ...]) -> dict[str, Array]:
    """The values of tensors in a model, computed from ones."""
    feeds = {"x": integers(1, 2, 4, 6)}
    wider = ModelProto()
    wider.CopyFrom(proto)
    shown = {output.name for output in wider.graph.output}
    wider.graph.output.extend(value(name, FLOAT, [None] * 4) for name in names if name not in shown)
    return {**feeds, **run(wider, feeds)}


MODELS = {
    "the last": (pair(), "large", ["ConvTranspose"]),
    "the first": (pair(), "small", ["ConvTranspose"]),
    "a chain": (head(), "first", ["ConvTranspose", "Relu", "ConvTranspose", "Sigmoid"]),
    "a Conv and pixel shuffles": (
        shuffled_twice(),
        "near",
        ["Conv", "DepthToSpace", "Relu", "DepthToSpace"],
    ),
    "a layer and pixel shuffles": (
        upsampled_and_shuffled(),
        "up",
        ["ConvTranspose", "DepthToSpace", "Relu", "DepthToSpace"],
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_each_form_computes_the_same_by_itself(name: str) -> None:
    proto, site, operators = MODELS[name]
    candidates, small = site_of(proto, site)
    assert small is not None
    values = inside(proto, (*small.inputs, *small.outputs))
    feeds = {name: values[name] for name in small.inputs}
    planned = next(one for one in candidates.planning.default if one.id == f"main/{site}")
    as_it_was = small.with_rewrite(None, values)
    assert as_it_was is not None
    assert [node.op_type for node in as_it_was.graph.node] == operators
    for option in candidates.of_site(planned):
        form = small.with_rewrite(option.rewrite, values)
        assert form is not None
        assert form != as_it_was
        for output, array in run(form, feeds).items():
            np.testing.assert_allclose(array, values[output], rtol=1e-5, atol=1e-5)


def test_what_others_read_inside_is_an_output() -> None:
    proto = net(
        up("x", "a", "up"),
        node("Relu", ["a"], ["b"], name="relu"),
        node("MaxPool", ["a"], ["c"], name="pool", kernel_shape=[3, 3], pads=[1] * 4),
        node("Add", ["b", "c"], ["y"], name="add"),
    )
    _, small = site_of(proto, "up")
    assert small is not None
    assert small.inputs == ("x",)
    assert "a" in small.outputs


def test_constants_come_along_whether_initializers_or_nodes() -> None:
    weight = node("Constant", [], ["w"], name="weight")
    weight.attribute.add(name="value", type=4).t.CopyFrom(
        numpy_helper.from_array(integers(2, 2, 2, 2))
    )
    _, small = site_of(
        net(weight, node("ConvTranspose", ["x", "w"], ["y"], name="up", strides=[2, 2])), "up"
    )
    assert small is not None
    assert small.inputs == ("x",)
    _, plain = site_of(net(up("x", "y", "up")), "up")
    assert plain is not None
    found = plain.with_rewrite(None, {"x": integers(1, 2, 4, 6)})
    assert found is not None
    assert [one.name for one in found.graph.initializer] == ["k2"]


def test_nothing_is_cut_out_of_a_subgraph() -> None:
    def body(name: str) -> object:
        layer = node("ConvTranspose", ["x", "w"], [name], name=f"up_{name}", strides=[2, 2])
        return graph([layer], [], [value(name, FLOAT, [1, 2, 8, 12])])

    branch = node("If", ["c"], ["y"], name="if", then_branch=body("t"), else_branch=body("e"))
    outer = graph(
        [branch],
        [value("x", FLOAT, [1, 2, 4, 6]), value("c", 9, [])],
        [value("y", FLOAT, [1, 2, 8, 12])],
        [tensor("w", integers(2, 2, 2, 2))],
    )
    candidates = Candidates.of(load(model(outer)), RewriteOptions(policy="fastest"))
    planned = candidates.planning.default[0]
    rewrites = [option.rewrite for option in candidates.of_site(planned)]
    assert rewrites
    assert SmallModel.around(candidates.planning.view, rewrites) is None
