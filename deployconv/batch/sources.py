"""Find the models that files, folders, globs and URLs name, and where each result is written."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from errno import ENAMETOOLONG
from pathlib import Path
from typing import Any

from deployconv.errors import UsageError
from deployconv.options import path_of

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_COLLAPSED = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/+(.*)")
_SUFFIX = ".onnx"
_REWRITTEN = ".deploy.onnx"
"""Models that `rewrite` wrote: a folder or a glob does not name them."""


@dataclass(frozen=True)
class Source:
    """One model of a call.

    Attributes:
        path: the path or URL, as messages show it.
        relative: its place below the folder or glob that named it.
        output: where the result is written; None for nowhere.
        fresh: whether there was no file at ``output`` when the call began.
        again: whether the model may have been written by an earlier try of this call.
        makes_folder: whether the folder of ``output`` is made if it is missing.
    """

    path: str
    relative: Path
    output: str | None = None
    fresh: bool = False
    again: bool = False
    makes_folder: bool = False

    @property
    def overwrites(self) -> bool:
        """Whether a file at ``output`` is from this call, and may be replaced."""
        return self.fresh and self.again

    def absolute(self) -> Source:
        """The source with absolute paths, for a process that runs in another folder."""
        return replace(self, path=_absolute(self.path), output=_absolute(self.output))

    def remove_output(self) -> None:
        """Remove what this call wrote for the model, if it is on this machine."""
        if self.fresh and self.output is not None and not is_url(self.output):
            for file in (self.output, f"{self.output}.data"):
                Path(file).unlink(missing_ok=True)


def is_url(text: str) -> bool:
    """Whether ``text`` is a URL such as ``s3://bucket/net.onnx``."""
    return _URL.match(text) is not None


def place_of(output: str | Path) -> str:
    """Return a folder or its URL as text. A URL that was made a Path has lost slashes."""
    found = _COLLAPSED.fullmatch(str(output))
    if found is None:
        return str(output)
    scheme, rest = found.groups()
    return f"{scheme}:///{rest}" if scheme in ("file", "local") else f"{scheme}://{rest}"


def _absolute(path: Any) -> Any:
    """Return a path as an absolute one; a URL, and None, as it is."""
    return path if path is None or is_url(path) else str(Path(path).absolute())


def names_one_model(arguments: Sequence[str]) -> bool:
    """Whether the arguments of a command are one file: not several, no folder, no glob."""
    if len(arguments) != 1:
        return False
    path = Path(arguments[0])
    try:
        return not path.is_dir() and (path.exists() or not glob.has_magic(arguments[0]))
    except OSError:  # its name is too long, for one: whoever reads it says so
        return True


def find_sources(
    arguments: Iterable[str | Path], outside: Path | None = None, *, urls: bool = False
) -> list[Source]:
    """Return the models that the arguments name, each once.

    A folder is searched for ``*.onnx``, without ``*.deploy.onnx``; so is a folder that a glob
    matches.

    Args:
        arguments: files, folders and globs (``**`` is any number of folders).
        outside: a folder for results: models in it are not searched.
        urls: whether URLs of models are taken too.

    Raises:
        UsageError: a path does not exist, a folder holds no model, a glob matches none.
    """
    found: dict[str, Source] = {}
    for argument in arguments:
        if isinstance(argument, str) and is_url(argument) and not urls:
            raise UsageError(f"{argument}: is a URL: download the file, or use --cluster")
        for source in _named_by(argument, outside):
            key = source.path if is_url(source.path) else str(Path(source.path).resolve())
            found.setdefault(key, source)
    return list(found.values())


def _named_by(argument: str | Path, outside: Path | None) -> Iterator[Source]:
    if isinstance(argument, str) and is_url(argument):
        yield Source(argument, Path(argument.rpartition("/")[2]))
        return
    path, text = path_of(argument), str(argument)
    try:
        path.stat()
    except OSError as error:
        if error.errno == ENAMETOOLONG:
            raise UsageError(f"{path}: {error.strerror}: check the path") from error
    if path.is_dir():
        found = [Source(str(file), file.relative_to(path)) for file in _below(path, outside)]
        if not found:
            raise UsageError(f"{path}: holds no {_SUFFIX} file: name a model or another folder")
    elif path.exists() or not glob.has_magic(text):
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder: check the path")
        found = [Source(str(path), Path(path.name))]
    else:
        found = list(_matched(text, outside))
        if not found:
            raise UsageError(f"{text}: matches no {_SUFFIX} file: check the pattern")
    yield from found


def _below(folder: Path, outside: Path | None) -> list[Path]:
    # Folders that cannot be read, or are gone meanwhile, are left out.
    files = (Path(at, name) for at, _, names in os.walk(folder) for name in names)
    return sorted(file for file in files if file.suffix == _SUFFIX and _searched(file, outside))


def _matched(pattern: str, outside: Path | None) -> Iterator[Source]:
    fixed = Path()
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed /= part
    for name in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207
        path = Path(name)
        if path.is_dir():
            if not pattern.endswith("**"):  # which matches the models in the folders, too
                for file in _below(path, outside):
                    yield Source(str(file), file.relative_to(fixed))
        elif path.suffix == _SUFFIX and _searched(path, outside):
            yield Source(name, path.relative_to(fixed))


def _searched(file: Path, outside: Path | None) -> bool:
    if file.name.endswith(_REWRITTEN):
        return False
    return outside is None or outside.resolve() not in file.resolve().parents


def with_outputs(sources: Sequence[Source], folder: str | None) -> list[Source]:
    """Give each model its output: in the same place below ``folder``, or beside the model.

    Raises:
        UsageError: two models would be written to one file, or a model of a URL beside itself.
    """
    written: dict[str, str] = {}
    placed = []
    for source in sources:
        output = _output(source, folder)
        other = written.setdefault(output, source.path)
        if other != source.path:
            raise UsageError(
                f"{output}: {other} and {source.path} would both be written there: name the "
                "folder that holds both, or run each by itself"
            )
        fresh = is_url(output) or not any(map(os.path.lexists, (output, f"{output}.data")))
        makes = folder is not None and not is_url(output)
        placed.append(replace(source, output=output, fresh=fresh, makes_folder=makes))
    return placed


def _output(source: Source, folder: str | None) -> str:
    if folder is None:
        if is_url(source.path):
            raise UsageError(f"{source.path}: is a URL: give -o FOLDER for the rewritten model")
        return str(default_output(Path(source.path)))
    if is_url(folder):
        return f"{folder.rstrip('/')}/{source.relative.as_posix()}"
    return str(Path(folder) / source.relative)


def default_output(model: Path) -> Path:
    """Return the path beside ``model`` that is written: ``model.onnx`` to ``model.deploy.onnx``."""
    stem = model.stem if model.suffix == _SUFFIX else model.name
    return model.with_name(f"{stem}{_REWRITTEN}")
