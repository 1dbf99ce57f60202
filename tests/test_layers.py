"""Modules import downwards only, in no circle, and no one asks which kind a rewrite is."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "deployconv"

ORDER = (
    ("results", "_version"),
    ("errors", "locks", "restrictions"),
    ("temporary",),
    ("flags",),
    ("options",),
    ("polyphase",),
    ("resampling",),
    ("graph",),
    ("match",),
    ("rewrites",),
    ("targets",),
    ("runtimes",),
    ("proof",),
    ("search",),
    ("details",),
    ("rewriting",),
    ("report",),
    ("batch",),
    ("api",),
    ("cli",),
)
"""The modules and folders of the package; each may import only what stands before it."""

ALLOWED = {
    "report": {"_version", "errors", "options", "results", "temporary"},
    "runtimes": {
        "_version",
        "errors",
        "locks",
        "flags",
        "options",
        "results",
        "temporary",
        "polyphase",
        "graph",
    },
}
"""Folders that may import less than what stands before them."""

ENTRANCES = {"__init__", "__main__"}
"""Modules above all others: the public names, and ``python -m deployconv``."""

KINDS = {
    *("PolyphaseConv", "SeparableConv", "MatrixProduct", "Reshuffle"),
    *("Resample", "ResamplePhases"),
    *("Chain", "ConvInFront", "Region", "FoldedLayer", "NormalisedLayer", "SplitConv"),
    "SharedShuffle",
}
"""The classes of rewrites."""
ABILITIES = {"emit", "trial", "at_sizes"}
"""What a class must be able to do to be a rewrite."""


@dataclass(frozen=True)
class Import:
    """One module of the package imports another one."""

    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}, imports {self.imported}"


def module_name(path: Path) -> str:
    """``deployconv/graph/view.py`` is ``graph.view``; a folder is its ``__init__.py``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def imports_in(importer: str, tree: ast.AST) -> Iterator[Import]:
    """Every import of a module of the package: in functions and for types only as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{importer}, line {node.lineno}: a relative import"
            module = node.module or ""
            named = [f"{module}.{alias.name}" for alias in node.names]
            found = [name if known(name) else module for name in named]
        elif isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        else:
            continue
        for name in found:
            if name.split(".")[0] == PACKAGE.name:
                yield Import(importer, known(name) or "__init__", node.lineno)


def known(name: str) -> str | None:
    """The module called ``name``, ``deployconv.`` included; None if it is none."""
    inside = name.removeprefix(f"{PACKAGE.name}.")
    return inside if inside != name and inside in SOURCES else None


IMPORTS = [one for name, tree in TREES.items() for one in imports_in(name, tree)]


def room(module: str) -> str:
    """The folder of the package, or the module that stands beside the folders."""
    return module.partition(".")[0]


def level(module: str) -> int:
    return next(at for at, names in enumerate(ORDER) if room(module) in names)


def circle(imports: list[Import]) -> list[str]:
    """The modules of one circle of imports; empty if there is none."""
    graph: dict[str, set[str]] = {}
    for one in imports:
        graph.setdefault(one.importer, set()).add(one.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def upwards(imports: list[Import]) -> list[str]:
    """Imports of what stands higher, or at the same height in another place."""
    return [
        str(one)
        for one in imports
        if room(one.importer) not in ENTRANCES
        and room(one.importer) != room(one.imported)
        and (room(one.imported) in ENTRANCES or level(one.imported) >= level(one.importer))
    ]


def asked_kinds(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines that ask whether an object is of a kind of rewrite, and the kind."""
    for node in ast.walk(tree):
        asked: list[ast.expr] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            asked = node.args[1:] if node.func.id in ("isinstance", "issubclass") else []
        elif isinstance(node, ast.MatchClass):
            asked = [node.cls]
        elif isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            if any(
                isinstance(one, ast.Call)
                and isinstance(one.func, ast.Name)
                and one.func.id == "type"
                for one in operands
            ):
                asked = operands
        for expression in asked:
            for part in ast.walk(expression):
                name = getattr(part, "id", None) or getattr(part, "attr", None)
                if name in KINDS:
                    yield part.lineno, name


