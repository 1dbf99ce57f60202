"""A wheel built from the tree installs and runs outside it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deployconv._version import __version__

ROOT = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    flags = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*PIP, "wheel", *flags, str(ROOT)], check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_it_runs_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    subprocess.run([*PIP, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    command = [sys.executable, "-m", "deployconv", "--version"]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    first = run.stdout.partition("\n")[0]
    assert (run.returncode, first, run.stderr) == (0, f"deployconv {__version__}", "")
    explain = [*command[:-1], "explain", "runtime-weight"]
    run = subprocess.run(
        explain, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert run.stdout.startswith("runtime-weight: ")
    where = [sys.executable, "-c", "import deployconv.cli; print(deployconv.cli.__file__)"]
    run = subprocess.run(
        where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert Path(run.stdout.strip()).is_relative_to(site)


SHIPPED = {".py", ".typed", ".css", ".jinja", ".toml"}
"""What kinds of files the package has."""


def test_it_holds_the_package_with_its_types_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    package = {
        name for name in names if not name.startswith(f"deployconv-{__version__}.dist-info/")
    }
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.glob("deployconv/**/*")
        if path.suffix in SHIPPED
    }
    pages = {f"deployconv/report/{name}.md" for name in ("reason-codes", "jetson-and-dla")}
    assert package == sources | pages
    assert "deployconv/targets/profiles/portable.toml" in sources
    assert any(name.endswith("/licenses/LICENSE") for name in names)
