"""Random nearest Resizes, written anew as for a target that misreads them, against onnxruntime.

More of them than usual, by hand:

    NEAREST_CASES=5000 python -m pytest tests/test_property_nearest_resize.py
"""

from __future__ import annotations

import os
from typing import Any, get_args

import numpy as np
import pytest
from onnx import ModelProto

from deployconv.graph.load import load
from deployconv.options import Form, LayerRequest, RewriteOptions
from deployconv.proof.certificate import certify_sites
from deployconv.resampling import Coordinates, NearestMode
from deployconv.rewrites.planning import apply, plan_model
from tests.build import Array, ops, run
from tests.match.graphs import floats, ints, parsed

CASES = int(os.environ.get("NEAREST_CASES", "300"))
"""How many random Resizes are compared."""
EACH = 50
"""Of them in one test."""
COORDINATES = get_args(Coordinates)
MODES = get_args(NearestMode)
OPSETS = (9, 10, 11, 13, 18, 19, 21)
FIRST_SYMMETRIC, LAST_OF_TF = 19, 12
FORMS: tuple[Form, ...] = ("auto", "matrix", "polyphase", "separable")


def drawn(rng: np.random.Generator) -> tuple[ModelProto, ModelProto, Array]:
    """A nearest Resize of float32 or float16, the same of float32, and an image.

    onnxruntime has no nearest Resize of float16 on CPUs.
    """
    opset, rank = int(rng.choice(OPSETS)), int(rng.integers(1, 4))
    sizes = rng.integers(1, (40, 12, 6)[rank - 1], rank)
    whole, part = rng.integers(1, 6, rank), rng.integers(1, 6, rank)
    scales = np.array(
        [
            [1.0, more, 1 / less, more / less, more / less * (1 + 1e-7), rng.random() * 4 + 0.1][
                rng.integers(6)
            ]
            for more, less in zip(whole, part, strict=True)
        ],
        np.float32,
    )
    scales = np.maximum(scales, 1) if opset < 10 else scales
    coordinates, mode = str(rng.choice(COORDINATES)), str(rng.choice(MODES))
    if opset < FIRST_SYMMETRIC and coordinates == "half_pixel_symmetric":
        coordinates = "half_pixel"
    if opset > LAST_OF_TF and coordinates == "tf_half_pixel_for_nn":
        coordinates = "asymmetric"
    attributes = (
        f'mode="nearest", coordinate_transformation_mode="{coordinates}", nearest_mode="{mode}"'
    )
    shape, given = (1, 2, *map(int, sizes)), floats(1, 1, *scales.tolist())
    roi = "e" if opset < 13 else ""
    if opset < 11:
        body = f'y = {"Upsample" if opset < 10 else "Resize"}<mode="nearest">(x, s)'
    elif rng.random() < 0.5:
        given = ints(1, 2, *np.maximum(1, np.floor(sizes.astype(np.float32) * scales)).tolist())
        empty = "e" if opset < 13 else ""
        body = f"y = Resize<{attributes}>(x, {roi}, {empty}, s)"
    else:
        body = f"y = Resize<{attributes}>(x, {roi}, s)"
    dims = ",".join(map(str, shape))
    constants: dict[str, Array] = {"s": given, "e": np.zeros(0, np.float32)}
    dtype = np.float16 if opset > 10 and rng.random() < 0.3 else np.float32
    model, plain = (
        parsed(body, constants, dims, opset=opset, dtype=one) for one in (dtype, np.float32)
    )
    return model, plain, rng.standard_normal(shape).astype(dtype)


def rewritten(model: ModelProto, form: Form) -> tuple[Any, ModelProto]:
    """The plan and the model if a target cannot have the Resize as it is."""
    options = RewriteOptions(request_for=lambda site: LayerRequest(form=form, resample=True))
    planning = plan_model(load(model), options)
    return planning, apply(planning).proto


@pytest.mark.parametrize("seed", range(CASES // EACH))
def test_fifty_random_nearest_resizes_copy_what_onnxruntime_copies(seed: int) -> None:
    rng, compared = np.random.default_rng(seed), 0
    while compared < EACH:
        model, plain, x = drawn(rng)
        expected = run(plain, {"x": x.astype(np.float32)})["y"]
        if not expected.size:
            continue
        compared += 1
        planning, after = rewritten(model, FORMS[compared % len(FORMS)])
        if not planning.sites:  # it changes nothing
            np.testing.assert_array_equal(expected, x)
            continue
        (site,) = planning.sites
        if site.rewrite is None:
            reason = site.report.reason
            assert reason is not None
            assert reason.code in ("unsupported-rounding", "non-integer-scale"), reason
            continue
        assert not {"Resize", "Upsample"} & set(ops(after))
        np.testing.assert_array_equal(run(after, {"x": x})["y"], expected)
        if compared % 5 == 0:
            (report,) = certify_sites(planning, 0).reports
            assert report.certificate == "exact"
