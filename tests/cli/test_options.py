"""Options are defined once: flags, keyword arguments and choices all agree."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
import pytest

import deployconv
from deployconv import options, results
from deployconv.cli import main
from deployconv.cli.app import app
from deployconv.cli.parameters import arguments, help_text
from deployconv.errors import UsageError
from deployconv.flags import Command, Option, choices_of, options_of
from deployconv.rewrites.shuffles import SHUFFLES
from tests.cli.conftest import FakeApi

COMMANDS: dict[str, type[Command]] = {
    "inspect": options.InspectCommand,
    "rewrite": options.RewriteCommand,
    "verify": options.VerifyCommand,
    "bench": options.BenchCommand,
    "build": options.BuildCommand,
    "check": options.CheckCommand,
}
SEVERAL: dict[str, type[Command]] = {
    "inspect": options.JobOptions,
    "rewrite": options.BatchOptions,
    "build": options.JobOptions,
}
"""Options of the command line that are for several models: those of `deployconv.run_all`."""
EVERY_OPTION = [
    pytest.param(command, option, id=f"{command} {option.name}")
    for command, made in COMMANDS.items()
    for option in options_of(made)
]

ONLY_SHOW = {"report", "targets", "target", "diff", "explain", "doctor", "completion"}
"""Commands that have no options of a dataclass."""

MODELS = {
    "inspect": ["a.onnx"],
    "rewrite": ["a.onnx"],
    "verify": ["a.onnx", "b.onnx"],
    "bench": ["a.onnx", "b.onnx"],
    "build": ["a.onnx"],
    "check": ["models"],
}
CHOSEN_BY_THE_COMMAND = {"rewrite": {"output": Path("a.deploy.onnx")}}
"""A command writes its result beside the model; the function writes only where it is told to."""

CALLBACKS = {"on_progress", "on_result"}
"""Keyword arguments that no flag could stand for."""
SHOWN = {"--json", "--junit", "--from", "--help"}
"""Flags that say what is printed; the functions return results and print nothing."""

ACCEPTED: dict[Any, Any] = {
    Path | None: str | Path | None,
    options.Inputs | None: str | Path | Mapping[str, Any] | None,
    tuple[str, ...]: str | Sequence[str],
    options.Shapes | None: Mapping[str, Sequence[int]] | None,
    options.ShapeRanges | None: Mapping[str, Sequence[int] | Sequence[Sequence[int]]] | None,
}
"""What a function accepts for the type of an option; any other type is taken as it is."""


def signature(command: str) -> dict[str, inspect.Parameter]:
    """The keyword-only arguments of a public function."""
    made = inspect.signature(getattr(deployconv, command))
    return {name: one for name, one in made.parameters.items() if one.kind is one.KEYWORD_ONLY}


def annotations(command: str) -> dict[str, Any]:
    """The types of a public function's arguments."""
    import onnx

    names = {
        "onnx": onnx,
        "Model": str | Path | bytes | onnx.ModelProto,
        "Watcher": Callable[[Any], None],
    }
    return get_type_hints(getattr(deployconv, command), localns=names)


def flags(command: str) -> dict[str, Any]:
    """What the command line made of a command's options, by the first name of each."""
    made = app.commands[command].params
    return {one.opts[0]: one for one in made if one.opts[0].startswith("-")}


def test_every_command_has_its_options() -> None:
    assert set(COMMANDS) | ONLY_SHOW == set(app.commands)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_same_options_everywhere(command: str) -> None:
    defined = options_of(COMMANDS[command])
    assert set(signature(command)) - CALLBACKS == {option.name for option in defined}
    several = options_of(SEVERAL[command]) if command in SEVERAL else ()
    flagged = {option.flag_names[0] for option in (*defined, *several)}
    assert set(flags(command)) - SHOWN == flagged


