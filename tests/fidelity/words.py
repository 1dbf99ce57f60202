"""What a model says about itself: metadata, documentation, training, devices."""

from __future__ import annotations

from typing import Any

from onnx import GraphProto, ModelProto, TensorAnnotation, TrainingInfoProto

from tests.build import FLOAT, graph, integers, node, tensor, value
from tests.fidelity.network import SHAPE, UPSAMPLED, feature, network


def annotate(target: Any, **entries: str) -> None:
    """Add metadata_props; every kind of proto spells them alike."""
    for key, text in entries.items():
        target.metadata_props.add(key=key, value=text)


@feature()
def model_metadata() -> ModelProto:
    made = network()
    annotate(made, author="somebody", empty="")
    return made


@feature()
def graph_metadata() -> ModelProto:
    made = network(ir_version=10)
    annotate(made.graph, stage="head")
    return made


@feature()
def node_metadata() -> ModelProto:
    made = network(ir_version=10)
    annotate(made.graph.node[0], namespace="net/relu", pkg_torch="relu.default")
    return made


@feature()
def value_metadata() -> ModelProto:
    made = network(ir_version=10)
    made.graph.value_info.append(value("low", FLOAT, SHAPE))
    for declared in (made.graph.input[0], made.graph.output[0], made.graph.value_info[0]):
        annotate(declared, layout="NCHW")
    return made


@feature()
def initializer_metadata() -> ModelProto:
    made = network(initializers=[tensor("kept", integers(2))], ir_version=10)
    annotate(made.graph.initializer[2], sha="0")
    return made


@feature()
def doc_strings() -> ModelProto:
    made = network(
        [node("LeakyRelu", ["y"], ["z"], name="leaky", alpha=0.5)],
        outputs=[value("z", FLOAT, UPSAMPLED)],
        initializers=[tensor("kept", integers(2))],
    )
    leaky = made.graph.node[2]
    declared = (made.graph.input[0], made.graph.output[0], made.graph.initializer[2])
    for described in (made, made.graph, leaky, leaky.attribute[0], *declared):
        described.doc_string = "a line\nand another"
    return made


@feature()
def model_identity() -> ModelProto:
    return network(
        producer_name="trainer", producer_version="2.1", domain="org.example", model_version=7
    )


@feature()
def quantization_annotation() -> ModelProto:
    made = network(initializers=[tensor("scale", integers(1))])
    annotation = TensorAnnotation(tensor_name="low")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scale")
    made.graph.quantization_annotation.append(annotation)
    return made


@feature()
def denotations() -> ModelProto:
    made = network()
    for declared in (made.graph.input[0], made.graph.output[0]):
        declared.type.denotation = "IMAGE"
        for dim, meaning in zip(
            declared.type.tensor_type.shape.dim,
            ("DATA_BATCH", "DATA_CHANNEL", "DATA_FEATURE", "DATA_FEATURE"),
            strict=True,
        ):
            dim.denotation = meaning
    return made


@feature()
def stale_value_info() -> ModelProto:
    made = network()
    made.graph.value_info.extend([value("nowhere", FLOAT, [7]), value("low", FLOAT, ["N", 2])])
    made.graph.value_info[1].type.tensor_type.ClearField("shape")
    return made


@feature()
def unknown_fields() -> ModelProto:
    """What a newer version of the format might write: field 1000 of four messages."""
    made = network()
    later = bytes([0xC2, 0x3E, 3]) + b"new"
    for message in (made, made.graph, made.graph.node[0], made.graph.input[0]):
        message.MergeFromString(later)
    return made


def training(name: str) -> TrainingInfoProto:
    def single(result: str) -> GraphProto:
        return graph(
            [node("Identity", [name], [result], name=f"make_{result}")],
            [],
            [value(result, FLOAT, None)],
        )

    info = TrainingInfoProto(initialization=single("start"), algorithm=single("next"))
    info.initialization_binding.add(key=name, value="start")
    info.update_binding.add(key=name, value="next")
    return info


@feature()
def training_info() -> ModelProto:
    made = network(initializers=[tensor("other", integers(2))])
    made.training_info.append(training("other"))
    return made


@feature(gone=["b"])
def training_of_the_weight() -> ModelProto:
    made = network()
    made.training_info.append(training("w"))
    return made


@feature()
def device_configuration() -> ModelProto:
    made = network(ir_version=11)
    made.configuration.add(name="two", num_devices=2, device=["a", "b"])
    made.graph.node[0].device_configurations.add(configuration_id="two", pipeline_stage=1)
    return made
