"""All sample models through the real parser and compiler, as exported and rewritten."""

from __future__ import annotations

from pathlib import Path

import pytest

import deployconv
from tests.backends.rtx import MODELS, needs_rtx

pytestmark = needs_rtx

NOT_AS_EXPORTED = {"dilated_upsampler"}
"""Stride with dilation, see `test_tensorrt_facts`."""


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.onnx")), ids=lambda path: path.stem)
def test_builds_for_sm86_and_sm89(path: Path) -> None:
    done = deployconv.rewrite(path, target=("sm86", "sm89"), verify=False, bench=False)
    assert done.compiled is not None
    before, after = done.compiled.before, done.compiled.after
    assert [built.builds for built in before.targets] == [path.stem not in NOT_AS_EXPORTED] * 2
    assert after.builds
    assert all(built.weights_bytes for built in after.targets)
    marks = {site.target_note.mark if site.target_note else None for site in done.sites}
    assert marks == ({"needed"} if path.stem in NOT_AS_EXPORTED else {None})
