"""Find the target that a call names: one that comes with deployconv, or a file of the user's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from deployconv.errors import UsageError
from deployconv.targets.profile import Profile, extended_name, read_profile
from deployconv.targets.toml_table import parse

_SUFFIX = ".toml"
_COMPUTE_CAPABILITY = re.compile(r"sm\d+")
_TENSORRT = "tensorrt"
"""The target that compute capabilities such as ``sm89`` are variants of."""


@cache
def target_names() -> tuple[str, ...]:
    """Return the names of the targets that come with deployconv, ``portable`` first."""
    found = sorted(
        entry.name.removesuffix(_SUFFIX)
        for entry in (files(__package__) / "profiles").iterdir()
        if entry.name.endswith(_SUFFIX)
    )
    return ("portable", *(name for name in found if name != "portable"))


def find_target(given: str, prefix: str = "--target ") -> Profile:
    """Return the target that ``given`` names: a name, a compute capability, or a TOML file.

    ``prefix`` stands before what was given in an error.

    Raises:
        UsageError: there is no such target or file, or the file is wrong.
    """
    if _is_path(given):
        return _of_file(Path(given), prefix)
    if given in target_names():
        return _shipped(given)
    if is_compute_capability(given):
        return replace(_shipped(_TENSORRT), name=given, compiles_for=given)
    raise UsageError(f"{prefix}{given}: {_no_target(given)}")


def _is_path(given: str) -> bool:
    return given.endswith(_SUFFIX) or "/" in given or "\\" in given


def _no_target(given: str) -> str:
    """Say that there is no such target, and which names are near."""
    near = get_close_matches(given.lower(), [*target_names(), "sm86", "sm89", "sm120"], n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return (
        f"there is no such target: {hint}deployconv targets lists them; a file"
        f" of your own ends in {_SUFFIX}"
    )


def find_targets(given: Iterable[str]) -> tuple[Profile, ...]:
    """Return the targets that are named, each once. Raises UsageError as `find_target`."""
    return tuple(find_target(name) for name in dict.fromkeys(given))


def is_compute_capability(name: str) -> bool:
    """Whether ``name`` is a compute capability of NVIDIA's GPUs, such as ``sm89``."""
    return _COMPUTE_CAPABILITY.fullmatch(name) is not None


def is_installed(profile: Profile) -> bool | None:
    """Return whether the toolchain of a target is installed here; None if it has none."""
    if profile.package is None:
        return None
    try:
        return find_spec(profile.package) is not None
    except (ImportError, ValueError):
        return False


def check_compiled(profile: Profile) -> None:
    """Raise UsageError if deployconv drives no compiler of a target."""
    if profile.compiles_for is None:
        raise UsageError(
            f"--target {profile.name}: deployconv drives no compiler of it: name a compute "
            f"capability such as sm89; inspect --target {profile.name} says what it takes"
        )


@cache
def _shipped(name: str) -> Profile:
    text = (files(__package__) / "profiles" / f"{name}{_SUFFIX}").read_text(encoding="utf-8")
    base = extended_name(name, text)
    return read_profile(f"{name}{_SUFFIX}", text, name, _shipped(base) if base else None)


def _of_file(path: Path, prefix: str) -> Profile:
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except IsADirectoryError as error:
        raise UsageError(f"{prefix}{path}: is a folder: name a TOML file") from error
    except FileNotFoundError as error:
        raise UsageError(f"{prefix}{path}: no such file: check the path") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{prefix}{path}: is not UTF-8 text: name a TOML file") from error
    except ValueError as error:
        raise UsageError(f"{prefix}{str(path)!r}: is no path of a file") from error
    except OSError as error:
        raise UsageError(f"{prefix}{path}: cannot be read ({error.strerror})") from error
    extended = extended_name(str(path), text)
    base = None
    if extended is not None:
        file = parse(str(path), text)
        if _is_path(extended):
            raise file.wrong("extends", f"is '{extended}', another file: name a target")
        if extended not in target_names() and not is_compute_capability(extended):
            raise file.wrong("extends", f"is '{extended}': {_no_target(extended)}")
        base = find_target(extended)
    return replace(read_profile(str(path), text, path.stem, base), path=str(path))
