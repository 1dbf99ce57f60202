"""What `inspect --target dla` says of each kind of site, as exported and rewritten."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16
from onnx import ModelProto

import deployconv
from deployconv.cli import main
from deployconv.results import Obstacle
from tests.build import FLOAT, conv_transpose, graph, integers, model, node, tensor, value
from tests.runtimes.rtx import MODELS


def deconv(*kernel: int, dtype: Any = np.float16, group: int = 1, **rest: Any) -> ModelProto:
    weight = integers(4, 4 // group, *kernel, dtype=dtype)
    sizes = rest.pop("sizes", (5, 6, 4)[: len(kernel)])
    stated = {"strides": [2] * len(kernel), "opset": 22, "group": group, **rest}
    return conv_transpose(weight, sizes, **stated)


def codes(found: Sequence[Obstacle] | None) -> list[str]:
    return [one.code for one in found or ()]


def lint(model: ModelProto | Path) -> list[tuple[list[str], list[str] | None]]:
    sites = deployconv.inspect(model, target="dla").sites
    notes = [site.dla for site in sites]
    return [
        (codes(note.exported), None if note.rewritten is None else codes(note.rewritten))
        for note in notes
        if note is not None
    ]


SHUFFLE = ["operator"]


@pytest.mark.parametrize(
    ("proto", "exported", "rewritten"),
    [
        (deconv(2, 2), [], SHUFFLE),
        (deconv(4, 4, pads=[1] * 4), ["padding"], SHUFFLE),
        (deconv(4, 4, auto_pad="SAME_UPPER"), ["padding"], SHUFFLE),
        (deconv(4, 4, auto_pad="VALID"), [], SHUFFLE),
        (deconv(2, 2, output_padding=[1, 1]), ["padding"], ["padding", *SHUFFLE]),
        (deconv(3, 3, pads=[0, 0, 1, 1], output_padding=[1, 1]), [], SHUFFLE),
        (deconv(4, 4, group=2), ["group"], SHUFFLE),
        (deconv(3, 3, dilations=[2, 2]), ["dilation"], SHUFFLE),
        (deconv(23, 23), ["kernel"], SHUFFLE),
        (deconv(2, 2, dtype=np.float32), ["dtype"], ["dtype", *SHUFFLE]),
        (deconv(2, 2, dtype=bfloat16), ["dtype"], ["dtype", *SHUFFLE]),
        (deconv(4), ["rank"], ["rank"]),
        (deconv(2, 2, 2), ["rank"], ["rank", "operator"]),
        (deconv(3, 3, strides=[1, 1]), [], []),
    ],
    ids=[
        *("k2 s2", "pads", "SAME", "VALID", "border", "output_padding within the pads"),
        *("group", "dilation", "kernel", "float32", "bfloat16", "1-D", "3-D", "stride 1"),
    ],
)
def test_conv_transpose(proto: ModelProto, exported: list[str], rewritten: list[str]) -> None:
    assert lint(proto) == [(exported, rewritten)]


def test_sizes_of_input_and_output() -> None:
    assert lint(deconv(2, 2, sizes=(4096, 1))) == [([], SHUFFLE)]
    assert lint(deconv(2, 2, sizes=(4097, 1))) == [(["size"], ["operator", "size"])]


def test_layers_that_upsample_by_moving_data() -> None:
    assert lint(MODELS / "subpixel_zero_insertion.onnx") == [
        (["dtype", "operator"], ["dtype", "operator"])
    ]
    (site,) = deployconv.inspect(MODELS / "subpixel_zero_insertion.onnx", target="dla").sites
    assert site.dla is not None
    assert site.dla.exported[1].text == "ScatterND, which the DLA does not have"
    assert lint(MODELS / "vae_block.onnx") == [(["dtype"], ["dtype", "operator"])] * 2
    # A pixel shuffle that stays as it is has nothing else to compare with.
    assert lint(MODELS / "espcn_x3.onnx") == [(["dtype", "operator"], None)]


def test_a_crop_after_the_layer_does_not_change_its_pads() -> None:
    proto = deconv(4, 4)
    proto.graph.node[0].output[0] = "raw"
    bounds = {"starts": [1, 1], "ends": [-1, -1], "axes": [2, 3]}
    proto.graph.initializer.extend(tensor(name, np.array(one)) for name, one in bounds.items())
    proto.graph.node.append(node("Slice", ["raw", *bounds], ["y"]))
    assert lint(proto) == [([], SHUFFLE)]


def test_integer_layers_have_the_type_of_their_weight() -> None:
    assert lint(MODELS / "unet_decoder_int8.onnx") == [([], SHUFFLE)] * 2


def test_a_shuffle_of_several_nodes() -> None:
    shape = tensor("a", np.array([1, 2, 2, 2, 3, 3])), tensor("b", np.array([1, 2, 6, 6]))
    body = graph(
        [
            node("Reshape", ["x", "a"], ["p"]),
            node("Transpose", ["p"], ["q"], perm=[0, 1, 4, 2, 5, 3]),
            node("Reshape", ["q", "b"], ["y"]),
        ],
        [value("x", FLOAT, [1, 8, 3, 3])],
        [value("y", FLOAT, [1, 2, 6, 6])],
        shape,
    )
    (note,) = (site.dla for site in deployconv.inspect(model(body), target="dla").sites)
    assert note is not None
    assert note.exported[1].text == (
        "Reshape over 6 dimensions, Transpose over 6 dimensions, where the DLA shuffles tensors "
        "of 4"
    )
    assert note.rewritten is not None
    assert note.rewritten[1].text == "DepthToSpace, which the DLA does not have"


def test_a_layer_that_is_skipped_is_held_against_what_its_node_states() -> None:
    proto = deconv(4, 4, pads=[1] * 4, group=2)
    proto.graph.input.append(value("w", 10, [4, 2, 4, 4]))  # overridable, so it stays
    assert lint(proto) == [(["group", "padding"], None)]


def test_what_was_not_asked_for_is_not_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert [site.dla for site in deployconv.inspect(deconv(2, 2)).sites] == [None]
    path = str(MODELS / "text_detector_head.onnx")
    assert main(["inspect", path]) == 0
    assert "DLA" not in capsys.readouterr().out
    (site,) = deployconv.inspect(deconv(2, 2), target="sm89").sites
    assert site.dla is None


def test_the_command_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(MODELS / "grouped_autoencoder.onnx")
    assert main(["inspect", path, "--target", "dla"]) == 0
    out = capsys.readouterr().out
    assert "dtype, group, padding -> dtype, operator" in out
    assert "as exported, group: 4 groups, where a deconvolution takes 1" in out
    assert "not from 10.8 to 11.3" in out
    assert main(["inspect", path, "--target", "dla", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["target"] == "dla"
    assert "docs.nvidia.com" in document["note"]
    assert [one["code"] for one in document["sites"][0]["dla"]["exported"]] == [
        "dtype",
        "group",
        "padding",
    ]
    assert main(["inspect", path, "--target", "dlaa"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
