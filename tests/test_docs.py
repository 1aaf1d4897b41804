"""Every code block of README and docs: what can run here runs, all else is parsed.

A comment before a block says otherwise, invisible to the reader:

    <!-- not run: why -->    its commands and its Python are parsed only
    <!-- thorough -->        so is it, unless the tests run with --thorough

A page is read from top to bottom: its blocks share names and a folder. `<!-- after: PAGE -->` at its top has the blocks
of another page run before, in the same folder. A block of options whose first line is `# NAME` is that file.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from fastnas.cli import main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.usefixtures("one_thread", "unmeasured")
ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^>]*) -->\n\n?)?^```(?P<language>.*)\n(?P<code>(?s:.*?))^```$", re.MULTILINE)
TARGETS = set(re.findall(r"^([\w-]+)(?=[\w -]*:)", (ROOT / "Makefile").read_text(), re.MULTILINE))


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, what it is in, what it says, and the comment before it."""

    page: str
    line: int
    language: str
    code: str
    mark: str

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> Iterator[list[str]]:
        """Its commands as words, without comments."""
        for line in self.code.replace("\\\n", " ").splitlines():
            for command in line.split("&&"):
                if words := shlex.split(command, comments=True):
                    yield words


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    return [
        Block(page, text.count("\n", 0, match.start("code")), match["language"], match["code"], match["mark"] or "")
        for match in BLOCK.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]


def parse_click(words: list[str]) -> None:
    """Reads the words as the command line does, down to the command, which does not run."""
    command: click.Command = main
    context = None
    while isinstance(command, click.Group):
        context = command.make_context("fastnas", words, parent=context)
        words = [*context._protected_args, *context.args]
        if command.chain:
            return parse_chain(command, context, words)
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
    command.make_context(command.name, words, parent=context)


def parse_chain(group: click.Group, context: click.Context, words: list[str]) -> None:
    """Reads what follows a group that takes several commands in a row."""
    while words:
        name, command, rest = group.resolve_command(context, words)
        assert command is not None
        options = {"allow_extra_args": True, "allow_interspersed_args": False}
        words = command.make_context(name, rest, parent=context, **options).args


def parse_command(block: Block, words: list[str]) -> None:
    match words:
        case ["fastnas", *rest]:
            try:
                parse_click(rest)
            except click.exceptions.Exit as ended:  # --help and its like
                if ended.exit_code:
                    pytest.fail(f"{block.place}: {shlex.join(words)}: exit code {ended.exit_code}")
            except click.ClickException as error:
                pytest.fail(f"{block.place}: {shlex.join(words)}: {error.format_message()}")
        case ["torchrun", *rest] if "-m" in rest:
            parse_command(block, rest[rest.index("-m") + 1 :])
        case ["make", *targets]:
            assert set(targets) <= TARGETS, f"{block.place}: no target {targets}"
        case [python, script, *options] if python.endswith("python") and script.endswith(".py"):
            source = (ROOT / script).read_text()
            for option in options:
                assert not option.startswith("--") or f'"{option}"' in source, (
                    f"{block.place}: {script} has no {option}"
                )
        case [python, "-m", "pytest", *_] if python.endswith("python"):
            pass
        case ["pip", "install", *_] | ["python3", "-m", "venv", *_]:
            pass
        case ["." | "cd" | "git" | "wandb" | "mlflow", *_]:
            pass
        case _:
            pytest.fail(f"{block.place}: nothing knows the command {shlex.join(words)}")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_a_block_can_be_read(block: Block) -> None:
    match block.language:
        case "sh":
            for words in block.commands:
                parse_command(block, words)
        case "python":
            compile(block.code, block.place, "exec")
        case "yaml":
            YAML(typ="safe", pure=True).load(block.code)
        case "toml":
            tomllib.loads(block.code)
        case "json":
            json.loads(block.code)
        case _:
            assert block.language == "text", f"{block.place}: in what language?"
    assert re.fullmatch(r"|thorough|not run: .+|after: .+", block.mark), f"{block.place}: {block.mark!r} is no mark"


def run_page(page: str, thorough: bool) -> None:
    """Runs the blocks of a page in the working folder; those that are to be run thoroughly only if `thorough`."""
    if before := re.match(r"<!-- after: (.*) -->", (ROOT / page).read_text()):
        run_page(before[1], thorough)
    names: dict[str, Any] = {}
    for block in blocks(page):
        if block.mark.startswith("not run") or (block.mark == "thorough" and not thorough):
            continue
        if block.language == "python":
            exec(compile(block.code, block.place, "exec"), names)
        elif block.language == "sh":
            for words in block.commands:
                assert words[0] == "fastnas", f"{block.place}: {words[0]} cannot be run here; say so, by 'not run: why'"
                result = CliRunner().invoke(main, words[1:])
                assert result.exit_code == 0, f"{block.place}: {shlex.join(words)}\n{result.output}"
        elif name := re.match(r"# (\S+\.\w+)\n", block.code):
            Path(name[1]).write_text(block.code)


def _runs(page: str, thorough: bool) -> bool:
    return any(
        block.language in ("python", "sh")
        and not block.mark.startswith("not run")
        and (block.mark == "thorough") == thorough
        for block in blocks(page)
    )


@pytest.mark.parametrize("page", [page for page in PAGES if _runs(page, False)])
def test_what_a_page_says_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page, thorough=False)


@pytest.mark.thorough
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", [page for page in PAGES if _runs(page, True)])
def test_all_that_a_page_says_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page, thorough=True)


def messages() -> Iterator[str]:
    """Every text in the package, with … where something is filled in."""
    for file in (ROOT / "fastnas").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.JoinedStr():
                    yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                case ast.Constant(value=str(text)):
                    yield text


def test_the_messages_of_troubleshooting_are_those_that_fastnas_gives() -> None:
    told = re.findall(r"^### `(.*)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(told) > 20
    texts = list(messages())
    for message in told:
        pattern = re.compile(".*".join(map(re.escape, message.split("…"))), re.DOTALL)
        assert any(pattern.search(text) for text in texts), message