def test_every_module_has_its_place_in_the_order() -> None:
    rooms = {room(module) for module in SOURCES} - ENTRANCES
    assert rooms == {name for names in ORDER for name in names}


def test_no_circle_of_imports() -> None:
    assert circle(IMPORTS) == []


def test_nothing_imports_upwards() -> None:
    assert upwards(IMPORTS) == []


@pytest.mark.parametrize("name", ALLOWED)
def test_folders_that_may_import_less(name: str) -> None:
    outside = [
        str(one)
        for one in IMPORTS
        if room(one.importer) == name and room(one.imported) not in {name, *ALLOWED[name]}
    ]
    assert outside == []


def test_only_the_entrances_and_the_commands_import_the_public_functions() -> None:
    importers = {room(one.importer) for one in IMPORTS if room(one.imported) == "api"}
    assert importers - {"api"} == {"__init__", "cli"}


def test_nobody_asks_which_kind_a_rewrite_is() -> None:
    """What plans a rewrite or gives a reason is told apart by asking for the `Reason`."""
    asked = [
        f"{name}, line {line}: {kind}"
        for name, tree in TREES.items()
        if room(name) != "rewrites"
        for line, kind in asked_kinds(tree)
    ]
    assert asked == []


def test_the_kinds_are_all_there_are() -> None:
    classes = [
        (node.name, {part.name for part in node.body if isinstance(part, ast.FunctionDef)})
        for name, tree in TREES.items()
        if room(name) == "rewrites"
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    assert {name for name, able in classes if able >= ABILITIES} - {"Rewrite"} == KINDS


# --- the tests above see what they are to see


def imports_of(sources: Mapping[str, str]) -> list[Import]:
    return [one for name, text in sources.items() for one in imports_in(name, ast.parse(text))]


SEEN = {
    "at the top": "from deployconv.search.choice import Choice",
    "a module of a folder": "from deployconv.search import choice",
    "as a module": "import deployconv.search.choice",
    "in a function": "def f():\n    from deployconv.search.choice import Choice",
    "for types": "if TYPE_CHECKING:\n    from deployconv.search.choice import Choice",
}


@pytest.mark.parametrize("text", SEEN.values(), ids=list(SEEN))
def test_an_import_upwards_is_seen_wherever_it_stands(text: str) -> None:
    (found,) = imports_of({"graph.view": text})
    assert (found.importer, found.imported) == ("graph.view", "search.choice")
    assert upwards([found]) == [str(found)]
    assert upwards(imports_of({"api": text})) == []


def test_the_package_itself_is_above_all_its_modules() -> None:
    assert upwards(imports_of({"search.choice": "from deployconv import rewrite"})) != []
    assert upwards(imports_of({"search.choice": "import deployconv"})) != []


def test_a_circle_within_a_folder_is_seen() -> None:
    sources = {
        "graph.view": "from deployconv.graph.scope import Scope",
        "graph.scope": "if TYPE_CHECKING:\n    from deployconv.graph.view import View",
    }
    assert set(circle(imports_of(sources))) == {"graph.view", "graph.scope"}


@pytest.mark.parametrize(
    "text",
    [
        "isinstance(x, Chain)",
        "isinstance(x, (str, Chain))",
        "isinstance(x, str | chain.Chain)",
        "type(x) is Chain",
        "match x:\n    case Chain(head=h):\n        pass",
    ],
)
def test_a_question_for_the_kind_is_seen(text: str) -> None:
    assert [kind for _, kind in asked_kinds(ast.parse(text))] == ["Chain"]
    assert list(asked_kinds(ast.parse(text.replace("hain", "oice")))) == []
