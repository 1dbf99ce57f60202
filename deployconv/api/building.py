"""Compile a model for targets; install, list and remove the toolchains that do so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deployconv.api.arguments import RangeMap, as_names, as_path, as_ranges, source_of
from deployconv.errors import UsageError
from deployconv.options import BuildCommand, FeedOptions
from deployconv.results import BuildReport, ToolchainEnvironment

if TYPE_CHECKING:
    from deployconv.api.arguments import Model


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
        UsageError, ModelError: the call or the model is at fault; or there is no toolchain for a
            target, such as ``ort``, or TensorRT does not compile for a compute capability.
        BackendUnavailable: TensorRT or the toolchain of a target is not installed, or no target is
            named and there is no GPU.
    """
    from deployconv.graph.load import load
    from deployconv.runtimes.tensorrt.compile import build_engines
    from deployconv.runtimes.toolchains.catalogue import toolchain_of
    from deployconv.targets.catalogue import check_compiled, find_target

    options = BuildCommand(
        target=as_names(target),
        backend=backend,
        shape=as_ranges(shape),
        engine=as_path(engine),
        fp16=fp16,
        force=force,
    )
    converted = [name for name in options.target if toolchain_of(name)]
    if converted:
        from deployconv.proof.toolchain_builds import build_with_toolchains

        _require_no_engine(options, converted)
        sizes = {name: optimal for name, (_, optimal, _) in (options.shape or {}).items()}
        feed = FeedOptions(sizes)
        return build_with_toolchains(load(model), source_of(model), converted, feed)
    for name in options.target:
        if name.lower() != "dla":  # of which the compiler itself says why not
            check_compiled(find_target(name))
    return build_engines(
        load(model),
        source_of(model),
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


def install_toolchain(target: str, *, on_wait: Callable[[], None] | None = None) -> Path:
    """Install the toolchain of a target, and return the Python of its environment.

    The environment is in the user's data folder, with pinned versions. One that is there is kept.
    Another process that installs it is waited for.

    Args:
        target: the target, as `targets` lists it, or the name of a toolchain.
        on_wait: called before a wait for another process.

    Raises:
        UsageError: there is no toolchain for it.
        BackendUnavailable: it cannot be installed here, or cannot be loaded.
    """
    from deployconv.runtimes.toolchains.call import require_loadable
    from deployconv.runtimes.toolchains.catalogue import get_toolchain
    from deployconv.runtimes.toolchains.environments import install

    toolchain = get_toolchain(target)
    python = install(toolchain, on_wait=on_wait)
    require_loadable(toolchain, python)
    return python


def list_toolchains() -> tuple[ToolchainEnvironment, ...]:
    """List the toolchains: whether each is installed, where, and how large it is."""
    from deployconv.runtimes.toolchains.environments import environments

    return environments()


def remove_toolchain(target: str, *, on_wait: Callable[[], None] | None = None) -> Path:
    """Remove the environment of a toolchain, and return the folder that it was in.

    Args:
        target: a target, or the name that `list_toolchains` gives the environment.
        on_wait: called before a wait for another process that installs it.

    Raises:
        UsageError: there is no such environment.
        BackendUnavailable: it cannot be removed.
    """
    from deployconv.runtimes.toolchains.environments import remove

    return remove(target, on_wait=on_wait)
