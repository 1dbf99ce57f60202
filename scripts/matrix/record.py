"""The recorded runs of one target: a JSON file with one line a run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

RECORDS = Path(__file__).resolve().parents[2] / "tests" / "targets" / "recorded"
RESIZE_RECORDS = RECORDS / "resizes"
"""The runs of the Resizes, one file a target as well."""

Outcome = Literal["right", "refused", "misread", "crashed", "converted"]
"""What a toolchain made of a model. ``converted``: it took it, and nothing here can execute it."""
EXPORTED = "exported"
"""The spelling of an original."""


@dataclass(frozen=True)
class Run:
    """What a toolchain made of one form in one spelling.

    Attributes:
        form: a key of `further.EVERY`.
        spelling: ``exported``; ``default`` and ``target``, as ``rewrite`` without and with
            ``--target`` writes it; or a form and a shuffle such as ``crop-dcr``, or a form alone.
        outcome: what came out.
        words: the toolchain's own words on a refusal or crash; else how an output differs.
        error: the largest difference from onnxruntime, relative to the largest output.
        notes: what else the toolchain said, such as cycles, or operators that the CPU runs.
    """

    form: str
    spelling: str
    outcome: Outcome
    words: str = ""
    error: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.outcome not in get_args(Outcome):
            raise ValueError(f"{self.form}, {self.spelling}: no outcome {self.outcome!r}")


@dataclass(frozen=True)
class Record:
    """All runs of one target with one version of its toolchain.

    Attributes:
        target: the name of the target.
        version: the library and its version.
        date: the day of the run.
        runs: the runs, in the order of the forms.
        packages: what was installed, with versions.
        not_run: why nothing could be run; then there are no runs.
    """

    target: str
    version: str
    date: str
    runs: tuple[Run, ...]
    packages: tuple[str, ...] = ()
    not_run: str = ""

    def of(self, form: str, spelling: str) -> Run | None:
        """The run of one form in one spelling."""
        return next(
            (run for run in self.runs if (run.form, run.spelling) == (form, spelling)), None
        )


def read(path: Path) -> Record:
    """Read one file of `RECORDS`. Raises ValueError for what `write` does not write."""
    data = json.loads(path.read_text(encoding="utf-8"))
    runs = tuple(Run(**run) for run in data.pop("runs"))
    packages = tuple(data.pop("packages", ()))
    return Record(**data, runs=runs, packages=packages)


def records(folder: Path = RECORDS) -> dict[str, Record]:
    """Every record by the name of its target."""
    return {path.stem: read(path) for path in sorted(folder.glob("*.json"))}


def write(record: Record, folder: Path = RECORDS) -> Path:
    """Write ``record`` to its file in ``folder``, one run a line."""
    head = {one.name: getattr(record, one.name) for one in fields(record) if one.name != "runs"}
    lines = ",\n".join(f"  {json.dumps(_short(run))}" for run in record.runs)
    opened = json.dumps(head, indent=1).removesuffix("\n}")
    path = folder / f"{record.target}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{opened},\n "runs": [\n{lines}\n ]\n}}\n', encoding="utf-8")
    return path


def _short(run: Run) -> dict[str, Any]:
    """The fields that say something."""
    return {name: value for name, value in asdict(run).items() if value not in ("", None, {})}


def merged(old: Record, new: Iterable[Run]) -> tuple[Run, ...]:
    """The runs of ``old`` with ``new`` ones in place of those of the same form and spelling."""
    runs = {(run.form, run.spelling): run for run in old.runs}
    runs.update({(run.form, run.spelling): run for run in new})
    return tuple(runs.values())
