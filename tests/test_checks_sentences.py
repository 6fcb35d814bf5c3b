"""The sentences about mistakes are only built after the mistake was recognised."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.submissions import ROOT

CHECKS = sorted((ROOT / "autograder" / "checks" / "ch4_cnn").glob("*.py"))
# Functions that work for an answer of any size.
HARMLESS = {"len", "map", "sorted", "join"}


def sentences(path: Path) -> Iterator[ast.expr]:
    """The sentences in all calls of `diagnose` in a module."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "diagnose":
            yield from (one.elts[1] for one in node.args[1:] if isinstance(one, ast.Tuple))


def may_fail(sentence: ast.expr) -> bool:
    """Whether a sentence subscripts or calls something before it is needed."""
    if isinstance(sentence, ast.Lambda):
        return False
    items = [
        node
        for node in ast.walk(sentence)
        if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice)
    ]
    calls = [node.func for node in ast.walk(sentence) if isinstance(node, ast.Call)]
    names = {getattr(call, "id", getattr(call, "attr", "")) for call in calls}
    return bool(items or names - HARMLESS)


@pytest.mark.parametrize("path", CHECKS, ids=lambda path: path.stem)
def test_no_sentence_is_made_of_what_may_not_be_there(path: Path) -> None:
    assert [ast.unparse(one) for one in sentences(path) if may_fail(one)] == []


def test_there_are_sentences() -> None:
    assert sum(1 for path in CHECKS for _ in sentences(path)) > 100
