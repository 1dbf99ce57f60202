"""Which models files, folders, globs and URLs name, and where the results go."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployconv.batch.sources import find_sources, names_one_model, with_outputs
from deployconv.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("in/a.onnx", "in/sub/b.onnx", "in/sub/b.deploy.onnx", "in/c[1].onnx", "in/d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


EVERYTHING = ["in/a.onnx", "in/c[1].onnx", "in/sub/b.onnx"]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["in"], EVERYTHING),
        (["in/sub/b.deploy.onnx"], ["in/sub/b.deploy.onnx"]),
        (["in/d.txt"], ["in/d.txt"]),
        (["in/c[1].onnx"], ["in/c[1].onnx"]),
        (["in/*.onnx"], ["in/a.onnx", "in/c[1].onnx"]),
        (["in/**/*.onnx"], EVERYTHING),
        (["in/**"], EVERYTHING),
        (["in/s*"], ["in/sub/b.onnx"]),
        (["in/a.onnx", "in", "./in/a.onnx"], EVERYTHING),
    ],
)
def test_files_folders_and_globs(folder: Path, arguments: list[str], found: list[str]) -> None:
    assert [source.path for source in find_sources(arguments)] == found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.onnx"], "none.onnx: no such file or folder"),
        (["in/e*.onnx"], "matches no .onnx file"),
        (["in/sub/none"], "no such file"),
        (["s3://zoo/a.onnx"], "is a URL: download the file, or use --cluster"),
    ],
)
def test_what_names_no_model(folder: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        find_sources(arguments)


@pytest.mark.parametrize(
    ("arguments", "one"),
    [
        (["in/a.onnx"], True),
        (["none.onnx"], True),
        (["-"], True),
        (["in/c[1].onnx"], True),
        (["in/*.onnx"], False),
        (["in"], False),
        (["in/a.onnx", "in/b.onnx"], False),
    ],
)
def test_one_file_is_one_model(folder: Path, arguments: list[str], one: bool) -> None:
    assert names_one_model(arguments) is one


def outputs(arguments: list[str], out: str | None) -> list[str | None]:
    outside = None if out is None else Path(out)
    return [source.output for source in with_outputs(find_sources(arguments, outside), out)]


def test_the_tree_is_kept(folder: Path) -> None:
    kept = ["out/a.onnx", "out/c[1].onnx", "out/sub/b.onnx"]
    assert outputs(["in"], "out") == kept
    assert outputs(["in/**/*.onnx"], "out") == kept
    assert outputs(["in/sub/b.onnx"], "out") == ["out/b.onnx"]
    assert outputs(["in/sub"], None) == ["in/sub/b.deploy.onnx"]


def test_what_was_written_is_not_read(folder: Path) -> None:
    (folder / "in/out").mkdir()
    (folder / "in/out/a.onnx").touch()
    assert "in/out/a.onnx" not in [one.path for one in find_sources(["in"], Path("in/out"))]


def test_two_models_are_not_written_to_one_file(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other/a.onnx").touch()
    with pytest.raises(UsageError, match=r"in/a.onnx and other/a.onnx would both be written"):
        outputs(["in", "other"], "out")


def test_urls(folder: Path) -> None:
    (source,) = find_sources(["s3://zoo/net.onnx"], urls=True)
    assert source.path == "s3://zoo/net.onnx"
    (placed,) = with_outputs([source], "s3://out/new/")
    assert placed.output == "s3://out/new/net.onnx"
    with pytest.raises(UsageError, match="give -o FOLDER"):
        with_outputs([source], None)
    assert source.absolute() == source
