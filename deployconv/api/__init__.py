"""The public functions. Nothing heavy is imported before one of them is called.

Their keyword arguments are the options that ``options.py`` defines for each command, written out
for editors and type checkers.
"""

from deployconv.api.building import (
    build,
    install_toolchain,
    list_toolchains,
    remove_toolchain,
)
from deployconv.api.checking import check
from deployconv.api.comparing import bench, diff, verify
from deployconv.api.inspecting import inspect, list_targets
from deployconv.api.many import run_all, run_one
from deployconv.api.pages import drawn
from deployconv.api.rewriting import rewrite
from deployconv.results import Displayed

__all__ = [
    "bench",
    "build",
    "check",
    "diff",
    "inspect",
    "install_toolchain",
    "list_targets",
    "list_toolchains",
    "remove_toolchain",
    "rewrite",
    "run_all",
    "run_one",
    "verify",
]

Displayed.draw = drawn
