"""All sample models through the real parser and compiler, as exported and rewritten."""

from __future__ import annotations

import pytest

import deployconv
from tests.runtimes.rtx import MODELS, build_one, needs_rtx, words

pytestmark = needs_rtx

NOT_AS_EXPORTED = {"dilated_upsampler", "antialiased_preprocessing"}
"""Stride with dilation, and antialias, see `test_tensorrt_facts`."""
FOR_ONNXRUNTIME = {
    "dcgan_int8": "has type Int32 but must have type",
    "espcn_x3_int8": "has type Int32 but must have type",
    "resize_conv_int8": "has type Int32 but must have type",
    "unet_decoder_int8": "Non-zero zero point is not supported",
    "upsampler_int8": "has type Int32 but must have type",
}
"""Quantized as onnxruntime does, which TensorRT does not read: int32 biases, zero points."""

PATHS = {path.stem: path for path in sorted(MODELS.glob("*.onnx"))}


@pytest.mark.parametrize("name", FOR_ONNXRUNTIME)
def test_what_was_quantized_for_onnxruntime_does_not_parse(name: str) -> None:
    built = build_one(PATHS[name])
    assert not built.builds
    assert FOR_ONNXRUNTIME[name] in words(built)


@pytest.mark.parametrize("name", [name for name in PATHS if name not in FOR_ONNXRUNTIME])
def test_builds_for_sm86_and_sm89(name: str) -> None:
    targets = "sm86", "sm89"
    path = PATHS[name]
    done = deployconv.rewrite(path, target=targets, resample=True, verify=False, bench=False)
    assert done.compiled is not None
    before, after = done.compiled.before, done.compiled.after
    assert [built.builds for built in before.targets] == [name not in NOT_AS_EXPORTED] * 2
    assert after.builds
    assert all(built.weights_bytes for built in after.targets)
    marks = {site.target_note.mark if site.target_note else None for site in done.sites}
    assert marks == ({"needed"} if name in NOT_AS_EXPORTED else {None})
