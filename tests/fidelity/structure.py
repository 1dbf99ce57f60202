"""Unusual interfaces, domains, opsets and bodies."""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper

from tests.build import FLOAT, graph, integers, model, node, tensor, value
from tests.fidelity.network import SHAPE, UPSAMPLED, custom, feature, network, parameters, up

_TENSOR = helper.make_tensor_type_proto(FLOAT, UPSAMPLED)


@feature()
def domain_spelled_out_at_the_import() -> ModelProto:
    made = network()
    made.opset_import[0].domain = "ai.onnx"
    return made


@feature(checks=False)  # the checker knows the operators by the other spelling only
def domain_spelled_out_at_nodes() -> ModelProto:
    made = network()
    for proto in made.graph.node:
        proto.domain = "ai.onnx"
    return made


@feature()
def several_opset_imports() -> ModelProto:
    return network(domains=["com.microsoft", "ai.onnx.ml", "org.unused"])


@feature(runs=False)
def custom_domain() -> ModelProto:
    return custom(helper.make_attribute("level", 3))


@feature()
def inputs_with_defaults_before_ir_4() -> ModelProto:
    made = network(initializers=[tensor("kept", integers(2))], ir_version=3, opset=8)
    for initializer in made.graph.initializer:
        made.graph.input.append(value(initializer.name, FLOAT, list(initializer.dims)))
    return made


@feature()
def overridable_input() -> ModelProto:
    """A default of another node's input, which callers may override from IR version 4 on."""
    return network(
        [node("Mul", ["y", "gain"], ["z"], name="mul")],
        inputs=[value("gain", FLOAT, [1])],
        outputs=[value("z", FLOAT, UPSAMPLED)],
        initializers=[tensor("gain", integers(1))],
    )


@feature()
def unread_input() -> ModelProto:
    return network(inputs=[value("unread", FLOAT, ["N"])])


@feature()
def constant_output() -> ModelProto:
    return network(outputs=[value("c", FLOAT, [2])], initializers=[tensor("c", integers(2))])


@feature(gone=["b"])
def weight_is_an_output() -> ModelProto:
    return network(outputs=[value("w", FLOAT, [2, 3, 4, 4])])


@feature()
def named_dimensions() -> ModelProto:
    made = network()
    for declared, names in ((made.graph.input[0], "NCHW"), (made.graph.output[0], "ABDE")):
        for dim, name in zip(declared.type.tensor_type.shape.dim, names, strict=True):
            if name not in "CB":
                dim.dim_param = name
    return made


@feature()
def sequence_output() -> ModelProto:
    return network(
        [node("SequenceConstruct", ["y", "y"], ["s"], name="pair")],
        outputs=[helper.make_tensor_sequence_value_info("s", FLOAT, UPSAMPLED)],
    )


@feature(runs=False)  # for want of a sequence to feed
def sequence_input() -> ModelProto:
    return network(
        [node("SequenceLength", ["s"], ["n"], name="length")],
        inputs=[helper.make_tensor_sequence_value_info("s", FLOAT, [None])],
        outputs=[value("n", TensorProto.INT64, [])],
    )


@feature()
def optional_output() -> ModelProto:
    kind = helper.make_optional_type_proto(_TENSOR)
    return network(
        [node("Optional", ["y"], ["o"], name="maybe")],
        outputs=[helper.make_value_info("o", kind)],
    )


@feature()
def map_output() -> ModelProto:
    nodes = [
        node("Reshape", ["y", "flat"], ["row"], name="reshape"),
        node("ZipMap", ["row"], ["m"], domain="ai.onnx.ml", classlabels_int64s=[*range(240)]),
    ]
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(FLOAT, []))
    )
    return network(
        nodes,
        outputs=[helper.make_value_info("m", kind)],
        initializers=[tensor("flat", np.array([1, 240]))],
        domains=["ai.onnx.ml"],
    )


@feature()
def left_out_inputs_and_outputs() -> ModelProto:
    nodes = [
        node("Clip", ["y", "", "top"], ["c"], name="clip"),
        node("LayerNormalization", ["c", "scale"], ["n", "", "deviation"], name="normalize"),
    ]
    return network(
        nodes,
        outputs=[value("deviation", FLOAT, [*UPSAMPLED[:-1], 1])],
        initializers=[tensor("top", np.float32(2)), tensor("scale", integers(10))],
    )


def branches(then: GraphProto, otherwise: GraphProto, *initializers: TensorProto) -> ModelProto:
    """``x -> If(yes) -> z``, with ``initializers`` around it."""
    body = graph(
        [node("If", ["yes"], ["z"], name="if", then_branch=then, else_branch=otherwise)],
        [value("yes", TensorProto.BOOL, []), value("x", FLOAT, SHAPE)],
        [value("z", FLOAT, UPSAMPLED)],
        initializers,
    )
    return model(body)


def other_branch(source: str = "one", *initializers: TensorProto) -> GraphProto:
    shape = node("Constant", [], ["shape"], value_ints=UPSAMPLED)
    expand = node("Expand", [source, "shape"], ["e"], name="expand")
    return graph([shape, expand], [], [value("e", FLOAT, UPSAMPLED)], initializers)


@feature()
def site_in_a_branch() -> ModelProto:
    then = graph([up("x", "t")], [], [value("t", FLOAT, UPSAMPLED)])
    unused = tensor("unused", integers(2))
    return branches(then, other_branch("one", unused), *parameters(), tensor("one", integers(1)))


@feature()
def outer_weight_in_two_branches() -> ModelProto:
    """Neither branch owns the scale; it stays one tensor of the main graph."""
    then = graph(
        [up("x", "t"), node("Max", ["t", "one"], ["m"], name="max")],
        [],
        [value("m", FLOAT, UPSAMPLED)],
    )
    return branches(then, other_branch(), *parameters(), tensor("one", integers(1)))


@feature()
def untyped_body_outputs() -> ModelProto:
    then = graph([up("x", "t")], [], [ValueInfoProto(name="t")])
    otherwise = other_branch()
    otherwise.output[0].ClearField("type")
    return branches(then, otherwise, *parameters(), tensor("one", integers(1)))


@feature()
def site_in_a_loop() -> ModelProto:
    body = graph(
        [
            node("Identity", ["going"], ["still"], name="going_on"),
            up("x", "slice"),
        ],
        [value("round", TensorProto.INT64, []), value("going", TensorProto.BOOL, [])],
        [value("still", TensorProto.BOOL, []), value("slice", FLOAT, UPSAMPLED)],
        parameters(),
    )
    main = graph(
        [node("Loop", ["count", ""], ["z"], name="loop", body=body)],
        [value("x", FLOAT, SHAPE)],
        [value("z", FLOAT, [None, *UPSAMPLED])],
        [tensor("count", np.array(2))],
    )
    return model(main)


@feature()
def site_in_a_scan() -> ModelProto:
    body = graph(
        [up("frame", "out")], [value("frame", FLOAT, SHAPE)], [value("out", FLOAT, UPSAMPLED)]
    )
    main = graph(
        [node("Scan", ["x"], ["z"], name="scan", body=body, num_scan_inputs=1)],
        [value("x", FLOAT, [3, *SHAPE])],
        [value("z", FLOAT, [3, *UPSAMPLED])],
        parameters(),
    )
    return model(main)
