"""A target as data: what its TOML file says of a runtime, a compiler or an NPU.

``docs/targets.md`` describes every key. A file has general keys, one table ``takes`` with what the
target takes at all, and any number of ``layers``: rules for layers that it does not take, misreads,
or runs slowly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import inf
from typing import Any, NamedTuple, cast, get_args

from onnx.defs import onnx_opset_version

from deployconv.flags import choices_of
from deployconv.options import Form, Shuffle
from deployconv.restrictions import ChannelOrder, Restrictions
from deployconv.results import TargetAction, TargetChoice, TargetVerdict
from deployconv.targets.facts import FACTS
from deployconv.targets.geometry_facts import Value
from deployconv.targets.operators import known_operator, operators_of
from deployconv.targets.toml_table import LARGEST, Table, parse

Condition = bool | tuple[str, ...] | tuple[int, ...] | range
"""What a fact must be: this truth value, one of these, or in this range."""

_MODES: tuple[ChannelOrder, ...] = ("DCR", "CRD")
DTYPES = (
    *("float16", "bfloat16", "float32", "float64"),
    *("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool", "string"),
)
BACKENDS = (
    "ort",
    "ort:cuda",
    "ort:tensorrt",
    "tensorrt",
    "tensorrt-rtx",
    "openvino",
    "tract",
    "mnn",
)
"""What ``backend`` may name: the runtimes, which this folder may not import."""
TESTED = ("layers", "resizes")
"""The kinds of layers that runs are recorded of: Resizes by themselves, and all other ones."""
_SWITCHES = (
    *("dynamic_sizes", "integer_bias", "reshape_zero", "reshape_minus_one", "computed_shapes"),
    *("crops", "transposed_pads", "edge_pads", "matrix_first", "col2im", "shuffle_in_twos"),
    "symbolic_shapes",
)
"""Keys of ``takes`` that are true or false."""


class Spelling(NamedTuple):
    """A form and a shuffle, as the options of these names."""

    form: Form
    shuffle: Shuffle

    def __str__(self) -> str:
        named = [one for one in self if one != "auto"]
        return " ".join(named) or "auto"


AUTOMATIC = Spelling("auto", "auto")


@dataclass(frozen=True)
class Rule:
    """What a target does with the layers that all conditions hold for.

    Attributes:
        when: conditions by the name of a fact (`facts.FACTS`).
        verdict: ``fits``, ``refused``, ``misread`` or ``slow``.
        text: what was seen, in one line.
        stage: where a layer is refused, e.g. ``import``, ``compile``.
        action: what to do; None for what follows from the verdict.
        prefer: forms and shuffles to try first; None for those of the profile.
        ratio: time of the original / time rewritten, as far as it was measured.
        source: where this is known from.
        version: of the target that it holds for.
    """

    when: Mapping[str, Condition]
    verdict: TargetVerdict
    text: str
    stage: str | None = None
    action: TargetAction | None = None
    prefer: tuple[Spelling, ...] | None = None
    ratio: float | None = None
    source: str = ""
    version: str = ""

    @property
    def needed(self) -> bool:
        """Whether a layer that the rule matches cannot stay as it is."""
        return self.verdict in ("refused", "misread")

    def holds(self, facts: Mapping[str, Value]) -> bool:
        """Whether every condition holds; a fact that is not known fulfils none."""
        return all(_holds(condition, facts.get(name)) for name, condition in self.when.items())


@dataclass(frozen=True)
class Takes(Restrictions):
    """What a target takes at all, in any model: what limits a rewrite, and what limits the model.

    Attributes:
        col2im: few targets have it, so it has to be stated.
        dtypes: element types of tensors; None for any.
        min_opset, max_opset: the versions of the ONNX operators.
        dynamic_sizes: whether the inputs of a model may have dynamic sizes.
        integer_bias: whether the bias of a quantized layer may be int32.
    """

    col2im: bool = False
    dtypes: frozenset[str] | None = None
    min_opset: int = 1
    max_opset: int | None = None
    dynamic_sizes: bool = True
    integer_bias: bool = True

    @property
    def restrictions(self) -> Restrictions:
        """The part that limits what a rewrite writes."""
        given = {one.name: getattr(self, one.name) for one in fields(Restrictions)}
        if self.operators is not None and "Slice" not in self.operators:
            given["crops"] = False
        if self.operators is not None and "Col2Im" in self.operators:
            given["col2im"] = True
        return Restrictions(**given)


@dataclass(frozen=True)
class Profile:
    """One target.

    Attributes:
        name: what ``--target`` takes.
        title: its full name.
        version: of the target that it was tested with; empty if there is none.
        source: where this is known from.
        takes: what it takes at all.
        layers: rules for single layers.
        action: what is done with a layer that fits as it is and that no rule matches.
        prefer: forms and shuffles, the best first.
        choose: which of them a layer gets: ``first``, the first one that fits, or
            ``fewest-multiplications``, the first one of those that multiply least.
        package: the Python package of its toolchain, which need not be installed; None if there
            is none.
        backend: the backend that executes it; None if there is none.
        compiles_for: the compute capability that ``deployconv build`` compiles for; None if it
            does not.
        documented: the built-in rules that say what keeps a layer off it, ``dla``; None for none.
        tested: the kinds of layers that were run on it, see `TESTED`. A layer of another kind that
            no rule speaks of is not said to be taken.
        notes: sentences for people.
        path: the file of a user; None for a target that comes with deployconv.
    """

    name: str
    title: str
    version: str = ""
    source: str = ""
    takes: Takes = field(default_factory=Takes)
    layers: tuple[Rule, ...] = ()
    action: TargetAction = "rewrite"
    prefer: tuple[Spelling, ...] = (AUTOMATIC,)
    choose: TargetChoice = "first"
    package: str | None = None
    backend: str | None = None
    compiles_for: str | None = None
    documented: str | None = None
    tested: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    path: str | None = None


_ACTIONS: tuple[str, ...] = get_args(TargetAction)
PROFILE_KEYS = (
    *("extends", "name", "title", "version", "source", "action", "prefer", "choose", "package"),
    *("backend", "documented", "tested", "notes", "takes", "layers"),
)
RULE_KEYS = tuple(one.name for one in fields(Rule))
TAKES_KEYS = (*(one.name for one in fields(Takes) if "opset" not in one.name), "opset")


def read_profile(name: str, text: str, stem: str, base: Profile | None = None) -> Profile:
    """Read a target from the text of its TOML file.

    Args:
        name: how messages name the file.
        text: its content.
        stem: the target's name if the file gives none.
        base: the target that it extends.

    Raises:
        UsageError: the file is not TOML, or has a wrong key, type or value.
    """
    file = parse(name, text)
    file.check_keys(PROFILE_KEYS)
    start = base or Profile(stem, stem)
    prefer = _prefer(file)
    source = _or(file.get("source", str), start.source)
    version = _or(file.get("version", str), start.version)
    layers = tuple(_rule(table, source, version) for table in file.tables("layers"))
    takes = _takes(file.table("takes"), start.takes)
    profile = replace(
        start,
        name=file.get("name", str) or stem,
        title=file.get("title", str) or (start.title if base else file.get("name", str) or stem),
        version=version,
        source=source,
        takes=takes,
        # What a file adds is looked at before what it extends.
        layers=(*layers, *start.layers),
        action=cast(TargetAction, file.word("action", _ACTIONS) or start.action),
        prefer=prefer or start.prefer,
        choose=cast(TargetChoice, file.word("choose", get_args(TargetChoice)) or start.choose),
        package=_or(file.get("package", str), start.package),
        backend=_or(file.word("backend", BACKENDS), start.backend),
        documented=_or(file.word("documented", ("dla",)), start.documented),
        tested=_or(file.words("tested", TESTED), start.tested),
        notes=_or(file.words("notes"), start.notes),
    )
    return profile


def extended_name(name: str, text: str) -> str | None:
    """Return the name of the target that a TOML file extends; None if it extends none."""
    return parse(name, text).get("extends", str)


def _or(given: Any, otherwise: Any) -> Any:
    return otherwise if given is None else given


def _prefer(table: Table) -> tuple[Spelling, ...] | None:
    """The forms and shuffles in the list ``prefer``, each as ``"FORM SHUFFLE"``."""
    given = table.words("prefer")
    if given is None:
        return None
    if not given:
        raise table.wrong("prefer", "is empty: leave it out, or name a form and a shuffle")
    forms, shuffles = choices_of(Form), choices_of(Shuffle)
    found = []
    for words in given:
        form = [word for word in words.split() if word in forms]
        shuffle = [word for word in words.split() if word in shuffles and word not in form]
        if len(form) + len(shuffle) != len(words.split()) or len(form) > 1 or len(shuffle) > 1:
            raise table.wrong(
                "prefer",
                f"has '{words}': give a form ({', '.join(forms)}), a shuffle"
                f" ({', '.join(shuffles)}), or one of each",
            )
        found.append(Spelling(*cast(tuple[Form, Shuffle], (*(form or ["auto"]), "auto"))))
        if shuffle:
            found[-1] = found[-1]._replace(shuffle=cast(Shuffle, shuffle[0]))
    return tuple(found)


def _takes(table: Table, start: Takes) -> Takes:
    table.check_keys(TAKES_KEYS)
    given: dict[str, Any] = {name: table.get(name, bool) for name in _SWITCHES}
    dtypes = table.words("dtypes", DTYPES, may_be_empty=False)
    given["operators"] = operators_of(table, "operators")
    given["dtypes"] = None if dtypes is None else frozenset(dtypes)
    given["max_rank"] = table.number("max_rank", 1)
    opset = table.table("opset")
    opset.check_keys(("min", "max"))
    given["min_opset"], given["max_opset"] = opset.number("min", 1), opset.number("max", 1)
    newest = onnx_opset_version()
    if (given["min_opset"] or 0) > newest:
        raise opset.wrong("min", f"is {given['min_opset']}: no opset is above {newest}")
    given["depth_to_space"] = _depth_to_space(table)
    takes = replace(start, **{name: value for name, value in given.items() if value is not None})
    if takes.max_opset is not None and takes.min_opset > takes.max_opset:
        raise table.wrong("opset", f"takes {takes.min_opset} to {takes.max_opset}, which is none")
    return takes


def _depth_to_space(table: Table) -> Mapping[ChannelOrder, tuple[int, ...] | None] | None:
    if table.get("depth_to_space", dict) is None:
        return None
    modes = table.table("depth_to_space")
    modes.check_keys(_MODES)
    found: dict[ChannelOrder, tuple[int, ...] | None] = {}
    for mode in _MODES:
        blocks = modes.values.get(mode)
        if blocks == "any":
            found[mode] = None
        elif isinstance(blocks, list) and all(type(one) is int and one > 1 for one in blocks):
            found[mode] = tuple(blocks)
        elif blocks is not None:
            raise modes.wrong(mode, 'is no list of block sizes: give e.g. [2, 4], or "any"')
    return found


def _rule(table: Table, source: str, version: str) -> Rule:
    """Read one rule; ``source`` and ``version`` are those of the file, for a rule without."""
    table.check_keys(RULE_KEYS)
    when = table.table("when")
    when.check_keys(FACTS)
    if not when.values:
        lacks = "is empty" if "when" in table.values else "is missing"
        raise table.wrong("when", f"{lacks}: say which layers the rule is for")
    return Rule(
        when={name: _condition(when, name) for name in when.values},
        verdict=cast(TargetVerdict, table.word("verdict", get_args(TargetVerdict)) or "fits"),
        text=table.required("text", str),
        stage=table.get("stage", str),
        action=cast(TargetAction | None, table.word("action", _ACTIONS)),
        prefer=_prefer(table),
        ratio=_ratio(table),
        source=_or(table.get("source", str), source),
        version=_or(table.get("version", str), version),
    )


def _ratio(table: Table) -> float | None:
    value = table.get("ratio", float)
    if value is not None and not 0 < value < inf:
        raise table.wrong("ratio", f"is {value:g}: give a number above 0")
    return value


def _condition(when: Table, name: str) -> Condition:
    """Read the condition for one fact, which must be of the fact's type."""
    value, kind = when.values[name], FACTS[name].kind
    if kind is bool:
        return cast(bool, when.get(name, bool))
    if value == []:
        raise when.wrong(name, "is empty: no layer fulfils that")
    if kind is str:
        words = value if isinstance(value, list) else [value]
        for word in words:
            if not isinstance(word, str):
                raise when.wrong(name, 'is no text: give e.g. "a", or ["a", "b"]')
            if name == "operator":
                known_operator(when, name, word)
            if FACTS[name].words:
                when.check_known(name, word, FACTS[name].words)
        return tuple(words)
    if isinstance(value, dict):
        bounds = when.table(name)
        bounds.check_keys(("min", "max"))
        if not bounds.values:
            raise when.wrong(name, "is empty: give min, max or both")
        least, most = bounds.number("min", 0) or 0, bounds.number("max", 0)
        if most is not None and most < least:
            raise when.wrong(name, f"is from {least} to {most}: no layer fulfils that")
        return range(least, LARGEST if most is None else most + 1)
    numbers: Sequence[Any] = value if isinstance(value, list) else (value,)
    if not all(type(one) is int for one in numbers):
        raise when.wrong(name, "is no number: give e.g. 2, [2, 4] or {min = 3}")
    for number in numbers:
        when.check_number(name, number, 0)
    return tuple(numbers)


def _holds(condition: Condition, value: Value) -> bool:
    if value is None:
        return False
    if isinstance(condition, bool):
        return condition is value
    return value in condition
