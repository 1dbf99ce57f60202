"""`check`: rewrite and prove models in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deployconv.api.arguments import ArrayMap, ShapeMap, as_inputs, as_names, as_path, as_shapes
from deployconv.api.many import BATCH_OPTIONS, run_in_pool
from deployconv.api.pages import check_report, write_report
from deployconv.api.requests import backend_of, request_of
from deployconv.errors import DeployconvError, UsageError
from deployconv.flags import options_of
from deployconv.options import CheckCommand, RewriteCommand, Shapes
from deployconv.results import BatchReport, ModelRun, Rewriting
from deployconv.runtimes import get_backend

if TYPE_CHECKING:
    from deployconv.batch.progress import Watcher
    from deployconv.batch.sources import Source


def check(
    paths: Iterable[str | Path],
    *,
    target: str | Sequence[str] = (),
    backend: str | None = None,
    skip: str | Sequence[str] = (),
    shape: ShapeMap | None = None,
    inputs: str | Path | ArrayMap | None = None,
    seed: int = 0,
    strict: bool = False,
    report: str | Path | None = None,
    jobs: int = 1,
    timeout: float | None = None,
    resume: str | Path | None = None,
    cluster: str | None = None,
    on_result: Callable[[ModelRun], None] | None = None,
    on_progress: Watcher | None = None,
) -> BatchReport:
    """Rewrite and prove models in memory; nothing is written.

    Args:
        paths: model files, globs, or folders that are searched for ``*.onnx``, without
            ``*.deploy.onnx``.
        target: where the models will run, as for `rewrite`.
        backend: what runs the models; None as for `rewrite`.
        skip: leave the sites that match one of these globs alone.
        shape: sizes for dynamic inputs, by input name; each is used for the models that have it.
        inputs: arrays by input name, or an ``.npz`` file of them, instead of random ones.
        seed: seed of the random inputs.
        strict: a model with a site that is left alone fails.
        report: where to write a report of all models as one HTML file.
        jobs: models that are worked on at once.
        timeout: seconds after which a model is given up.
        resume: the JSON document of an interrupted run, whose models are not run again.
        cluster: URL of a Dask scheduler, whose workers run the models.
        on_result: called with each verdict as it is known.
        on_progress: called with a `Progress` each time that a model is begun or done.

    Raises:
        UsageError: a path does not exist, a folder holds no model, or no model has an input that
            ``shape`` names.
        BackendUnavailable: the backend is not available.
        Interrupted: Ctrl-C or a signal ended it; its ``report`` has the models that were done.
    """
    from deployconv.batch.sources import find_sources

    options = CheckCommand(
        target=as_names(target),
        backend=backend,
        skip=as_names(skip),
        shape=as_shapes(shape),
        inputs=as_inputs(inputs),
        seed=seed,
        strict=strict,
        report=as_path(report),
        jobs=jobs,
        timeout=timeout,
        resume=as_path(resume),
        cluster=cluster,
    )
    check_report(options.report)
    get_backend(backend_of(options))  # a missing library is reported before any work
    sources = find_sources(paths, urls=cluster is not None)
    if cluster is None:
        _check_names(options.shape or {}, [Path(source.path) for source in sources])
    given = {one.name: getattr(options, one.name) for one in options_of(CheckCommand)}
    shown = {name: value for name, value in given.items() if name not in BATCH_OPTIONS}
    task = partial(_proved, options)
    done = run_in_pool(check, shown, sources, task, options, on_result, on_progress)
    if options.report is not None:
        from deployconv.report.document import of_batch

        write_report(options.report, of_batch(done))
    return done


def _proved(options: CheckCommand, source: Source, threads: int | None) -> Rewriting:
    """Rewrite and prove one of several models, with those of the options that concern it."""
    from deployconv.graph.load import load
    from deployconv.rewriting import rewrite_model

    path = Path(source.path)
    loaded = load(path)
    names = {given.name for given in loaded.proto.graph.input}
    command = RewriteCommand(
        target=options.target,
        backend=options.backend,
        skip=options.skip,
        shape={name: sizes for name, sizes in (options.shape or {}).items() if name in names},
        inputs=options.inputs,
        seed=options.seed,
        strict=options.strict,
        threads=threads,
        bench=False,
    )
    request = request_of(path, command, None)
    lenient = replace(request.options, may_match_nothing=True)
    return rewrite_model(loaded, replace(request, options=lenient))


def _check_names(shapes: Shapes, files: Sequence[Path]) -> None:
    """Raise UsageError for the shape of an input that no model has."""
    from deployconv.graph.load import load

    unknown = set(shapes)
    for file in files if unknown else ():
        with suppress(DeployconvError):  # the check of this model says what is wrong with it
            unknown -= {given.name for given in load(file).proto.graph.input}
    if unknown:
        raise UsageError(f"--shape {sorted(unknown)[0]}: no model has an input of this name")
