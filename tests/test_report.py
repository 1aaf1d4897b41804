"""fastnas report: what the page says, that it is one file, and that no name in a run can break out of it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from runs import TINY_OPTIONS, image_folder
from scenes import segmentation_folder

from fastnas.cli import main
from fastnas.genotype import INPUTS, Genotype, load
from fastnas.genotype.text import cell_text
from fastnas.ops import DARTS_CANDIDATES
from fastnas.report.architecture import MOST_FRAMES, frames
from fastnas.report.entry import read_entries
from fastnas.search.alphas import decode
from fastnas.search.performance import FILE, read_performance

HOSTILE = "<b>&\"'{{ 7 * 7 }}"  # as a class, and so a folder, may be called
TRELLIS = [
    "--epochs=2",
    "--arch-start=0",
    "--filters=2",
    "--steps=1",
    "--layers=3",
    "--crop=9",
    "--threads=1",
    "--batch-size=2",
]
VOID = {"meta", "input", "br"}


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def done(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.output


def slider(html: str, number: int) -> dict[str, Any]:
    """What the page's script is given for the slider of a run."""
    found: list[str] = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL)
    content: dict[str, Any] = json.loads(found[number])
    return content


def refused(result: Result, *parts: str) -> None:
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.output
    for part in parts:
        assert part in result.stderr


class Page(HTMLParser):
    """Elements with their attributes, and texts by the element around them; knows whether tags match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", " ".join(data.split())))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def said(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A search, the training of what it found, and a search of Auto-DeepLab."""
    root = tmp_path_factory.mktemp("runs & <i>more")
    data, scenes = image_folder(root / "data", (HOSTILE, "cat")), segmentation_folder(root / "scenes", train=6)
    made = {name: root / name for name in ("search", "net", "trellis")}
    done(call("search", "--data", data, "--out", made["search"], *TINY_OPTIONS, "--no-mirror"))
    done(call("retrain", made["search"], "--out", made["net"], *TINY_OPTIONS, "--epochs=1"))
    done(call("search", "auto-deeplab", "--data", scenes, "--out", made["trellis"], *TRELLIS))
    return made


