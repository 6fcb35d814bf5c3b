"""The Python environments of students and graders on the Hub.

The students' environment must be readable by them and must not contain the hidden checks.  The
kit's own `.venv` qualifies for neither: it may be in a private home, and it imports `autograder`.
It is therefore shared as another folder, by hard links where the disk allows them, without
downloads and with few copies.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Large parts of the interpreter that no notebook imports.
NOT_SHARED = {"site-packages", "test", "idlelib", "turtledemo", "__pycache__"}
_READABLE, _EXECUTABLE = stat.S_IROTH, stat.S_IXOTH
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def is_public(path: Path) -> bool:
    """Whether every account of this machine may read `path` and enter the folders above it."""
    return all(parent.stat().st_mode & _EXECUTABLE for parent in path.resolve().parents) and bool(
        path.stat().st_mode & _READABLE
    )


def share(source: Path, target: Path, leave_out: Iterable[str] = (), link: bool = True) -> None:
    """Reproduce the tree `source` as `target`, readable by all; the source is not changed.

    Files are hard-linked.  A file is copied if others may not read it, if another account owns it
    or may write to it (and could change it later), or if it is on another disk; without `link`,
    all files are copied.
    """
    skipped = set(leave_out)
    target.mkdir(parents=True, exist_ok=True)
    target.chmod(0o755)
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.name in skipped:
                continue
            goal = target / entry.name
            if entry.is_symlink():
                goal.symlink_to(os.readlink(entry))
            elif entry.is_dir():
                share(Path(entry.path), goal, skipped, link)
            else:
                share_file(Path(entry.path), goal, link)


def share_file(source: Path, target: Path, link: bool = True) -> None:
    """Link or copy a file so that all may read it, and execute it if its owner may."""
    status = source.stat()
    mode = status.st_mode
    if (
        link
        and mode & _READABLE
        and status.st_uid == os.geteuid()
        and not mode & _WRITABLE_BY_OTHERS
    ):
        try:
            os.link(source, target)
        except OSError:  # another disk, or no more links to this file
            pass
        else:
            return
    shutil.copy2(source, target)  # owned by us, whoever owns the source
    target.chmod(0o755 if mode & stat.S_IXUSR else 0o644)


def share_interpreter(folder: Path) -> Path:
    """The interpreter of `.venv`; a copy in `folder` if others cannot run it, or one owns it."""
    base = Path(sys.base_prefix)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    original = (base / "bin" / name).resolve()
    mine = original.stat().st_uid == os.geteuid()
    if mine and is_public(original) and is_public(Path(os.__file__)):
        return original
    library = Path(os.__file__).parent
    share(library, folder / library.relative_to(base), NOT_SHARED - {"__pycache__"})
    for path in (base / "lib").glob("libpython*"):
        share_file(path.resolve(), folder / "lib" / path.name)
    interpreter = folder / "bin" / name
    interpreter.parent.mkdir()
    # The program contains the absolute path of a shared libpython.
    content, there = original.read_bytes(), os.fsencode(base / "lib") + b"\0"
    here = b"$ORIGIN/../lib\0"
    if there in content and len(here) <= len(there):
        content = content.replace(there, here.ljust(len(there), b"\0"))
    interpreter.write_bytes(content)
    interpreter.chmod(0o755)
    return interpreter


def share_environment(folder: Path, interpreter: Path) -> Path:
    """Share the running environment, without the kit, as `folder`; return its Python."""
    source = Path(sys.prefix)
    kit = [entry.name for entry in _site_packages(source).iterdir() if _is_kit(entry.name)]
    _make_venv(folder, interpreter)
    share(_site_packages(source), _site_packages(folder), kit)
    share(source / "share", folder / "share")
    share(source / "etc", folder / "etc")
    _write_scripts(source / "bin", folder, lambda name: name != "autograder")
    return folder / "bin" / "python"


def grader_environment(folder: Path, shared: Path) -> Path:
    """Make an environment in `folder` with the kit, on top of the shared one; return its Python."""
    interpreter = (shared / "bin" / "python").resolve()
    _make_venv(folder, interpreter)
    kit = folder / "kit"
    share(ROOT / "autograder", kit / "autograder", ["__pycache__"], link=False)
    data = kit / "autograder" / "data"
    if data.is_symlink():  # in a checkout
        data.unlink()
        share((ROOT / "autograder" / "data").resolve(), data, ["__pycache__", "mnist"], link=False)
    for entry in _site_packages(Path(sys.prefix)).glob("autograder-*.dist-info"):
        share(entry, kit / entry.name, link=False)
    # Students' packages come first, so that graders import the same ones.
    (_site_packages(folder) / "kit.pth").write_text(f"{_site_packages(shared)}\n{kit}\n")
    (folder / "share").symlink_to(shared / "share")
    share(shared / "etc", folder / "etc", link=False)
    _write_scripts(Path(sys.prefix) / "bin", folder, lambda name: True)
    return folder / "bin" / "python"


def _is_kit(name: str) -> bool:
    return bool(re.match(r"(__editable__.*autograder|autograder)", name))


def _site_packages(prefix: Path) -> Path:
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return prefix / "lib" / name / "site-packages"


def _make_venv(folder: Path, interpreter: Path) -> None:
    _site_packages(folder).mkdir(parents=True)
    programs = folder / "bin"
    programs.mkdir()
    for name in ("python", "python3", interpreter.name):
        (programs / name).symlink_to(interpreter)
    home = f"home = {interpreter.parent}\ninclude-system-site-packages = false\n"
    (folder / "pyvenv.cfg").write_text(home)


def _write_scripts(source: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Write the packages' scripts with the Python of `folder` in their shebangs."""
    start = f"#!{folder / 'bin' / 'python'}\n"
    for path in source.iterdir():
        if path.is_symlink() or not path.is_file() or not wanted(path.name):
            continue
        first, _, rest = path.read_bytes().partition(b"\n")
        if first.startswith(b"#!") and b"python" in first:
            script = folder / "bin" / path.name
            script.write_bytes(start.encode() + rest)
            script.chmod(0o755)
