"""A piece of source with its syntax tree, and how parts of it are replaced in place."""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import itertools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

SHOWN = 100  # characters of each side of a change that stand in its name
NEST = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
COMPREHENSION = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_LOOSE = (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Lambda, ast.NamedExpr)


@dataclass(frozen=True)
class Surroundings:
    """What a cell stands in.

    modules: name in the notebook → dotted name of the module that it was imported as.
    words: every word of the rest of the assignment; a name among them is not the cell's own.
    """

    modules: Mapping[str, str] = field(default_factory=dict)
    words: frozenset[str] = frozenset()

    def resolve(self, node: ast.AST) -> Any:
        """What `module.name.name` is; None for what no module of this environment says."""
        match node:
            case ast.Name(id=name) if name in self.modules:
                top = self.modules[name].partition(".")[0]
                if importlib.util.find_spec(top) is None:
                    return None
                return importlib.import_module(self.modules[name])
            case ast.Attribute(value=value, attr=attr):
                return getattr(self.resolve(value), attr, None)
        return None

    def is_module(self, node: ast.AST) -> bool:
        """Whether an expression is a module, or one within a module."""
        match node:
            case ast.Name(id=name):
                return name in self.modules
            case ast.Attribute(value=value):
                return self.is_module(value) and isinstance(self.resolve(node), types.ModuleType)
        return False


@dataclass(frozen=True)
class Variant:
    """A changed source, what changed it, and the lines that differ: `old → new`."""

    operator: str
    change: str
    source: str

    @property
    def name(self) -> str:
        """How a report names it; unlike that of any other variant of the same source."""
        return f"{self.operator}: {self.change}"


Operator = Callable[["Code", Surroundings], Iterator[str]]


class Code:
    """A source that parses.  Raises SyntaxError for another."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = ast.parse(text)
        self._data = text.encode()
        self._starts = [0]
        for line in self._data.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self.parents = {
            child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)
        }
        docstrings = {self._docstring(node) for node in ast.walk(self.tree)}
        self.expressions = [
            node
            for node in ast.walk(self.tree)
            if isinstance(node, ast.expr) and node not in docstrings
        ]
        self.statements = [
            node
            for node in ast.walk(self.tree)
            if isinstance(node, ast.stmt)
            and not (isinstance(node, ast.Expr) and node.value in docstrings)
        ]

    @staticmethod
    def _docstring(node: ast.AST) -> ast.expr | None:
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and body:
            match body[0]:
                case ast.Expr(value=ast.Constant(value=str()) as text):
                    return text
        return None

    # -- where things stand ------------------------------------------------------------------

    def above(self, node: ast.AST) -> Iterator[ast.AST]:
        """The nodes that hold `node`, the innermost first."""
        while node in self.parents:
            node = self.parents[node]
            yield node

    def between(self, node: ast.AST, outer: ast.AST) -> Iterator[ast.AST]:
        """The nodes that hold `node` and stand within `outer`, the innermost first."""
        return itertools.takewhile(lambda other: other is not outer, self.above(node))

    def statement(self, node: ast.AST) -> ast.stmt:
        """The innermost statement that holds an expression."""
        return next(n for n in self.above(node) if isinstance(n, ast.stmt))

    def function(self, node: ast.AST) -> ast.FunctionDef | None:
        """The innermost function that holds `node`."""
        return next((n for n in self.above(node) if isinstance(n, ast.FunctionDef)), None)

    def text_of(self, node: ast.expr | ast.stmt) -> str:
        """The source of a node, as it was written."""
        start, end = self._span(node)
        return self._data[start:end].decode()

    def blocks(self) -> Iterator[list[ast.stmt]]:
        """Every list of statements: the module's, and those of compound statements."""
        for node in ast.walk(self.tree):
            for name in ("body", "orelse", "finalbody"):
                block = getattr(node, name, None)
                if isinstance(block, list) and block:
                    yield block

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self._starts[node.lineno - 1] + node.col_offset,
            self._starts[node.end_lineno - 1] + node.end_col_offset,
        )

    # -- the source after a change -----------------------------------------------------------

    def edited(self, changes: Iterable[tuple[ast.expr | ast.stmt, str]]) -> str:
        """The source with other texts in place of nodes, none of which lies within another."""
        data = self._data
        for node, text in sorted(changes, key=lambda c: self._span(c[0]), reverse=True):
            start, end = self._span(node)
            data = data[:start] + text.encode() + data[end:]
        return data.decode()

    def swapped(self, node: ast.expr, new: ast.expr) -> str:
        """The source with another expression in place of `node`."""
        changes: dict[ast.AST, ast.AST] = {node: new}
        # Before Python 3.12 what stands within an f-string has no place of its own.
        for outer in self.above(node):
            if isinstance(outer, ast.JoinedStr):
                node, new = outer, rebuilt(outer, changes)
        text = ast.unparse(new)
        return self.edited([(node, f"({text})" if isinstance(new, _LOOSE) else text)])

    def restated(self, statement: ast.stmt, new: Iterable[ast.stmt | str]) -> str | None:
        """The source with other statements in place of one; None where it shares its line."""
        start, _ = self._span(statement)
        line = self._data[self._starts[statement.lineno - 1] : start]
        if line.strip() or getattr(statement, "decorator_list", None):
            return None
        return self.edited([(statement, self.laid(statement, new))])

    def laid(self, statement: ast.stmt, new: Iterable[ast.stmt | str]) -> str:
        """The text of statements that stand where another does."""
        texts = (part if isinstance(part, str) else ast.unparse(fixed(part)) for part in new)
        return f"\n{' ' * statement.col_offset}".join("\n".join(texts).split("\n"))


