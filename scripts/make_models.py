"""Export the sample networks of `zoo` to ``models/``, with a manifest and a README.

    python scripts/make_models.py            write everything anew
    python scripts/make_models.py --check    write nothing; show where a fresh export differs

Needs torch and onnxscript. ``--check`` compares structure, not bytes, for another version of
PyTorch may number, name and round differently. It exits 1 where something differs.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from zoo.catalogue import CATALOGUE
from zoo.export import export
from zoo.manifest import VOLATILE, Entry, entry, render_manifest, render_readme
from zoo.sample import Sample
from zoo.structure import structure

MODELS = Path(__file__).resolve().parent.parent / "models"


def write(folder: Path) -> None:
    """Export every sample into `folder` and describe them there."""
    folder.mkdir(exist_ok=True)
    entries: list[Entry] = []
    for sample in CATALOGUE:
        model = export(sample)
        onnx.checker.check_model(model, full_check=True)
        data = model.SerializeToString(deterministic=True)
        (folder / sample.file).write_bytes(data)
        entries.append(entry(sample, model, data, torch.__version__))
        print(f"{sample.file}: {len(data) / 1000:.0f} kB")
    (folder / "manifest.json").write_text(render_manifest(entries), encoding="utf-8")
    (folder / "README.md").write_text(render_readme(entries), encoding="utf-8")


def _steady(entry: Entry) -> str:
    return json.dumps({k: v for k, v in entry.items() if k not in VOLATILE}, indent=1)


def _differences(sample: Sample, folder: Path, committed: Entry | None) -> Iterator[str]:
    path = folder / sample.file
    if committed is None or not path.exists():
        yield f"{sample.file}: missing from {folder.name}/; run scripts/make_models.py"
        return
    model = export(sample)
    fresh = entry(sample, model, b"", torch.__version__)
    pairs = (
        (sample.file, structure(onnx.load(path)), structure(model)),
        ("manifest.json", _steady(committed).splitlines(), _steady(fresh).splitlines()),
    )
    for name, old, new in pairs:
        yield from difflib.unified_diff(
            old, new, f"{sample.name}: {name} as committed", "as exported now", lineterm="", n=1
        )


def check(folder: Path) -> bool:
    """Export every sample in memory and print where it differs; True if nothing does."""
    document = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    committed: dict[str, Entry] = {model["name"]: model for model in document["models"]}
    same = True
    for sample in CATALOGUE:
        lines = list(_differences(sample, folder, committed.get(sample.name)))
        print("\n".join(lines) if lines else f"{sample.file}: same structure")
        same = same and not lines
    return same


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    if parser.parse_args().check:
        return 0 if check(MODELS) else 1
    write(MODELS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
