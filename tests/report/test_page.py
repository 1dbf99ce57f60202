"""The report as an HTML page: what stands on it, how it looks in a browser, bad input."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import deployconv
from deployconv.cli.app import main
from deployconv.errors import UsageError
from deployconv.report import document
from deployconv.report.page import drawing, phases
from deployconv.report.page.render import render, require_writable
from tests.report import samples

MODELS = Path(__file__).parent.parent.parent / "models"
UNET = MODELS / "unet_decoder.onnx"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MOST_BYTES = 2_000_000


class Reader(HTMLParser):
    """Collects what a reader sees, and what the page would load."""

    VOID = ("meta", "link", "br")

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.labels: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        self.labels.append(given.get("aria-label") or "")
        for name in ("src", "href", "xlink:href"):
            if value := given.get(name):
                self.loaded.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def words(page: str) -> str:
    return " ".join(" ".join(read(page).text).split())


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    deployconv.rewrite(
        UNET, output=folder / "out.onnx", policy="cost", report=folder / "report.html", budget=1
    )
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def all_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    deployconv.rewrite(UNET, report=folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_needs_no_other_file(all_page: str) -> None:
    loaded = [one for one in read(all_page).loaded if not one.startswith(("#", "data:"))]
    assert loaded == []
    assert "@import" not in all_page
    assert len(all_page.encode()) < MOST_BYTES


def test_says_what_was_rewritten_and_proved(all_page: str) -> None:
    said = words(all_page)
    assert "2 of 2 upsampling layers rewritten; certified bit for bit, outputs agree in ort" in said
    for section in ("Layers", "Do both models compute the same? yes", "How fast is it?"):
        assert section in said


def test_draws_the_nodes_before_and_after(all_page: str) -> None:
    labels = read(all_page).labels
    assert labels.count("Removed: ConvTranspose") == 2
    assert labels.count("Added: Conv, then DepthToSpace") == 2
    said = words(all_page)
    assert "constant 64x32x2x2" in said  # the weight, by its shape
    assert "1x64x8x8" in said  # the tensor that the layer reads


def test_draws_phases_runs_and_layers(all_page: str) -> None:
    labels = read(all_page).labels
    assert "kernel: 2 by 2 taps" in labels
    assert any(label.startswith("Times of ") for label in labels)
    assert any(label.startswith("Time of each layer of ") for label in labels)
    assert "Peak memory" in words(all_page)


def test_shows_the_forms_that_were_priced(page: str) -> None:
    assert any(label.startswith("Forms of main/") for label in read(page).labels)


def test_a_failed_comparison_shows_where(tmp_path: Path) -> None:
    import onnx

    wrong = onnx.load(UNET)
    wrong.graph.initializer[0].raw_data = bytes(len(wrong.graph.initializer[0].raw_data))
    onnx.save(wrong, tmp_path / "wrong.onnx")
    (parity,) = deployconv.verify(UNET, tmp_path / "wrong.onnx", report=tmp_path / "report.html")
    assert not parity.passed
    said = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Do both models compute the same? no" in words(said)
    assert any(label.startswith("Differences of output") for label in read(said).labels)


def test_names_of_a_model_are_text_and_nothing_else() -> None:
    evil = "<script>alert(1)</script>$\\frac{1}{2}$\x1b[31m"
    site = replace(samples.MEASURED, id=evil)
    done = replace(samples.REWRITING, sites=(site,))
    made = render(parsed(document.of_rewriting(done)))
    assert "<script>" not in made
    assert "\x1b" not in made
    assert "alert(1)" in words(made)


@pytest.mark.parametrize(
    "content",
    [
        document.of_rewriting(samples.REWRITING),
        document.of_rewriting(samples.UNPROVED),
        document.of_rewriting(samples.FASTEST),
        document.of_verification([samples.PARITY, samples.FAILED_PARITY]),
        document.of_timing([samples.LATENCY], ["a.onnx", "b.onnx"]),
        document.of_timing([samples.PROFILED], ["a.onnx", "b.onnx"]),
        document.of_inspection(deployconv.Inspection(samples.SOURCE, (samples.KEPT,))),
    ],
    ids=["rewrite", "unproved", "fastest", "verify", "bench", "profile", "inspect"],
)
def test_renders_the_document_of_every_command(content: document.Document) -> None:
    assert "deployconv" in words(render(parsed(content)))


@pytest.mark.parametrize("model", sorted(MODELS.glob("*.onnx")), ids=lambda model: model.stem)
def test_every_sample_has_a_report(model: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    done = deployconv.rewrite(
        model, dry_run=True, verify=False, bench=False, resample=True, report=report
    )
    said = words(report.read_text(encoding="utf-8"))
    assert all(site.pattern.replace("_", " ") in said for site in done.sites)


def test_says_what_each_target_does(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    deployconv.rewrite(
        MODELS / "espcn_x3.onnx", target="ncnn", bench=False, backend="ort", report=report
    )
    said = words(report.read_text(encoding="utf-8"))
    assert "Where it will run" in said
    assert "ncnn: ncnn, converted by pnnx" in said
    assert "ncnn: takes it as exported" in said


def test_check_lists_every_model_with_its_verdict(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    shutil.copy(UNET, tmp_path / "good.onnx")
    report = tmp_path / "report.html"
    deployconv.check([tmp_path], report=report)
    said = words(report.read_text(encoding="utf-8"))
    assert "bad.onnx" in said
    assert "error" in said
    assert "2 of 2 upsampling layers rewritten" in said


def test_a_failed_rewrite_leaves_its_report(tmp_path: Path) -> None:
    with pytest.raises(deployconv.CheckFailed):
        deployconv.rewrite(
            MODELS / "upsampler_int8.onnx",
            skip="*",
            strict=True,
            report=tmp_path / "report.html",
        )
    said = words((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "--strict: left alone" in said
    assert "not-selected" in said


def test_a_report_takes_the_place_of_no_model() -> None:
    with pytest.raises(UsageError, match=r"--report a.onnx: is a model; name a file"):
        require_writable(Path("a.onnx"))


def test_a_saved_document_becomes_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "saved.json"
    saved.write_text(document.dumps(document.of_rewriting(samples.REWRITING)), encoding="utf-8")
    assert main(["report", str(saved)]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'saved.html'}\n"
    assert "net.onnx" in words((tmp_path / "saved.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("not json", "not JSON"),
        ("[]", "schema_version None where 1 is known"),
        ('{"schema_version": 2}', "schema_version 2 where 1 is known"),
        ('{"schema_version": 1}', "none that deployconv printed"),
        ('{"schema_version": 1, "models": [3]}', "none that deployconv printed"),
    ],
)
def test_another_document_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, reason: str
) -> None:
    saved = tmp_path / "saved.json"
    saved.write_text(content, encoding="utf-8")
    assert main(["report", str(saved)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
    assert not (tmp_path / "saved.html").exists()


def test_a_place_that_cannot_be_written_is_said_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.onnx"
    arguments = ["rewrite", str(UNET), "-o", str(output), "--report"]
    for place in (tmp_path / "absent" / "report.html", tmp_path):
        assert main([*arguments, str(place)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"deployconv: error: --report {place}: ")
    assert not output.exists()


def test_the_report_does_not_take_the_place_of_the_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "out")
    assert main(["rewrite", str(UNET), "-o", place, "--report", place]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"deployconv: error: --report {place}: is the output too; name another file"


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "networkx" else find(name)
    )
    with pytest.raises(UsageError, match=r"a report needs networkx: pip install 'deployconv\[rep"):
        deployconv.rewrite(UNET, report=tmp_path / "report.html")


def test_results_show_themselves_in_a_notebook() -> None:
    inspection = deployconv.inspect(UNET)
    shown = inspection._repr_html_()
    assert shown is not None
    assert shown.startswith("<iframe srcdoc=")
    assert "main/node_convolution" in shown


def test_a_graph_too_large_to_read_is_not_drawn() -> None:
    nodes = [node(f"n{place}", f"t{place}", f"t{place + 1}") for place in range(100)]
    assert drawing.lay_out({"nodes": nodes, "shapes": {}}, "removed") is None
    assert drawing.lay_out({"nodes": [], "shapes": {}}, "removed") is None


def test_boxes_of_a_graph_do_not_overlap() -> None:
    nodes = [
        node("a", "x", "left"),
        node("b", "x", "right"),
        {**node("c", "left", "y"), "inputs": ["left", "right", "late"]},
    ]
    picture = drawing.lay_out({"nodes": nodes, "shapes": {"left": "1x2"}}, "added")
    assert picture is not None
    assert {box.title for box in picture.boxes} == {"Conv", "x", "y", "late"}
    for place, one in enumerate(picture.boxes):
        for other in picture.boxes[place + 1 :]:
            apart = abs(one.x - other.x) >= drawing.WIDTH or (
                one.y + one.height <= other.y or other.y + other.height <= one.y
            )
            assert apart, (one, other)


def test_each_tap_of_a_kernel_has_the_colour_of_its_phase() -> None:
    axis = (((0,), (2,)), ((1,), (3,)))  # stride 2, kernel 4
    kernel, *small = phases.grids({"axes": (axis, axis)})
    assert [[cell.label for cell in row] for row in kernel.rows[:1]] == [["00", "01", "02", "03"]]
    hues = [[cell.hue for cell in row] for row in kernel.rows]
    assert hues[0] == hues[2] != hues[1] == hues[3]
    titles = [f"phase {row}, {column}" for row in (0, 1) for column in (0, 1)]
    assert [grid.title for grid in small] == titles
    assert [[cell.label for cell in row] for row in small[1].rows] == [["01", "03"], ["21", "23"]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="not run: needs playwright")
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("not run: there is no Chromium on this machine")
    quiet = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=found, args=quiet)
        yield opened
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1000, 400])
def test_a_browser_shows_every_section(
    browser: Any, all_page: str, tmp_path: Path, width: int, scheme: str
) -> None:
    path = tmp_path / "report.html"
    path.write_text(all_page, encoding="utf-8")
    tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(path.as_uri())
    assert said == []
    headings = tab.locator("h1, h2, h3")
    assert [one for one in headings.all() if not one.is_visible()] == []
    assert headings.count() >= 6
    pictures = tab.locator("svg[role=img]").all()
    assert len(pictures) >= 8
    assert all(one.bounding_box()["height"] > 10 for one in pictures)
    # Wide tables and graphs scroll by themselves, not the page.
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    colours = "getComputedStyle(document.body)"
    paper, ink = (tab.evaluate(f"{colours}.{name}") for name in ("backgroundColor", "color"))
    assert (sum(rgb(paper)) < sum(rgb(ink))) is (scheme == "dark")
    tab.close()


def rgb(colour: str) -> list[int]:
    return [int(part) for part in colour[4:-1].split(",")]


def node(name: str, source: str, target: str) -> dict[str, Any]:
    return {
        "name": name,
        "operator": "Conv",
        "detail": [],
        "inputs": [source],
        "outputs": [target],
    }


def parsed(content: document.Document) -> Any:
    return json.loads(document.dumps(content))
