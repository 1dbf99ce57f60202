"""Profiles: those that come with deployconv are whole, and faults of a file are one line each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deployconv.errors import UsageError
from deployconv.runtimes.registry import RUNTIMES
from deployconv.targets.capabilities import COMPILED, KNOWN
from deployconv.targets.catalogue import (
    check_capabilities,
    find_target,
    find_targets,
    is_installed,
    target_names,
)
from deployconv.targets.profile import BACKENDS, Profile, Spelling
from deployconv.targets.toml_table import line_of
from tests.targets.npu import NPU, written

NAMED = {
    *("portable", "ort", "tensorrt", "dla", "openvino", "ncnn", "mnn", "tract", "iree", "tvm"),
    *("litert", "ethos-u55", "ethos-u65", "ethos-u85", "qnn", "ort-web", "rk3588", "rk3566"),
    *("rv1106", "esp32p4", "esp32s3", "imx500"),
}


def test_every_target_is_there() -> None:
    assert set(target_names()) == NAMED
    assert target_names()[0] == "portable"


@pytest.mark.parametrize("name", target_names())
def test_profile_has_source_and_version_everywhere(name: str) -> None:
    profile = find_target(name)
    assert profile.name == name
    assert profile.title
    assert profile.version
    assert profile.source
    for rule in profile.layers:
        assert rule.when
        assert rule.text
        assert rule.source
        assert rule.version
        assert rule.ratio is None or rule.verdict in ("fits", "slow")


@pytest.mark.parametrize("name", target_names())
def test_what_is_said_to_be_slower_rewritten_has_a_ratio_below_one(name: str) -> None:
    for rule in find_target(name).layers:
        if rule.ratio is not None:
            assert (rule.ratio < 1) == (rule.action == "keep"), rule.text


def test_a_target_may_name_every_backend() -> None:
    assert set(BACKENDS) == set(RUNTIMES)


def test_compute_capabilities_are_variants_of_tensorrt() -> None:
    profile = find_target("sm89")
    assert (profile.name, profile.compiles_for) == ("sm89", "sm89")
    assert profile.layers == find_target("tensorrt").layers


@pytest.mark.parametrize("name", [*KNOWN, "sm130"])
def test_what_no_rule_was_held_against_says_so(name: str) -> None:
    profile, held = find_target(name), name in COMPILED
    assert (profile.version != "", profile.source != "", profile.tested != ()) == (held,) * 3
    assert any(f"Nothing was compiled for {name}" in one for one in profile.notes) != held


def test_a_compute_capability_that_nobody_knows_is_no_target() -> None:
    asked: list[str] = []

    def compiled() -> tuple[str, ...]:
        asked.append("TensorRT")
        return ("sm89", "sm130")

    check_capabilities(("openvino", "sm89", "sm87", "npu.toml"), compiled)
    assert asked == []  # it takes a second to ask
    check_capabilities(("sm130",), compiled)
    with pytest.raises(UsageError, match=r"^--target sm999: there is no such target: .* sm90 or"):
        check_capabilities(("sm89", "sm999"), compiled)


def test_a_file_extends_no_compute_capability_that_there_is_not(tmp_path: Path) -> None:
    assert find_target(written(tmp_path, 'extends = "sm87"')).compiles_for == "sm87"
    with pytest.raises(UsageError, match="line 1: 'extends' is 'sm999': there is no such target"):
        find_target(written(tmp_path, 'extends = "sm999"'))


def test_a_target_that_is_named_twice_counts_once() -> None:
    assert [one.name for one in find_targets(["mnn", "ort", "mnn"])] == ["mnn", "ort"]


def test_installed_is_whether_the_package_is_found(tmp_path: Path) -> None:
    def installed(package: str) -> bool | None:
        return is_installed(find_target(written(tmp_path, f'package = "{package}"')))

    assert installed("numpy")
    assert installed("no_such_package") is False
    assert installed("no_such.package") is False
    assert is_installed(find_target("portable")) is None


def test_a_file_of_the_user_needs_few_keys(tmp_path: Path) -> None:
    profile = find_target(written(tmp_path, "action = 'rewrite'", "my.npu.toml"))
    assert (profile.name, profile.version, profile.layers) == ("my.npu", "", ())
    assert profile.prefer == (Spelling("auto", "auto"),)
    assert find_target(written(tmp_path, NPU)).takes.operators == {
        *("Conv", "Relu", "Concat", "Reshape", "Transpose")
    }


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("openvno", "did you mean openvino?"),
        ("rk3568", "did you mean rk3588 or rk3566?"),
        ("OpenVINO", "did you mean openvino?"),
        ("sm", "there is no such target"),
        ("", "there is no such target"),
        ("quite something else", "deployconv targets lists them"),
    ],
)
def test_an_unknown_target(name: str, nearest: str) -> None:
    with pytest.raises(UsageError) as error:
        find_target(name)
    assert nearest in str(error.value)
    assert "\n" not in str(error.value)


RULE = """
[[layers]]
when = {stride = 2}
text = "one"

