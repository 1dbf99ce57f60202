"""All sample models through the real parser and compiler, as exported and rewritten."""

from __future__ import annotations

from functools import cache

import pytest

import deployconv
from deployconv.results import Rewriting
from tests.runtimes.rtx import (
    MODELS,
    RECORD,
    assert_fails,
    build,
    needs_record,
    needs_rtx,
)

pytestmark = needs_rtx

TARGETS = ("sm86", "sm89")
PATHS = {path.stem: path for path in sorted(MODELS.glob("*.onnx"))}
READ = [name for name in PATHS if name not in RECORD.models_for_onnxruntime]


@cache
def rewritten(name: str) -> Rewriting:
    return deployconv.rewrite(PATHS[name], target=TARGETS, resample=True, verify=False, bench=False)


@needs_record
@pytest.mark.parametrize("name", RECORD.models_for_onnxruntime)
def test_what_was_quantized_for_onnxruntime_does_not_parse(name: str) -> None:
    assert_fails(build(PATHS[name]), {"sm89": RECORD.models_for_onnxruntime[name]})


@pytest.mark.parametrize("name", READ)
def test_rewritten_it_builds_and_is_marked_where_that_was_needed(name: str) -> None:
    done = rewritten(name)
    assert done.compiled is not None
    assert done.compiled.after.builds
    assert all(built.weights_bytes for built in done.compiled.after.targets)
    marks = {site.target_note.mark if site.target_note else None for site in done.sites}
    assert marks == ({None} if done.compiled.before.builds else {"needed"})


@needs_record
@pytest.mark.parametrize("name", READ)
def test_as_exported_it_builds_if_that_is_recorded(name: str) -> None:
    done = rewritten(name)
    assert done.compiled is not None
    fails = dict.fromkeys(TARGETS, RECORD.models[name]) if name in RECORD.models else {}
    assert_fails(done.compiled.before, fails)
