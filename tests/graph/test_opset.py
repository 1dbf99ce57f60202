"""A model is raised to a later opset only if it stays the same model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, helper

from deployconv.graph.opset import lift, why_not_lifted
from deployconv.options import FeedOptions
from deployconv.proof.inputs import make_feeds
from deployconv.runtimes import get_backend
from tests.build import FLOAT, graph, integers, model, node, tensor, upsampler, value

MODELS = Path(__file__).resolve().parents[2] / "models"
SAMPLES = (
    *("dcgan_generator", "dcgan_int8", "fcn_bilinear", "subpixel_figure", "text_detector_head"),
    *("bicubic_skip", "bilinear_unet_legacy", "dpt_fusion_legacy", "segformer_head_legacy"),
    "trilinear_decoder_legacy",
)
"""The models in ``models/`` that an exporter wrote for opset 17."""


CONSTANTS = {
    "w": integers(2, 3, 4, 4),
    "pads": np.array([0, 0, 1, 1] * 2),
    "scales": np.array([1, 1, 2, 2], np.float32),
    "half": np.array(0.5, np.float32),
    "two": np.array([2.0, 0.5], np.float32),
    "one": np.array([1]),
    "parts": np.array([2, 4]),
    "row": np.array([0, 12, -1]),
    "place": np.array([[0, 1, 2, 3]]),
    "seven": np.array([7], np.float32),
    "zero": np.array(0, np.uint8),
    "gates": np.ones((1, 16, 6), np.float32),
    "memory": np.ones((1, 16, 4), np.float32),
    "columns": np.ones((6, 3), np.float32),
    "rows": np.array([4, 12]),
    "sequence": np.array([4, 2, 6]),
}


def chain(*nodes: NodeProto, opset: int = 17, **rest: Any) -> ModelProto:
    """``x [1, 2, 4, 6]`` -> nodes -> ``y``."""
    body = graph(
        nodes,
        [value("x", FLOAT, [1, 2, 4, 6])],
        [value("y", FLOAT, None)],
        [tensor(name, values) for name, values in CONSTANTS.items()],
    )
    return model(body, opset, **rest)


def of(opset: int, *nodes: NodeProto) -> Any:
    """A model of IR version 8, which allows initializers that are no inputs."""
    return lambda: chain(*nodes, opset=opset, ir_version=8)


def branches(inner: NodeProto) -> NodeProto:
    """An If that computes ``inner`` in one branch and an Identity in the other."""
    other = node("Identity", ["x"], ["e"])
    then, rest = (
        graph([body], [], [value(body.output[0], FLOAT, None)]) for body in (inner, other)
    )
    return node("If", ["flag"], ["y"], then_branch=then, else_branch=rest)


def conditional(inner: NodeProto) -> ModelProto:
    yes = tensor("true", np.array(True))
    return chain(node("Constant", [], ["flag"], value=yes), branches(inner))


def with_function(imports: Sequence[tuple[str, int]], *body: NodeProto) -> ModelProto:
    """A model that calls the function ``local.twice``."""
    opsets = [helper.make_opsetid(*entry) for entry in imports]
    function = helper.make_function("local", "twice", ["a"], ["b"], list(body), opsets)
    call = node("twice", ["x"], ["y"], domain="local")
    return chain(call, domains=("local",), functions=[function])


def named_ai_onnx() -> ModelProto:
    proto = upsampler()
    proto.opset_import[0].domain = "ai.onnx"
    return proto


MOVED = {
    "axes": (of(17, node("ReduceMean", ["x"], ["y"], axes=[1, -1])), {"axes": [1, -1]}),
    "axes, in a branch": (
        lambda: conditional(node("ReduceMax", ["x"], ["t"], axes=[1], keepdims=0)),
        {"axes": [1]},
    ),
    "axes, required": (of(12, node("Unsqueeze", ["x"], ["y"], axes=[0, 5])), {"axes": [0, 5]}),
    "axes of an early Squeeze": (of(8, node("Squeeze", ["x"], ["y"], axes=[0])), {"axes": [0]}),
    "pads": (
        of(9, node("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 0, 1])),
        {"pads": [0, 0, 1, 2, 0, 0, 0, 1]},
    ),
    "two of three": (
        of(9, node("Slice", ["x"], ["y"], starts=[1], ends=[3])),
        {"starts": [1], "ends": [3]},
    ),
    "out of order": (
        of(9, node("Slice", ["x"], ["y"], axes=[3, 2], ends=[5, 4], starts=[1, -3])),
        {"starts": [1, -3], "ends": [5, 4], "axes": [3, 2]},
    ),
    "parts": (of(11, node("Split", ["x"], ["y", "s"], axis=3, split=[2, 4])), {"split": [2, 4]}),
}
"""Attributes that are inputs in opset 18, and their values."""

LIFTED = {
    "ConvTranspose": upsampler,
    "domain spelled out": named_ai_onnx,
    "opset 16": lambda: upsampler(opset=16),
    "opset 13": lambda: upsampler(opset=13),
    "in a branch": lambda: conditional(node("ConvTranspose", ["x", "w"], ["t"], strides=[2, 2])),
    "rows": lambda: chain(
        node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]),
        node("MatMul", ["x", "t"], ["m"]),
        node("Softmax", ["m"], ["y"]),
    ),
    "pooled": lambda: chain(
        node("AveragePool", ["x"], ["p"], kernel_shape=[3, 3], pads=[1] * 4),
        node("Gelu", ["p"], ["y"], domain="com.microsoft"),
        domains=("com.microsoft",),
    ),
    "Pad": of(17, node("Pad", ["x", "pads", "half"], ["y"])),
    "Pad by reflection": of(11, node("Pad", ["x", "pads"], ["y"], mode="reflect")),
    "Resize, nearest": of(
        13,
        node(
            *("Resize", ["x", "", "scales"], ["y"]),
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        ),
    ),
    "Resize, linear": of(11, node("Resize", ["x", "scales", "scales"], ["y"], mode="linear")),
    "BatchNormalization": of(
        9, node("BatchNormalization", ["x", "two", "two", "two", "two"], ["y"], epsilon=0.25)
    ),
    "BatchNormalization, later": of(
        14, node("BatchNormalization", ["x", "two", "two", "two", "two"], ["y"])
    ),
    "Reshape": of(
        8, node("Reshape", ["x", "row"], ["r"]), node("Reshape", ["r", "sequence"], ["y"])
    ),
    "Relu, Add, Mul": of(
        7,
        node("Relu", ["x"], ["r"]),
        node("Add", ["r", "half"], ["a"]),
        node("Mul", ["a", "x"], ["y"]),
    ),
    "Gemm": of(
        9, node("Reshape", ["x", "rows"], ["r"]), node("Gemm", ["r", "r", "half"], ["y"], transA=1)
    ),
    "DepthToSpace": of(
        10,
        node("Concat", ["x", "x"], ["c"], axis=1),
        node("DepthToSpace", ["c"], ["y"], blocksize=2),
    ),
    "MaxPool": of(8, node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])),
    "Shape": of(13, node("Shape", ["x"], ["s"]), node("ConstantOfShape", ["s"], ["y"])),
    "Split by sizes": of(
        13,
        node("Split", ["x", "parts"], ["s", "y"], axis=3),
    ),
    **{name: build for name, (build, _) in MOVED.items()},
    "ReduceMean over all": of(13, node("ReduceMean", ["x"], ["y"], keepdims=0)),
    "ScatterND": of(
        13,
        node("ScatterND", ["x", "place", "seven"], ["y"]),
    ),
    "integers": of(
        10,
        node("QuantizeLinear", ["x", "half", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "half", "zero"], ["y"]),
    ),
    "LSTM": of(
        7,
        node("Reshape", ["x", "sequence"], ["s"]),
        node("LSTM", ["s", "gates", "memory"], ["y"], hidden_size=4),
    ),
    "Dropout": of(12, node("Dropout", ["x"], ["y"])),
    **{name: lambda name=name: onnx.load(MODELS / f"{name}.onnx") for name in SAMPLES},
}


def outputs(proto: ModelProto, optimise: bool) -> dict[str, Any]:
    """The outputs of onnxruntime, on random inputs that depend on the interface alone."""
    session = get_backend("ort").prepare(proto.SerializeToString(), threads=1, optimise=optimise)
    return session.run(make_feeds(session.inputs, FeedOptions()).arrays)


@pytest.mark.parametrize("optimise", [False, True], ids=["as it stands", "optimised"])
@pytest.mark.parametrize("build", LIFTED.values(), ids=list(LIFTED))
def test_a_lifted_model_computes_the_same_bits(build: Any, optimise: bool) -> None:
    original = build()
    lifted = ModelProto()
    lifted.CopyFrom(original)
    assert why_not_lifted(original, 18) is None
    lift(lifted, 18)

    before, after = outputs(original, optimise), outputs(lifted, optimise)

    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, strict=True)


@pytest.mark.parametrize("name", [name for name in LIFTED if name not in MOVED])
def test_nothing_but_the_version_changes(name: str) -> None:
    original = LIFTED[name]()
    lifted = ModelProto()
    lifted.CopyFrom(original)
    lift(lifted, 18)
    (entry,) = (entry for entry in lifted.opset_import if entry.domain in ("", "ai.onnx"))
    assert entry.version == 18
    entry.version = next(
        entry.version for entry in original.opset_import if entry.domain in ("", "ai.onnx")
    )
    assert lifted == original


@pytest.mark.parametrize(("build", "made"), MOVED.values(), ids=list(MOVED))
def test_attributes_become_inputs_of_their_name(build: Any, made: dict[str, list[int]]) -> None:
    lifted = build()
    lift(lifted, 18)
    onnx.shape_inference.infer_shapes(lifted, strict_mode=True)
    graphs = [lifted.graph]
    graphs += [
        entry.g for one in lifted.graph.node for entry in one.attribute if entry.HasField("g")
    ]
    (nodes,) = [
        list(one.node) for one in graphs if any(n.name.startswith("opset/") for n in one.node)
    ]
    constants = {n.output[0]: list(n.attribute[0].ints) for n in nodes if n.op_type == "Constant"}
    (changed,) = (n for n in nodes if set(n.input) & constants.keys() and n.op_type != "Constant")
    schema = onnx.defs.get_schema(changed.op_type, 18)
    found = {
        formal.name: constants[given]
        for formal, given in zip(schema.inputs, changed.input, strict=False)
        if given in constants
    }
    assert found == made
    assert not {entry.name for entry in changed.attribute} & made.keys()


MEAN = node("ReduceMean", ["x"], ["y"], axes=[1])
RELU = node("Relu", ["x"], ["y"])


def trained() -> ModelProto:
    """The training graph has an operator that changed; the model has none."""
    proto = chain(RELU)
    halves = node("Split", ["x"], ["z", "rest"], axis=1)
    step = graph([halves], [], [value("z", FLOAT, None)])
    proto.training_info.add().algorithm.CopyFrom(step)
    return proto


def without_onnx() -> ModelProto:
    """Only operators of another domain, so that no version of the ONNX operators is imported."""
    body = graph(
        [node("Anything", ["x"], ["y"], domain="local")],
        [value("x", FLOAT, [1])],
        [value("y", FLOAT, [1])],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("local", 1)], ir_version=8)


SOFTMAX = node("Softmax", ["x"], ["y"], axis=3)
NO_LONGER = {"coordinate_transformation_mode": "tf_half_pixel_for_nn"}

LEFT = {
    "in a branch": (
        conditional(node("Split", ["x"], ["t", "s"], axis=1)),
        "Split changed between opset 17 and 18",
    ),
    "in a training graph": (trained(), "Split changed between opset 17 and 18"),
    "another default": (of(12, SOFTMAX)(), "Softmax changed between opset 12 and 18"),
    "a mode that went": (
        of(11, node("Resize", ["x", "scales", "scales"], ["y"], **NO_LONGER))(),
        "Resize changed between opset 11 and 18",
    ),
    "an input that moved": (
        of(10, node("Resize", ["x", "scales"], ["y"]))(),
        "Resize changed between opset 10 and 18",
    ),
    "a limit as an attribute": (
        of(10, node("Clip", ["x"], ["y"], max=6.0))(),
        "Clip changed between opset 10 and 18",
    ),
    "equal parts": (
        of(13, node("Split", ["x"], ["y", "s"], axis=1))(),
        "Split changed between opset 13 and 18",
    ),
    "an output of another type": (
        of(9, node("Dropout", ["x"], ["y", "mask"]))(),
        "Dropout changed between opset 9 and 18",
    ),
    "an output that went": (
        of(9, node("BatchNormalization", ["x", *["two"] * 4], ["y", "m", "v", "s", "t"]))(),
        "BatchNormalization changed between opset 9 and 18",
    ),
    "half a pixel": (
        of(10, node("RoiAlign", ["x", "rois", "one"], ["y"]))(),
        "RoiAlign changed between opset 10 and 18",
    ),
    "broadcast of its own": (
        of(6, node("PRelu", ["x", "two"], ["y"]))(),
        "PRelu changed between opset 6 and 18",
    ),
    "deprecated": (
        chain(node("Upsample", ["x", "s"], ["y"])),
        "Upsample changed between opset 17 and 18",
    ),
    "no operator": (chain(node("Nothing", ["x"], ["y"])), "Nothing is not known at both opsets"),
    "too early": (
        chain(node("Mish", ["x"], ["y"]), opset=17),
        "Mish is not known at both opsets",
    ),
    "function": (
        with_function([("", 17)], node("Add", ["a", "a"], ["b"])),
        "its functions import an opset of their own",
    ),
    "no ONNX operators": (without_onnx(), "it imports no ONNX operators"),
}


@pytest.mark.parametrize(("proto", "why"), LEFT.values(), ids=list(LEFT))
def test_why_a_model_is_not_lifted(proto: ModelProto, why: str) -> None:
    assert why_not_lifted(proto, 18) == why


def test_a_function_of_other_domains_follows() -> None:
    inner = node("Gelu", ["a"], ["b"], domain="com.microsoft")
    assert why_not_lifted(with_function([("com.microsoft", 1)], inner), 18) is None


def test_an_operator_of_another_domain_has_its_own_versions() -> None:
    pad = node("Pad", ["x"], ["y"], domain="local")
    assert why_not_lifted(chain(pad, domains=("local",)), 18) is None


@pytest.mark.parametrize("opset", [18, 20, 23])
def test_a_later_model_stays(opset: int) -> None:
    proto = chain(MEAN, opset=opset)
    assert why_not_lifted(proto, 18) is None
    lift(proto, 18)
    assert proto == chain(MEAN, opset=opset)


def test_the_table_of_samples_is_complete() -> None:
    """Every sample model below opset 18 is in the table."""
    below = {
        path.stem: why_not_lifted(proto, 18)
        for path in sorted(MODELS.glob("*.onnx"))
        if (proto := onnx.load(path)).opset_import[0].version < 18
    }
    assert below == dict.fromkeys(SAMPLES)
