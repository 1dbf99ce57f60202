"""All spellings that PyTorch exports, and how; needs torch and einops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.spellings import nearest_resize, negatives, pixel_shuffle, zero_insertion
from tests.spellings.corpus import Exporter, Spelling

SPELLINGS = (
    *zero_insertion.SPELLINGS,
    *nearest_resize.SPELLINGS,
    *pixel_shuffle.SPELLINGS,
    *negatives.SPELLINGS,
)

LEGACY = (17, 18, 20)
DYNAMO = (18, 20, 23)
OLD = (11, 13)
"""Opsets that the legacy exporter still writes and old files have."""


@dataclass(frozen=True)
class Variant:
    """One way to export a spelling."""

    spelling: Spelling
    exporter: Exporter
    opset: int
    dynamic: bool


def variants() -> Iterator[Variant]:
    """Both exporters, static and dynamic, and an old opset; the opsets take turns."""
    for index, spelling in enumerate(SPELLINGS):
        for dynamic in (False,) if spelling.dynamic_axes is None else (False, True):
            turn = index + dynamic
            yield Variant(spelling, "legacy", LEGACY[turn % len(LEGACY)], dynamic)
            yield Variant(spelling, "dynamo", DYNAMO[turn % len(DYNAMO)], dynamic)
        old_dynamic = spelling.dynamic_axes is not None and index // 2 % 2 == 0
        yield Variant(spelling, "legacy", OLD[index % len(OLD)], old_dynamic)
