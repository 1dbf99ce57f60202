"""Find the target that a call names: one that comes with deployconv, or a file of the user's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from deployconv.errors import UsageError
from deployconv.targets.capabilities import COMPILED, KNOWN, is_compute_capability
from deployconv.targets.profile import Profile, extended_name, read_profile
from deployconv.targets.toml_table import parse

_SUFFIX = ".toml"
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

    ``prefix`` stands before what was given in an error. A compute capability need not be one that
    is known, see `check_capabilities`.

    Raises:
        UsageError: there is no such target or file, or the file is wrong.
    """
    if _is_path(given):
        return _of_file(Path(given), prefix)
    if given in target_names():
        return _shipped(given)
    if is_compute_capability(given):
        return _of_capability(given)
    raise UsageError(f"{prefix}{given}: {_no_target(given)}")


def check_capabilities(
    names: Iterable[str], compiled: Callable[[], Collection[str]], prefix: str = "--target "
) -> None:
    """Raise UsageError for a compute capability that no GPU has.

    Args:
        names: the targets of a call.
        compiled: returns what an installed TensorRT compiles for; it may be newer than what is
            known here, and is asked only about what is not known.
        prefix: stands before what was given in an error.
    """
    for name in names:
        new = is_compute_capability(name) and name not in KNOWN
        if new and name not in compiled():
            raise UsageError(
                f"{prefix}{name}: {_no_target(name)}; for a newer GPU install a TensorRT that"
                f" compiles for it, or name {_TENSORRT}"
            )


def _of_capability(name: str) -> Profile:
    base = _shipped(_TENSORRT)
    if name in COMPILED:
        return replace(base, name=name, compiles_for=name)
    note = f"Nothing was compiled for {name}: these are the rules of {', '.join(COMPILED)}."
    unheld = replace(base, version="", source="", tested=(), notes=(note, *base.notes))
    return replace(unheld, name=name, compiles_for=name)


def _is_path(given: str) -> bool:
    return given.endswith(_SUFFIX) or "/" in given or "\\" in given


def _no_target(given: str) -> str:
    """Say that there is no such target, and which names are near."""
    near = get_close_matches(given.lower(), [*target_names(), *KNOWN], n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return (
        f"there is no such target: {hint}deployconv targets lists them; a file"
        f" of your own ends in {_SUFFIX}"
    )


def find_targets(given: Iterable[str]) -> tuple[Profile, ...]:
    """Return the targets that are named, each once. Raises UsageError as `find_target`."""
    return tuple(find_target(name) for name in dict.fromkeys(given))


def is_installed(profile: Profile) -> bool | None:
    """Return whether the toolchain of a target is installed here; None if it has none."""
    if profile.package is None:
        return None
    try:
        return find_spec(profile.package) is not None
    except (ImportError, ValueError):
        return False


def check_compiled(profile: Profile) -> None:
    """Raise UsageError for a target that nothing can be built for, with what can be done."""
    if profile.compiles_for is not None:
        return
    name = profile.path or profile.name
    if name == _TENSORRT:
        here = "leave --target out for the GPU of this machine"
        raise UsageError(f"--target {name}: name a compute capability such as sm89, or {here}")
    if profile.backend is not None:
        advice = f"it runs models as they are: deployconv bench --backend {profile.backend}"
    else:
        advice = f"deployconv inspect --target {name} says what it takes"
    raise UsageError(f"--target {name}: there is no toolchain to build with: {advice}")


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
        if extended not in (*target_names(), *KNOWN):
            raise file.wrong("extends", f"is '{extended}': {_no_target(extended)}")
        base = find_target(extended)
    return replace(read_profile(str(path), text, path.stem, base), path=str(path))
