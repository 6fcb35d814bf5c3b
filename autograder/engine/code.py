"""A digest of what the grading code does: part of cache keys, and the audit's proof.

A module counts if grading reaches it: through an import anywhere in the code, or through its dotted
name in a string, which is how the warm interpreter names the modules it preloads.  Only its syntax
tree without docstrings counts, so comments and explanations can change freely, while a changed
statement in any of these modules changes the digest.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

OWN = ("autograder",)  # the top-level packages whose code counts


@dataclass(frozen=True)
class _Module:
    """What one source file does and where it leads.

    Attributes:
        digest: of its syntax tree.
        names: dotted names of modules, or of objects in modules, that it mentions.
        files: names of data files beside it that it mentions.

    """

    digest: bytes
    names: frozenset[str]
    files: frozenset[str]


def reached(roots: Iterable[str], own: tuple[str, ...] = OWN) -> dict[str, Path]:
    """Every module of the packages `own` that the modules `roots` lead to: dotted name → file.

    Parent packages are included.  A root that does not exist is skipped.
    """
    found: dict[str, Path] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        path = None if name in found or name.partition(".")[0] not in own else _file_of(name)
        if path is None:
            continue
        found[name] = path
        waiting += _parents(name)
        for other in _read(path, own).names:
            waiting += [other, *_parents(other)]  # `from package import thing` yields both names
    return found


def code_digest(roots: Iterable[str], own: tuple[str, ...] = OWN) -> str:
    """The digest of what the modules `roots`, and all they lead to, do under this Python.

    A data file beside a module counts by its content if the module names it in a string.
    """
    digest = sha256(repr(sys.version_info[:2]).encode())
    for name, path in sorted(reached(roots, own).items()):
        module = _read(path, own)
        digest.update(name.encode() + module.digest)
        for beside in sorted(module.files):
            digest.update(beside.encode() + sha256((path.parent / beside).read_bytes()).digest())
    return digest.hexdigest()


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _file_of(name: str) -> Path | None:
    """The source file of a module, looked up where Python would import it from."""
    top, *parts = name.split(".")
    package, folders = top, [Path(f) for f in importlib.import_module(top).__path__]
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        files = [folder / f"{part}.py" for folder in folders]
        package = f"{package}.{part}"
        imported = getattr(sys.modules.get(package), "__path__", None)
        folders = [Path(f) for f in imported] if imported else [f / part for f in folders]
        if last:
            files = [*(folder / "__init__.py" for folder in folders), *files]
            return next((file for file in files if file.is_file()), None)
    return next((f for folder in folders if (f := folder / "__init__.py").is_file()), None)


def _read(path: Path, own: tuple[str, ...]) -> _Module:
    status = path.stat()
    return _read_version(path, own, (status.st_mtime_ns, status.st_size))


@functools.lru_cache(maxsize=1024)
def _read_version(path: Path, own: tuple[str, ...], version: tuple[int, int]) -> _Module:
    tree = ast.parse(path.read_bytes())
    names: set[str] = set()
    files: set[str] = set()
    dotted = re.compile(rf"\b(?:{'|'.join(own)})(?:\.\w+)+")
    _strip_docstrings(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                names |= {alias.name for alias in aliases}
            case ast.ImportFrom(module=str(module), names=aliases, level=0):
                names |= {module, *(f"{module}.{alias.name}" for alias in aliases)}
            case ast.Constant(value=str(text)):
                names |= set(dotted.findall(text))
                if _is_data(path.parent, text):
                    files.add(text)
    return _Module(sha256(ast.dump(tree).encode()).digest(), frozenset(names), frozenset(files))


def _is_data(folder: Path, name: str) -> bool:
    is_name = re.fullmatch(r"[\w.-]+", name) is not None
    return is_name and not name.endswith(".py") and (folder / name).is_file()


def _strip_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                del node.body[0]
