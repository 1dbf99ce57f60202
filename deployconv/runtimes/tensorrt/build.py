"""`deployconv build`: one model, compiled for every target that was asked for."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from onnx import TensorProto

from deployconv.errors import UsageError
from deployconv.graph.load import LoadedModel
from deployconv.options import ShapeRanges
from deployconv.results import BuildReport, OutputFile, StageResult, TargetBuild
from deployconv.runtimes.base import ModelSource
from deployconv.runtimes.shapes import input_specs, profile_of, shape_ranges
from deployconv.runtimes.tensorrt.binding import BuildSettings
from deployconv.runtimes.tensorrt.compile import (
    cache_folder,
    compile_model,
    find_installation,
    model_file,
)
from deployconv.runtimes.tensorrt.process import Limits
from deployconv.runtimes.tensorrt.screen import refuse_what_tensorrt_overlooks

_DEFAULT_LIMITS = Limits()


def build_engines(
    loaded: LoadedModel,
    source: ModelSource,
    *,
    backend: str | None,
    targets: Sequence[str],
    shapes: ShapeRanges,
    engine: Path | None = None,
    fp16: bool = False,
    force: bool = False,
    limits: Limits = _DEFAULT_LIMITS,
) -> BuildReport:
    """Compile ``source``, which is ``loaded``, for ``targets``; see `deployconv.build`."""
    start = time.perf_counter()
    refuse_what_tensorrt_overlooks(loaded.proto, loaded.name)
    ranges, note = shape_ranges(input_specs(loaded.proto), shapes)
    installation = find_installation(backend)
    asked: list[str | None] = list(dict.fromkeys(targets)) or [None]
    for target in asked:
        installation.require(target, fp16)
    places = {target: _place(engine, target, len(asked) > 1) for target in asked}
    _refuse_places([place for place in places.values() if place is not None], loaded, force)
    checked = StageResult("check", "ok", time.perf_counter() - start)
    builds = []
    with model_file(source) as model:
        for target in asked:
            cache = cache_folder() if target is None else None
            settings = BuildSettings(target, fp16, profile=profile_of(ranges), cache=cache)
            builds.append(
                _build(model, installation.backend, settings, places[target], limits, checked)
            )
    notes = "; ".join(filter(None, (note, _narrowed(loaded))))
    return BuildReport(loaded.info, installation.runtime, ranges, tuple(builds), notes or None)


def _narrowed(loaded: LoadedModel) -> str | None:
    """What TensorRT computes in fewer bits than the model says, in silence."""
    values = (*loaded.proto.graph.input, *loaded.proto.graph.output)
    if any(value.type.tensor_type.elem_type == TensorProto.DOUBLE for value in values):
        return "TensorRT computes the model's float64 in float32"
    return None


def _build(
    model: Path,
    backend: str,
    settings: BuildSettings,
    place: Path | None,
    limits: Limits,
    checked: StageResult,
) -> TargetBuild:
    if place is None:
        return compile_model(model, backend, settings, limits=limits, checked=checked)
    try:
        # Beside its place, so that it gets there by a rename: whole or not at all.
        descriptor, name = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
        os.close(descriptor)
    except OSError as error:
        raise UsageError(f"--engine {place}: cannot be written ({error.strerror})") from error
    temporary = Path(name)
    try:
        done = compile_model(
            model, backend, settings, engine=temporary, limits=limits, checked=checked
        )
        if not done.builds:
            return done
        written = OutputFile(str(place), hashlib.sha256(temporary.read_bytes()).hexdigest())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes a private file
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)
    return replace(done, engine=written)


def _place(engine: Path | None, target: str | None, several: bool) -> Path | None:
    if engine is None or not several:
        return engine
    return engine.with_name(f"{engine.stem}.{target}{engine.suffix}")


def _refuse_places(places: Sequence[Path], loaded: LoadedModel, force: bool) -> None:
    for place in places:
        if not place.parent.is_dir():
            raise UsageError(f"--engine {place}: folder '{place.parent}' does not exist")
        if place.is_dir():
            raise UsageError(f"--engine {place}: is a folder: name a file")
        inputs = [file for file in (loaded.path, *loaded.external_files) if file is not None]
        if place.exists() and any(file.samefile(place) for file in inputs):
            raise UsageError(f"--engine {place}: belongs to the model: name another file")
        if place.exists() and not force:
            raise UsageError(f"--engine {place}: exists: pass --force to replace it")
