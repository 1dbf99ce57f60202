"""Turn the options of a call into what one rewrite is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from deployconv.api.arguments import feed_of
from deployconv.errors import BackendUnavailable
from deployconv.options import (
    DEFAULT_RUNTIME,
    CheckCommand,
    RewriteCommand,
    RewriteOptions,
    SiteOptions,
)
from deployconv.runtimes import get_runtime

if TYPE_CHECKING:
    from deployconv.rewriting import Request
    from deployconv.runtimes.base import ModelSource


def check_targets(names: Sequence[str], prefix: str = "--target ") -> None:
    """Raise UsageError for a compute capability that no TensorRT knows.

    ``prefix`` stands before the name in the error.
    """
    from deployconv.targets.catalogue import check_capabilities

    def compiled() -> Sequence[str]:
        from deployconv.runtimes.tensorrt.installation import find_installation

        try:
            return find_installation().targets
        except BackendUnavailable:
            return ()

    check_capabilities(names, compiled, prefix)


def backend_of(options: RewriteCommand | CheckCommand) -> str:
    """The backend of a call: the one that it names, else that of a target if it is installed.

    Raises UsageError for a target that there is not.
    """
    if options.target:
        check_targets(options.target)
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


def request_of(
    source: ModelSource, options: RewriteCommand, on_progress: Callable[[float], None] | None
) -> Request:
    """Turn the options of a call into what `rewriting.rewrite_model` takes."""
    from deployconv.rewriting import Request
    from deployconv.search.choice import TunerOptions

    feed, backend = feed_of(options), backend_of(options)
    chosen = {one.name: getattr(options, one.name) for one in fields(SiteOptions)}
    chosen["policy"] = options.policy or "all"
    runtime = get_runtime(backend)
    rewriting = RewriteOptions(
        **chosen, float_bias=runtime.needs_float_bias, shuffles=runtime.shuffles
    )
    targets, rules, warnings = None, None, []
    if options.target:
        from deployconv.runtimes.toolchains.environments import toolchain_installed, why_unusable
        from deployconv.targets.rules import rules_for

        rules = rules_for(options.target, rewriting, options.policy)
        rewriting = rules.options
        compiled = [one.compiles_for for one in rules.profiles if one.compiles_for]
        converted = [
            one.name for one in rules.profiles if options.verify and toolchain_installed(one.name)
        ]
        for one in rules.profiles if options.verify else ():
            if (why := why_unusable(one.name)) is not None:
                warnings.append(f"{one.name}: not tested with its toolchain: {why}")
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
        warnings=tuple(warnings),
    )