@pytest.fixture(scope="module")
def html(runs: dict[str, Path]) -> str:
    out = runs["search"].parent / "report.html"
    assert f"Report:       {out}\n" in done(call("report", *runs.values(), "--out", out))
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_a_page_is_one_file_that_loads_nothing(html: str, page: Page) -> None:
    assert len(html) < 400_000
    for _, attributes in page.elements:
        assert not {"src", "srcset", "data", "action", "xlink:href"} & attributes.keys()
        assert (attributes.get("href") or "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in html
    assert "@import" not in html
    assert page.all("meta")[2]["content"].startswith("default-src 'none';")  # type: ignore[union-attr]


def test_ids_are_unique_and_links_lead_somewhere(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    targets = {(attributes["href"] or "#")[1:] for attributes in page.all("a")}
    targets |= {str(attributes["for"]) for tag in ("label", "output") for attributes in page.all(tag)}
    assert targets <= set(ids)


def test_names_are_shown_as_they_are(page: Page, runs: dict[str, Path]) -> None:
    assert any(HOSTILE in text for text in page.said("td"))
    assert {str(path) for path in runs.values()} <= set(page.said("code"))
    assert not page.all("b")
    assert len(page.all("i")) == 2  # the scales' colours
    assert len(page.all("script")) == 3  # one, and the figures of two searches


def test_a_page_shows_what_the_history_holds(page: Page, runs: dict[str, Path]) -> None:
    row = json.loads((runs["net"] / "history.jsonl").read_text().splitlines()[-1])
    assert f"{row['val_loss']:.4g}" in page.said("td")
    assert f"{row['val_accuracy']:.1%}" in page.said("td")
    assert f"{100 * row['val_accuracy']:.1f} %" in page.said("td")
    result = json.loads((runs["net"] / "result.json").read_text())
    for key in ("parameters", "multiply_adds"):
        assert f"{result[key]:,}" in page.said("td")


def test_the_slider_has_alpha_and_what_is_kept_of_every_epoch(html: str, runs: dict[str, Path]) -> None:
    found = slider(html, 0)
    rows = [json.loads(line) for line in (runs["search"] / "history.jsonl").read_text().splitlines()]
    assert found["epochs"] == [1, 2, 3]
    for cell in ("normal", "reduce"):
        alpha = torch.tensor([row["alpha"][cell] for row in rows], dtype=torch.float64)
        shown = torch.tensor(found["cells"][cell]["weights"]) / 1000
        assert (shown - alpha.softmax(-1)).abs().max() <= 0.00051
    for row, kept in zip(rows, found["cells"]["normal"]["kept"], strict=True):
        genotype = decode(row)
        assert isinstance(genotype, Genotype)
        starts = [sum(INPUTS + i for i in range(node)) for node in range(4)]
        edges = [
            [starts[node] + source, DARTS_CANDIDATES.index(name)]
            for node, pairs in enumerate(genotype.normal.nodes)
            for name, source in pairs
        ]
        assert kept == edges


def test_strategies_without_softmax(tmp_path: Path, runs: dict[str, Path]) -> None:
    html = {}
    for name, options in (("fair-darts", ()), ("random", ("--samples=2", "--epochs=1"))):
        out, data = tmp_path / name, runs["search"].parent / "data"
        done(call("search", "--data", data, "--out", out, *TINY_OPTIONS, f"--strategy={name}", *options))
        done(call("report", out))
        html[name] = (out / "report.html").read_text(encoding="utf-8")
        texts = " ".join(text for _, text in Page(html[name]).texts)
        assert all(line in texts for line in cell_text(load(out / "genotype.json").normal))
    rows = [json.loads(line) for line in (tmp_path / "fair-darts" / "history.jsonl").read_text().splitlines()]
    shown = torch.tensor(slider(html["fair-darts"], 0)["cells"]["normal"]["weights"]) / 1000
    assert (shown - torch.tensor([row["alpha"]["normal"] for row in rows]).sigmoid()).abs().max() <= 0.00051


def test_the_trellis_has_beta_and_the_path_of_every_epoch(html: str, runs: dict[str, Path]) -> None:
    found = slider(html, 1)
    rows = [json.loads(line) for line in (runs["trellis"] / "history.jsonl").read_text().splitlines()]
    assert found["paths"] == [[0, *row["path"]] for row in rows]
    beta = torch.tensor(rows[-1]["beta"])[0, 0, 1:].softmax(-1)  # from the finest scale there is no finer one
    assert found["ways"][-1][0][0] == [0, *(1000 * beta).round().int().tolist()]
    for column in range(3):
        assert f'data-part="way-{column}-0-0"' in html


def test_memory_is_what_fastnas_plan_predicts(page: Page, runs: dict[str, Path], tmp_path: Path) -> None:
    options = ["--batch", "4", "--crop", "6x8", "--channels", "2", "--layers", "3", "--classes", "2", "--threads", "1"]
    done(call("plan", *options, "--json", tmp_path / "plan.json"))
    peaks = {row["name"]: row["step"]["peak"] for row in json.loads((tmp_path / "plan.json").read_text())["rows"]}
    for name in ("fast", "lean"):
        times = peaks["stock"] / peaks[name]
        compared = f"{times:.1f} times less" if times >= 1 else f"{1 / times:.1f} times more"
        assert f"{peaks[name] / 1e6:.1f} MB, {compared}" in page.said("span")
    assert "predicted" in page.said("span")


@pytest.mark.parametrize("name", ["search", "net", "trellis"])
def test_the_command_repeats_the_run(html: str, runs: dict[str, Path], name: str) -> None:
    again = Path(f"{runs[name]}-again")
    shown = [unescape(re.sub("<.*?>", "", text)) for text in re.findall("<pre>(<span>.*?)</pre>", html)]
    (command,) = (text for text in shown if text.endswith(f"--out {shlex.quote(str(again))}"))
    done(call(*shlex.split(command)[1:]))
    for file in ("config.json", "history.jsonl"):
        assert (again / file).read_bytes() == (runs[name] / file).read_bytes()


def test_measured_times_are_told_from_predictions(runs: dict[str, Path], tmp_path: Path) -> None:
    done(call("report", runs["search"], "--measure", "--out", tmp_path / "page.html"))
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert {"predicted", "measured for this page", "measured"} <= set(page.said("span"))
    assert (
        len([text for text in page.said("span") if re.fullmatch(r"[\d.e+]+ ms(, [\d.]+ times (less|more))?", text)])
        == 2
    )


def test_the_page_lies_in_the_folder_of_a_single_run(runs: dict[str, Path]) -> None:
    done(call("report", runs["net"]))
    assert (runs["net"] / "report.html").read_text(encoding="utf-8").endswith("</html>\n")


def test_a_long_search_has_fewer_frames_than_epochs(runs: dict[str, Path]) -> None:
    (entry,) = read_entries([runs["search"]])
    first = entry.history[0]
    entry.history.extend({**first, "epoch": epoch} for epoch in range(4, 1001))
    shown = frames(entry)
    assert shown is not None
    assert len(shown["epochs"]) == MOST_FRAMES
    assert (shown["epochs"][0], shown["epochs"][-1], shown["of"]) == (1, 1000, 1000)


def test_performance_is_noted_once_an_epoch_also_when_resumed(runs: dict[str, Path], tmp_path: Path) -> None:
    lines = read_performance(runs["search"] / "performance")
    assert [line.get("epoch") for line in lines] == [None, 1, 2, 3]
    assert lines[0]["torch"] == torch.__version__
    assert all(line["seconds"] >= line["busy"] > 0 and line["images"] == 16 for line in lines[1:])
    run = shutil.copytree(runs["search"], tmp_path / "run")
    (run / "performance" / FILE).write_text(
        "".join(f"{json.dumps(line)}\n" for line in [*lines, {"epoch": 4}]) + '{"ep'
    )
    done(call("search", "--out", run, "--resume"))  # as if epoch 4 had not been saved
    assert [line.get("epoch") for line in read_performance(run / "performance")] == [None, 1, 2, 3, None]


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("result.json", "{", ["result.json is damaged: expected JSON"]),
        ("result.json", "[1]", ["result.json is damaged: expected an object"]),
        (f"performance/{FILE}", "no\n", [f"{FILE} is damaged: expected lines of JSON", "remove it"]),
        (f"performance/{FILE}", '{"epoch": "1"}\n', [f"{FILE} is damaged"]),
        ("config.json", "{}", ["config.json is damaged"]),
    ],
)
def test_damaged_files_are_named(
    runs: dict[str, Path], tmp_path: Path, name: str, content: str, parts: list[str]
) -> None:
    run = shutil.copytree(runs["search"], tmp_path / "run")
    (run / name).write_text(content)
    refused(call("report", run), str(run / name), *parts)
    assert not (run / "report.html").exists()


def test_bad_words_are_named(runs: dict[str, Path], tmp_path: Path) -> None:
    search, out = runs["search"], tmp_path / "page.html"
    refused(call("report"), "RUN is missing")
    refused(call("report", tmp_path / "none"), f"there is no folder {tmp_path / 'none'}")
    refused(call("report", tmp_path, "--out", out), f"{tmp_path} holds no run with a finished epoch")
    refused(call("report", search, runs["net"]), "--out is missing")
    refused(call("report", search, search, "--out", out), f"{search} is given twice")
    refused(call("report", *[tmp_path / str(i) for i in range(9)], "--out", out), "9 runs were given", "at most 8")
    refused(call("report", search, "--out", tmp_path), f"--out is {tmp_path}, a folder")
    refused(call("report", search, "--out", tmp_path / "no" / "page.html"), f"there is no folder {tmp_path / 'no'}")
    assert not out.exists()
