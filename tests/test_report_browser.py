"""The report in a real browser, both themes, narrow and wide. Without chromium skipped; .ci/browser installs it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from runs import TINY_OPTIONS, image_folder
from scenes import segmentation_folder

from fastnas.cli import main

CHROMIUM = shutil.which(os.environ.get("FASTNAS_BROWSER", "chromium"))
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium; .ci/browser installs it and runs these tests")

VIEWS = [(scheme, width) for scheme in ("light", "dark") for width in (360, 1280)]
TRELLIS = [
    "--epochs=4",
    "--arch-start=0",
    "--arch-lr=1",
    "--filters=2",
    "--steps=1",
    "--layers=3",
    "--crop=9",
    "--threads=1",
]

# The least contrast of any text with what lies behind it: WCAG 2's ratio, for opaque colours as the page has them.
CONTRAST = """() => {
  const channels = (color) => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d");
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (color) => channels(color).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (channels(color)[3] === 255) return color;
    }
    return getComputedStyle(document.body).backgroundColor;
  };
  let worst = [21, ""];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("svg, script, style")) continue;
    if (!element.checkVisibility()) continue;
    const [a, b] = [getComputedStyle(element).color, behind(element)].map(luminance);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst[0]) worst = [ratio, walker.currentNode.data.trim() + " in " + element.outerHTML.slice(0, 80)];
  }
  return worst;
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page about a search, in which α hardly moves, and one of Auto-DeepLab, in which it moves far."""
    root = tmp_path_factory.mktemp("browser")
    data, scenes = image_folder(root / "data"), segmentation_folder(root / "scenes", train=6)
    for words in (
        ["search", "--data", data, "--out", root / "search", *TINY_OPTIONS],
        ["search", "auto-deeplab", "--data", scenes, "--out", root / "trellis", *TRELLIS],
        ["report", root / "search", root / "trellis", "--out", root / "report.html"],
    ):
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == 0, result.output
    return root / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM)
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, report: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page in a view; whatever it complains of, or asks the network for, fails the test."""
    scheme, width = getattr(request, "param", VIEWS[-1])
    opened = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda asked: complaints.append(asked.url) if asked.url != report.as_uri() else None)
    opened.goto(report.as_uri())
    yield opened
    opened.close()
    assert not complaints


@pytest.mark.parametrize("page", VIEWS, indirect=True, ids=lambda view: f"{view[0]}-{view[1]}")
def test_nothing_sticks_out_and_every_text_can_be_read(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((details) => (details.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for key in ("End", "Home"):
        page.locator("input").nth(1).press(key)
        ratio, text = page.evaluate(CONTRAST)
        assert ratio >= 4.5, text
    for drawing in page.locator("svg").all():
        box = drawing.bounding_box()
        assert box["width"] > 100
        assert box["height"] > 100


def test_the_keyboard_moves_alpha(page: Any) -> None:
    search = page.locator("#run-0")
    assert search.locator("output").inner_text() == "3 of 3"
    last = search.locator("[data-cell=normal] td").all_inner_texts()
    search.get_by_label("Epoch").press("Home")
    assert search.locator("output").inner_text() == "1 of 3"
    first = search.locator("[data-cell=normal] td").all_inner_texts()
    shown = page.evaluate("JSON.parse(document.getElementById('frames-0').textContent).cells.normal.weights")
    assert [f"{weight / 10:.1f}" for edge in shown[0] for weight in edge] == first
    assert [f"{weight / 10:.1f}" for edge in shown[-1] for weight in edge] == last
    assert search.locator("[data-cell=normal] .kept").count() == 8
    search.get_by_label("Epoch").press("ArrowRight")
    assert search.get_by_label("Epoch").get_attribute("aria-valuetext") == "2 of 3"


def test_the_slider_moves_the_trellis(page: Any) -> None:
    run = page.locator("#run-1")
    frames = page.evaluate("JSON.parse(document.getElementById('frames-1').textContent)")
    width = "(way) => parseFloat(getComputedStyle(way.firstElementChild).strokeWidth)"
    for key, at in (("End", -1), ("Home", 0)):
        run.get_by_label("Epoch").press(key)
        strength = frames["ways"][at][0][0][2] / 1000
        assert abs(run.locator("[data-part=way-0-0-1]").evaluate(width) - (0.5 + 5 * strength)) < 0.01
        path = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--path').trim()")
        for column, scale in enumerate(frames["paths"][at]):
            fill = run.locator(f"[data-part=node-{column}-{scale}] path").get_attribute("style")
            assert "var(--path)" in fill or path in fill


def test_play_goes_to_the_last_epoch_and_stops(page: Any) -> None:
    from playwright.sync_api import expect

    page.evaluate(
        """() => {
          const output = document.querySelector("#run-0 output");
          window.seen = [];
          new MutationObserver(() => seen.push(output.textContent)).observe(output, { childList: true });
        }"""
    )
    button = page.locator("#run-0").get_by_role("button")
    button.first.click()
    expect(page.locator("#run-0 output")).to_have_text("3 of 3")
    expect(button.first).to_have_text("Play")  # Stop meanwhile
    assert page.evaluate("seen") == ["1 of 3", "2 of 3", "3 of 3"]


def test_without_javascript_the_last_epoch_stands_there(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(report.as_uri())
    assert opened.locator("#run-0 output").inner_text() == "3 of 3"
    assert opened.locator("#run-0 [data-cell=normal] .kept").count() == 8
    context.close()
