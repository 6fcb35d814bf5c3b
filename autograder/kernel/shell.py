"""IPython for unattended use: no terminal, no screen, no network, and no way to end the kernel."""

from __future__ import annotations

import re
import shlex
import subprocess
from importlib import metadata
from typing import Any

from ipykernel.ipkernel import IPythonKernel
from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class
from traitlets import Type, observe

# Packages that notebooks of this kind usually need.
USUAL = ("tensorflow", "numpy", "matplotlib", "pillow", "scipy", "pandas", "scikit-learn", "tqdm")
_INSTALLER = re.compile(
    r"\s*(?:sudo\s+)?(?:(?:\S*/)?python[\d.]*\s+-m\s+|uv\s+)?"
    r"(?P<name>pip[\d.]*|conda|mamba|micromamba)\s+(?P<rest>[^;&|]*)"
)
_PACKAGE = re.compile(r"[A-Za-z0-9][\w.-]*")


class Shell(ZMQInteractiveShell):  # type: ignore[misc]
    """A kernel's shell in which lines with `!` and `%` work as far as they can during grading."""

    def system_piped(self, cmd: str) -> None:
        """Run a shell command through pipes; for an installer, only say which packages are here."""
        if cmd.rstrip().endswith("&"):
            raise OSError("Background processes not supported.")
        command = self.var_expand(cmd, depth=1)
        if (match := _INSTALLER.match(command)) is not None:
            self.user_ns["_exit_code"] = answer_installer(match["name"], match["rest"])
        else:
            self.user_ns["_exit_code"] = run(command)

    system = system_piped

    def ask_exit(self) -> None:
        """End the cell, as `sys.exit()` does; the notebook continues."""
        raise SystemExit("quit() and exit() end only this cell")

    @observe("exit_now")  # type: ignore[untyped-decorator]
    def _update_exit_now(self, change: Any) -> None:
        """Ignore the flag, since only the grader ends the kernel."""

    def enable_matplotlib(self, gui: str | None = None) -> Any:
        """Draw figures into the notebook, whatever window or widget the code asks for."""
        if gui not in (None, "auto", "agg", "inline"):
            print(f"There is no screen here: %matplotlib {gui} draws as %matplotlib inline does.")
            gui = "inline"
        return super().enable_matplotlib(gui)

    def init_magics(self) -> None:
        """Replace the magics that install packages."""
        super().init_magics()
        self.register_magics(Installers)


@magics_class
class Installers(Magics):
    """`%pip` and the like, which have nothing to install from."""

    @line_magic
    def pip(self, line: str) -> None:
        """Say which packages are here."""
        answer_installer("pip", line)

    @line_magic
    def conda(self, line: str) -> None:
        """Say which packages are here."""
        answer_installer("conda", line)

    @line_magic
    def mamba(self, line: str) -> None:
        """Say which packages are here."""
        answer_installer("mamba", line)

    @line_magic
    def uv(self, line: str) -> None:
        """Say which packages are here."""
        answer_installer("uv", line.removeprefix("pip "))


class Kernel(IPythonKernel):  # type: ignore[misc]
    """A kernel with this shell."""

    shell_class = Type(Shell)


def run(command: str) -> int:
    """Run a shell command; returns its exit status.

    Its output goes to the cell line by line.  An interrupt ends both the command and the cell.
    """
    with subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="")
            return process.wait()
        except BaseException:
            process.kill()
            raise


def answer_installer(name: str, line: str) -> int:
    """Say that nothing can be installed, and which packages are here; returns an exit status.

    The status is 0 when all requested packages are here.
    """
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        words = line.split()
    matches = [_PACKAGE.match(word) for word in words[1:]]
    asked = [match[0] for match in matches if match] if words[:1] == ["install"] else []
    here = {
        each: version for each in dict.fromkeys([*asked, *USUAL]) if (version := _version(each))
    }
    lacking = [each for each in asked if each not in here]
    listed = ", ".join(f"{each} {version}" for each, version in here.items())
    absent = f"; not here: {', '.join(lacking)}" if lacking else ""
    print(f"{name}: there is no network where notebooks are graded; here are {listed}{absent}")
    return 1 if lacking else 0


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
