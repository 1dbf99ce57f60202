"""The README's tables are what the code says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from typer.main import get_command

from deployconv import errors, results
from deployconv.cli.app import app
from deployconv.options import Form, Shuffle
from deployconv.proof.compare import RTOL
from deployconv.results import DlaCode

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

MAKERS = {"Reason", "Skip", "skip"}
"""What makes a reason: the class, its name in `sites`, and the helpers there."""


def section(title: str) -> str:
    """The text below ``## title``."""
    _, _, rest = README.partition(f"\n## {title}\n")
    assert rest, f"no section '{title}'"
    return rest.partition("\n## ")[0]


def first_column(title: str) -> list[str]:
    """The first column of a section's tables, without backticks."""
    rows = re.findall(r"^\| `?([^|`]+?)`? \|", section(title), re.MULTILINE)
    return [row for row in rows if row != "---"]


def made_reasons() -> Iterator[tuple[str, ast.expr]]:
    """Where the source makes a reason, and the expression of its code."""
    for path in (ROOT / "deployconv").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if named and node.func.id in MAKERS and node.args:
                yield f"{path.name}:{node.lineno}", node.args[0]


def test_every_reason_is_listed_and_every_listed_reason_is_used() -> None:
    used = {str(code.value) for _, code in made_reasons() if isinstance(code, ast.Constant)}
    assert first_column("Reasons")[1:] == sorted(used)


def test_reason_codes_are_written_out_where_they_arise() -> None:
    # The test above reads the source, and a code that is put together would escape it.
    for place, code in made_reasons():
        assert not isinstance(code, (ast.BinOp, ast.JoinedStr)), place


def test_patterns_and_shuffles_are_listed() -> None:
    listed = {cell.strip() for cell in first_column("Patterns")} - {"pattern", ""}
    assert listed == set(get_args(results.Pattern))
    forms = first_column("Forms and shuffles")
    assert set(get_args(Shuffle)) - {"auto"} <= set(forms)
    assert set(get_args(Form)) - {"auto"} <= set(forms)


def test_exit_statuses_are_those_of_the_errors() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    statuses = {kind.status for kind in kinds if issubclass(kind, errors.DeployconvError)}
    assert first_column("Exit status")[1:] == ["0", *map(str, sorted(statuses))]


def test_commands_and_options_exist() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    listed = re.findall(r"^    deployconv ([a-z]+) [A-Z]", section("Commands"), re.MULTILINE)
    assert sorted(listed) == sorted(commands)
    known = {
        option
        for command in commands.values()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    mentioned = set(re.findall(r"(?<![\w-])--[a-z0-9]+(?:-[a-z]+)*", README))
    assert mentioned <= known | {
        "--debug",
        "--no-x",
        "--help",
        "--system-site-packages",
        "--table",
        "--show",
    }


def test_options_of_rewrite_are_all_in_its_table() -> None:
    rewrite = get_command(app).commands["rewrite"]  # type: ignore[attr-defined]
    options = {opt for p in rewrite.params for opt in p.opts if opt.startswith("--")}
    elsewhere = {"--policy", "--backend", "--json", "--output"}
    assert options - elsewhere <= set(re.findall(r"--[a-z-]+", section("Commands")))


def test_tolerances_are_those_of_parity() -> None:
    proof = " ".join(section("How a rewrite is proved").split())
    for dtype, tolerance in RTOL.items():
        mantissa, exponent = f"{tolerance:.0e}".split("e")
        assert f"{mantissa}e{int(exponent)} for {dtype}" in proof


def test_what_keeps_a_layer_off_the_dla_is_listed() -> None:
    codes = section("TensorRT").partition("\n### DLA\n")[2].partition("\n### ")[0]
    listed = re.findall(r"^\| `([a-z]+)` \|", codes, re.MULTILINE)
    assert listed == list(get_args(DlaCode))


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).is_file(), target
