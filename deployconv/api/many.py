"""`run_all`: run a command on many models, in as many processes as the call asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deployconv.api.arguments import as_names, as_path
from deployconv.api.building import build
from deployconv.api.inspecting import inspect
from deployconv.api.pages import check_report, write_report
from deployconv.api.requests import backend_of
from deployconv.api.rewriting import rewrite
from deployconv.errors import UsageError
from deployconv.flags import options_of
from deployconv.options import DEFAULT_RUNTIME, BatchOptions, RewriteCommand, path_of
from deployconv.results import BatchReport, BuildReport, Inspection, ModelRun, Rewriting
from deployconv.runtimes import get_backend

if TYPE_CHECKING:
    from deployconv.batch.attempt import Task
    from deployconv.batch.progress import Watcher
    from deployconv.batch.sources import Source


def run_one(
    command: Literal["inspect", "rewrite", "build"],
    path: Path,
    timeout: float,
    output: Path | None = None,
    **options: Any,
) -> Inspection | Rewriting | BuildReport:
    """Run `inspect`, `rewrite` or `build` in a process that is ended after ``timeout`` seconds.

    Raises what the function does, or a DeployconvError if it took longer.
    """
    from deployconv.batch.attempt import result_of
    from deployconv.batch.jobs import run_in_a_process
    from deployconv.batch.sources import Source

    source = Source(str(path), Path(path.name), None if output is None else str(output))
    return result_of(run_in_a_process(partial(_one_of, command, options), source, timeout))


def run_all(
    command: Literal["inspect", "rewrite", "build"],
    paths: Iterable[str | Path],
    *,
    output: str | Path | None = None,
    jobs: int = 1,
    timeout: float | None = None,
    resume: str | Path | None = None,
    cluster: str | None = None,
    on_result: Callable[[ModelRun], None] | None = None,
    on_progress: Watcher | None = None,
    **options: Any,
) -> BatchReport:
    """Run `inspect`, `rewrite` or `build` on many models; one that fails does not stop the rest.

    Args:
        command: the function that is run on each model.
        paths: model files, globs, or folders that are searched for ``*.onnx``, without
            ``*.deploy.onnx``; for a ``cluster`` also URLs that fsspec reads.
        output: the folder that `rewrite` writes to, with the tree of the folders in ``paths``;
            None for ``model.deploy.onnx`` beside each model.
        jobs: models that are worked on at once; one where times are measured.
        timeout: seconds after which a model is given up.
        resume: the JSON document of an interrupted run, whose models are not run again.
        cluster: URL of a Dask scheduler, whose workers run the models.
        on_result: called with each row as it is known.
        on_progress: called with a `Progress` each time that a model is begun or done.
        options: the keyword arguments of the function, for all models.

    Raises:
        UsageError: a path does not exist, or an option does not fit several models.
        BackendUnavailable: the backend is not available.
        Interrupted: Ctrl-C or a signal ended it; its ``report`` has the models that were done.
    """
    from deployconv.batch.sources import find_sources, is_url, place_of, with_outputs

    many = BatchOptions(jobs=jobs, timeout=timeout, resume=as_path(resume), cluster=cluster)
    if cluster is not None:
        options = _for_cluster(command, options)
    page = as_path(options.pop("report", None))
    check_report(page)
    if options.get("engine") is not None:
        raise UsageError("--engine: names one file for several models: build each by itself")
    if command == "rewrite":
        asked = RewriteCommand(
            target=as_names(options.get("target", ())), backend=options.get("backend")
        )
        if options.get("verify", True) or backend_of(asked) != DEFAULT_RUNTIME:
            get_backend(backend_of(asked))  # a missing library is reported before any work
    place = None if output is None else place_of(path_of(output))
    folder = None if place is None or is_url(place) else Path(place)
    sources = find_sources(paths, outside=folder, urls=cluster is not None)
    if command == "rewrite" and not options.get("dry_run", False):
        sources = with_outputs(sources, place)
    task = partial(_one_of, command, options)
    shown = options if place is None else {"output": place, **options}
    done = run_in_pool(_FUNCTIONS[command], shown, sources, task, many, on_result, on_progress)
    if page is not None:
        from deployconv.report.document import of_batch

        write_report(page, of_batch(done))
    return done


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "inspect": inspect,
    "rewrite": rewrite,
    "build": build,
}
BATCH_OPTIONS = {one.name for one in options_of(BatchOptions)}


def run_in_pool(
    command: Callable[..., Any],
    options: Mapping[str, Any],
    sources: Sequence[Source],
    task: Task,
    many: BatchOptions,
    on_result: Callable[[ModelRun], None] | None,
    watcher: Watcher | None,
) -> BatchReport:
    """Run a task of the function ``command`` on models, in the processes that ``many`` asks for."""
    from deployconv.batch.options import given_options
    from deployconv.batch.pools import pool_for
    from deployconv.batch.resume import done_before
    from deployconv.batch.run import run_models

    name = command.__name__
    pool, warnings = pool_for(name, options, many)
    given = given_options(options, signature(command))
    before = done_before(many.resume, name, given, sources) if many.resume else {}
    report = run_models(
        *(name, given, sources, task, pool),
        before=before,
        on_result=on_result,
        watcher=watcher,
    )
    return replace(report, warnings=warnings)


def _one_of(
    command: str, options: Mapping[str, Any], source: Source, threads: int | None
) -> Inspection | Rewriting | BuildReport:
    """Run one of the functions on one of several models."""
    if command == "inspect":
        return inspect(source.path, **options)
    if command == "build":
        return build(source.path, **options)
    given = dict(options)
    if given.get("policy") in (None, "all") and not given.get("target"):
        # cost, which a target may choose too, predicts for the threads that it is given
        given["threads"] = given.get("threads") or threads
    given["force"] = given.get("force", False) or source.overwrites
    if source.makes_folder:
        Path(str(source.output)).parent.mkdir(parents=True, exist_ok=True)
    return rewrite(source.path, output=source.output, **given)


def _for_cluster(command: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a call whose models are run by other machines, which are not timed."""
    if command != "rewrite":
        return dict(options)
    if options.get("policy", "all") == "fastest":
        raise UsageError(
            "--policy fastest: would measure the machines of the cluster: choose all or cost"
        )
    inputs = options.get("inputs")
    there = inputs.absolute() if isinstance(inputs, Path) else inputs  # a worker has other folders
    return {**options, "bench": False, "inputs": there}
