"""The ONNX package's own cases for DepthToSpace, Resize and Upsample, each followed by a Conv.

What decides the shape (scales, sizes, regions) becomes an initializer; then a Conv of small
integers is put behind the case. Rewritten or left alone, the outputs must stay, and the case's own
expected output, put through the Conv, is what they are held against.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper
from onnx.backend.test.case.test_case import TestCase

from deployconv.errors import DeployconvError
from tests.build import Array, integers, rewrite, run
from tests.test_backend_cases import contents, node_cases

OPERATORS = ("depthtospace", "resize", "upsample")


DIFFERENT = {
    "test_resize_downsample_scales_cubic_align_corners",
    "test_resize_downsample_scales_linear_align_corners",
}
"""Cases that onnxruntime by itself computes otherwise than they expect."""


@cache
def cases() -> dict[str, TestCase]:
    names = {case.name: case for case in node_cases(*OPERATORS)}
    return {
        name: case
        for name, case in names.items()
        if any(f"test_{operator}_" in f"{name}_" for operator in OPERATORS)
        and not name.endswith("_expanded")
    }


def followed_by_conv(case: TestCase) -> tuple[ModelProto, Array, Array] | None:
    """The case with a 3x3 Conv behind it, its data, and what the Conv makes of its result.

    None where the case is no image of float32.
    """
    original, (x, *parameters), (expected,) = contents(case)
    if x.dtype != np.float32 or expected.ndim != 4:
        return None
    model = ModelProto()
    model.CopyFrom(original)
    others = original.graph.input[1:]
    for value, array in zip(others, parameters, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(array, value.name))
        model.graph.input.remove(value)
    weight = integers(2, expected.shape[1], 3, 3)
    model.graph.initializer.append(numpy_helper.from_array(weight, "conv_weight"))
    result = original.graph.output[0].name
    model.graph.node.append(
        helper.make_node("Conv", [result, "conv_weight"], ["conv"], "conv", pads=[1] * 4)
    )
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("conv", 1, [None] * 4))
    conv = helper.make_model(
        helper.make_graph(
            [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)],
            "conv",
            [helper.make_tensor_value_info("x", 1, list(expected.shape))],
            [helper.make_tensor_value_info("y", 1, None)],
            [numpy_helper.from_array(weight, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    return model, x, run(conv, {"x": expected})["y"]


def test_there_are_as_many_cases_as_there_were() -> None:
    # The cases belong to onnx: there may come to be more of them, but not fewer.
    assert len(cases()) >= 40


@pytest.mark.parametrize("name", sorted(cases()))
def test_the_case_keeps_its_output_or_is_left_alone_with_a_reason(name: str) -> None:
    subject = followed_by_conv(cases()[name])
    if subject is None:
        assert "nchw" not in name  # not an image of float32: nothing that a Conv could follow
        return
    model, x, expected = subject
    given = model.graph.input[0].name
    try:
        before = run(model, {given: x})["conv"]
    except DeployconvError:
        # onnxruntime does not run the case as it is, so that there is nothing to compare.
        assert any(word in name for word in ("crop", "aspect", "antialias", "axes", "symmetric"))
        return
    done, after = rewrite(model)
    actual = run(after, {given: x})["conv"]
    np.testing.assert_allclose(actual, before, rtol=1e-5, atol=1e-5, strict=True)
    if name in DIFFERENT:
        assert not np.allclose(before, expected, rtol=1e-3, atol=1e-3)
    else:
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-3)
    statuses = {site.status for site in done.sites}
    assert all(site.certificate == "exact" for site in done.sites if site.status == "rewritten")
    assert all(site.reason for site in done.sites if site.status != "rewritten")
    upsamples = x.shape[2:] < expected.shape[2:]
    if upsamples:
        assert statuses, "a layer that upsamples is listed"


@pytest.mark.parametrize("name", ["test_upsample_nearest", "test_resize_upsample_scales_nearest"])
def test_nearest_cases_are_rewritten(name: str) -> None:
    if name not in cases():
        pytest.fail(f"{name} is gone from onnx: name another case of nearest upsampling")
    subject = followed_by_conv(cases()[name])
    assert subject is not None
    done, _ = rewrite(subject[0])
    assert [(site.pattern, site.status, site.certificate) for site in done.sites] == [
        ("nearest_resize", "rewritten", "exact")
    ]
