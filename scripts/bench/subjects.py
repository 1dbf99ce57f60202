"""The models that are measured: those of ``models/``, and the same networks at real sizes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench.apart import apart

MODELS = Path(__file__).resolve().parent.parent.parent / "models"

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Subject:
    """A model to measure; ``path`` is None where it is yet to be exported."""

    name: str
    shapes: Shapes
    path: Path | None = None


def samples() -> list[Subject]:
    """The models of ``models/``, with the shapes that they were exported with."""
    manifest = json.loads((MODELS / "manifest.json").read_text(encoding="utf-8"))
    return [
        Subject(
            entry["name"],
            {given["name"]: tuple(given["example"]) for given in entry["inputs"]},
            MODELS / entry["file"],
        )
        for entry in manifest["models"]
    ]


def large() -> list[Subject]:
    """Those at real sizes, not yet exported."""
    from zoo.large import LARGE

    return [Subject(one.name, {given.name: given.shape for given in one.inputs}) for one in LARGE]


def export_large(name: str, path: Path) -> None:
    """Export the model called ``name`` to ``path``."""
    import onnx
    from zoo.export import export
    from zoo.large import LARGE

    onnx.save(export(next(sample for sample in LARGE if sample.name == name)), path)


def all_subjects() -> list[Subject]:
    """All there is to measure here."""
    if find_spec("torch") is None:
        print("torch is not installed: only the models of models/", file=sys.stderr)
        return samples()
    return [*samples(), *apart(large)]


def exported(subject: Subject, folder: Path) -> Path:
    """The model's file, exported to ``folder`` at the first call where it was not there."""
    if subject.path is not None:
        return subject.path
    path = folder / f"{subject.name}.onnx"
    if not path.exists():
        apart(export_large, subject.name, path)
    return path
