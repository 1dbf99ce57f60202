"""The report of `check` for CI: JUnit XML with one test case per model."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from deployconv.errors import UsageError
from deployconv.report.lines import parity_line, size_lines
from deployconv.results import BatchReport, ModelRun
from deployconv.temporary import whole_file

# XML 1.0 cannot write these characters, not even as a character reference.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_ELEMENTS = {"failed": "failure", "error": "error", "not-run": "skipped"}


def junit_xml(report: BatchReport) -> ElementTree.ElementTree[ElementTree.Element]:
    """Return the report as an XML tree; a model that could not be run is ``skipped``.

    The output of a model with dynamic inputs lists the sizes that it was run at.
    """
    statuses = [check.status for check in report.models]
    totals = {
        "tests": str(len(statuses)),
        "failures": str(statuses.count("failed")),
        "errors": str(statuses.count("error")),
        "skipped": str(statuses.count("not-run")),
        "time": f"{sum(check.seconds for check in report.models):.3f}",
    }
    suites = ElementTree.Element("testsuites", totals)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "deployconv check", **totals})
    for check in report.models:
        _add_case(suite, check)
    ElementTree.indent(suites)
    return ElementTree.ElementTree(suites)


def write_junit(report: BatchReport, path: Path) -> None:
    """Write the report to ``path``, whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        with whole_file(path) as file:
            junit_xml(report).write(file, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise UsageError(
            f"--junit {path}: cannot be written ({error.strerror}); name a writable file"
        ) from error


def _add_case(suite: ElementTree.Element, check: ModelRun) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        {
            "classname": "deployconv.check",
            "name": _clean(check.path),
            "time": f"{check.seconds:.3f}",
        },
    )
    if check.status in _ELEMENTS:
        message = _clean(check.message or check.status)
        element = ElementTree.SubElement(case, _ELEMENTS[check.status], {"message": message})
        element.text = message
    parity = check.rewriting.parity if check.rewriting is not None else None
    if parity is not None and parity.other_sizes:
        lines = "\n".join((parity_line(parity), *size_lines(parity)))
        ElementTree.SubElement(case, "system-out").text = _clean(lines)


def _clean(text: str) -> str:
    return _NOT_XML.sub("", text)
