"""A piece of source with its syntax tree, whose nodes can be replaced in place."""

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

SHOWN = 100  # most characters of each side of a change in its name
NEST = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
COMPREHENSION = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_LOOSE = (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Lambda, ast.NamedExpr)


@dataclass(frozen=True)
class Surroundings:
    """The context of a cell.

    Attributes:
        modules: dotted names of the imported modules, by their names in the notebook.
        words: all words in the rest of the assignment; a name among them is not local to the cell.

    """

    modules: Mapping[str, str] = field(default_factory=dict)
    words: frozenset[str] = frozenset()

    def resolve(self, node: ast.AST) -> Any:
        """The object that `module.name.name` refers to; None if it cannot be resolved here."""
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
        """Whether an expression is an imported module or one of its submodules."""
        match node:
            case ast.Name(id=name):
                return name in self.modules
            case ast.Attribute(value=value):
                return self.is_module(value) and isinstance(self.resolve(node), types.ModuleType)
        return False


@dataclass(frozen=True)
class Variant:
    """A changed source.

    Attributes:
        operator: name of the operator that changed it.
        change: the lines that differ, as `old → new`.
        source: the changed source.

    """

    operator: str
    change: str
    source: str

    @property
    def name(self) -> str:
        """Its name in reports, unique among the variants of the same source."""
        return f"{self.operator}: {self.change}"


Operator = Callable[["Code", Surroundings], Iterator[str]]


class Code:
    """A parsed source.  Raises SyntaxError if it does not parse."""

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
        """The ancestors of `node`, innermost first."""
        while node in self.parents:
            node = self.parents[node]
            yield node

    def between(self, node: ast.AST, outer: ast.AST) -> Iterator[ast.AST]:
        """The ancestors of `node` below `outer`, innermost first."""
        return itertools.takewhile(lambda other: other is not outer, self.above(node))

    def statement(self, node: ast.AST) -> ast.stmt:
        """The innermost statement that contains an expression."""
        return next(n for n in self.above(node) if isinstance(n, ast.stmt))

    def function(self, node: ast.AST) -> ast.FunctionDef | None:
        """The innermost function that contains `node`."""
        return next((n for n in self.above(node) if isinstance(n, ast.FunctionDef)), None)

    def text_of(self, node: ast.expr | ast.stmt) -> str:
        """The original source of a node."""
        start, end = self._span(node)
        return self._data[start:end].decode()

    def blocks(self) -> Iterator[list[ast.stmt]]:
        """All lists of statements: the module's and those of compound statements."""
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

    def edit(self, changes: Iterable[tuple[ast.expr | ast.stmt, str]]) -> str:
        """The source with nodes replaced by texts; no node may contain another."""
        data = self._data
        for node, text in sorted(changes, key=lambda c: self._span(c[0]), reverse=True):
            start, end = self._span(node)
            data = data[:start] + text.encode() + data[end:]
        return data.decode()

    def swap(self, node: ast.expr, new: ast.expr) -> str:
        """The source with `node` replaced by another expression."""
        changes: dict[ast.AST, ast.AST] = {node: new}
        # Before Python 3.12, nodes inside an f-string have no positions of their own.
        for outer in self.above(node):
            if isinstance(outer, ast.JoinedStr):
                node, new = outer, rebuild(outer, changes)
        text = ast.unparse(new)
        return self.edit([(node, f"({text})" if isinstance(new, _LOOSE) else text)])

    def restate(self, statement: ast.stmt, new: Iterable[ast.stmt | str]) -> str | None:
        """The source with a statement replaced by others; None if it shares its line."""
        start, _ = self._span(statement)
        line = self._data[self._starts[statement.lineno - 1] : start]
        if line.strip() or getattr(statement, "decorator_list", None):
            return None
        return self.edit([(statement, self.laid(statement, new))])

    def laid(self, statement: ast.stmt, new: Iterable[ast.stmt | str]) -> str:
        """The text of statements, indented like `statement`."""
        texts = (part if isinstance(part, str) else ast.unparse(fixed(part)) for part in new)
        return f"\n{' ' * statement.col_offset}".join("\n".join(texts).split("\n"))


def fixed(node: ast.stmt) -> ast.stmt:
    """A constructed statement, with the positions that `unparse` needs."""
    return ast.fix_missing_locations(node)


def rebuild(node: Any, changes: Mapping[ast.AST, ast.AST]) -> Any:
    """A copy of a tree with some nodes replaced."""
    if isinstance(node, list):
        return [rebuild(item, changes) for item in node]
    if not isinstance(node, ast.AST):
        return node
    if node in changes:
        return changes[node]
    fields = {name: rebuild(value, changes) for name, value in ast.iter_fields(node)}
    return ast.copy_location(type(node)(**fields), node)


def loaded(node: ast.AST) -> set[str]:
    """The names read anywhere in `node`."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def stored(node: ast.AST) -> set[str]:
    """The names assigned anywhere in `node`, including comprehension targets."""
    return {
        n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }


def expression(text: str) -> ast.expr:
    """Parse an expression."""
    return ast.parse(text, mode="eval").body


def name(text: str) -> ast.Name:
    """A name node in load context."""
    return ast.Name(text, ast.Load())


BUILTINS = frozenset(dir(builtins))


def does(text: str) -> str:
    """The bytecode of a source as text, whatever its layout, after constant folding.

    Raises SyntaxError if it is not Python.
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
    """All variants of a source with a new essence, without duplicates.

    Empty if the source is not Python, such as a cell of shell commands.

    Args:
        text: the source.
        operators: the operators to apply, by name.
        around: the context of the source.
        essence: maps sources to values that are equal for equivalent ones.

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
    return [_number(found, at) for at in range(len(found))]


def _number(found: list[Variant], at: int) -> Variant:
    """A variant with a unique name, since a source may contain the same line twice."""
    one = found[at]
    before = sum(one.name == other.name for other in found[:at])
    return Variant(one.operator, f"{one.change} ({before + 1})", one.source) if before else one


def change_of(old: str, new: str) -> str:
    """The lines in which two sources differ, as one line `old → new`."""
    one, other = old.split("\n"), new.split("\n")
    shorter = min(len(one), len(other))
    head = next((n for n in range(shorter) if one[n] != other[n]), shorter)
    rest = shorter - head
    tail = next((n for n in range(rest) if one[-1 - n] != other[-1 - n]), rest)

    def told(lines: list[str]) -> str:
        line = " ".join("\n".join(lines[head : len(lines) - tail]).split())
        return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"

    return f"{told(one)} → {told(other)}".strip()
