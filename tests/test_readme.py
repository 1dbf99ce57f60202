"""The tables of the README and of the docs are what the code says."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import pytest

import deployconv
from deployconv import errors, results
from deployconv.cli.app import app
from deployconv.options import Form, Policy
from deployconv.options import Shuffle as ShuffleOption
from deployconv.proof.compare import RTOL
from deployconv.report import document
from deployconv.results import DlaCode
from deployconv.rewrites.base import Rewrite
from deployconv.rewrites.shuffles import SHUFFLES, Shuffle
from deployconv.runtimes import RUNTIMES, Runtime
from deployconv.targets.catalogue import find_target, target_names
from deployconv.targets.facts import FACTS
from deployconv.targets.profile import PROFILE_KEYS, RULE_KEYS, TAKES_KEYS, read_profile
from tests.test_layers import ORDER

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]

TARGET = results.TargetModel("npu", "an NPU", "", "")

MAKERS = {"Reason", "skip"}
"""What makes a reason: the class, and the helpers in `match`."""

COMMANDS: dict[str, Any] = {
    name: one for name, one in app.commands.items() if not isinstance(one, click.Group)
}


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def section(name: str, title: str) -> str:
    """The text of a page below the heading ``title``, up to the next one of its level."""
    found = re.search(rf"^(#+) {re.escape(title)}\n", page(name), re.MULTILINE)
    assert found, f"no section '{title}' in {name}.md"
    rest = page(name)[found.end() :]
    return re.split(rf"^#{{1,{len(found[1])}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the first table in ``text``, without its header."""
    table = re.search(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert table, "no table"
    lines = table[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def listed(text: str) -> list[str]:
    """What stands in backticks in the first column of the first table in ``text``."""
    return [name for row in rows(text) for name in re.findall(r"`([^`]+)`", row[0])]


def flags(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z0-9]+(?:-[a-z0-9]+)*", text))


def options(command: str) -> set[str]:
    return {
        option
        for parameter in COMMANDS[command].params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--") and option != "--help"
    }


def made_reasons() -> Iterator[tuple[str, ast.expr]]:
    """Where the source makes a reason, and the expression of its code."""
    for path in (ROOT / "deployconv").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if named and node.func.id in MAKERS and node.args:
                yield f"{path.name}:{node.lineno}", node.args[0]


def test_every_reason_is_listed_and_every_listed_reason_is_used() -> None:
    used = {str(code.value) for _, code in made_reasons() if isinstance(code, ast.Constant)}
    assert listed(page("reason-codes")) == sorted(used)


def test_reason_codes_are_written_out_where_they_arise() -> None:
    # The test above reads the source, and a code that is put together would escape it.
    for place, code in made_reasons():
        assert not isinstance(code, (ast.BinOp, ast.JoinedStr)), place


def test_patterns_are_listed() -> None:
    patterns = [row[0].strip("`") for row in rows(page("patterns"))]
    assert set(filter(None, patterns)) == set(get_args(results.Pattern))


def field(name: str) -> Any:
    """The type of a field of `SiteReport`, as it is written there."""
    hints = inspect.get_annotations(results.SiteReport, eval_str=True)
    return hints[name]


def test_forms_and_shuffles_are_those_of_the_options_and_of_the_reports() -> None:
    forms = listed(section("forms-and-shuffles", "Forms"))
    assert set(forms) == set(get_args(get_args(field("form"))[0]))
    assert set(get_args(Form)) - {"auto"} == set(forms) - {"conv"}
    shuffles = listed(section("forms-and-shuffles", "Shuffles"))
    assert shuffles == list(get_args(get_args(field("shuffle"))[0]))
    assert shuffles == [name for name in get_args(ShuffleOption) if name != "auto"]
    assert shuffles == list(SHUFFLES)


def test_policies_are_listed() -> None:
    assert listed(page("policies")) == list(get_args(Policy))


def test_backends_are_listed() -> None:
    assert listed(section("command-line", "Backends")) == list(RUNTIMES)
    costs = listed(section("policies", "How `cost` predicts"))
    assert costs == list(RUNTIMES)


def test_exit_statuses_are_those_of_the_errors() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in kinds if issubclass(kind, errors.DeployconvError)]
    statuses = {kind.status for kind in kinds}
    table = rows(section("command-line", "Exit status"))
    assert [row[0] for row in table] == ["0", *map(str, sorted(statuses))]
    raised = {row[0].strip("`"): int(row[1]) for row in rows(section("python", "Errors"))}
    expected = {kind.__name__: kind.status for kind in kinds}
    del expected["DeployconvError"]
    assert raised == expected


def test_commands_are_listed() -> None:
    named = re.findall(
        r"^    deployconv ([a-z]+)(?: +[A-Z]|  )", page("command-line"), re.MULTILINE
    )
    assert sorted(named) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_each_command_are_those_in_its_table(command: str) -> None:
    documented = set().union(*(flags(row[0]) for row in rows(section("command-line", command))))
    assert options(command) == documented


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_mentioned_options_exist(path: Path) -> None:
    known = set().union(*map(options, COMMANDS))
    elsewhere = {
        *("--help", "--version", "--debug", "--no-x"),  # of every command; a placeholder
        *("--table", "--system-site-packages", "--show"),  # of scripts, venv, jetson_clocks
        *("--nthreads", "--nworkers"),  # of dask worker
        *("--keep", "--frameworks", "--environments", "--quick"),  # of scripts
        *("--layers", "--tables", "--resizes", "--models"),
    }
    assert flags(path.read_text(encoding="utf-8")) <= known | elsewhere


def test_functions_are_listed_and_arguments_are_the_flags() -> None:
    functions = [name.partition("(")[0] for name in listed(section("python", "Functions"))]
    public = {name for name in deployconv.__all__ if inspect.isfunction(getattr(deployconv, name))}
    assert set(functions) == public
    negated = {flag.replace("--no-", "--") for flag in options("rewrite")}
    arguments = {
        f"--{name.replace('_', '-')}"
        for name, parameter in inspect.signature(deployconv.rewrite).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert arguments - options("rewrite") - negated == {"--on-progress"}


def test_tolerances_are_those_of_parity() -> None:
    table = {row[0].strip("`"): row[1] for row in rows(section("verification", "Parity"))}
    assert table.pop("integers, bool") == "equal"
    assert {dtype: float(tolerance) for dtype, tolerance in table.items()} == dict(RTOL)


def test_what_keeps_a_layer_off_the_dla_is_listed() -> None:
    assert listed(section("jetson-and-dla", "What keeps a layer off the DLA")) == list(
        get_args(DlaCode)
    )


@pytest.mark.parametrize(
    ("title", "kinds"),
    [
        ("model", [results.ModelInfo]),
        ("sites", [results.SiteReport]),
        ("candidates", [results.Candidate, results.Prediction]),
        ("parity", [results.Parity]),
        ("other_sizes", [results.SizeParity]),
        ("outputs", [results.OutputParity]),
        ("latency", [results.Latency]),
        ("targets", [results.TargetBuild]),
        ("Several models", [results.BatchReport]),
        ("targets of a site", [results.TargetSite]),
        ("targets of a model", [results.TargetModel]),
    ],
)
def test_keys_of_json_are_those_of_the_results(title: str, kinds: list[Any]) -> None:
    keys = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    if title == "targets":
        keys.add("builds")
    assert set(listed(section("json", title))) == keys


def test_codes_of_misfits_and_the_keys_that_they_are_about_are_listed() -> None:
    assert set(listed(section("json", "misfits"))) == set(get_args(results.MisfitCode))
    keys = " ".join(row[2] for row in rows(section("json", "misfits")))
    named = set(re.findall(r"`([a-z0-9_]+)`", keys))
    assert named == set(TAKES_KEYS) - {"shuffle_in_twos"}


def test_the_example_has_the_keys_of_the_results_in_their_order() -> None:
    (block,) = re.findall(r"^```json\n(.*?)^```", section("json", "An example"), re.M | re.S)
    shown = json.loads(block)
    source = results.ModelInfo(None, None, 18, 10)
    assert list(shown) == list(document.of_rewriting(results.Rewriting(source, ())))
    for kind, made in {
        results.ModelInfo: shown["model"],
        results.SiteReport: shown["sites"][0],
        results.Parity: shown["parity"],
        results.OutputParity: shown["parity"]["outputs"][0],
        results.NotRun: shown["not_run"][0],
    }.items():
        assert list(made) == [field.name for field in dataclasses.fields(kind)]


def test_targets_and_the_facts_of_their_rules_are_listed() -> None:
    profiles = [find_target(name) for name in target_names()]
    shown = rows(section("targets", "Targets"))
    assert shown == [[f"`{one.name}`", one.title, one.version] for one in profiles]
    kinds = {bool: "true or false", int: "number", str: "text"}
    facts = [[f"`{name}`", kinds[one.kind], one.meaning] for name, one in FACTS.items()]
    assert rows(section("targets", "Conditions")) == facts


@pytest.mark.parametrize(
    ("title", "keys"),
    [
        ("What is done with a layer", get_args(results.TargetVerdict)),
        ("Keys", PROFILE_KEYS),
        ("What it takes", TAKES_KEYS),
        ("Rules for layers", RULE_KEYS),
    ],
)
def test_keys_of_a_target_are_listed(title: str, keys: tuple[str, ...]) -> None:
    assert set(listed(section("targets", title))) == set(keys)


def test_the_example_of_a_target_is_one() -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```", page("targets"), re.M | re.S)
    profile = read_profile("npu.toml", text, "npu")
    assert profile.takes.operators is not None
    assert len(profile.layers) == 1


def test_keys_of_each_document_are_listed() -> None:
    source = results.ModelInfo(None, None, 18, 10)
    made = {
        "inspect": document.of_inspection(results.Inspection(source, (), "dla", "", (TARGET,))),
        "rewrite": document.of_rewriting(results.Rewriting(source, ())),
        "verify": document.of_verification(()),
        "bench": document.of_timing((), ()),
        "build": document.of_build(results.BuildReport(source, "", (), ())),
        "check": document.of_batch(results.CheckReport()),
        "diff": document.of_difference(
            results.ModelDifference(source, source, (), (), (), (), (), ())
        ),
        "targets": document.of_targets(()),
    }
    table = {
        name: row[1]
        for row in rows(section("json", "Documents"))
        for name in re.findall(r"`([a-z]+)`", row[0])[:1]
    }
    assert set(table) == set(made)
    for command, content in made.items():
        keys = set(content) - {"schema_version", "tool"}
        assert keys <= set(re.findall(r"`([a-z_]+)`", table[command])), command


def test_extras_are_those_of_the_package() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = project.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    assert set(listed(section("index", "Install"))) == set(
        re.findall(r"^([a-z]+) = \[", extras, re.MULTILINE)
    )


def test_map_of_the_code_names_every_folder_and_file_that_there_is() -> None:
    package = ROOT / "deployconv"
    named = set(listed(section("contributing", "Map of the code")))
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    modules = {path.name for path in package.glob("*.py") if not path.name.startswith("_")}
    assert named == folders | modules


def test_map_of_the_code_is_in_the_order_of_imports() -> None:
    named = listed(section("contributing", "Map of the code"))
    assert [name.strip("/").removesuffix(".py") for name in named] == [
        name for names in ORDER for name in names if not name.startswith("_")
    ]


def test_what_a_rewrite_is_stands_in_the_protocol() -> None:
    (block,) = re.findall(
        r"^```python\n(.*?)^```", section("contributing", "What a rewrite is"), re.M | re.S
    )
    (shown,) = ast.parse(block).body
    assert isinstance(shown, ast.ClassDef)
    names = [
        part.target.id
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
        else getattr(part, "name", "")
        for part in shown.body
    ]
    assert names == [name for name in vars(Rewrite) if not name.startswith("_")]


@pytest.mark.parametrize(("title", "row"), [("Add a shuffle", Shuffle), ("Add a runtime", Runtime)])
def test_fields_of_a_new_row_are_those_of_the_registry(title: str, row: Any) -> None:
    step = re.search(
        rf"Add a `{row.__name__}` row(.*?)^\d\.", section("contributing", title), re.M | re.S
    )
    assert step
    named = set(re.findall(r"`([a-z_]+)`", step[1]))
    assert named
    assert named <= {field.name for field in dataclasses.fields(row)}


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert sorted(re.findall(r"([a-z0-9-]+\.md)$", navigation, re.MULTILINE)) == sorted(
        path.name for path in DOCS
    )


def test_the_readme_is_for_the_first_five_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    # Those within docs/ are looked at by `mkdocs build --strict` as well, with their anchors.
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        if target.startswith("https://"):
            continue
        linked = path.parent / file if file else path
        assert linked.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") for heading in headings}
            assert anchor in slugs, target
