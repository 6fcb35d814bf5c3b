"""What the site adds to Sphinx: the command line, documents from elsewhere, a look at the API.

- The comment `<!-- commands -->` in a page becomes the reference of `autograder`, and
  `<!-- make targets -->` the list of what `make` can do: both are read from the code.
- A link to a document outside of docs/ leads to the page of the site that includes it.
- The build warns, and so fails, where a public name of `autograder.checks`, a field of its classes
  or a parameter of its functions is not documented.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import typer
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from autograder import checks, cli
from tools import bootstrap

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# Documents outside of docs/, and the pages that include them.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "data/README.md": "data.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/results.md": "benchmark-results.md",
}
# Defaults that depend on the machine.
DEFAULTS = {"jobs": "the number of processors", "course": "the current folder"}


# -- links -------------------------------------------------------------------------------------


def relinked(text: str, folder: Path) -> str:
    """Markdown from a file in `folder` as a page in docs/: the same links, from there.

    Code blocks stay as they are.
    """
    parts = re.split(r"(^```.*?^```)", text, flags=re.M | re.S)
    parts[::2] = [
        re.sub(r"\]\(([^)\s]+)\)", lambda found: f"]({moved(found[1], folder)})", part)
        for part in parts[::2]
    ]
    return "".join(parts)


def moved(target: str, folder: Path) -> str:
    """A link's target, seen from docs/ and not from `folder`."""
    path, mark, anchor = target.partition("#")
    if not path or re.match(r"\w+:", path):
        return target
    whole = os.path.normpath(folder / path)
    page = PAGES.get(os.path.relpath(whole, ROOT))
    return (page or os.path.relpath(whole, DOCS)) + mark + anchor


def on_read(_: Sphinx, name: str, content: list[str]) -> None:
    """A page of docs/ is read."""
    text = relinked(content[0], (DOCS / name).parent)
    for marker, made in MADE.items():
        if marker in text:
            text = text.replace(marker, made())
    content[0] = text


def on_include(_: Sphinx, path: Path, __: str, content: list[str]) -> None:
    """A page of docs/ includes another document; `path` leads there from docs/."""
    content[0] = relinked(content[0], (DOCS / path).parent)


# -- the command line ------------------------------------------------------------------------


def commands_text() -> str:
    """A section for each command of `autograder`, in Markdown."""
    group: Any = typer.main.get_command(cli.app)
    return "\n\n".join(command_text(name, command) for name, command in group.commands.items())


def command_text(name: str, command: Any) -> str:
    """The section of one command: what it does, how it is called, its arguments and options."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    call = " ".join([f"autograder {name} [OPTIONS]", *map(shown_argument, arguments)])
    parts = [
        f"## autograder {name}",
        " ".join(command.help.split()),
        f"```text\n{call}\n```",
        f"```{{program}} autograder {name}\n```",
        *map(parameter_text, sorted(command.params, key=lambda p: p.param_type_name)),
    ]
    return "\n\n".join(parts)


def shown_argument(argument: Any) -> str:
    """An argument as a call shows it; dots stand for further ones."""
    return str(argument.metavar or argument.name.upper()) + ("…" if argument.nargs == -1 else "")


def parameter_text(parameter: Any) -> str:
    """An argument or option as a directive, so that searches and links find it."""
    if parameter.param_type_name == "argument":
        names = shown_argument(parameter)
    else:
        value = "" if parameter.is_flag else f" {parameter.metavar or parameter.type.name.upper()}"
        names = ", ".join(f"{o}{value}" for o in [*parameter.opts, *parameter.secondary_opts])
    said = [parameter.help]
    if parameter.param_type_name == "option" and parameter.required:
        said.append("Required.")
    elif default := default_of(parameter):
        said.append(f"Default: {default}.")
    return f"```{{option}} {names}\n{' '.join(said)}\n```"


def default_of(parameter: Any) -> str:
    """A parameter's default in words, the same on every machine; empty when there is none."""
    if parameter.name in DEFAULTS:
        return DEFAULTS[parameter.name]
    if parameter.secondary_opts:
        return f"`{(parameter.opts if parameter.default else parameter.secondary_opts)[0]}`"
    return f"`{parameter.default}`" if parameter.default else ""


def targets_text() -> str:
    """The table of what `make` can do."""
    rows = [f"| `make {name}` | {purpose} |" for name, (purpose, _) in bootstrap.COMMANDS.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


MADE: dict[str, Callable[[], str]] = {
    "<!-- commands -->": commands_text,
    "<!-- make targets -->": targets_text,
}


# -- the API -----------------------------------------------------------------------------------


def public_names(module: ModuleType) -> Iterator[str]:
    """What a module defines for others: names without an underscore, and those in its classes."""
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    for name, node in _defined(tree):
        yield f"{module.__name__}.{name}"
        if isinstance(node, ast.ClassDef):
            yield from (f"{module.__name__}.{name}.{inner}" for inner, _ in _defined(node))


def _defined(tree: ast.Module | ast.ClassDef) -> Iterator[tuple[str, ast.AST]]:
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found = [name]
            case ast.ClassDef(name=name):
                found = [name]
            case ast.AnnAssign(target=ast.Name(id=name)):
                found = [name]
            case ast.Assign(targets=targets):
                found = [target.id for target in targets if isinstance(target, ast.Name)]
            case _:
                found = []
        yield from ((name, node) for name in found if not name.startswith("_"))


def silent_parameters(module: ModuleType) -> Iterator[str]:
    """Parameters of its public functions that their docstrings pass over, as `function(name)`."""
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    for name, node in _defined(tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        said = ast.get_docstring(node) or ""
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
        for argument in every:
            if not re.search(rf"^\s+\**{argument.arg}( \(.*\))?: ", said, re.M):
                yield f"{module.__name__}.{name}({argument.arg})"


def see_that_all_is_documented(_: Sphinx, env: BuildEnvironment) -> None:
    """Warn of each public name that no page documents."""
    documented = set(env.domaindata["py"]["objects"])
    for name in [n for n in public_names(checks) if n not in documented]:
        log.warning("%s is public and documented nowhere", name)
    for name in silent_parameters(checks):
        log.warning("%s is not explained in the docstring", name)


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("source-read", on_read)
    app.connect("include-read", on_include)
    app.connect("env-check-consistency", see_that_all_is_documented)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
