"""The documents are up to date."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer
from typer.core import TyperGroup

from autograder import cli
from tools import bootstrap

if TYPE_CHECKING:
    from make_figures import Quantity

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
COMMANDS = ROOT / "docs" / "cli.md"
DOCUMENTS = sorted(
    path for folder in (".", "docs", "data", "benchmarks") for path in (ROOT / folder).glob("*.md")
)


def shown(document: Path) -> str:
    """A document's name in a test's id."""
    return str(document.relative_to(ROOT))


_spec = importlib.util.spec_from_file_location("make_figures", ROOT / "docs" / "make_figures.py")
assert _spec is not None
assert _spec.loader is not None
figures = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = figures
_spec.loader.exec_module(figures)

MEASURED = json.loads(figures.RECORD.read_text(encoding="utf-8"))


def prose(document: Path) -> str:
    """The text without its code blocks."""
    return re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.mark.parametrize("document", DOCUMENTS, ids=shown)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(document))
    relative = [target for target in targets if not re.match(r"https?:|#", target)]
    assert [t for t in relative if not (document.parent / t.partition("#")[0]).exists()] == []


def test_readme_shows_a_picture() -> None:
    assert re.search(r"!\[[^\]]+\]\(docs/[\w-]+\.png\)", README.read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=shown)
def test_every_make_target_exists(document: Path) -> None:
    targets = set(re.findall(r"`make (\w+)", document.read_text(encoding="utf-8")))
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert phony is not None
    assert targets <= set(phony[1].split())
    assert targets <= {*bootstrap.COMMANDS, "help"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=shown)
def test_every_autograder_command_exists(document: Path) -> None:
    group = typer.main.get_command(cli.app)
    assert isinstance(group, TyperGroup)
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"(?:`|^)autograder ([a-z]+)([^`\n]*)", text, re.M)
    for command, rest in named:
        assert command in group.commands
        known = {option for p in group.commands[command].params for option in p.opts}
        known |= {option for p in group.commands[command].params for option in p.secondary_opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known


def test_explained_options_are_those_of_grade() -> None:
    options = set(re.findall(r"`(--(?:student|jobs|force|json|course))\b", prose(COMMANDS)))
    group = typer.main.get_command(cli.app)
    assert isinstance(group, TyperGroup)
    assert options <= {option for p in group.commands["grade"].params for option in p.opts}
    assert len(options) == 5


def test_thresholds_page_is_current() -> None:
    written = (ROOT / "docs" / "thresholds.md").read_text(encoding="utf-8")
    assert written == figures.thresholds_text(MEASURED), "run python docs/make_figures.py"


@pytest.mark.parametrize("quantity", figures.QUANTITIES, ids=lambda quantity: quantity.name)
def test_chance_hardly_ever_carries_a_solution_across_a_bound(quantity: Quantity) -> None:
    values = quantity.values(MEASURED)
    assert quantity.beyond(values) == 0
    assert quantity.failure(values) < quantity.limit


@pytest.mark.parametrize("quantity", figures.QUANTITIES, ids=lambda quantity: quantity.name)
def test_a_tightened_bound_or_a_few_seeds_are_noticed(
    quantity: Quantity, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = quantity.values(MEASURED)
    assert quantity.failure(values[:2]) == 1
    monkeypatch.setattr(figures.thresholds, quantity.bound_name, sorted(values)[len(values) // 2])
    assert quantity.failure(values) > 0.1


@pytest.mark.parametrize(
    ("t", "freedom", "tail"),
    # From printed tables of Student's distribution.
    [(6.3138, 1, 0.05), (2.0150, 5, 0.05), (3.3649, 5, 0.01), (1.9842, 99, 0.025), (0.0, 7, 0.5)],
)
def test_student_tail_agrees_with_the_tables(t: float, freedom: int, tail: float) -> None:
    assert figures.student_tail(t, freedom) == pytest.approx(tail, rel=2e-3)
    assert figures.student_tail(-t, freedom) == pytest.approx(1 - tail, rel=2e-3)
