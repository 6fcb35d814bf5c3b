"""The documentation's site: what its build makes of the code, and that it builds."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import types
from pathlib import Path

import pytest
import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

from autograder import checks, cli
from tools import bootstrap

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def script(name: str) -> types.ModuleType:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


architecture = script("make_architecture")
site = script("kit_site")


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """By the command of `make docs`, into another folder."""
    [command] = bootstrap.COMMANDS["docs"][1]
    *options, target = command
    assert target == "docs/_build/html"
    done = subprocess.run(
        [sys.executable, *options, tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.returncode == 0
    pages = {path.stem for path in DOCS.glob("*.md")}
    assert pages <= {path.stem for path in tmp_path.glob("*.html")}


# -- the picture -------------------------------------------------------------------------------


def test_the_picture_of_the_architecture_is_current() -> None:
    written = architecture.PICTURE.read_text(encoding="utf-8")
    assert written == architecture.picture(), "run python docs/make_architecture.py"


def test_the_picture_names_modules_that_exist() -> None:
    named = [name for step in architecture.STEPS for name in step.modules]
    named += [name for modules, _ in architecture.ENTRANCES for name in modules]
    for name in named:
        path = ROOT / "autograder" / name.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), name


def test_the_picture_puts_modules_into_their_zones() -> None:
    zones = {architecture.KERNEL: {"kernel"}, architecture.ENGINE: {"engine", "checks"}}
    for step in architecture.STEPS:
        packages = {name.partition(".")[0] for name in step.modules}
        assert packages <= zones.get(step.zone, {"record", "service"}), step


def test_the_text_follows_the_steps_of_the_picture() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    steps = {step.number: step for step in architecture.STEPS if step.number}
    assert sorted(steps) == list(range(1, len(steps) + 1))
    for number, step in steps.items():
        told = text.partition(f"\n{number}. **")[2].partition(f"\n{number + 1}. **")[0]
        for name in step.modules:
            assert f"`{name}`" in told, (number, name)


# -- the command line --------------------------------------------------------------------------


def test_every_command_and_option_has_its_place() -> None:
    text = site.commands_text()
    group = typer.main.get_command(cli.app)
    assert isinstance(group, TyperGroup)
    for name, command in group.commands.items():
        section = text.partition(f"## autograder {name}\n")[2].partition("\n## ")[0]
        assert section, name
        for parameter in command.params:
            assert isinstance(parameter, TyperArgument | TyperOption)
            assert parameter.help in section
            for option in [*parameter.opts, *parameter.secondary_opts]:
                assert option in section or parameter.metavar in section


def test_the_command_line_is_the_same_on_every_machine() -> None:
    text = site.commands_text()
    assert "Default: the number of processors." in text
    assert f"Default: `{cli.PROCESSORS}`" not in text


def test_every_make_target_is_listed() -> None:
    assert site.targets_text().count("`make ") == len(bootstrap.COMMANDS)
    assert "| `make docs` |" in site.targets_text()


def test_what_is_made_of_the_code_has_a_page() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("*.md"))
    assert [marker for marker in site.MADE if text.count(marker) != 1] == []


# -- links -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "target", "there"),
    [
        (".", "docs/trust.md#on-a-cluster", "trust.md#on-a-cluster"),
        (".", "CHANGELOG.md", "changelog.md"),
        ("docs", "../CONTRIBUTING.md", "contributing.md"),
        ("docs", "../deploy/example.toml", "../deploy/example.toml"),
        ("docs", "hub.md", "hub.md"),
        ("benchmarks", "results.md", "benchmark-results.md"),
        ("data", "#mnist", "#mnist"),
        ("data", "https://example.org/a.md", "https://example.org/a.md"),
    ],
)
def test_a_link_leads_to_a_page(folder: str, target: str, there: str) -> None:
    text = f"see [it]({target})\n```\n[it]({target})\n```\n"
    moved = f"see [it]({there})\n```\n[it]({target})\n```\n"
    assert site.relinked(text, ROOT / folder) == moved


def test_every_document_from_elsewhere_has_its_page() -> None:
    for document, page in site.PAGES.items():
        assert (ROOT / document).is_file()
        if document != "README.md":
            assert f"{{include}} ../{document}\n" in (DOCS / page).read_text(encoding="utf-8")


# -- the API -----------------------------------------------------------------------------------


def test_what_is_not_documented_is_found(tmp_path: Path) -> None:
    path = tmp_path / "words.py"
    path.write_text(
        'A = 1\n_B = 2\n\n\nclass C:\n    d: int = 0\n\n\ndef e(f, *g):\n    """Do.\n\n'
        '    Args:\n        f: It.\n    """\n',
        encoding="utf-8",
    )
    words = types.ModuleType("words")
    words.__file__ = str(path)
    assert list(site.public_names(words)) == ["words.A", "words.C", "words.C.d", "words.e"]
    assert list(site.silent_parameters(words)) == ["words.e(g)"]


def test_the_names_for_checks_are_looked_at() -> None:
    names = set(site.public_names(checks))
    assert {"autograder.checks.Setup.seconds", "autograder.checks.diagnose"} <= names
    assert list(site.silent_parameters(checks)) == []