def test_several_models_have_the_same_options_in_python() -> None:
    several = {option.name: option for option in options_of(options.BatchOptions)}
    given = signature("run_all")
    assert set(given) - CALLBACKS == {*several, "output"}
    for name, option in several.items():
        assert given[name].default == option.default


@pytest.mark.parametrize(("command", "option"), EVERY_OPTION)
def test_keyword_argument(command: str, option: Option) -> None:
    default = signature(command)[option.name].default
    if option.type == tuple[str, ...] and isinstance(default, str):
        default = (default,)
    assert default == option.default
    assert type(default) is type(option.default)
    assert annotations(command)[option.name] == ACCEPTED.get(option.type, option.type)


@pytest.mark.parametrize(("command", "option"), EVERY_OPTION)
def test_flag(command: str, option: Option) -> None:
    flag = flags(command)[option.flag_names[0]]
    assert tuple(flag.opts) == option.flag_names
    assert flag.secondary_opts == []
    assert (flag.help, flag.metavar) == (help_text(option.flag), option.flag.metavar)


@pytest.mark.parametrize("option", ["--profile", "--cuda-graph"])
def test_the_help_lists_the_backends_that_can(option: str) -> None:
    assert flags("bench")[option].help.endswith(" (backends tensorrt and tensorrt-rtx).")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_call_without_flags_has_the_defaults(api: FakeApi, command: str) -> None:
    main([command, *MODELS[command]])
    defaults = {**arguments(COMMANDS[command]()), **CHOSEN_BY_THE_COMMAND.get(command, {})}
    if "shape" in defaults:
        defaults["shape"] = {}
    given = {name: value for name, value in api.options.items() if name not in CALLBACKS}
    assert given == defaults


@pytest.mark.parametrize(("command", "option"), EVERY_OPTION)
def test_values_of_a_flag(api: FakeApi, command: str, option: Option) -> None:
    flag = option.flag_names[-1]
    for words, value in samples_of(option):
        api.calls.clear()
        words_given = [part for word in words for part in (flag, word)] if words else [flag]
        main([command, *MODELS[command], *words_given])
        assert api.options[option.name] == value


