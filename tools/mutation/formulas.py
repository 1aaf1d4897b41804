"""Mistakes for the Python formulas to make: every place of their syntax trees that can be wrong in a plausible way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

ROOT = Path(__file__).parents[2]

CELLS = [f"tests/test_{name}.py" for name in ("operator", "modules")]
TESTS = {
    "fastnas/ops/reference.py": CELLS,
    "fastnas/ops/candidates.py": CELLS,
    "fastnas/nn/dense_atrous.py": ["tests/test_dense_atrous.py"],
}

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Gt: ast.GtE,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


@dataclass(frozen=True)
class Mutant:
    """A file whose line `before` is now `after`."""

    path: str
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{self.path}: {self.before}  →  {self.after}"

    @property
    def tests(self) -> list[str]:
        """Which should notice."""
        return TESTS[self.path]

    def install(self) -> None:
        """Makes this process import the changed file, if it has not yet been imported."""
        get_code = SourceFileLoader.get_code
        where = str(ROOT / self.path)

        def changed(loader: SourceFileLoader, name: str) -> CodeType | None:
            return compile(self.source, where, "exec") if loader.path == where else get_code(loader, name)

        SourceFileLoader.get_code = changed  # type: ignore[method-assign]


def mutants() -> list[Mutant]:
    """All of them, file by file, in the order of the text."""
    return [mutant for path in TESTS for mutant in _of(path)]


def _of(path: str) -> Iterator[Mutant]:
    source = (ROOT / path).read_bytes()  # positions of nodes count bytes
    tree = ast.parse(source)
    left_alone = {id(inner) for node in ast.walk(tree) for part in _no_formulas(node) for inner in ast.walk(part)}
    places = [node for node in ast.walk(tree) if isinstance(node, ast.expr | ast.AugAssign)]
    tests = {id(node.test) for node in ast.walk(tree) if isinstance(node, ast.If | ast.IfExp | ast.While)}
    lines = source.splitlines(keepends=True)
    starts = [sum(map(len, lines[:i])) for i in range(len(lines))]
    for node in sorted(places, key=lambda node: (node.lineno, node.col_offset)):
        if id(node) in left_alone:
            continue
        start, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        for after in _changes(node, id(node) in tests):
            complete = isinstance(after, ast.stmt | ast.Constant | ast.Name)
            text = ast.unparse(after) if complete else f"({ast.unparse(after)})"
            changed = source[:start] + text.encode() + source[end:]
            texts = (whole.decode().splitlines()[node.lineno - 1].strip() for whole in (source, changed))
            yield Mutant(path, *texts, changed.decode())


def _no_formulas(node: ast.AST) -> list[ast.AST]:
    """Children of a node that compute nothing: types, decorators, messages, and `strict` of zip."""
    match node:
        case ast.FunctionDef(decorator_list=decorators, returns=annotation):
            found = [*decorators, annotation]
        case ast.ClassDef(decorator_list=decorators):
            found = [*decorators]
        case ast.arg(annotation=annotation) | ast.AnnAssign(annotation=annotation):
            found = [annotation]
        case ast.Raise(exc=error):
            found = [error]
        case ast.keyword(arg="strict", value=value):
            found = [value]
        case ast.Call(func=ast.Name("cast")):
            found = [node]
        case _:
            found = []
    return [part for part in found if part is not None]


def _changes(node: ast.expr | ast.AugAssign, is_test: bool) -> Iterator[ast.AST]:
    """What may stand in place of a node."""
    match node:
        case ast.BinOp() | ast.AugAssign() | ast.BoolOp() if type(node.op) in SWAPS:
            yield _with(node, op=SWAPS[type(node.op)]())
        case ast.Compare(ops=[operator]) if type(operator) in SWAPS:
            yield _with(node, ops=[SWAPS[type(operator)]()])
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.IfExp():
            yield _with(node, body=node.orelse, orelse=node.body)
        case ast.Call(func=ast.Attribute(value=ast.Name("F")) | ast.Name("norms"), args=[first, *_]):
            yield first
        case ast.Name() | ast.Attribute() | ast.Call() if is_test:
            yield ast.UnaryOp(ast.Not(), node)


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed
