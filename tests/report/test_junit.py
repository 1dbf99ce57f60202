"""JUnit XML: well-formed whatever the message; written completely or not at all."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from deployconv.errors import UsageError
from deployconv.report.junit import write_junit
from deployconv.results import CheckReport, ModelCheck, Rewriting
from tests.report import samples


def written(report: CheckReport, folder: Path) -> ElementTree.Element:
    path = folder / "report.xml"
    write_junit(report, path)
    assert [file.name for file in folder.iterdir()] == ["report.xml"]
    return ElementTree.parse(path).getroot()


def test_one_case_a_model(tmp_path: Path) -> None:
    root = written(samples.CHECK_REPORT, tmp_path)
    suite = root.find("testsuite")
    assert suite is not None
    totals = ("tests", "failures", "errors", "skipped", "time")
    assert [suite.get(total) for total in totals] == ["4", "1", "1", "1", "1.875"]
    cases = [(case.get("name"), [child.tag for child in case]) for case in suite.iter("testcase")]
    assert cases == [
        ("a.onnx", []),
        ("b.onnx", ["failure"]),
        ("c.onnx", ["error"]),
        ("d.onnx", ["skipped"]),
    ]


def test_the_sizes_that_were_run_are_the_output_of_a_case(tmp_path: Path) -> None:
    done = Rewriting(samples.SOURCE, (), parity=samples.DYNAMIC_PARITY)
    root = written(CheckReport((ModelCheck("a.onnx", "passed", 1.0, done),)), tmp_path)
    (output,) = root.iter("system-out")
    first, *others = (output.text or "").split("\n")
    assert first.startswith("parity: passed on ort")
    assert [line.partition(":")[0] for line in others] == ["parity at x", "parity at x"]


def test_messages_survive_escaping(tmp_path: Path) -> None:
    root = written(samples.CHECK_REPORT, tmp_path)
    messages = {child.tag: child.get("message") for case in root.iter("testcase") for child in case}
    assert messages["failure"] == "parity <failed>"
    assert messages["error"] == 'not a model: "[31m"'


@pytest.mark.parametrize(
    "hostile", ["]]>", "\x00\x08\x0b\x1f", "\ud800", "\ufffe\uffff", "&<>\"'", "é\U0001f600"]
)
def test_any_text_gives_well_formed_xml(tmp_path: Path, hostile: str) -> None:
    check = ModelCheck(f"dir/{hostile}.onnx", "failed", 0.0, message=f"x{hostile}y")
    (case,) = written(CheckReport((check,)), tmp_path).iter("testcase")
    name = case.get("name")
    assert name is not None
    assert name.startswith("dir/")
    assert name.endswith(".onnx")


def test_replaces_an_older_report_with_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    path.write_text("old")
    write_junit(samples.CHECK_REPORT, path)
    reference = tmp_path / "reference"
    reference.touch()
    assert path.stat().st_mode == reference.stat().st_mode
    assert path.read_bytes().startswith(b"<?xml")


def test_an_unwritable_place_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    path.mkdir()
    with pytest.raises(UsageError, match=r"report\.xml: cannot be written"):
        write_junit(samples.CHECK_REPORT, path)
    assert [file.name for file in tmp_path.iterdir()] == ["report.xml"]
