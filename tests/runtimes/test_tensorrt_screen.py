from __future__ import annotations

from typing import Any

import pytest
from onnx import helper

from deployconv.errors import ModelError
from deployconv.runtimes.tensorrt.compile import refuse_what_tensorrt_overlooks
from tests.build import FLOAT, conv_transpose, graph, integers, model, node, tensor, value
from tests.runtimes.rtx import MODELS


@pytest.mark.parametrize(
    ("attributes", "stated"),
    [
        ({"pads": [1, 1]}, "pads 1, weight 2"),
        ({"pads": [1, 1, 1]}, "pads 1.5, weight 2"),
        ({"strides": [2]}, "strides 1, weight 2"),
        ({"strides": [2, 2], "pads": [1] * 6}, "pads 3, strides 2, weight 2"),
        ({"dilations": [1, 1, 1]}, "dilations 3, weight 2"),
        ({"output_padding": [1]}, "output_padding 1, weight 2"),
    ],
)
def test_lists_of_the_wrong_length(attributes: dict[str, Any], stated: str) -> None:
    proto = conv_transpose(integers(2, 3, 4, 4), (5, 6), **attributes)
    with pytest.raises(ModelError, match=rf"^net: node 'up' .*\({stated}\): export"):
        refuse_what_tensorrt_overlooks(proto, "net")


def test_a_pool_has_no_weight_to_compare_with() -> None:
    pool = node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2], name="pool")
    proto = model(graph([pool], [value("x", FLOAT, [1, 2, 8, 8])], [value("y", FLOAT, None)]))
    with pytest.raises(ModelError, match="kernel_shape 2, strides 1"):
        refuse_what_tensorrt_overlooks(proto, "net")


def test_subgraphs_are_looked_into_with_the_weights_outside() -> None:
    body = helper.make_graph(
        [node("Conv", ["x", "w"], ["y"], pads=[1, 1], name="inner")],
        "branch",
        [],
        [value("y", FLOAT, None)],
    )
    outer = graph(
        [node("If", ["c"], ["z"], then_branch=body, else_branch=body)],
        [value("x", FLOAT, [1, 2, 8, 8]), value("c", 9, [])],
        [value("z", FLOAT, None)],
        [tensor("w", integers(2, 2, 3, 3))],
    )
    with pytest.raises(ModelError, match=r"'inner' .*pads 1, weight 2"):
        refuse_what_tensorrt_overlooks(model(outer), "net")


def test_an_operator_of_another_domain_means_something_else() -> None:
    odd = node("Conv", ["x"], ["y"], domain="mine", pads=[1], strides=[1, 1])
    body = graph([odd], [value("x", FLOAT, [1])], [value("y", FLOAT, None)])
    refuse_what_tensorrt_overlooks(model(body, domains=["mine"]), "net")


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.onnx")), ids=lambda path: path.stem)
def test_sound_models_pass(path: Any) -> None:
    import onnx

    refuse_what_tensorrt_overlooks(onnx.load(path), path.name)
