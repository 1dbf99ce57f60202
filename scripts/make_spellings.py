"""Export the corpus of `tests.spellings` to ``tests/spellings/data``.

    python -m scripts.make_spellings             export everything anew
    python -m scripts.make_spellings --keep      only what is not committed; the rest as it is
    python -m scripts.make_spellings --jobs 8    with so many processes
    python -m scripts.make_spellings --frameworks keras jax
                                                 the exports of these frameworks instead

Needs torch, onnxscript and einops; about a second an export. An export that fails is recorded in
the manifest with its reason, and printed.

The other frameworks and their exporters are installed into environments of their own, about 1.5 GB
each, in the user's cache or in ``--environments FOLDER``. What they export must compute in
onnxruntime what the framework does, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import onnx
import platformdirs
import torch

from tests.spellings.catalogue import Variant, variants
from tests.spellings.compute import compute
from tests.spellings.corpus import (
    DATA,
    FRAMEWORK_GRAPHS,
    FRAMEWORK_MANIFEST,
    FRAMEWORKS,
    GRAPHS,
    MANIFEST,
    Framework,
    Gap,
    Row,
    framework_rows,
    gaps,
    graphs,
    run_of,
)
from tests.spellings.export import NotExportable, expected_runs, export
from tests.spellings.frameworks.case import row_name
from tests.spellings.frameworks.environments import REQUIREMENTS, cases, environment, exports_of
from tests.spellings.handmade import GRAPHS as HANDMADE

SCHEMA_VERSION = 1

Exported = tuple[Row, bytes] | Gap


def _exported(variant: Variant, keep: bool) -> Exported:
    spelling = variant.spelling
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
    if keep and row.file in graphs():
        return row, row.data()
    for gap in gaps() if keep else ():
        if gap.id == row.id:
            return gap
    try:
        model = export(spelling, variant.exporter, variant.opset, variant.dynamic)
    except NotExportable as error:
        return Gap(spelling.name, variant.exporter, variant.opset, variant.dynamic, error.reason)
    return row, model.SerializeToString(deterministic=True)


def _export_part(part: int, parts: int, keep: bool) -> list[Exported]:
    torch.set_num_threads(1)
    chosen = list(variants())[part::parts]
    return [_exported(variant, keep) for variant in chosen]


def _all_exports(jobs: int, keep: bool) -> Iterator[Exported]:
    """In the order of `variants`, whichever process made them."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(_export_part, range(jobs), [jobs] * jobs, [keep] * jobs))
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


def _framework(framework: Framework, environments: Path, keep: bool) -> Iterator[tuple[Row, bytes]]:
    """Every export of a framework, in the order of its cases."""
    committed = _committed(framework) if keep else {}
    wanted = {
        (row_name(case, sizes), sizes != "static"): (case, case.expect)
        for case in cases(framework)
        for sizes in case.sizes
    }
    missing = {name for name, dynamic in wanted if (name, dynamic) not in committed}
    made = dict(committed)
    if missing:
        fresh, refused = exports_of(
            framework, environment(framework, environments), sorted(missing)
        )
        if refused:
            raise RuntimeError(f"{framework} refused {refused}; take it off the list")
        made |= {(row.name, row.dynamic): (row, data) for row, data in fresh}
    for key, (case, expect) in wanted.items():
        row, data = made[key]
        for run in row.runs:
            if run_of(run.inputs, compute(onnx.load_from_string(data), run)) != run:
                raise RuntimeError(
                    f"{row.id}: onnxruntime computes something else than {framework}"
                )
        yield replace(row, expect=expect, layers=case.layers, stride=case.stride), data


def _committed(framework: Framework) -> dict[tuple[str, bool], tuple[Row, bytes]]:
    if not FRAMEWORK_MANIFEST.exists():
        return {}
    return {
        (row.name, row.dynamic): (row, row.data())
        for row in framework_rows()
        if row.source == framework
    }


def _make_frameworks(chosen: Iterable[Framework], environments: Path, keep: bool) -> None:
    made: list[tuple[Row, bytes]] = []
    for framework in FRAMEWORKS:
        if framework in chosen:
            made += _framework(framework, environments, keep)
        else:
            made += _committed(framework).values()
    _write_graphs(FRAMEWORK_GRAPHS, made)
    parts = (
        f'"schema_version": {SCHEMA_VERSION}',
        f'"requirements": {json.dumps(REQUIREMENTS)}',
        f'"rows": [\n{_lines(row for row, _ in made)}\n]',
    )
    FRAMEWORK_MANIFEST.write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")
    print(f"{len(made)} graphs, {FRAMEWORK_GRAPHS.stat().st_size / 1000:.0f} kB")


def _write_graphs(path: Path, made: Iterable[tuple[Row, bytes]]) -> None:
    with tarfile.open(path, "w:xz") as archive:
        for row, data in made:
            entry = tarfile.TarInfo(row.file)  # without time or owner: the same bytes again
            entry.size = len(data)
            archive.addfile(entry, BytesIO(data))


def _write_manifest(rows: Iterable[Row], refused: Iterable[Gap]) -> None:
    parts = (
        f'"schema_version": {SCHEMA_VERSION}',
        f'"torch": "{torch.__version__}"',
        f'"rows": [\n{_lines(rows)}\n]',
        f'"not_exportable": [\n{_lines(refused)}\n]',
    )
    MANIFEST.write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")


def _lines(entries: Iterable[Row | Gap]) -> str:
    """One entry a line, so that a difference shows which."""
    return ",\n".join(json.dumps(asdict(entry), separators=(",", ":")) for entry in entries)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="export only what is not committed")
    parser.add_argument("--frameworks", nargs="+", choices=FRAMEWORKS, help="export from these")
    parser.add_argument(
        "--environments",
        type=Path,
        default=platformdirs.user_cache_path("deployconv") / "exporters",
        help="folder of the frameworks' environments (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if arguments.frameworks:
        _make_frameworks(arguments.frameworks, arguments.environments, arguments.keep)
        return 0
    made: list[tuple[Row, bytes]] = []
    refused: list[Gap] = []
    for exported in _all_exports(arguments.jobs, arguments.keep):
        if isinstance(exported, Gap):
            refused.append(exported)
        else:
            made.append(exported)
    made += _handmade()
    DATA.mkdir(exist_ok=True)
    _write_graphs(GRAPHS, made)
    _write_manifest((row for row, _ in made), refused)
    for gap in refused:
        print(f"{gap.id}: {gap.reason}")
    print(
        f"{len(made)} graphs, {len(refused)} not exportable, {GRAPHS.stat().st_size / 1000:.0f} kB"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
