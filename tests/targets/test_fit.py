"""What a whole model has left that its target does not take: a check for each key of `takes`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from onnx import AttributeProto, ModelProto, NodeProto, helper

import deployconv
from deployconv.results import MisfitCode
from deployconv.targets.catalogue import find_target
from deployconv.targets.fit import target_models
from deployconv.targets.profile import Takes
from tests.build import conv_transpose, integers, model, node
from tests.match.graphs import floats, ints, parsed
from tests.targets.npu import written


def found(left: ModelProto, takes: str, folder: Path) -> list[tuple[str, str]]:
    """Code and text of what ``left`` has that a target with the keys ``takes`` does not take."""
    target = written(folder, f'name = "npu"\n[takes]\n{takes}\n')
    (one,) = target_models(left, [find_target(target)])
    return [(misfit.code, misfit.text) for misfit in one.misfits]


def transposed(**attributes: object) -> ModelProto:
    return conv_transpose(integers(2, 3, 4, 4), (4, 5), **{"strides": [2, 2], **attributes})


def named_sizes() -> ModelProto:
    """A tensor inside the model whose declared shape names a size."""
    left = parsed("a = Relu(x) y = Relu(a)", dims="1,2,h,3")
    left.graph.value_info.append(helper.make_tensor_value_info("a", 1, [1, 2, "h", 3]))
    return left


def quantized_bias() -> ModelProto:
    body = "d = DequantizeLinear(q, s) y = Conv<pads=[1,1,1,1]>(x, w, d)"
    return parsed(body, {"q": np.array([1, 2, 3], np.int32), "s": np.float32(0.5)})


def padded_quantized_conv() -> ModelProto:
    body = "q = QLinearConv(u, s, z, v, s, z, s, z, k) y = DequantizeLinear(q, s, z)"
    weights = {
        "s": np.float32(1),
        "z": np.uint8(0),
        "v": np.ones((3, 2, 1, 1), np.uint8),
        "k": np.array([1, 2, 3], np.int32),
    }
    return parsed(f"u = QuantizeLinear(x, s, z) {body}", weights)


SHUFFLED = "d = DepthToSpace<blocksize=2>(x)"
CROPPED = parsed(
    f"{SHUFFLED} y = Slice(d, b, e, a)", {"b": ints(1), "e": ints(7), "a": ints(2)}, "1,4,4,3"
)

BROKEN: Mapping[str, list[tuple[str, ModelProto, str, str]]] = {
    "operators": [
        ('operators = ["Conv"]', parsed("y = Tanh(x)"), "operator", "Tanh, which npu"),
    ],
    "depth_to_space": [
        *[
            (f"depth_to_space = {taken}", parsed(f"{SHUFFLED} y = Relu(d)", dims="1,4,4,3"), *said)
            for taken, said in {
                '{CRD = "any"}': ("operator", "DepthToSpace in mode DCR"),
                "{DCR = [4]}": ("block-size", "DepthToSpace of 2, where npu takes 4"),
            }.items()
        ]
    ],
    "max_rank": [
        ("max_rank = 3", parsed("y = Tanh(x)"), "rank", "Tanh over 4 dimensions, where npu"),
        (
            'max_rank = 3\noperators = ["Conv"]',
            *(parsed("y = Tanh(x)"), "rank", "Tanh over 4 dimensions"),
        ),
        (
            "max_rank = 4",
            parsed("y = Gather(t, i)", {"t": floats(1, 2), "i": np.zeros((1,) * 5, np.int64)}),
            *("rank", "Gather over 5 dimensions, where npu takes 4"),
        ),
    ],
    "reshape_zero": [
        (
            "reshape_zero = false",
            parsed("y = Reshape(x, s)", {"s": ints(0, 24)}),
            *("reshape", "Reshape with a literal 0"),
        ),
    ],
    "reshape_minus_one": [
        (
            "reshape_minus_one = false",
            parsed("y = Reshape(x, s)", {"s": ints(1, -1)}),
            *("reshape", "Reshape with a literal -1"),
        ),
    ],
    "computed_shapes": [
        (
            "computed_shapes = false",
            parsed("s = Shape(x) y = Reshape(x, s)"),
            *("reshape", "Reshape to a computed shape"),
        ),
        (
            "computed_shapes = false",
            parsed("s = Shape(x) y = Slice(x, b, s)", {"b": ints(0, 0, 0, 0)}),
            *("slice", "Slice of computed sizes"),
        ),
    ],
    "crops": [("crops = false", CROPPED, "slice", "a Slice that crops the result of a shuffle")],
    "transposed_pads": [
        ("transposed_pads = false", transposed(pads=[1, 0, 0, 0]), "transposed-pads", "pads"),
        ("transposed_pads = false", transposed(auto_pad="SAME_UPPER"), "transposed-pads", "pads"),
        ("transposed_pads = false", transposed(output_shape=[9, 11]), "transposed-pads", "pads"),
    ],
    "edge_pads": [
        (
            "edge_pads = false",
            parsed('y = Pad<mode="edge">(x, p)', {"p": ints(0, 0, 1, 1, 0, 0, 1, 1)}),
            *("edge-pad", "Pad of mode edge"),
        ),
    ],
    "matrix_first": [
        (
            "matrix_first = false",
            parsed("y = MatMul(w, x)", {"w": floats(*[1] * 9).reshape(3, 3)}, "1,4,3,3"),
            *("constant-first", "MatMul whose first input is a constant"),
        ),
        (
            "matrix_first = false",
            parsed("w = Constant<value_floats=[1.0,2.0,3.0]>() y = MatMul(w, x)", dims="1,4,3,3"),
            *("constant-first", "MatMul whose first input is a constant"),
        ),
    ],
    "col2im": [
        (
            "max_rank = 9",  # it has to be stated
            parsed(
                "r = Reshape(x, t) y = Col2Im(r, s, k)",
                {"t": ints(1, 4, 6), "s": ints(3, 4), "k": ints(2, 2)},
                opset=18,
            ),
            *("operator", "Col2Im, which npu is not known to take"),
        ),
    ],
    "symbolic_shapes": [
        ("symbolic_shapes = false", named_sizes(), "symbolic-shape", "value_info"),
    ],
    "dtypes": [
        ('dtypes = ["float16"]', parsed("y = Tanh(x)"), "dtype", "Tanh in float32, where npu"),
        (
            'dtypes = ["float32"]',
            parsed("y = Cast<to=1>(x)", dtype=np.float16),
            *("dtype", "input 'x' in float16, where npu takes float32"),
        ),
    ],
    "min_opset": [
        ("opset = {min = 18}", parsed("y = Tanh(x)"), "opset", "opset 17, where npu takes 18 on"),
    ],
    "max_opset": [
        ("opset = {max = 13}", parsed("y = Tanh(x)"), "opset", "17, where npu takes 1 to 13"),
    ],
    "dynamic_sizes": [
        (
            "dynamic_sizes = false",
            parsed("y = Tanh(x)", dims="1,2,h,3"),
            *("dynamic-size", "input 'x' has dynamic sizes"),
        ),
        (
            "dynamic_sizes = false",
            parsed("y = Tanh(x)", dims=""),
            *("dynamic-size", "input 'x' has dynamic sizes"),
        ),
    ],
    "integer_bias": [
        ("integer_bias = false", quantized_bias(), "integer-bias", "int32 bias"),
        ("integer_bias = false", padded_quantized_conv(), "integer-bias", "int32 bias"),
    ],
}
"""For each key of `takes`, what breaks it: the key, the model, code and text of the misfit."""

NOT_CHECKED = {
    "shuffle_in_twos": "It says how a rewrite is written, not what the target does not take.",
}
"""The keys of `takes` that no model breaks, and why."""

CASES = [case for cases in BROKEN.values() for case in cases]


def test_every_key_has_a_check_or_a_reason_why_not() -> None:
    assert {*BROKEN, *NOT_CHECKED} == {one.name for one in fields(Takes)}
    assert not {*BROKEN} & {*NOT_CHECKED}


@pytest.mark.parametrize(("takes", "left", "code", "text"), CASES)
def test_what_breaks_a_key_is_listed(
    takes: str, left: ModelProto, code: str, text: str, tmp_path: Path
) -> None:
    said = found(left, takes, tmp_path)
    assert [one for one in said if one[0] == code and text in one[1]], said
    assert code in get_args(MisfitCode)


@pytest.mark.parametrize(("takes", "left", "code", "text"), CASES)
def test_a_target_without_the_limit_takes_it(
    takes: str, left: ModelProto, code: str, text: str, tmp_path: Path
) -> None:
    assert found(left, "col2im = true", tmp_path) == []


FITS: list[tuple[str, ModelProto]] = [
    ("transposed_pads = false", transposed()),
    ("transposed_pads = false", transposed(pads=[0, 0, 0, 0])),
    ("transposed_pads = false", transposed(auto_pad="VALID")),
    ("transposed_pads = false", transposed(output_shape=[10, 12])),  # without pads
    (
        "transposed_pads = false",
        conv_transpose(integers(2, 3, 2, 2), (4, 5), strides=[2, 2], auto_pad="SAME_UPPER"),
    ),
    ("crops = false", parsed("y = Slice(x, b, e)", {"b": ints(0), "e": ints(1)})),
    (
        "crops = false",
        parsed(
            f"{SHUFFLED} y = Slice(d, b, e, a)",
            {"b": ints(0), "e": ints(1), "a": ints(1)},  # channels, not rows or columns
            "1,8,4,3",
        ),
    ),
    ("edge_pads = false", parsed("y = Pad(x, p)", {"p": ints(0, 0, 1, 1, 0, 0, 1, 1)})),
    ("matrix_first = false", parsed("y = MatMul(x, w)", {"w": floats(1, 2, 3)})),
    ('operators = ["Reshape", "Col2Im"]', BROKEN["col2im"][0][1]),
    ("symbolic_shapes = false", parsed("a = Relu(x) y = Relu(a)", dims="1,2,h,3")),
    ("computed_shapes = false", CROPPED),
    (
        "computed_shapes = false",
        parsed("s = Constant<value_ints=[1,24]>() y = Reshape(x, s)"),
    ),
    ("integer_bias = false", parsed("y = Conv<pads=[1,1,1,1]>(x, w, b)")),
    ("dynamic_sizes = false", parsed("y = Tanh(x)")),
]


@pytest.mark.parametrize(("takes", "left"), FITS)
def test_what_does_not_break_a_key_is_not_listed(
    takes: str, left: ModelProto, tmp_path: Path
) -> None:
    assert found(left, takes, tmp_path) == []


def test_tensors_of_a_function_are_not_those_of_the_same_name_outside(tmp_path: Path) -> None:
    opset = [helper.make_opsetid("", 17)]
    tanh = [node("Tanh", ["x"], ["y"])]
    outer = parsed("a = Reshape(x, s) y = Up(a)", {"s": ints(24)})
    outer.graph.node[1].domain = "local"
    whole = model(
        outer.graph,
        domains=["local"],
        functions=[helper.make_function("local", "Up", ["x"], ["y"], tanh, opset)],
    )
    said = found(whole, "max_rank = 3", tmp_path)
    assert said == [("rank", "Reshape over 4 dimensions, where npu takes 3")]


def test_constants_of_one_body_are_not_those_of_the_same_name_in_another(tmp_path: Path) -> None:
    branches = [
        helper.make_graph(
            [
                node("Constant", [], ["s"], value_ints=shape),
                node("Reshape", ["x", "s"], [out], name=out),
            ],
            out,
            [],
            [helper.make_tensor_value_info(out, 1, None)],
        )
        for out, shape in (("with", [0, -1]), ("without", [2, 12]))
    ]
    for one, other in (branches, branches[::-1]):
        left = parsed("y = Relu(x)", {"c": np.array(True)})
        choose = node("If", ["c"], ["z"], then_branch=one, else_branch=other)
        left.graph.node.insert(0, choose)
        assert found(left, "reshape_zero = false", tmp_path) == [
            ("reshape", "Reshape with a literal 0, which npu does not take")
        ]


@pytest.mark.parametrize(
    "inner",
    [
        node("DepthToSpace", ["x"], ["y"]),
        node("Resize", ["x", "", "s"], ["y"], mode="nearest"),
        node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]),
    ],
)
def test_attributes_that_are_parameters_of_a_function_break_nothing(
    inner: NodeProto, tmp_path: Path
) -> None:
    names = {"DepthToSpace": "blocksize", "Resize": "nearest_mode", "ConvTranspose": "pads"}
    name = names[inner.op_type]
    kind = AttributeProto.INT if name == "blocksize" else AttributeProto.STRING
    kind = AttributeProto.INTS if name == "pads" else kind
    inner.attribute.append(AttributeProto(name=name, type=kind, ref_attr_name=name))
    opset = [helper.make_opsetid("", 17)]
    function = helper.make_function("local", "Up", ["x"], ["y"], [inner], opset, [name])
    outer = parsed("y = Up(x)", dims="1,4,4,3")
    outer.graph.node[0].domain = "local"
    whole = model(outer.graph, domains=["local"], functions=[function])
    takes = "depth_to_space = {}\ntransposed_pads = false"
    rule = 'when = {resize_mode = "nearest"}\nverdict = "refused"\ntext = "x"'
    assert found(whole, f"{takes}\n[[layers]]\n{rule}", tmp_path) == []


def test_only_a_layer_that_stays_is_listed(tmp_path: Path) -> None:
    text = 'action = "keep"\n[takes]\ntransposed_pads = false\n'
    done = deployconv.inspect(transposed(pads=[1] * 4), target=written(tmp_path, text))
    assert [site.status for site in done.sites] == ["rewritten"]
    assert done.targets[0].misfits == ()
    kept = deployconv.rewrite(
        transposed(pads=[1] * 4),
        target=written(tmp_path, text, "kept.toml"),
        skip="*",
        bench=False,
        verify=False,
    )
    assert [one.code for one in kept.targets[0].misfits] == ["transposed-pads"]
    assert kept.targets[0].misfits[0].nodes == ("up",)


def test_names_of_sizes_are_removed_also_where_every_layer_stays(tmp_path: Path) -> None:
    left = conv_transpose(integers(2, 3, 2, 2), ("h", 5), strides=[2, 2])
    left.graph.node[0].output[0] = "a"
    left.graph.node.append(node("Relu", ["a"], ["y"]))
    left.graph.value_info.append(helper.make_tensor_value_info("a", 1, [1, 3, "H", 10]))
    text = 'action = "keep"\n[takes]\nsymbolic_shapes = false\n'
    done = deployconv.rewrite(left, target=written(tmp_path, text), bench=False)
    assert [site.status for site in done.sites] == ["kept"]
    assert done.model is not None
    assert (done.changed, list(done.model.graph.value_info)) == (True, [])
    assert done.targets[0].misfits == ()
    assert done.parity is not None
    assert done.parity.passed
