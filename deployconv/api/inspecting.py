"""`inspect`: list upsampling layers; `list_targets`: list where models can run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from deployconv.api.arguments import as_names, source_of
from deployconv.api.requests import check_targets
from deployconv.options import InspectCommand, RewriteOptions
from deployconv.results import Inspection, Target

if TYPE_CHECKING:
    from deployconv.api.arguments import Model


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

    options = InspectCommand(target=as_names(target), freeze_initializers=freeze_initializers)
    loaded = load(model)
    plain = RewriteOptions(freeze_initializers=options.freeze_initializers)
    if not options.target:
        return Inspection(loaded.info, plan_model(loaded, plain).reports)
    from deployconv.rewriting import inspect_for_targets
    from deployconv.targets.rules import rules_for

    check_targets(options.target)
    return inspect_for_targets(loaded, source_of(model), rules_for(options.target, plain, None))


def list_targets(name: str | None = None) -> tuple[Target, ...]:
    """List the targets that come with deployconv, or describe one.

    Args:
        name: a target, or a TOML file; None for all that come with deployconv.

    Raises:
        UsageError: there is no such target, or its file is wrong.
    """
    from deployconv.runtimes.toolchains.catalogue import toolchain_of
    from deployconv.runtimes.toolchains.environments import state_of
    from deployconv.targets.catalogue import find_target, target_names
    from deployconv.targets.describe import describe

    if name:
        check_targets((name,), prefix="")
    profiles = [find_target(one, prefix="") for one in ((name,) if name else target_names())]
    found = []
    for target in map(describe, profiles):
        toolchain = toolchain_of(target.name)
        state = None if toolchain is None else state_of(toolchain)
        here = state == "installed" or target.installed
        found.append(replace(target, installed=here, environment=state))
    return tuple(found)
