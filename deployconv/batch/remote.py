"""Models at URLs: read into a temporary folder, and written from there (fsspec)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from deployconv.batch.sources import Source, is_url
from deployconv.errors import UsageError
from deployconv.results import Rewriting
from deployconv.temporary import temporary_folder

R = TypeVar("R")


@contextlib.contextmanager
def local_copy(source: Source) -> Iterator[Source]:
    """Yield ``source`` with paths of this machine in place of URLs.

    The model and its external data are copied here first. What is written is copied to its URL
    at the end, the model last, unless the body raises.

    Raises:
        UsageError: fsspec is not installed, or a URL cannot be read or written.
    """
    remote_output = source.output is not None and is_url(source.output)
    if not is_url(source.path) and not remote_output:
        yield source
        return
    with temporary_folder() as folder:
        path = source.path
        if is_url(path):
            path = str(_fetched(path, folder / "in"))
        output = source.output
        if output is not None and remote_output:
            (folder / "out").mkdir()
            output = str(folder / "out" / source.relative.name)
        yield replace(source, path=path, output=output)
        if source.output is not None and remote_output:
            _put(folder / "out", source.output)


def named_as(source: Source, result: R) -> R:
    """Return ``result`` with the paths of ``source``, for one that was made under others."""
    if isinstance(result, Rewriting) and result.output is not None and source.output is not None:
        result = replace(result, output=replace(result.output, path=source.output))
    origin = getattr(result, "source", None)
    if origin is None:
        return result
    return replace(result, source=replace(origin, path=source.path))  # type: ignore[type-var]


def _fetched(url: str, folder: Path) -> Path:
    """Copy a model and its external data to ``folder``; return the copy of the model."""
    import onnx

    from deployconv.graph.tensors import ExternalData, all_tensors, is_external

    system, remote = _system(url)
    folder.mkdir()
    path = folder / remote.rpartition("/")[2]
    with _as_usage_error(url, "read"):
        system.get_file(remote, str(path))
        try:
            model = onnx.load(path, load_external_data=False)
        except Exception:  # what is wrong with it is said when it is loaded
            return path
        external = [one for one in all_tensors(model) if is_external(one)]
        for location in {ExternalData.of(one).location for one in external}:
            target = folder / location
            if folder.resolve() not in target.resolve().parents:
                continue  # refused when the model is loaded
            with contextlib.suppress(FileNotFoundError):  # said then, too
                target.parent.mkdir(parents=True, exist_ok=True)
                system.get_file(f"{remote.rpartition('/')[0]}/{location}", str(target))
    return path


def _put(folder: Path, url: str) -> None:
    """Copy the files in ``folder`` to the folder of ``url``, the model last."""
    system, remote = _system(url)
    parent, _, name = remote.rpartition("/")
    with _as_usage_error(url, "written"):
        system.makedirs(parent, exist_ok=True)
        for file in sorted(folder.iterdir(), key=lambda file: file.name == name):
            temporary = f"{parent}/.{file.name}.part"
            system.put_file(str(file), temporary)
            system.mv(temporary, f"{parent}/{file.name}")


def _system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and its path there."""
    try:
        import fsspec
    except ImportError as error:
        raise UsageError(f"{url}: needs fsspec: pip install 'deployconv[cluster]'") from error
    try:
        system, remote = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{url}: cannot be opened ({error})") from error
    return system, str(remote)


@contextlib.contextmanager
def _as_usage_error(url: str, done: str) -> Iterator[None]:
    """Raise UsageError for whatever a file system raises."""
    try:
        yield
    except FileNotFoundError as error:
        raise UsageError(f"{url}: no such file: check the URL") from error
    except Exception as error:  # each file system has errors of its own
        raise UsageError(f"{url}: cannot be {done} ({error})") from error
