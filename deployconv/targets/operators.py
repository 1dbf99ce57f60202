"""The operators that a target names in its TOML file.

An operator of ONNX is named by itself, ``Conv``; one of another domain with it,
``com.microsoft::Gelu``.
"""

from __future__ import annotations

from difflib import get_close_matches

from deployconv.graph.tensors import qualified_name
from deployconv.targets.toml_table import Table


def operators_of(table: Table, key: str) -> frozenset[str] | None:
    """Return the operators in the list ``key``; None if there is none.

    Raises UsageError for a name that ONNX does not know, with the nearest one that it does.
    """
    names = table.words(key, may_be_empty=False)
    return None if names is None else frozenset(known_operator(table, key, name) for name in names)


def known_operator(table: Table, key: str, name: str) -> str:
    """Return ``name`` as `qualified_name` writes it.

    Raises UsageError if it is no operator of ONNX, and has no domain.
    """
    import onnx.defs

    domain, separator, operator = name.rpartition("::")
    known = qualified_name(domain, operator)
    if not operator or (separator and not domain):
        raise table.wrong(key, f"has '{name}': give e.g. 'Conv', or 'com.microsoft::Gelu'")
    if known != operator or onnx.defs.has(operator):
        return known
    raise table.wrong(
        key,
        f"has '{name}', which is no operator of ONNX {onnx.__version__}: {_advice(operator)}",
    )


def _advice(operator: str) -> str:
    """What to write in place of a name that ONNX does not know."""
    import onnx.defs

    schemas = onnx.defs.get_all_schemas_with_history()
    by_lower_case = {one.name.lower(): one.name for one in schemas if not one.domain}
    near = get_close_matches(operator.lower(), by_lower_case, n=1)
    if near:
        return f"did you mean '{by_lower_case[near[0]]}'?"
    return f"write 'DOMAIN::{operator}' if it is of another domain"
