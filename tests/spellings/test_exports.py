"""The committed graphs are what PyTorch computes and what its exporters write."""

from __future__ import annotations

from collections import defaultdict

import pytest

pytest.importorskip("torch", reason="the corpus is read without torch; exports need it")
pytest.importorskip("einops", reason="some spellings are einops expressions")

from tests.spellings.catalogue import SPELLINGS, Variant, variants
from tests.spellings.corpus import Gap, Row, Spelling, gaps, rows
from tests.spellings.export import NotExportable, expected_runs, export
from tests.spellings.listing import listing

Key = tuple[str, str, int, bool]

_BY_NAME = {spelling.name: spelling for spelling in SPELLINGS}
_ROWS: dict[Key, Row] = {
    (row.name, row.source, row.opset, row.dynamic): row
    for row in rows()
    if row.source != "handmade"
}
_GAPS: dict[Key, Gap] = {(gap.name, gap.source, gap.opset, gap.dynamic): gap for gap in gaps()}


def _key(variant: Variant) -> Key:
    return variant.spelling.name, variant.exporter, variant.opset, variant.dynamic


def test_every_variant_is_a_row_or_a_gap_with_a_reason() -> None:
    assert [_key(variant) for variant in variants() if _key(variant) in _ROWS] == list(_ROWS)
    assert {_key(variant) for variant in variants()} == _ROWS.keys() | _GAPS.keys()
    assert all(gap.reason for gap in gaps())


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("spelling", SPELLINGS, ids=[spelling.name for spelling in SPELLINGS])
def test_every_export_of_a_spelling_computes_what_pytorch_does(spelling: Spelling) -> None:
    found = defaultdict(list)
    for row in _ROWS.values():
        if row.name == spelling.name:
            assert row.expect == spelling.expectation(row.dynamic)
            assert (row.family, row.stride) == (spelling.family, spelling.stride)
            found[row.dynamic].append(row.runs)
    assert found, "no exporter writes it: write it by hand"
    for dynamic, runs in found.items():
        assert set(runs) == {expected_runs(spelling, dynamic)}


_LIVE = [
    variant
    for name in (
        "assign",
        "reshape_pad_reshape",
        "size_computed",
        "repeat_interleave",
        "einops_crd",
    )
    for variant in variants()
    if variant.spelling.name == name and variant.dynamic
]


@pytest.mark.parametrize("variant", _LIVE, ids=["-".join(map(str, _key(v))) for v in _LIVE])
def test_an_export_of_today_is_the_committed_one(variant: Variant) -> None:
    model = export(variant.spelling, variant.exporter, variant.opset, variant.dynamic)
    assert list(listing(model)) == list(listing(_ROWS[_key(variant)].model()))


_LEGACY_GAPS = [gap for gap in gaps() if gap.source == "legacy"]


@pytest.mark.parametrize("gap", _LEGACY_GAPS, ids=[f"{g.name}-{g.opset}" for g in _LEGACY_GAPS])
def test_what_is_not_exportable_is_so_for_the_reason_given(gap: Gap) -> None:
    with pytest.raises(NotExportable) as caught:
        export(_BY_NAME[gap.name], "legacy", gap.opset, gap.dynamic)
    assert caught.value.reason == gap.reason