@pytest.mark.parametrize(("command", "option"), EVERY_OPTION)
def test_values_that_a_flag_refuses(
    api: FakeApi, capsys: pytest.CaptureFixture[str], command: str, option: Option
) -> None:
    refused = ["neither"] if choices_of(option.type) else []
    if option.flag.minimum is not None:
        refused += [str(int(option.flag.minimum) - 1), "many"]
    for word in refused:
        assert main([command, *MODELS[command], option.flag_names[0], word]) == 2
        assert option.flag_names[0] in capsys.readouterr().err
    assert api.calls == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rewrite", "a.onnx", "--seed", "x"], "--seed x: give a whole number from 0 on"),
        (["rewrite", "a.onnx", "--seed", "1.5"], "--seed 1.5: give a whole number from 0 on"),
        (["rewrite", "a.onnx", "--seed", "-1"], "--seed -1: give a whole number from 0 on"),
        (["rewrite", "a.onnx", "--jobs", "0"], "--jobs 0: give a whole number from 1 to 1024"),
        (["bench", "a.onnx", "--threads", ""], "--threads '': give a whole number from 1 to 1024"),
        (["check", "a", "--timeout", "soon"], "--timeout soon: give a number from 0.1 to 604800"),
        (["check", "a", "--timeout", "inf"], "--timeout inf: give a number from 0.1 to 604800"),
        (["check", "--junit", "a.onnx", "b.onnx"], "--junit a.onnx: is a model; name a file"),
        (["rewrite", "a.onnx", "--max-memory", "-1"], "--max-memory -1: give a number from 0 on"),
        (["rewrite", "a.onnx", "--report", ""], "--report: a path is empty: name a file"),
        (["build", "a.onnx", "--shape", "x"], "--shape 'x': expected NAME:SIZE,SIZE,... with"),
        (["inspect", ""], "MODEL...: a path is empty: name a file"),
        (["target"], "Missing command; see deployconv target --help"),
        (["rewrite", "a.onnx", "--seed"], "Option '--seed' requires an argument; see deployconv r"),
    ],
)
def test_a_wrong_value_is_told_with_its_option(
    api: FakeApi, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(f"deployconv: error: {said}")


VALUED = [
    pytest.param(command, option.opts[0], id=f"{command} {option.opts[0]}")
    for command, made in app.commands.items()
    for option in made.params
    if isinstance(option, click.Option) and not option.is_flag
]


@pytest.mark.parametrize(("command", "flag"), VALUED)
@pytest.mark.parametrize("word", ["x", "-1", "", None])
def test_a_value_of_the_wrong_type_is_one_plain_line(
    api: FakeApi,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: str,
    flag: str,
    word: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = MODELS.get(command, ["a.json"])
    status = main([command, *arguments, flag, *([] if word is None else [word])])
    said = capsys.readouterr().err
    if word is None:
        assert (status, "requires an argument" in said) == (2, True)
    if status == 2:
        assert said.startswith("deployconv: error: ")
        assert said.count("\n") == 1
        assert not re.search("range|Errno|float|Usage|<=", said)


def samples_of(option: Option) -> list[tuple[list[str], Any]]:
    """Some values of an option: what is written after its flag, and what the function gets."""
    kinds = {option.type, *get_args(option.type)}
    if choices := choices_of(option.type):
        return [([choice], choice) for choice in choices]
    if bool in kinds:
        return [([], not option.default)]
    if option.type == options.Shapes | None:
        return [(["x:1,2", "y:3"], {"x": (1, 2), "y": (3,)})]
    if option.type == options.ShapeRanges | None:
        return [(["x:1..2..3"], {"x": ((1,), (2,), (3,))})]
    if option.type == tuple[str, ...]:
        return [(["one"], ("one",)), (["one", "two"], ("one", "two"))]
    (word, value) = next(
        (word, kind(word))
        for word, kind in (("7", int), ("2.5", float), ("x", str), ("x", Path))
        if kind in kinds
    )
    return [([word], value)]


@pytest.mark.parametrize(
    ("made", "wrong", "message"),
    [
        (options.RewriteCommand, {"policy": "quickest"}, "policy 'quickest' is not known: choose"),
        (
            options.RewriteCommand,
            {"form": "square"},
            "choose auto, crop, .* polyphase or normalised",
        ),
        (options.RewriteCommand, {"shuffle": "riffle"}, "shuffle 'riffle' is not known"),
        (options.RewriteCommand, {"budget": 0.5}, "budget is 0.5: .* from 1 on, or infinity"),
        (options.RewriteCommand, {"max_memory": float("nan")}, "max_memory is nan: give a number"),
        (options.VerifyCommand, {"threads": 0}, "threads is 0: give a number from 1 to 1024$"),
        (options.BenchCommand, {"runs": 0}, "runs is 0"),
        (options.CheckCommand, {"seed": -1}, "seed is -1"),
    ],
)
def test_values_that_are_refused(made: Any, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made(**wrong)


def test_the_planner_gets_the_options_of_rewrite() -> None:
    shared = {option.name for option in options_of(options.SiteOptions)}
    planner = {one.name for one in fields(options.RewriteOptions)}
    assert planner - shared == {"float_bias", "may_match_nothing", "request_for", "shuffles"}
    assert shared <= {option.name for option in options_of(options.RewriteCommand)}


def test_shuffles_are_those_of_the_registry() -> None:
    assert list(get_args(results.ShuffleName)) == list(SHUFFLES)
    assert get_args(options.Shuffle) == ("auto", *SHUFFLES)


def test_forms_and_shuffles_of_the_report() -> None:
    assert set(get_args(results.FormName)) == {*get_args(options.Form), "conv"} - {"auto"}
    types = get_type_hints(results.SiteReport)
    assert types["form"] == results.FormName | None
    assert types["shuffle"] == results.ShuffleName | None
