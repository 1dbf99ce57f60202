"""Print targets for people: a table of all, or what is known of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from deployconv.report.console import Table, print_lines, print_table
from deployconv.report.lines import one_line
from deployconv.results import Target, TargetRule, ToolchainEnvironment

if TYPE_CHECKING:
    from rich.console import Console

_ACTIONS: Mapping[str, str] = {
    "rewrite": "it is rewritten",
    "keep": "it is left as it is",
    "cost": "it is rewritten if that is predicted to be faster",
}
_VERDICTS: Mapping[str, str] = {
    "fits": "runs as it is",
    "refused": "is refused",
    "misread": "is misread",
    "slow": "runs, but slowly",
}


def print_targets(console: Console | None, targets: Sequence[Target]) -> None:
    """Print a table of targets."""
    columns = ("target", "what", "tested with", "backend here", "toolchain here", "layers that fit")
    table = Table(columns)
    for one in targets:
        here = _installed(one.package_here if one.backend else None), one.environment or "-"
        table.add_row(one.name, one.title, one.version or "-", *here, _short(one))
    print_table(console, table)
    print_lines(
        console,
        "",
        "compute capabilities such as sm89 and TOML files of your own are targets too",
        "deployconv targets NAME prints what is known of one",
    )


def print_toolchains(console: Console | None, environments: Sequence[ToolchainEnvironment]) -> None:
    """Print a table of toolchains, with the folder that they are installed in."""
    table = Table(("toolchain", "targets", "state", "size"))
    for one in environments:
        about = "about " if one.state == "not installed" else ""
        size = f"{about}{one.size >> 20:,} MB"
        table.add_row(one.name, ", ".join(one.targets) or "-", _state(one), size)
    print_table(console, table)
    print_lines(console, "", f"environments are in {environments[0].path.parent}")


def _state(environment: ToolchainEnvironment) -> str:
    name = environment.name
    advice = {
        "other versions": f"other versions: deployconv target install {name}",
        "incomplete": f"incomplete: deployconv target install {name}",
        "unused": f"unused: deployconv target remove {name}",
    }
    return advice.get(environment.state, environment.state)


def print_target(console: Console | None, target: Target) -> None:
    """Print what is known of one target."""
    print_lines(console, *map(one_line, _described(target)))


def _described(target: Target) -> Iterator[str]:
    yield f"{target.name}: {target.title}"
    if target.version:
        yield f"tested with: {target.version} ({target.source})"
    if target.tested:
        kinds = {"layers": "upsampling layers", "resizes": "Resizes by themselves"}
        yield f"what was run: {', '.join(kinds[one] for one in target.tested)}"
    yield from _here(target)
    yield ""
    yield "takes:" if target.takes else "takes: no limit is known"
    yield from (f"- {limit}" for limit in target.takes)
    yield f"a layer that fits and that no rule matches: {_ACTIONS[target.action]}"
    if target.prefer != ("auto",):
        order = "the best first" if target.choose == "first" else "the one that multiplies least"
        yield f"forms and shuffles, {order}: {', '.join(target.prefer)}"
    for rule in target.rules:
        yield f"- {_of_rule(rule)}"
    yield from target.notes


def _of_rule(rule: TargetRule) -> str:
    when = ", ".join(map(_condition, rule.when.items()))
    where = f" ({rule.stage})" if rule.stage else ""
    ratio = f"; rewritten {rule.ratio:g} times as fast" if rule.ratio is not None else ""
    return f"{when}: {_VERDICTS[rule.verdict]}{where}, {_ACTIONS[rule.action]}: {rule.text}{ratio}"


def _condition(item: tuple[str, bool | str]) -> str:
    name, value = item[0].replace("_", " "), item[1]
    if isinstance(value, bool):
        return name if value else f"not {name}"
    return f"{name} {value}"


def _here(target: Target) -> Iterator[str]:
    """What of the target is installed here: what runs models, and what `build` uses."""
    if target.backend is not None:
        package = f" (Python package {target.package})" if target.package else ""
        yield f"backend {target.backend}{package}: {_installed(target.package_here)}"
    elif target.package is not None and target.environment is None:
        yield f"Python package {target.package}: {_installed(target.package_here)}"
    if target.environment is not None:
        missing = target.environment != "installed"
        advice = f": deployconv target install {target.name}" if missing else ""
        yield f"toolchain of build: {target.environment}{advice}"


def _installed(here: bool | None) -> str:
    if here is None:
        return "-"
    return "installed" if here else "not installed"


def _short(target: Target) -> str:
    return {"rewrite": "rewritten", "keep": "left alone", "cost": "by cost"}[target.action]
