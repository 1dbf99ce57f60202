"""The models that are measured: those of ``models/``, and the same networks at real sizes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.process import in_own_process

if TYPE_CHECKING:
    from zoo.sample import Sample

    from deployconv.runtimes.base import Feeds

MODELS = Path(__file__).resolve().parent.parent.parent / "models"

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Subject:
    """A model to measure; ``path`` is None if it has to be exported first."""

    name: str
    shapes: Shapes
    path: Path | None = None


def samples() -> list[Subject]:
    """The models of ``models/``, with the shapes that they were exported with."""
    return [_sample(entry) for entry in _manifest()]


def float_samples() -> list[Subject]:
    """The models of ``models/`` that can be quantized: in float32, with static shapes."""
    return [
        _sample(entry)
        for entry in _manifest()
        if not entry["quantized"]
        and all(
            given["dtype"] == "float32" and given["shape"] == given["example"]
            for given in entry["inputs"]
        )
    ]


def _manifest() -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = json.loads(
        (MODELS / "manifest.json").read_text(encoding="utf-8")
    )["models"]
    return models


def _sample(entry: Mapping[str, Any]) -> Subject:
    shapes = {given["name"]: tuple(given["example"]) for given in entry["inputs"]}
    return Subject(entry["name"], shapes, MODELS / entry["file"])


def large() -> list[Subject]:
    """The networks at real sizes, not yet exported."""
    from zoo.large import LARGE

    return [_unexported(sample) for sample in LARGE]


def larger_decoders() -> list[Subject]:
    """The decoders at real sizes, not yet exported; torch is imported in a process of its own."""
    found: list[Subject] = in_own_process(_larger_decoders)
    return found


def resizing() -> list[Subject]:
    """The networks with an interpolating Resize: of ``models/``, and at real sizes."""
    found: list[Subject] = in_own_process(_resizing)
    return found


def _larger_decoders() -> list[Subject]:
    from zoo.large import DECODERS

    return [_unexported(sample) for sample in DECODERS]


def _resizing() -> list[Subject]:
    from zoo.large import RESIZING
    from zoo.resized import RESIZED

    names = {sample.name for sample in RESIZED}
    small = [subject for subject in samples() if subject.name in names]
    return [*small, *(_unexported(sample) for sample in RESIZING)]


def decoders() -> list[Subject]:
    """The decoders at real sizes, and the smallest possible ones; not yet exported."""
    from zoo.large import DECODERS, UPSAMPLERS

    return [_unexported(sample) for sample in (*UPSAMPLERS, *DECODERS)]


def _unexported(sample: Sample) -> Subject:
    return Subject(sample.name, {given.name: given.shape for given in sample.inputs})


def export_large(name: str, path: Path) -> None:
    """Export the model called ``name`` to ``path``."""
    import onnx
    from zoo.export import export
    from zoo.large import LARGE, UPSAMPLERS

    samples = {sample.name: sample for sample in (*LARGE, *UPSAMPLERS)}
    onnx.save(export(samples[name]), path)


def random_feeds(model: Path, shapes: Shapes, threads: int) -> Feeds:
    """Random inputs of these ``shapes`` for ``model``."""
    from deployconv.options import FeedOptions
    from deployconv.proof.inputs import make_feeds
    from deployconv.runtimes import get_backend

    session = get_backend("ort").prepare(model, threads=threads)
    return make_feeds(session.inputs, FeedOptions(shapes)).arrays


def all_subjects() -> list[Subject]:
    """All models that can be measured here."""
    if find_spec("torch") is None:
        print("torch is not installed: only the models of models/", file=sys.stderr)
        return samples()
    return [*samples(), *in_own_process(large)]


def exported(subject: Subject, folder: Path) -> Path:
    """The file of the model; the first call exports it to ``folder`` if there is none."""
    if subject.path is not None:
        return subject.path
    path = folder / f"{subject.name}.onnx"
    if not path.exists():
        in_own_process(export_large, subject.name, path)
    return path
