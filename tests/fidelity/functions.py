"""Local functions."""

from __future__ import annotations

from typing import Any

from onnx import AttributeProto, FunctionProto, ModelProto, helper

from tests.build import FLOAT, graph, model, node, value
from tests.fidelity.network import SHAPE, UPSAMPLED, feature, network, parameters, up
from tests.fidelity.words import annotate


def function(**rest: Any) -> FunctionProto:
    return helper.make_function(
        "local",
        "Twice",
        ["a"],
        ["c"],
        [node("Add", ["a", "a"], ["c"], name="add")],
        [helper.make_opsetid("", 17)],
        **rest,
    )


def calling(*functions: FunctionProto, **rest: Any) -> ModelProto:
    """Calls every function in turn behind the ConvTranspose."""
    nodes, source = [], "y"
    for number, proto in enumerate(functions):
        call = node(proto.name, [source], [f"c{number}"], name=f"call{number}", domain="local")
        if proto.overload:
            call.overload = proto.overload
        nodes.append(call)
        source = f"c{number}"
    made = network(
        nodes,
        outputs=[value(source, FLOAT, UPSAMPLED)],
        domains=["local"],
        **{"ir_version": 10, **rest},
    )
    made.functions.extend(functions)
    return made


@feature()
def function_words() -> ModelProto:
    made = calling(function(doc_string="doubles"))
    annotate(made.functions[0], origin="elsewhere")
    return made


@feature()
def function_value_info() -> ModelProto:
    return calling(function(value_info=[value("c", FLOAT, UPSAMPLED)]))


@feature(runs=False)
def function_overloads() -> ModelProto:
    return calling(function(overload="first"), function(overload="second"))


@feature()
def function_attributes() -> ModelProto:
    proto = helper.make_function(
        "local",
        "Leak",
        ["a"],
        ["c"],
        [node("LeakyRelu", ["a"], ["c"])],
        [helper.make_opsetid("", 17)],
        attributes=["slope"],
        attribute_protos=[helper.make_attribute("axis", 1)],
    )
    proto.node[0].attribute.append(
        AttributeProto(name="alpha", type=AttributeProto.FLOAT, ref_attr_name="slope")
    )
    made = calling(proto)
    made.graph.node[-1].attribute.append(helper.make_attribute("slope", 0.5))
    return made


@feature()
def function_of_another_opset() -> ModelProto:
    proto = function()
    proto.node[0].CopyFrom(node("Neg", ["a"], ["c"], name="neg"))  # one that has not changed
    proto.opset_import[0].version = 13
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    return calling(proto)


@feature()
def site_in_a_function() -> ModelProto:
    body = [
        node("Constant", [], ["w"], name="const_w", value=parameters()[0]),
        node("Constant", [], ["b"], name="const_b", value=parameters()[1]),
        up("a", "c"),
    ]
    proto = helper.make_function("local", "Up", ["a"], ["c"], body, [helper.make_opsetid("", 17)])
    made = model(
        graph(
            [node("Up", ["x"], ["y"], name="call", domain="local")],
            [value("x", FLOAT, SHAPE)],
            [value("y", FLOAT, UPSAMPLED)],
        ),
        ir_version=10,
        domains=["local"],
    )
    made.functions.append(proto)
    return made
