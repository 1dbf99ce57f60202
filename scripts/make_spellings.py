"""Export the corpus of `tests.spellings` to ``tests/spellings/data``.

    python -m scripts.make_spellings             write graphs and manifest anew
    python -m scripts.make_spellings --jobs 8    with so many processes

Needs torch, onnxscript and einops; about a second an export. An export that fails is recorded in
the manifest with its reason, and printed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import onnx
import torch

from tests.spellings.catalogue import Variant, variants
from tests.spellings.compute import compute
from tests.spellings.corpus import DATA, GRAPHS, MANIFEST, Gap, Row, run_of
from tests.spellings.export import NotExportable, expected_runs, export
from tests.spellings.handmade import GRAPHS as HANDMADE

SCHEMA_VERSION = 1
_FLAT_LIST = re.compile(r"\[([^\[\]{}]*)\]")
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)

Exported = tuple[Row, bytes] | Gap


def _exported(variant: Variant) -> Exported:
    spelling = variant.spelling
    try:
        model = export(spelling, variant.exporter, variant.opset, variant.dynamic)
    except NotExportable as error:
        return Gap(spelling.name, variant.exporter, variant.opset, variant.dynamic, error.reason)
    row = Row(
        name=spelling.name,
        family=spelling.family,
        source=variant.exporter,
        opset=variant.opset,
        dynamic=variant.dynamic,
        stride=spelling.stride,
        rank=spelling.rank,
        expect=spelling.expectation(variant.dynamic),
        runs=expected_runs(spelling, variant.dynamic),
    )
    return row, model.SerializeToString(deterministic=True)


def _export_part(part: int, parts: int) -> list[Exported]:
    torch.set_num_threads(1)
    chosen = list(variants())[part::parts]
    return [_exported(variant) for variant in chosen]


def _all_exports(jobs: int) -> Iterator[Exported]:
    """In the order of `variants`, whichever process made them."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(_export_part, range(jobs), [jobs] * jobs))
    for index in range(sum(map(len, parts))):
        yield parts[index % jobs][index // jobs]


def _handmade() -> Iterator[tuple[Row, bytes]]:
    for graph in HANDMADE:
        model = graph.model()
        onnx.checker.check_model(model, full_check=True)
        for run in graph.runs:
            if run_of(run.inputs, compute(model, run)) != run:
                raise RuntimeError(
                    f"{graph.name}: onnxruntime and the oracle differ; correct either"
                )
        row = Row(
            name=graph.name,
            family=graph.family if graph.stride else "negative",
            source="handmade",
            opset=graph.opset,
            dynamic=graph.dynamic,
            stride=graph.stride,
            rank=len(graph.shape) - 2,
            expect=graph.expect,
            runs=graph.runs,
        )
        yield row, model.SerializeToString(deterministic=True)


def _write_graphs(made: Iterable[tuple[Row, bytes]]) -> None:
    with ZipFile(GRAPHS, "w") as archive:
        for row, data in made:
            entry = ZipInfo(row.file, _FIXED_TIME)
            archive.writestr(entry, data, ZIP_DEFLATED, compresslevel=9)


def _write_manifest(rows: Iterable[Row], gaps: Iterable[Gap]) -> None:
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "torch": torch.__version__,
        "rows": [asdict(row) for row in rows],
        "not_exportable": [asdict(gap) for gap in gaps],
    }
    text = json.dumps(document, indent=1)
    text = _FLAT_LIST.sub(lambda match: "[" + " ".join(match[1].split()) + "]", text)
    MANIFEST.write_text(text + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    made: list[tuple[Row, bytes]] = []
    gaps: list[Gap] = []
    for exported in _all_exports(parser.parse_args().jobs):
        if isinstance(exported, Gap):
            gaps.append(exported)
        else:
            made.append(exported)
    made += _handmade()
    DATA.mkdir(exist_ok=True)
    _write_graphs(made)
    _write_manifest((row for row, _ in made), gaps)
    for gap in gaps:
        print(f"{replace(gap, reason='')}: {gap.reason}")
    print(f"{len(made)} graphs, {len(gaps)} not exportable, {GRAPHS.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
