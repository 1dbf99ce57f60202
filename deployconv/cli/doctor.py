"""``deployconv doctor``: what can be used on this machine, and what to install for the rest."""

from __future__ import annotations

from importlib.util import find_spec

import click

_EXTRAS = {
    "report": ("--report and deployconv report", ("jinja2", "matplotlib", "networkx")),
    "cluster": ("--cluster", ("distributed", "fsspec")),
}
"""What other extras are for, and the libraries that they install."""


@click.command
def doctor() -> None:
    """Show which runtimes, toolchains and GPUs are here, and what to install for the rest."""
    from deployconv.report import console
    from deployconv.report.lines import one_line
    from deployconv.runtimes.installed import gpus, runtime_states
    from deployconv.runtimes.toolchains.catalogue import TOOLCHAINS
    from deployconv.runtimes.toolchains.environments import state_of

    out = console.stdout()
    table = console.Table(("backend", "state", "found"))
    states = runtime_states()
    for state in states:
        table.add_row(state.name, console.Verdict(state.state), one_line(state.found))
    console.print_table(out, table)
    console.print_lines(out, "")
    for name in gpus():
        console.print_lines(out, f"GPU: {one_line(name)}")
    if not gpus():
        console.print_lines(out, "GPU: none found (nvidia-smi lists none)")
    ready = [name for name, toolchain in TOOLCHAINS.items() if state_of(toolchain) == "installed"]
    console.print_lines(
        out,
        f"toolchains for build: {', '.join(ready) or 'none installed'}"
        "; deployconv target list shows all",
    )
    for extra, (use, libraries) in _EXTRAS.items():
        missing = [name for name in libraries if find_spec(name) is None]
        needed = f"needs {', '.join(missing)}: pip install 'deployconv[{extra}]'"
        console.print_lines(out, f"{use}: {needed if missing else 'usable'}")
    advice = dict.fromkeys(one.install for one in states if one.install is not None)
    for install in advice:
        names = ", ".join(one.name for one in states if one.install == install)
        console.print_lines(out, f"for {names}: {install}")
