"""The ONNX package's own backend cases for Resize: each is rewritten and right, or has a reason."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from deployconv.options import Form
from tests.build import Array, ops, rewrite, run
from tests.test_backend_cases import arrays, node_cases

SCALED_CORNERS = {
    "test_resize_downsample_scales_linear_align_corners",
    "test_resize_downsample_scales_cubic_align_corners",
}
"""The expected outputs of onnx scale these by a length with a fraction, onnxruntime and PyTorch by
the length of the output."""
REASONS = {
    "tf_crop_and_resize": {"interpolating-resize"},
    "nearest": {"no-conv", "non-integer-scale", "unsupported-rounding"},
}
"""Codes for the cases with one of these words in their names."""


def resize_cases() -> list[tuple[str, ModelProto, Array, Array]]:
    """Name, model with constant scales and sizes, input and expected output."""
    found = []
    for case in node_cases("resize"):
        if "resize" not in case.name:
            continue
        assert case.model is not None
        assert case.data_sets is not None
        (x, *others), (expected,) = map(arrays, case.data_sets[0])
        model = ModelProto()
        model.CopyFrom(case.model)
        for value, array in zip(list(model.graph.input)[1:], others, strict=True):
            model.graph.initializer.append(numpy_helper.from_array(array, value.name))
            model.graph.input.remove(value)
        found.append((case.name, model, x, expected))
    return found


# The cases belong to onnx: there may come to be more of them, but not fewer.
def test_there_are_cases() -> None:
    assert len(resize_cases()) >= 39


@pytest.mark.parametrize("form", ["auto", "polyphase"])
def test_each_case_is_right_or_has_its_reason(form: Form) -> None:
    for name, model, x, expected in resize_cases():
        done, after = rewrite(model, resample=True, form=form)
        (given,) = model.graph.input
        (actual,) = run(after, {given.name: x}).values()
        codes = {site.reason.code for site in done.sites if site.reason is not None}
        if codes or not done.sites:
            allowed = next(codes for word, codes in REASONS.items() if word in name)
            assert codes <= allowed, name
            continue
        assert [(site.status, site.certificate) for site in done.sites] == [("rewritten", "exact")]
        assert not {"Resize", "Upsample"} & set(ops(after)), name
        if name in SCALED_CORNERS:
            (expected,) = run(model, {given.name: x}).values()
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=2e-5, err_msg=name)
