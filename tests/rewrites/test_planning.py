"""Which sites are taken, what is written into those that stay, and what a run leaves alone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

import deployconv
from deployconv.errors import CheckFailed, UsageError
from tests.build import (
    FLOAT,
    assert_equal,
    assert_rewritten,
    conv_transpose,
    feeds_for,
    graph,
    integers,
    model,
    node,
    ops,
    reasons,
    rewrite,
    run,
    run_reference,
    tensor,
    upsampler,
    value,
)


def row(*names: str) -> ModelProto:
    """ConvTranspose nodes of these names, one after the other."""
    tensors = ["x", *(f"{name}.out" for name in names[:-1]), "y"]
    nodes = [
        node("ConvTranspose", [source, "w"], [result], name=name, strides=[2, 2])
        for name, source, result in zip(names, tensors, tensors[1:], strict=False)
    ]
    body = graph(
        nodes,
        [value("x", FLOAT, [1, 2, 3, 4])],
        [value("y", FLOAT, [None] * 4)],
        [tensor("w", integers(2, 2, 2, 2))],
    )
    return model(body)


# --- which sites


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["rewritten"] * 3),
        ({"only": ["head/*"]}, ["rewritten", "rewritten", "kept"]),
        ({"only": ["main/tail"]}, ["kept", "kept", "rewritten"]),
        ({"skip": ["*/b"]}, ["rewritten", "kept", "rewritten"]),
        ({"only": ["head/*"], "skip": ["head/a"]}, ["kept", "rewritten", "kept"]),
        ({"only": ["head/a", "tail"]}, ["rewritten", "kept", "rewritten"]),
    ],
)
def test_only_and_skip_choose_by_name_or_id(options: dict[str, Any], expected: list[str]) -> None:
    original = row("head/a", "head/b", "tail")
    done, _ = rewrite(original, **options)
    assert [site.status for site in done.sites] == expected
    kept = [site for site in done.sites if site.status == "kept"]
    assert {site.reason.code for site in kept if site.reason} <= {"not-selected"}
    assert_rewritten(original, left=len(kept), **options)


@pytest.mark.parametrize("option", ["only", "skip"])
def test_a_pattern_that_fits_nothing_is_a_mistake(option: str) -> None:
    with pytest.raises(UsageError, match=r"no site matches 'typo\*': .* main/up"):
        rewrite(upsampler(), **{option: ["typo*"]})


def test_strict_fails_on_a_site_that_is_left_alone(tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    with pytest.raises(CheckFailed, match="--strict: left alone: main/tail"):
        deployconv.rewrite(
            row("head", "tail"), output=output, skip=["tail"], strict=True, bench=False
        )
    assert not output.exists()


def test_a_model_without_a_site_comes_back_as_it_was() -> None:
    body = graph([node("Relu", ["x"], ["y"])], [value("x", FLOAT, [2])], [value("y", FLOAT, [2])])
    original = model(body)
    done, after = rewrite(original)
    assert done.sites == ()
    assert after == original


def test_inspect_tells_what_rewrite_would_do() -> None:
    original = row("head", "tail")
    original.graph.node[1].input.append("bias")
    original.graph.input.append(value("bias", FLOAT, [2]))
    planned = deployconv.inspect(original).sites
    done, _ = rewrite(original, verify=False)
    assert planned == done.sites
    assert [site.status for site in planned] == ["rewritten", "skipped"]


@pytest.mark.parametrize(
    ("geometry", "form", "kernel", "before", "after"),
    [
        ({"kernel": 4, "pads": [1] * 4}, "crop", (2, 2), 16, 16),
        ({"kernel": 2}, "pad", (1, 1), 4, 4),
        ({"kernel": 9, "strides": [3, 3], "pads": [4] * 4}, "crop", (3, 3), 81, 81),
        ({"kernel": 3, "strides": [1, 1]}, "conv", (3, 3), 9, 9),
    ],
)
def test_auto_takes_the_form_of_fewest_multiplications(
    geometry: dict[str, Any], form: str, kernel: tuple[int, int], before: int, after: int
) -> None:
    size = geometry.pop("kernel")
    weight = integers(2, 3, size, size)
    done, _ = rewrite(conv_transpose(weight, (5, 6), **{"strides": [2, 2], **geometry}))
    (site,) = done.sites
    assert (site.form, site.conv_kernel) == (form, kernel)
    assert site.macs is not None
    assert (site.macs.before, site.macs.after) == (6 * before, 6 * after)


# --- nodes that stay


KEPT: dict[str, dict[str, Any]] = {
    "odd output_shape": {"output_shape": [7, 9]},
    "odd output_shape, SAME_UPPER": {"output_shape": [7, 9], "auto_pad": "SAME_UPPER"},
    "odd output_shape, SAME_LOWER": {"output_shape": [7, 9], "auto_pad": "SAME_LOWER"},
    "output_shape beyond the taps": {"output_shape": [10, 13], "strides": [3, 3]},
    "SAME_UPPER with output_padding": {"auto_pad": "SAME_UPPER", "output_padding": [1, 1]},
    "SAME_LOWER with output_padding": {"auto_pad": "SAME_LOWER", "output_padding": [1, 0]},
}


@pytest.mark.parametrize("attributes", KEPT.values(), ids=list(KEPT))
def test_a_node_that_stays_gets_the_pads_that_it_means(attributes: dict[str, Any]) -> None:
    """TensorRT would put the odd pixel at the other end, or ignore output_padding."""
    weight = integers(2, 3, 4, 4)
    original = conv_transpose(weight, (4, 5), integers(3), **{"strides": [2, 2], **attributes})

    done, after = rewrite(original, skip=["up"])

    assert [site.status for site in done.sites] == ["kept"]
    (before,), (kept,) = original.graph.node, after.graph.node
    assert (kept.op_type, kept.name, kept.input) == ("ConvTranspose", before.name, before.input)
    named = {a.name: helper.get_attribute_value(a) for a in kept.attribute}
    assert {"auto_pad", "output_shape"}.isdisjoint(named)
    assert len(named["pads"]) == 4
    assert after.graph.initializer == original.graph.initializer
    feeds = feeds_for(original)
    expected = run(original, feeds)
    assert_equal(expected, run(after, feeds))
    # Written out, it is read alike by all.
    assert_equal(expected, run_reference(after, feeds))


@pytest.mark.parametrize(
    "attributes",
    [
        {"pads": [1, 0, 2, 1], "output_padding": [1, 1]},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "VALID"},
        {"output_shape": [8, 10]},
    ],
)
def test_a_node_that_is_read_alike_everywhere_stays_as_it_is(attributes: dict[str, Any]) -> None:
    weight = integers(2, 3, 4, 4)
    original = conv_transpose(weight, (4, 5), integers(3), strides=[2, 2], **attributes)
    _, after = rewrite(original, skip=["up"])
    assert after == original


def test_a_refused_node_stays_as_it_is() -> None:
    original = conv_transpose(integers(2, 3, 3, 3), (None, 5), output_shape=[7, 9])
    assert reasons(original, verify=False) == ["dynamic-output-shape"]
    _, after = rewrite(original, verify=False)
    assert after == original


# --- the call


def test_the_model_given_is_left_untouched(tmp_path: Path) -> None:
    original = upsampler()
    path, output = tmp_path / "model.onnx", tmp_path / "model.deploy.onnx"
    onnx.save(original, path)
    raw = path.read_bytes()

    from_memory = deployconv.rewrite(original, bench=False)
    done = deployconv.rewrite(path, output=output, bench=False)

    assert path.read_bytes() == raw == original.SerializeToString()
    assert done.source.sha256 == hashlib.sha256(raw).hexdigest()
    assert from_memory.source.sha256 is None
    assert done.output is not None
    assert done.output.sha256 == hashlib.sha256(output.read_bytes()).hexdigest()
    assert onnx.load(output) == from_memory.model


def test_rewriting_twice_gives_the_same_bytes() -> None:
    once, again = (rewrite(upsampler())[1].SerializeToString(deterministic=True) for _ in "ab")
    assert once == again


def test_what_is_rewritten_holds_nothing_more_to_rewrite() -> None:
    _, after = rewrite(upsampler())
    done, again = rewrite(after)
    assert not [site for site in done.sites if site.pattern == "conv_transpose"]
    assert ops(again)["ConvTranspose"] == 0


def test_steps_that_are_left_out_are_said_to_be() -> None:
    done, _ = rewrite(upsampler(), verify=False)
    assert {(step.step, step.reason) for step in done.not_run} == {
        ("certificate", "--no-verify"),
        ("parity", "--no-verify"),
        ("latency", "--no-bench"),
    }
    assert done.parity is None
    assert [site.certificate for site in done.sites] == [None]


@pytest.mark.parametrize("batch", [1, 3])
def test_a_dynamic_batch_serves_every_batch(batch: int) -> None:
    original = upsampler(batch="n")
    feeds = {"x": integers(batch, 2, 5, 6)}
    after = assert_rewritten(original, feeds)
    assert after.graph.input == original.graph.input
    assert np.shape(run(after, feeds)["y"])[0] == batch
