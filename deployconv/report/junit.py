"""The report of `check` for CI: JUnit XML with one test case per model."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree

from deployconv.errors import UsageError
from deployconv.results import CheckReport, ModelCheck

# XML 1.0 cannot write these characters, not even as a character reference.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_ELEMENTS = {"failed": "failure", "error": "error", "not-run": "skipped"}


def junit_xml(report: CheckReport) -> ElementTree.ElementTree[ElementTree.Element]:
    """Return the report as an XML tree; a model that could not be run is ``skipped``."""
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


def write_junit(report: CheckReport, path: Path) -> None:
    """Write the report to ``path``, whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        with _replacing(path) as file:
            junit_xml(report).write(file, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise UsageError(
            f"--junit {path}: cannot be written ({error.strerror}); name a writable file"
        ) from error


def _add_case(suite: ElementTree.Element, check: ModelCheck) -> None:
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


def _clean(text: str) -> str:
    return _NOT_XML.sub("", text)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` that replaces it when the body succeeds."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes a private file; a report gets the permissions of any new file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
