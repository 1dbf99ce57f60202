"""Describe a target for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from deployconv.results import Target, TargetAction, TargetRule
from deployconv.targets.catalogue import is_installed
from deployconv.targets.profile import Condition, Profile, Rule, Takes
from deployconv.targets.toml_table import LARGEST


def describe(profile: Profile) -> Target:
    """Return a target as reports show it."""
    return Target(
        name=profile.name,
        title=profile.title,
        version=profile.version,
        source=profile.source,
        installed=is_installed(profile),
        package=profile.package,
        backend=profile.backend,
        action=profile.action,
        prefer=tuple(map(str, profile.prefer)),
        choose=profile.choose,
        takes=tuple(limits(profile.takes)),
        rules=tuple(_rule(rule, profile) for rule in profile.layers),
        notes=profile.notes,
        tested=profile.tested,
        package_here=is_installed(profile),
    )


def limits(takes: Takes) -> Iterator[str]:
    """Yield a sentence for each limit that a target has."""
    if takes.operators is not None:
        yield f"operators: {', '.join(sorted(takes.operators))}"
    for mode, blocks in (takes.depth_to_space or {}).items():
        sizes = "any block size" if blocks is None else f"blocks of {' or '.join(map(str, blocks))}"
        yield f"DepthToSpace in mode {mode}: {sizes}"
    if takes.depth_to_space is not None and not takes.depth_to_space:
        yield "no DepthToSpace"
    if takes.max_rank is not None:
        yield f"tensors of at most {takes.max_rank} dimensions"
    if takes.dtypes is not None:
        yield f"element types: {', '.join(sorted(takes.dtypes))}"
    if takes.min_opset > 1 or takes.max_opset is not None:
        yield f"opset {takes.min_opset} to {takes.max_opset or 'the newest'}"
    refused = {
        "sizes of inputs that are dynamic": takes.dynamic_sizes,
        "an int32 bias in a quantized layer": takes.integer_bias,
        "a literal 0 in a Reshape": takes.reshape_zero,
        "a literal -1 in a Reshape": takes.reshape_minus_one,
        "a Reshape to sizes that are computed as the model runs": takes.computed_shapes,
        "a Slice that crops the result": takes.restrictions.crops,
        "a Pad that repeats the edge of an image": takes.edge_pads,
        "a MatMul whose first input is a constant": takes.matrix_first,
        "pads of a ConvTranspose": takes.transposed_pads,
        "names of dynamic sizes in value_info": takes.symbolic_shapes,
    }
    for what, taken in refused.items():
        if not taken:
            yield f"not {what}"
    if not takes.restrictions.col2im:
        yield "Col2Im is not known to be taken"
    if takes.shuffle_in_twos:
        yield "a DepthToSpace of 4 is written as two of 2"


def _rule(rule: Rule, profile: Profile) -> TargetRule:
    follows: TargetAction = "rewrite" if rule.verdict != "fits" else profile.action
    return TargetRule(
        when={name: _shown(condition) for name, condition in rule.when.items()},
        verdict=rule.verdict,
        text=rule.text,
        action=rule.action or follows,
        stage=rule.stage,
        prefer=tuple(map(str, rule.prefer or ())),
        ratio=rule.ratio,
        source=rule.source,
        version=rule.version,
        conditions={name: _stated(condition) for name, condition in rule.when.items()},
    )


def _stated(condition: Condition) -> bool | Sequence[str | int] | Mapping[str, int]:
    """A condition as a file of a target states it."""
    if not isinstance(condition, range):
        return condition
    end = {} if condition.stop >= LARGEST else {"max": condition.stop - 1}
    return {"min": condition.start, **end}


def _shown(condition: Condition) -> bool | str:
    if isinstance(condition, bool):
        return condition
    if isinstance(condition, range):
        return (
            f"{condition.start} or more"
            if condition.stop >= LARGEST
            else (f"{condition.start} to {condition.stop - 1}")
        )
    return " or ".join(map(str, condition))