def fixed(node: ast.stmt) -> ast.stmt:
    """A statement that was made by hand, with the places that `unparse` looks for."""
    return ast.fix_missing_locations(node)


def rebuilt(node: Any, changes: Mapping[ast.AST, ast.AST]) -> Any:
    """A copy of a tree with other nodes in place of some."""
    if isinstance(node, list):
        return [rebuilt(item, changes) for item in node]
    if not isinstance(node, ast.AST):
        return node
    if node in changes:
        return changes[node]
    fields = {name: rebuilt(value, changes) for name, value in ast.iter_fields(node)}
    return ast.copy_location(type(node)(**fields), node)


def loaded(node: ast.AST) -> set[str]:
    """The names that are read somewhere in `node`."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def stored(node: ast.AST) -> set[str]:
    """The names that are set somewhere in `node`; those of comprehensions count as well."""
    return {
        n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }


def expression(text: str) -> ast.expr:
    """An expression, parsed."""
    return ast.parse(text, mode="eval").body


def name(text: str) -> ast.Name:
    """A name that is read."""
    return ast.Name(text, ast.Load())


BUILTINS = frozenset(dir(builtins))


def does(text: str) -> str:
    """What a source compiles to: alike for two that differ in layout or in what is computed early.

    Raises SyntaxError for what is no Python.
    """

    def told(value: object) -> str:
        if isinstance(value, types.CodeType):
            inner = [told(constant) for constant in value.co_consts]
            names = (value.co_names, value.co_varnames, value.co_freevars, value.co_flags)
            return repr((value.co_name, value.co_code, inner, names))
        return repr(value)

    return told(compile(text, "cell", "exec", dont_inherit=True))


def variants(
    text: str,
    operators: Mapping[str, Operator],
    around: Surroundings,
    essence: Callable[[str], str],
) -> list[Variant]:
    """Every variant of a source whose essence is another, each once.

    Empty for what is no Python, such as a cell of shell commands.
    """
    try:
        code = Code(text)
    except SyntaxError:
        return []
    found: list[Variant] = []
    known = {essence(text)}
    for operator, make in operators.items():
        for source in make(code, around):
            try:
                own = essence(source)
            except SyntaxError:
                continue
            if own not in known:
                known.add(own)
                found.append(Variant(operator, change_of(text, source), source))
    return [_numbered(found, at) for at in range(len(found))]


def _numbered(found: list[Variant], at: int) -> Variant:
    """A variant under a name of its own: a line may stand twice in a source."""
    one = found[at]
    before = sum(one.name == other.name for other in found[:at])
    return Variant(one.operator, f"{one.change} ({before + 1})", one.source) if before else one


def change_of(old: str, new: str) -> str:
    """The lines in which two sources differ, in one line: `old → new`."""
    one, other = old.split("\n"), new.split("\n")
    shorter = min(len(one), len(other))
    head = next((n for n in range(shorter) if one[n] != other[n]), shorter)
    rest = shorter - head
    tail = next((n for n in range(rest) if one[-1 - n] != other[-1 - n]), rest)

    def told(lines: list[str]) -> str:
        line = " ".join("\n".join(lines[head : len(lines) - tail]).split())
        return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"

    return f"{told(one)} → {told(other)}".strip()
