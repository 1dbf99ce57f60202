"""Run every form of upsampling layer in onnxruntime-web under Node.js, and record what it does.

    python scripts/web_matrix.py                   write tests/targets/recorded/ort-web.json
    python scripts/web_matrix.py --forms 'd3_*'    only these; the rest of the record stays

It needs ``node`` and ``npm``. npm installs the pinned version into the folder of the toolchains.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from matrix.forms import FORMS, Form
from matrix.record import EXPORTED, RECORDS, Record, Run, merged, read, write
from matrix.runs import SPELLINGS, compared, spelled

from deployconv.runtimes.toolchains.catalogue import Device
from deployconv.runtimes.toolchains.environments import environments_folder
from deployconv.runtimes.toolchains.program import words

TARGET = "ort-web"
PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
PROGRAM = Path(__file__).parent / "matrix" / "web.mjs"
ALL = (EXPORTED, "default", "target", *SPELLINGS)


def install(folder: Path) -> None:
    """Install the pinned version into ``folder``, if it is not there."""
    if (folder / "node_modules" / PACKAGE).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text("{}\n", encoding="utf-8")
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run([*command, f"{PACKAGE}@{VERSION}"], cwd=folder, check=True)


def run(folder: Path, form: Form, spelling: str, model: bytes) -> Run:
    """Run one model in a process of its own, and compare its output with onnxruntime's."""
    given = form.input()
    with tempfile.TemporaryDirectory() as place:
        path, source, target = (Path(place) / name for name in ("model.onnx", "x", "y"))
        path.write_bytes(model)
        source.write_bytes(given.tobytes())
        shape = json.dumps(form.sizes())
        done = subprocess.run(
            ["node", PROGRAM, folder, path, source, str(given.dtype), shape, target],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        said = done.stdout.splitlines()
        if done.returncode or not said:
            return Run(form.name, spelling, "crashed", done.stderr.strip().splitlines()[-1])
        answer = json.loads(said[-1])
        if "refused" in answer:
            return Run(form.name, spelling, "refused", words(RuntimeError(answer["refused"])))
        raw = np.frombuffer(target.read_bytes(), answer["type"])
        actual = raw.reshape(answer["shape"])
    return Run(form.name, spelling, *compared(form, actual, Device()))


def runs(folder: Path, form: Form) -> list[Run]:
    """A form in each spelling; spellings that are one model are run once."""
    models = {spelling: spelled(form.name, spelling, TARGET) for spelling in ALL}
    done: dict[bytes, Run] = {}
    for spelling, model in models.items():
        if model is not None and model not in done:
            done[model] = run(folder, form, spelling, model)
    return [
        replace(done[model], spelling=spelling)
        for spelling, model in models.items()
        if model is not None
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--forms", nargs="+", default=["*"], help="patterns of names")
    chosen = parser.parse_args()
    folder = environments_folder() / PACKAGE
    install(folder)
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    packages = (f"{PACKAGE}=={VERSION}", f"node=={node.stdout.strip().removeprefix('v')}")
    today = datetime.date.today().isoformat()
    record = Record(TARGET, f"{PACKAGE} {VERSION}", today, (), packages)
    path = RECORDS / f"{TARGET}.json"
    old = read(path).runs if path.exists() else ()
    new: list[Run] = []
    for name, form in FORMS.items():
        if any(fnmatch(name, glob) for glob in chosen.forms):
            new += runs(folder, form)
            print(
                *(f"{name} {one.spelling}: {one.outcome} {one.words}" for one in new[-8:]), sep="\n"
            )
    order = list(FORMS)
    found = merged(replace(record, runs=old), new)
    found = tuple(sorted(found, key=lambda one: (order.index(one.form), ALL.index(one.spelling))))
    write(replace(record, runs=found))
    for spelling in ALL:
        counted = Counter(one.outcome for one in found if one.spelling == spelling)
        print(f"{TARGET} {spelling}: {dict(counted)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
