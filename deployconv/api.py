"""The public functions. Nothing heavy is imported before one of them is called.

Their keyword arguments are the options that ``options.py`` defines for each command, written out
for editors and type checkers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deployconv.errors import CheckFailed, DeployconvError, UsageError
from deployconv.options import (
    DEFAULT_BENCH_SECONDS,
    DEFAULT_RUNTIME,
    BatchOptions,
    BenchCommand,
    BuildCommand,
    CheckCommand,
    FeedOptions,
    Form,
    Inputs,
    InspectCommand,
    Policy,
    RewriteCommand,
    RewriteOptions,
    RunCommand,
    ShapeRanges,
    Shapes,
    Shuffle,
    SiteOptions,
    VerifyCommand,
    options_of,
    path_of,
)
from deployconv.results import (
    BatchReport,
    BuildReport,
    Displayed,
    Inspection,
    Latency,
    ModelDifference,
    ModelRun,
    Parity,
    Rewriting,
    Target,
)
from deployconv.runtimes import get_backend, get_runtime

if TYPE_CHECKING:
    import onnx

    from deployconv.batch.attempt import Task
    from deployconv.batch.progress import Watcher
    from deployconv.batch.sources import Source
    from deployconv.rewriting import Request
    from deployconv.runtimes.base import ModelSource

    Model = str | Path | bytes | onnx.ModelProto

ShapeMap = Mapping[str, Sequence[int]]
"""Input name -> concrete shape."""
ArrayMap = Mapping[str, Any]
"""Input name -> array."""
RangeMap = Mapping[str, Sequence[int] | Sequence[Sequence[int]]]
"""Input name -> one shape, or the smallest, the optimal and the largest one."""


def inspect(
    model: Model, *, target: str | Sequence[str] = (), freeze_initializers: bool = False
) -> Inspection:
    """List every upsampling layer with the status it would get from `rewrite`.

    Args:
        model: a file, its bytes, or a ModelProto, which is left untouched.
        target: where the model will run, by the names of `list_targets`, or as TOML files. Each
            layer then has what the target does with it. Nothing is compiled or run there.
        freeze_initializers: treat the defaults of graph inputs as constants.

    Raises:
        UsageError: the file does not exist, or there is no such target.
        ModelError: it is not a valid model.
    """
    from deployconv.graph.load import load
    from deployconv.rewrites.planning import plan_model

    options = InspectCommand(target=_names(target), freeze_initializers=freeze_initializers)
    loaded = load(model)
    plain = RewriteOptions(freeze_initializers=options.freeze_initializers)
    if not options.target:
        return Inspection(loaded.info, plan_model(loaded, plain).reports)
    from deployconv.rewriting import inspect_for_targets
    from deployconv.targets.rules import rules_for

    return inspect_for_targets(loaded, _source(model), rules_for(options.target, plain, None))


def list_targets(name: str | None = None) -> tuple[Target, ...]:
    """List the targets that come with deployconv, or describe one.

    Args:
        name: a target, or a TOML file; None for all that come with deployconv.

    Raises:
        UsageError: there is no such target, or its file is wrong.
    """
    from deployconv.runtimes.toolchains.environments import toolchain_installed
    from deployconv.targets.catalogue import find_target, target_names
    from deployconv.targets.describe import describe

    names = (name,) if name else target_names()
    found = (describe(find_target(one)) for one in names)
    return tuple(
        replace(one, installed=True) if toolchain_installed(one.name) else one for one in found
    )


def rewrite(
    model: Model,
    *,
    output: str | Path | None = None,
    policy: Policy | None = None,
    backend: str | None = None,
    form: Form = "auto",
    shuffle: Shuffle = "auto",
    only: str | Sequence[str] = (),
    skip: str | Sequence[str] = (),
    target: str | Sequence[str] = (),
    shape: ShapeMap | None = None,
    inputs: str | Path | ArrayMap | None = None,
    seed: int = 0,
    verify: bool = True,
    bench: bool = True,
    strict: bool = False,
    dump: str | Path | None = None,
    freeze_initializers: bool = False,
    resample: bool = False,
    allow_requantize: bool = False,
    dequantize_weights: bool = False,
    force: bool = False,
    dry_run: bool = False,
    upgrade_opset: bool | None = None,
    budget: float = 60.0,
    cache: bool = True,
    max_memory: float = 1.1,
    threads: int | None = None,
    report: str | Path | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Rewriting:
    """Rewrite upsampling layers as Conv, pixel shuffle and crop; check, time and write the model.

    Args:
        model: a file, its bytes, or a ModelProto, which is left untouched.
        output: where to write the rewritten model; None writes nothing.
        policy: which layers are rewritten: ``all`` that can be rewritten exactly; or those, and
            in the form, that a static model of their ``cost`` predicts, or measurement shows, to
            be ``fastest`` on ``backend``. None for ``all``, or what the ``target`` says.
        backend: what runs the models for parity and latency; None for that of the ``target`` if
            it is installed, else onnxruntime.
        form: ``crop``, ``pad``, or the one of these with fewer multiplications; ``split``, a Conv
            per phase; ``separable``, a Conv per axis, if the kernels are products; ``matrix``, a
            product of matrices per axis.
        shuffle: how the phases are moved into space; ``auto`` takes a portable way.
        only: rewrite only the sites that match one of these globs.
        skip: leave the sites that match one of these globs alone.
        target: where the model will run, by the names of `list_targets`, or as TOML files;
            several for what all of them take. For compute capabilities such as ``sm89`` both models
            are compiled with TensorRT, which needs no GPU: the rewritten one must build wherever
            the original does.
        shape: sizes for dynamic inputs, by input name.
        inputs: arrays by input name, or an ``.npz`` file of them, instead of random ones.
        seed: seed of the random inputs.
        verify: certify each site and check the parity of the whole model.
        bench: time both models, interleaved.
        strict: a site that is left alone is a failure.
        dump: folder for the two models and the inputs of a certificate that fails.
        freeze_initializers: treat the defaults of graph inputs as constants.
        resample: rewrite a Resize that interpolates too, as a product with a matrix per axis;
            ``cost`` and ``fastest`` consider that without it.
        allow_requantize: give an integer weight new scales if it cannot keep its own: if its taps
            have to be added, as after a nearest Resize, or if it has one for each input channel.
            The result is then close, not equal, and says how close.
        dequantize_weights: store such a weight as floats instead. The result is equal, but the
            weight is larger and the layer runs in floats. It goes before ``allow_requantize``.
        force: replace an existing output.
        dry_run: do everything but write the output.
        upgrade_opset: raise a model below opset 18 to it if that changes nothing, so that
            Col2Im can be used; None does so for ``cost`` and ``fastest`` on onnxruntime.
        budget: seconds of measurement for ``fastest``, approximately.
        cache: read and keep measurements.
        max_memory: how many times the original's peak memory ``fastest`` may make the model take
            on ``ort``; infinity to measure none.
        threads: threads of the backend, and those that ``cost`` predicts for; None for all
            processors.
        report: where to write a report as one HTML file, also if a check fails; it collects
            pictures of the changed nodes, differences of the outputs, and the time per layer.
        on_progress: called with the part of the measurements that is done, 0 to 1.

    Returns:
        The sites, the parity, the latency, and the rewritten model as a ModelProto.

    Raises:
        CheckFailed: certificate, parity, a build for a ``target`` or ``strict`` failed; nothing
            was written.
        UsageError, ModelError: the call or the model is at fault.
        BackendUnavailable: the backend is not available or cannot run the model.
    """
    from deployconv.graph.load import load
    from deployconv.rewriting import rewrite_model

    options = RewriteCommand(
        output=_path(output),
        policy=policy,
        backend=backend,
        form=form,
        shuffle=shuffle,
        only=_names(only),
        skip=_names(skip),
        target=_names(target),
        shape=_shapes(shape),
        inputs=_inputs(inputs),
        seed=seed,
        verify=verify,
        bench=bench,
        strict=strict,
        dump=_path(dump),
        freeze_initializers=freeze_initializers,
        resample=resample,
        allow_requantize=allow_requantize,
        dequantize_weights=dequantize_weights,
        force=force,
        dry_run=dry_run,
        upgrade_opset=upgrade_opset,
        budget=budget,
        cache=cache,
        max_memory=max_memory,
        threads=threads,
        report=_path(report),
    )
    _check_report(options.report)
    taken = _backend(options)
    if verify or policy == "fastest" or taken != DEFAULT_RUNTIME:
        get_backend(taken)  # a missing library is reported before any work
    request = _request(_source(model), options, on_progress)
    try:
        done = rewrite_model(load(model), request)
    except CheckFailed as failure:
        if failure.result is not None and options.report is not None:
            from deployconv.report.document import of_rewriting

            _write_report(options.report, of_rewriting(failure.result) | {"message": str(failure)})
        raise
    if options.report is not None:
        from deployconv.report.document import of_rewriting

        _write_report(options.report, of_rewriting(done))
    return done


def verify(
    reference: Model,
    candidate: Model,
    *,
    backend: str | Sequence[str] = DEFAULT_RUNTIME,
    shape: ShapeMap | None = None,
    inputs: str | Path | ArrayMap | None = None,
    seed: int = 0,
    threads: int | None = None,
    report: str | Path | None = None,
) -> tuple[Parity, ...]:
    """Compare the outputs of two models with the same interface, once per backend.

    Args:
        reference: the model to match: a file, its bytes, or a ModelProto.
        candidate: the model to check.
        backend: what runs the models, one name or several.
        shape: sizes for dynamic inputs, by input name.
        inputs: arrays by input name, or an ``.npz`` file of them, instead of random ones.
        seed: seed of the random inputs.
        threads: threads of the backend; None for all processors.
        report: where to write a report as one HTML file.

    Raises:
        UsageError, ModelError: the call or a model is at fault, or the interfaces differ.
        BackendUnavailable: a backend is not available or cannot run the reference.
    """
    from deployconv.graph.load import load
    from deployconv.proof.parity import check_parity

    options = VerifyCommand(
        backend=_names(backend),
        shape=_shapes(shape),
        inputs=_inputs(inputs),
        seed=seed,
        threads=threads,
        report=_path(report),
    )
    _check_report(options.report)
    for name in options.backend:
        get_backend(name)  # a missing library is reported before any work
    for model in (reference, candidate):
        load(model)
    pair, feed = (_source(reference), _source(candidate)), _feed(options)
    checks = tuple(check_parity(*pair, name, feed, threads) for name in options.backend)
    if options.report is not None:
        from deployconv.details.collect import compare_outputs_in_detail
        from deployconv.report.document import of_verification

        details = compare_outputs_in_detail(pair, options.backend[0], feed, threads)
        _write_report(options.report, of_verification(checks, details))
    return checks


def bench(
    model: Model,
    other: Model | None = None,
    *,
    backend: str | Sequence[str] = DEFAULT_RUNTIME,
    shape: ShapeMap | None = None,
    inputs: str | Path | ArrayMap | None = None,
    seed: int = 0,
    threads: int | None = None,
    runs: int | None = None,
    budget: float = DEFAULT_BENCH_SECONDS,
    profile: bool = False,
    cuda_graph: bool = False,
    report: str | Path | None = None,
) -> tuple[Latency, ...]:
    """Time one model, or two interleaved, once per backend; times are milliseconds.

    Args:
        model: a file, its bytes, or a ModelProto.
        other: a second model, timed in turns with the first.
        backend: what runs the models, one name or several.
        shape: sizes for dynamic inputs, by input name.
        inputs: arrays by input name, or an ``.npz`` file of them, instead of random ones.
        seed: seed of the random inputs.
        threads: threads of the backend; None for all processors.
        runs: timed runs per model; None for a number that fits the time of a run, and for two
            models the noise.
        budget: seconds that two models may be compared if their ratio is uncertain.
        profile: add the time of each layer, grouped by site, if the backend profiles layers.
        cuda_graph: time launches of captured CUDA graphs, if the backend captures them.
        report: where to write a report as one HTML file.

    Raises:
        UsageError, ModelError: the call or a model is at fault.
        BackendUnavailable: a backend is not available or cannot run a model.
    """
    from deployconv.graph.load import load
    from deployconv.proof.latency import measure_latency

    options = BenchCommand(
        backend=_names(backend),
        shape=_shapes(shape),
        inputs=_inputs(inputs),
        seed=seed,
        threads=threads,
        runs=runs,
        budget=budget,
        profile=profile,
        cuda_graph=cuda_graph,
        report=_path(report),
    )
    _check_report(options.report)
    for name in options.backend:
        get_backend(name)  # a missing library is reported before any work
    load(model)
    if other is not None:
        load(other)
    pair = _source(model), None if other is None else _source(other)
    feed = _feed(options)
    latencies = tuple(
        measure_latency(*pair, name, feed, threads, runs, profile, cuda_graph, budget)
        for name in options.backend
    )
    if options.report is not None:
        from deployconv.report.document import of_timing
        from deployconv.runtimes.base import label_of

        names = [label_of(source) for source in pair if source is not None]
        _write_report(options.report, of_timing(latencies, names))
    return latencies


def diff(before: Model, after: Model) -> ModelDifference:
    """Compare the nodes, the weights and the interface of two models; neither is run.

    Args:
        before: a file, its bytes, or a ModelProto.
        after: the other model.

    Raises:
        UsageError, ModelError: the call or a model is at fault.
    """
    from deployconv.details.difference import difference_between
    from deployconv.graph.load import load

    return difference_between(load(before), load(after))


def build(
    model: Model,
    *,
    target: str | Sequence[str] = (),
    backend: str | None = None,
    shape: RangeMap | None = None,
    engine: str | Path | None = None,
    fp16: bool = False,
    force: bool = False,
) -> BuildReport:
    """Compile a model with TensorRT, or convert it with the toolchains of targets.

    Of TensorRT that is compile evidence, no execution. What a toolchain converts is run where that
    is possible here, on the CPU or in a simulator, and compared with onnxruntime.

    Args:
        model: a file, its bytes, or a ModelProto, which is left untouched.
        target: compute capabilities such as ``sm89``, for which no GPU is needed; none for the
            GPU of this machine. Or targets whose toolchain ``deployconv target install`` installed.
        backend: ``tensorrt-rtx`` or ``tensorrt``; None for the first that is installed.
        shape: sizes of dynamic inputs by name: one shape, or smallest, optimal, largest.
        engine: where to write the engine; with several targets each goes to a file of its own,
            ``net.engine`` to ``net.sm89.engine``.
        fp16: let the builder of TensorRT 8 to 10 use float16 for a float32 model.
        force: replace existing engines.

    Raises:
        UsageError, ModelError: the call or the model is at fault.
        BackendUnavailable: TensorRT or a toolchain is not there, or no target is named and there
            is no GPU.
    """
    from deployconv.graph.load import load
    from deployconv.runtimes.tensorrt.compile import build_engines
    from deployconv.runtimes.toolchains.catalogue import toolchain_of
    from deployconv.targets.catalogue import check_compiled, find_target

    options = BuildCommand(
        target=_names(target),
        backend=backend,
        shape=_ranges(shape),
        engine=_path(engine),
        fp16=fp16,
        force=force,
    )
    converted = [name for name in options.target if toolchain_of(name)]
    if converted:
        from deployconv.proof.toolchain_builds import build_with_toolchains

        _require_no_engine(options, converted)
        sizes = {name: optimal for name, (_, optimal, _) in (options.shape or {}).items()}
        feed = FeedOptions(sizes)
        return build_with_toolchains(load(model), _source(model), converted, feed)
    for name in options.target:
        if name.lower() != "dla":  # of which the compiler itself says why not
            check_compiled(find_target(name))
    return build_engines(
        load(model),
        _source(model),
        backend=options.backend,
        targets=options.target,
        shapes=options.shape or {},
        engine=options.engine,
        fp16=options.fp16,
        force=options.force,
    )


def _require_no_engine(options: BuildCommand, converted: Sequence[str]) -> None:
    """Raise UsageError for what only TensorRT has."""
    others = [name for name in options.target if name not in converted]
    if others:
        raise UsageError(f"--target {others[0]}: build it in a call of its own: another toolchain")
    for name, given in (("engine", options.engine), ("fp16", options.fp16)):
        if given:
            raise UsageError(f"--{name}: is of TensorRT; {converted[0]} has another toolchain")


def install_toolchain(target: str) -> Path:
    """Install the toolchain of a target, and return the Python of its environment.

    The environment is in the user's data folder, with pinned versions. One that is there is kept.

    Args:
        target: the target, as `targets` lists it, or the name of a toolchain.

    Raises:
        UsageError: there is no toolchain for it.
        BackendUnavailable: it cannot be installed here.
    """
    from deployconv.runtimes.toolchains.catalogue import get_toolchain
    from deployconv.runtimes.toolchains.environments import install

    return install(get_toolchain(target))


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
        target=_names(target),
        backend=backend,
        skip=_names(skip),
        shape=_shapes(shape),
        inputs=_inputs(inputs),
        seed=seed,
        strict=strict,
        report=_path(report),
        jobs=jobs,
        timeout=timeout,
        resume=_path(resume),
        cluster=cluster,
    )
    _check_report(options.report)
    get_backend(_backend(options))  # a missing library is reported before any work
    sources = find_sources(paths, urls=cluster is not None)
    if cluster is None:
        _check_names(options.shape or {}, [Path(source.path) for source in sources])
    given = {one.name: getattr(options, one.name) for one in options_of(CheckCommand)}
    shown = {name: value for name, value in given.items() if name not in _BATCH}
    task = partial(_proved, options)
    done = _run_models("check", shown, sources, task, options, on_result, on_progress)
    if options.report is not None:
        from deployconv.report.document import of_batch

        _write_report(options.report, of_batch(done))
    return done


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

    many = BatchOptions(jobs=jobs, timeout=timeout, resume=_path(resume), cluster=cluster)
    if cluster is not None:
        options = _for_cluster(command, options)
    page = _path(options.pop("report", None))
    _check_report(page)
    if options.get("engine") is not None:
        raise UsageError("--engine: names one file for several models: build each by itself")
    if command == "rewrite":
        asked = RewriteCommand(
            target=_names(options.get("target", ())), backend=options.get("backend")
        )
        if options.get("verify", True) or _backend(asked) != DEFAULT_RUNTIME:
            get_backend(_backend(asked))  # a missing library is reported before any work
    place = None if output is None else place_of(path_of(output))
    folder = None if place is None or is_url(place) else Path(place)
    sources = find_sources(paths, outside=folder, urls=cluster is not None)
    if command == "rewrite" and not options.get("dry_run", False):
        sources = with_outputs(sources, place)
    task = partial(_one_of, command, options)
    shown = options if place is None else {"output": place, **options}
    done = _run_models(command, shown, sources, task, many, on_result, on_progress)
    if page is not None:
        from deployconv.report.document import of_batch

        _write_report(page, of_batch(done))
    return done


_BATCH = {one.name for one in options_of(BatchOptions)}


def _run_models(
    command: str,
    options: Mapping[str, Any],
    sources: Sequence[Source],
    task: Task,
    many: BatchOptions,
    on_result: Callable[[ModelRun], None] | None,
    watcher: Watcher | None,
) -> BatchReport:
    """Run a task on models, in the processes that ``many`` asks for."""
    from deployconv.batch.options import given_options
    from deployconv.batch.pools import pool_for
    from deployconv.batch.resume import done_before
    from deployconv.batch.run import run_models

    pool, warnings = pool_for(command, options, many)
    given = given_options(options, signature(globals()[command]))
    before = done_before(many.resume, command, given, sources) if many.resume else {}
    report = run_models(
        *(command, given, sources, task, pool),
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
    request = _request(path, command, None)
    lenient = replace(request.options, may_match_nothing=True)
    return rewrite_model(loaded, replace(request, options=lenient))


def _backend(options: RewriteCommand | CheckCommand) -> str:
    """What runs the models: as the call says, else the runtime of a target if it is installed.

    Raises UsageError for a target that there is not.
    """
    if options.backend is not None:
        return options.backend
    if options.target:
        from deployconv.targets.catalogue import find_targets, is_installed

        for profile in find_targets(options.target):
            # What compiles engines runs them on a GPU only.
            runs = profile.backend is not None and not get_runtime(profile.backend).compiles
            if profile.backend is not None and runs and is_installed(profile):
                return profile.backend
    return DEFAULT_RUNTIME


def _check_names(shapes: Shapes, files: Sequence[Path]) -> None:
    """Raise UsageError for the shape of an input that no model has."""
    from deployconv.graph.load import load

    unknown = set(shapes)
    for file in files if unknown else ():
        with suppress(DeployconvError):  # the check of this model says what is wrong with it
            unknown -= {given.name for given in load(file).proto.graph.input}
    if unknown:
        raise UsageError(f"--shape {sorted(unknown)[0]}: no model has an input of this name")


def _request(
    source: ModelSource, options: RewriteCommand, on_progress: Callable[[float], None] | None
) -> Request:
    """Turn the options of a call into what `rewriting.rewrite_model` takes."""
    from deployconv.rewriting import Request
    from deployconv.search.choice import TunerOptions

    feed, backend = _feed(options), _backend(options)
    chosen = {one.name: getattr(options, one.name) for one in fields(SiteOptions)}
    chosen["policy"] = options.policy or "all"
    runtime = get_runtime(backend)
    rewriting = RewriteOptions(
        **chosen, float_bias=runtime.needs_float_bias, shuffles=runtime.shuffles
    )
    targets, rules = None, None
    if options.target:
        from deployconv.runtimes.toolchains.environments import toolchain_installed
        from deployconv.targets.rules import rules_for

        rules = rules_for(options.target, rewriting, options.policy)
        rewriting = rules.options
        compiled = [one.compiles_for for one in rules.profiles if one.compiles_for]
        converted = [
            one.name for one in rules.profiles if options.verify and toolchain_installed(one.name)
        ]
        if compiled or converted:
            from deployconv.proof.builds import Targets, targets_of

            targets = targets_of(compiled, backend, feed) or Targets()
            targets = replace(targets, converted=tuple(converted), feed=feed)
    return Request(
        source=source,
        command=options,
        options=rewriting,
        tuner=TunerOptions(
            backend=backend,
            threads=options.threads,
            feed=feed,
            budget=options.budget,
            cache=options.cache,
            on_progress=on_progress,
            max_memory=options.max_memory,
            dump=options.dump,
        ),
        targets=targets,
        rules=rules,
    )


def _source(model: Model) -> ModelSource:
    """What a backend loads: the file itself, or the serialized model."""
    serialize = getattr(model, "SerializeToString", None)
    if serialize is not None:
        return bytes(serialize())
    return model if isinstance(model, bytes) else path_of(model)


def _feed(options: RewriteCommand | RunCommand) -> FeedOptions:
    return FeedOptions(options.shape or {}, options.inputs, options.seed)


def _check_report(path: Path | None) -> None:
    """Raise UsageError before any work if a report cannot be drawn or written."""
    if path is not None:
        from deployconv.report.page.render import require_libraries, require_writable

        require_libraries()
        require_writable(path)


def _write_report(path: Path, document: dict[str, Any]) -> None:
    """Render a document as one HTML file."""
    from deployconv.report.page.render import write

    write(path, document)


def _drawn(result: Displayed) -> str | None:
    """Return a result as HTML for a notebook; None if a library that draws it is missing."""
    from deployconv.report.document import of_inspection, of_rewriting, of_verification
    from deployconv.report.page.render import embedded

    with suppress(UsageError):
        if isinstance(result, Inspection):
            return embedded(of_inspection(result))
        if isinstance(result, Rewriting):
            return embedded(of_rewriting(result))
        if isinstance(result, Parity):
            return embedded(of_verification([result]))
    return None


Displayed.draw = _drawn


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else path_of(given)


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _shapes(shape: ShapeMap | None) -> Shapes:
    given: Any = {} if shape is None else shape
    wrong = not isinstance(given, Mapping) or any(
        isinstance(sizes, str) or not isinstance(sizes, Iterable) for sizes in given.values()
    )
    if wrong:
        raise UsageError(f"shape is {given!r}: give sizes by input name: {{'x': (1, 3, 64, 64)}}")
    return {name: tuple(sizes) for name, sizes in given.items()}


def _inputs(given: str | Path | ArrayMap | None) -> Inputs | None:
    return given if isinstance(given, Mapping) else _path(given)


def _ranges(shape: RangeMap | None) -> ShapeRanges:
    """Turn each value into three shapes; a single shape is used for all three."""
    ranges = {}
    for name, given in (shape or {}).items():
        corners = [tuple(corner) for corner in given if not isinstance(corner, int)]
        sizes = tuple(size for size in given if isinstance(size, int))
        if corners and (sizes or len(corners) != 3):
            raise UsageError(f"shape {name}: give one shape, or smallest, optimal and largest")
        low, optimal, high = corners or (sizes, sizes, sizes)
        ranges[name] = (low, optimal, high)
    return ranges