[[layers]]
when = {stride = 2, batchs = 1}
text = "two"
"""

FAULTS = {
    "wrong key": ("[takes]\n\nmax_rnk = 4", 3, "takes.max_rnk", "did you mean 'max_rank'?"),
    "wrong key, far off": ("xyzzy = 1", 1, "xyzzy", "known are extends, name"),
    "wrong type": ('[takes]\nmax_rank = "four"', 2, "takes.max_rank", "'four': give a whole"),
    "boolean for a number": ("[takes]\nmax_rank = true", 2, "takes.max_rank", "is true: give"),
    "number for a boolean": ("[takes]\ncrops = 1", 2, "takes.crops", "is 1: give true or false"),
    "table for text": ("name = {a = 1}", 1, "name", "is a table: give text in quotes"),
    "date": ("name = 2026-01-01", 1, "name", "is a date or time: give text"),
    "list of another type": ("[takes]\noperators = [1]", 2, "takes.operators", "is 1: give text"),
    "no list": ('[takes]\noperators = "Conv"', 2, "takes.operators", "give a list"),
    "out of range": ("[takes]\nmax_rank = 0", 2, "takes.max_rank", "is 0: give a whole number"),
    "unknown word": ('action = "rewrit"', 1, "action", "did you mean 'rewrite'?"),
    "unknown type": ('[takes]\ndtypes = ["half"]', 2, "takes.dtypes", "is 'half', which is not"),
    "unknown form": ('prefer = ["crop x"]', 1, "prefer", "has 'crop x': give a form"),
    "two forms": ('prefer = ["crop pad"]', 1, "prefer", "or one of each"),
    "no form": ("prefer = []", 1, "prefer", "is empty"),
    "block size": (
        "[takes]\ndepth_to_space = {DCR = [1]}",
        *(2, "takes.depth_to_space.DCR", "is no list of block sizes"),
    ),
    "mode": (
        "[takes]\ndepth_to_space = {DRC = [2]}",
        *(2, "takes.depth_to_space.DRC", "did you mean 'DCR'?"),
    ),
    "opset": ("[takes.opset]\nmaximum = 19", 2, "takes.opset.maximum", "did you mean 'max'?"),
    "condition of the second rule": (RULE, 7, "layers.when.batchs", "did you mean 'batch'?"),
    "rule without a condition": ("[[layers]]\ntext = 'x'", 1, "layers.when", "is missing"),
    "rule without a text": ("[[layers]]\nwhen = {stride = 2}", 1, "layers.text", "is missing"),
    "no tables": ("layers = [1]", 1, "layers", "is 1: give a table"),
    "text for a number": (
        "[[layers]]\nwhen = {stride = 'two'}\ntext = 'x'",
        *(2, "layers.when.stride", "is no number"),
    ),
    "number for a word": (
        "[[layers]]\nwhen = {dtype = 16}\ntext = 'x'",
        *(2, "layers.when.dtype", "is no text: give e.g."),
    ),
    "unknown word in a condition": (
        "[[layers]]\nwhen = {pattern = 'conv_transpos'}\ntext = 'x'",
        *(2, "layers.when.pattern", "did you mean 'conv_transpose'?"),
    ),
    "condition that nothing fulfils": (
        "[[layers]]\nwhen = {stride = []}\ntext = 'x'",
        *(2, "layers.when.stride", "is empty: no layer fulfils that"),
    ),
    "range that begins after its end": (
        "[[layers]]\nwhen = {stride = {min = 5, max = 2}}\ntext = 'x'",
        *(2, "layers.when.stride", "is from 5 to 2: no layer fulfils that"),
    ),
    "negative condition": (
        "[[layers]]\nwhen = {stride = -2}\ntext = 'x'",
        *(2, "layers.when.stride", "is -2: give a whole number from 0 on"),
    ),
    "far too large a condition": (
        f"[[layers]]\nwhen = {{stride = {{max = {10**30}}}}}\ntext = 'x'",
        *(2, "layers.when.stride.max", "is too large"),
    ),
    "far too large a limit": (f"[takes]\nmax_rank = {10**30}", 2, "takes.max_rank", "is too large"),
    "far too large a ratio": (
        f"[[layers]]\nwhen = {{stride = 2}}\ntext = 'x'\nratio = {10**400}",
        *(4, "layers.ratio", "is too large"),
    ),
    "ratio that is no number": (
        "[[layers]]\nwhen = {stride = 2}\ntext = 'x'\nratio = nan",
        *(4, "layers.ratio", "is nan: give a number above 0"),
    ),
    "opsets that contradict": (
        "[takes]\nopset = {min = 19, max = 11}",
        *(2, "takes.opset", "takes 19 to 11, which is none"),
    ),
    "operator in the wrong case": (
        '[takes]\nmax_rank = 4\noperators = ["conv", "Relu"]',
        *(3, "takes.operators", "has 'conv', which is no operator of ONNX"),
    ),
    "operator in capitals": (
        '[takes]\noperators = ["RELU"]',
        *(2, "takes.operators", "did you mean 'Relu'?"),
    ),
    "misspelt operator": (
        '[takes]\noperators = ["Conv", "ConvTransposed"]',
        *(2, "takes.operators", "did you mean 'ConvTranspose'?"),
    ),
    "operator of another domain without it": (
        '[takes]\noperators = ["Xyzzy"]',
        *(2, "takes.operators", "write 'DOMAIN::Xyzzy' if it is of another domain"),
    ),
    "domain without an operator": (
        '[takes]\noperators = ["mine::"]',
        *(2, "takes.operators", "has 'mine::': give e.g. 'Conv'"),
    ),
    "operator without its domain": (
        '[takes]\noperators = ["::Conv"]',
        *(2, "takes.operators", "has '::Conv': give e.g. 'Conv'"),
    ),
    "operator in the wrong case in a condition": (
        "[[layers]]\nwhen = {operator = 'convtranspose'}\ntext = 'x'",
        *(2, "layers.when.operator", "did you mean 'ConvTranspose'?"),
    ),
    "no operators": ("[takes]\noperators = []", 2, "takes.operators", "is empty"),
    "no types": ("[takes]\ndtypes = []", 2, "takes.dtypes", "is empty"),
    "empty condition of a rule": (
        "[[layers]]\nwhen = {}\ntext = 'x'",
        2,
        "layers.when",
        "is empty",
    ),
    "empty range": (
        "[[layers]]\nwhen = {stride = {}}\ntext = 'x'",
        *(2, "layers.when.stride", "is empty: give min, max or both"),
    ),
    "empty text": (
        "[[layers]]\nwhen = {stride = 2}\ntext = ''",
        *(3, "layers.text", "is empty: leave it out, or give text"),
    ),
    "empty name": ('name = " "', 1, "name", "is empty: leave it out, or give text"),
    "unknown backend": ('backend = "openvno"', 1, "backend", "did you mean 'openvino'?"),
    "opset that there is not": ("[takes]\nopset = {min = 99}", 2, "takes.opset.min", "is 99: no"),
    "extends no target": ('extends = "ncn"', 1, "extends", "did you mean ncnn"),
    "extends a file": ('extends = "npu.toml"', 1, "extends", "another file: name a target"),
    "quoted key with a dot": ('"takes.max_rank" = 3', 1, "takes.max_rank", "is no key of a target"),
    "unknown verdict": (
        "[[layers]]\nwhen = {stride = 2}\nverdict = 'refuse'\ntext = 'x'",
        *(3, "layers.verdict", "did you mean 'refused'?"),
    ),
}


@pytest.mark.parametrize(("text", "line", "key", "what"), FAULTS.values(), ids=list(FAULTS))
def test_a_fault_is_one_line_with_file_line_and_key(
    text: str, line: int, key: str, what: str, tmp_path: Path
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as error:
        find_target(path)
    message = str(error.value)
    assert message.startswith(f"{path}, line {line}: '{key}' ")
    assert what in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is empty"),
        ("# nothing but a comment\n", "is empty"),
        ("name =", ", line 1: not TOML: Invalid value"),
        ("a = 1\nb == 2", r", line 2, column \d+: not TOML"),
        ("name = 'a'\nname = 'b'", "not TOML"),
        ("extends = 'openvno'", "did you mean openvino"),
        ("extends = 1", "'extends' is 1: give text"),
        pytest.param("a = " + "9" * 5000, "a number has too many digits", id="digits"),
        pytest.param("a = " + "[" * 5000, "lists or tables are nested too deeply", id="nested"),
    ],
)
def test_a_file_that_is_no_target(text: str, what: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError, match=f"^{re.escape(path)}.*{what}") as error:
        find_target(path)
    assert "\n" not in str(error.value)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "npu.toml"
    path.write_bytes(b"\xef\xbb\xbfname = 'mine'\r\n")
    assert find_target(str(path)).name == "mine"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    missing, folder = tmp_path / "missing.toml", tmp_path / "folder.toml"
    folder.mkdir()
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    other = written(tmp_path, f'extends = "{tmp_path}/npu.toml"', "other.toml")
    written(tmp_path, NPU)
    faults: dict[Path | str, str] = {
        missing: "no such file",
        folder: "is a folder",
        binary: "is not UTF-8",
        other: "another file: name a target",
        "no\0path.toml": "is no path of a file",
    }
    for path, what in faults.items():
        with pytest.raises(UsageError, match=what) as error:
            find_target(str(path))
        assert "\n" not in str(error.value)


def test_what_a_file_says_goes_before_what_it_extends(tmp_path: Path) -> None:
    text = "extends = 'ncnn'\n[takes]\nmax_rank = 4\n[[layers]]\nwhen = {stride = 2}\ntext = 'x'\n"
    profile, base = find_target(written(tmp_path, text)), find_target("ncnn")
    assert profile.layers[1:] == base.layers
    assert profile.layers[0].version == base.version
    assert (profile.takes.max_rank, profile.takes.depth_to_space) == (4, {"CRD": None})
    assert (profile.action, profile.prefer) == (base.action, base.prefer)
    assert isinstance(base, Profile)


def test_lines_of_keys() -> None:
    text = '[takes]\n"max_rank" = 4\n\n[[layers]]\nwhen = {\n  stride = 2,\n}\n[[layers]]\ntext = 1'
    assert line_of(text, ("takes", "max_rank")) == 2
    assert line_of(text, ("layers", 0, "when", "stride")) in (5, 6)
    assert line_of(text, ("layers", 1, "text")) == 9
    assert line_of(text, ("layers", 1, "when")) == 8
    assert line_of(text, ("nothing",)) is None
