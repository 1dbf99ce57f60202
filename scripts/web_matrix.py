"""Run every form of upsampling layer in onnxruntime-web under Node.js, and record what it does.

    python scripts/web_matrix.py                   write tests/targets/recorded/ort-web.json
    python scripts/web_matrix.py --forms 'd3_*'    only these; the rest of the record stays
    python scripts/web_matrix.py --resizes         the Resizes instead of the forms

It needs ``node`` and ``npm``. npm installs the pinned version into the folder of the toolchains,
if it is not there.
"""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from matrix.arguments import add_layers, chosen_layers, new_parser, status_of
from matrix.forms import Form
from matrix.further import EVERY
from matrix.record import EXPORTED, Record, Run
from matrix.runs import RESIZE_SPELLINGS, SPELLINGS, compared, in_each_spelling, record_runs

from deployconv.errors import BackendUnavailable
from deployconv.runtimes.toolchains.catalogue import Device
from deployconv.runtimes.toolchains.environments import environments_folder
from deployconv.runtimes.toolchains.program import words

TARGET = "ort-web"
PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
PROGRAM = Path(__file__).parent / "matrix" / "web.mjs"


def install(folder: Path) -> None:
    """Install the pinned version into ``folder``, if it is not there."""
    if (folder / "node_modules" / PACKAGE).exists():
        return
    called("npm", "--version", folder=Path())  # before the folder is made
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text("{}\n", encoding="utf-8")
    wanted = f"{PACKAGE}@{VERSION}"
    called("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", wanted, folder=folder)


def called(program: str, *arguments: str, folder: Path) -> str:
    """What ``program`` prints. Raises BackendUnavailable if it is not installed, or fails."""
    if shutil.which(program) is None:
        raise BackendUnavailable(f"{program} is not on PATH: install Node.js, which brings npm")
    done = subprocess.run(
        [program, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise BackendUnavailable(f"{program} {arguments[0]} failed: {said[0]}")
    return done.stdout


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


def main() -> int:
    parser = new_parser(__doc__)
    add_layers(parser)
    chosen = parser.parse_args()
    names, place = chosen_layers(chosen)
    others = RESIZE_SPELLINGS if chosen.resizes else ("default", *SPELLINGS)
    folder = environments_folder() / PACKAGE
    install(folder)
    node = called("node", "--version", folder=folder).strip().removeprefix("v")
    packages = (f"{PACKAGE}=={VERSION}", f"node=={node}")
    today = datetime.date.today().isoformat()
    runs = (
        one
        for name in names
        for one in in_each_spelling(
            name, (EXPORTED, "target", *others), TARGET, partial(run, folder, EVERY[name])
        )
    )
    record_runs(Record(TARGET, f"{PACKAGE} {VERSION}", today, (), packages), runs, place)
    return 0


if __name__ == "__main__":
    sys.exit(status_of(main))
