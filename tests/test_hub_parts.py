"""The parts of the Hub, one by one; tests/test_hub.py tests them together."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
import pytest
from traitlets.config.loader import PyFileConfigLoader

from autograder.errors import UserError
from deploy import accounts, environment, processes
from deploy.demo import Demonstration, Members
from deploy.processes import Process
from support.submissions import ROOT

pytestmark = pytest.mark.hub


def test_sharing_leaves_the_source_alone_and_makes_all_of_it_readable(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "inner").mkdir(parents=True, mode=0o700)
    modes = {"open": 0o644, "closed": 0o600, "inner/program": 0o700, "inner/left": 0o644}
    for name, mode in modes.items():
        (source / name).write_text(name)
        (source / name).chmod(mode)
    (source / "link").symlink_to("open")
    environment.share(source, target, ["left"])
    assert {p.relative_to(target).as_posix() for p in target.rglob("*")} == {
        "open", "closed", "link", "inner", "inner/program",
    }  # fmt: skip
    assert (target / "link").is_symlink()
    for name in ("open", "closed", "inner/program"):
        assert (target / name).read_text() == name
        assert (target / name).stat().st_mode & stat.S_IROTH
        assert stat.S_IMODE((source / name).stat().st_mode) == modes[name]
    assert (target / "inner").stat().st_mode & 0o005 == 0o005
    assert (target / "inner" / "program").stat().st_mode & stat.S_IXOTH
    assert (target / "open").samefile(source / "open"), "what all may read is not copied"
    assert not (target / "closed").samefile(source / "closed")


@pytest.mark.parametrize(("mode", "public"), [(0o755, True), (0o711, True), (0o700, False)])
def test_a_program_is_public_when_all_folders_above_are(
    tmp_path: Path, mode: int, public: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    above = Path(tmp_path.anchor, "tmp") if os.geteuid() == 0 else tmp_path
    folder = above / f"kit-public-{os.getpid()}-{mode:o}"
    folder.mkdir()
    try:
        program = folder / "program"
        program.touch(0o755)
        folder.chmod(mode)
        if above == tmp_path:
            pytest.skip("needs a folder that everybody may enter")
        assert environment.is_public(program) is public
    finally:
        folder.chmod(0o700)
        program.unlink()
        folder.rmdir()


PAGE = """
import nbformat
from autograder.record.pages import PageExporter
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A heading")])
print(PageExporter().from_notebook_node(notebook, {"metadata": {"name": "one"}})[0])
"""


def test_pages_are_laid_out_where_one_environment_stands_on_another(folder: Path) -> None:
    """Like a grader's environment, in which `share`, with nbconvert's templates, is a link."""
    environment._make_venv(folder / "env", Path(sys.executable).resolve())
    below = environment._site_packages(Path(sys.prefix))
    (environment._site_packages(folder / "env") / "below.pth").write_text(f"{below}\n{ROOT}\n")
    (folder / "env" / "share").symlink_to(Path(sys.prefix) / "share")
    done = subprocess.run(
        [folder / "env" / "bin" / "python", "-c", PAGE],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "shown as plain text" not in done.stdout
    assert '<h1 id="A-heading">' in done.stdout


def test_students_and_course_leave_out_the_same_files() -> None:
    """Students' servers cannot read the course's configuration, so the list is duplicated."""
    course = PyFileConfigLoader("nbgrader_config.py", str(ROOT)).load_config()
    folder = ROOT / "deploy" / "jupyter" / "everyone"
    everyone = PyFileConfigLoader("nbgrader_config.py", str(folder)).load_config()
    own = {".autograder", "results.json"}  # only in the course's folder
    assert set(everyone.CourseDirectory.ignore) == set(course.CourseDirectory.ignore) - own
    assert everyone.Execute.timeout == course.Execute.timeout


@pytest.mark.parametrize("instead", [None, "Untitled.ipynb"])
def test_submit_refuses_a_folder_without_any_notebook_of_the_assignment(
    tmp_path: Path, instead: str | None
) -> None:
    exchange, home = tmp_path / "exchange", tmp_path / "home"
    released = exchange / "course" / "outbound" / "week-1"
    released.mkdir(parents=True)
    inbound = exchange / "course" / "inbound"
    inbound.mkdir(mode=0o733)
    inbound.chmod(0o733)
    work = home / "course" / "week-1"
    work.mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(), released / "1-one.ipynb")
    if instead:
        nbformat.write(nbformat.v4.new_notebook(), work / instead)

    def submit() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "nbgrader", "submit", "week-1", "--course", "course"],
            cwd=home,
            env={
                "HOME": str(home),
                "PATH": os.defpath,
                "NBGRADER_EXCHANGE": str(exchange),
                "JUPYTER_CONFIG_PATH": str(ROOT / "deploy" / "jupyter" / "everyone"),
            },
            capture_output=True,
            text=True,
        )

    done = submit()
    assert done.returncode != 0
    said = " ".join(done.stderr.split())
    assert "Not submitted: none of the assignment's notebooks (1-one.ipynb) is in" in said
    assert (f"its notebooks are {instead}" in said) is (instead is not None)
    assert "then submit again." in said
    assert list(inbound.iterdir()) == []
    nbformat.write(nbformat.v4.new_notebook(), work / "1-one.ipynb")
    done = submit()
    assert done.returncode == 0, done.stderr
    assert len(list(inbound.iterdir())) == 1


# --- accounts of a demonstration ---

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make accounts")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A demonstration's folder, reachable for every account."""
    made = Path(tempfile.mkdtemp(prefix=accounts.PREFIX))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def name() -> str:
    """A unique name for an account."""
    return f"kit-{secrets.token_hex(6)}"


@dataclass(frozen=True)
class Somebody:
    """An account that existed before, and a process that runs under it."""

    name: str
    uid: int
    process: subprocess.Popen[bytes]

    @property
    def is_unharmed(self) -> bool:
        entry = pwd.getpwnam(self.name)
        return entry.pw_uid == self.uid and self.process.poll() is None


@pytest.fixture
def somebody(name: str) -> Iterator[Somebody]:
    comment = f"made by a test, {name}"
    subprocess.run(["useradd", "--comment", comment, f"{name}-0"], check=True)
    entry = pwd.getpwnam(f"{name}-0")
    process = subprocess.Popen(["sleep", "600"], user=entry.pw_uid, group=entry.pw_gid)
    yield Somebody(entry.pw_name, entry.pw_uid, process)
    process.kill()
    process.wait()
    if pwd.getpwnam(entry.pw_name).pw_gecos == comment:
        subprocess.run(["userdel", entry.pw_name], check=True)


def exists(account: str) -> bool:
    """Whether an account or group with this name exists."""
    lines = [*Path("/etc/passwd").read_text().splitlines()]
    lines += Path("/etc/group").read_text().splitlines()
    return any(line.partition(":")[0] == account for line in lines)


def made_and_left(folder: Path, name: str) -> None:
    """Create an account in a process that ends without removing it."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            run = accounts.Run.begin(folder)
            accounts.create(run, [name], {f"{accounts.GROUP_PREFIX}{name}": [name]}, folder)
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert (folder / "homes" / name).is_dir()


@as_root
def test_accounts_of_a_demonstration_that_was_killed_are_removed(folder: Path, name: str) -> None:
    made_and_left(folder, name)
    group = f"{accounts.GROUP_PREFIX}{name}"
    assert exists(name)
    assert exists(group)
    entry = pwd.getpwnam(name)
    left = subprocess.Popen(["sleep", "600"], user=entry.pw_uid, group=entry.pw_gid)
    accounts.remove_stale()
    assert left.wait(60) == -signal.SIGKILL
    assert not folder.exists()
    assert not exists(name)
    assert not exists(group)


@as_root
def test_an_account_that_was_there_stays_when_the_demonstration_refuses(
    somebody: Somebody, name: str
) -> None:
    course = Members(name, f"{name}-g", (f"{name}-i",), (f"{name}-s", somebody.name))
    demonstration = Demonstration([course])
    with pytest.raises(UserError, match=f"an account '{somebody.name}' already"):
        demonstration.__enter__()
    assert somebody.is_unharmed
    assert not exists(f"{name}-i")
    assert not exists(f"{name}-s")
    assert not demonstration.folder.exists()


@as_root
def test_a_group_that_was_there_stays(folder: Path, name: str) -> None:
    group = f"{accounts.GROUP_PREFIX}{name}"
    subprocess.run(["groupadd", group], check=True)
    run = accounts.Run.begin(folder)
    try:
        with pytest.raises(UserError, match="groupadd failed"):
            accounts.create(run, [name], {group: [name]}, folder)
        accounts.remove(run, folder)
        assert exists(group)
        assert not exists(name)
    finally:
        subprocess.run(["groupdel", group], check=True)


@as_root
def test_what_runs_has_its_accounts_to_itself(folder: Path, name: str) -> None:
    run = accounts.Run.begin(folder)
    accounts.create(run, [name], {}, folder)
    try:
        accounts.remove_stale()
        assert exists(name)
        assert folder.exists()
        uid = pwd.getpwnam(name).pw_uid
        other = replace(run, token="0" * 16)  # another run of the very same process
        accounts.remove(other, folder)
        assert pwd.getpwnam(name).pw_uid == uid
    finally:
        accounts.remove(run, folder)
    assert not exists(name)


@as_root
def test_a_number_that_another_process_has_now_protects_nothing(folder: Path, name: str) -> None:
    """The mark has this process's pid, but another start time."""
    me = Process.of(os.getpid())
    run = accounts.Run(Process(me.pid, me.start - 1), "0" * 16)
    accounts.create(run, [name], {}, folder)
    accounts.remove_stale()
    assert not exists(name)


CHANGES = {
    "comment": ["--comment", "Ada Lovelace"],
    "number": ["--uid"],
    "home": ["--home", "/"],
}


@as_root
@pytest.mark.parametrize("change", CHANGES)
def test_an_account_that_was_changed_since_is_somebodys(
    folder: Path, name: str, change: str
) -> None:
    run = accounts.Run.begin(folder)
    accounts.create(run, [name], {}, folder)
    entry = pwd.getpwnam(name)
    options = [*CHANGES[change], *([str(entry.pw_uid + 1)] if change == "number" else [])]
    subprocess.run(["usermod", *options, name], check=True, capture_output=True)
    accounts.remove(run, folder)
    assert exists(name)
    subprocess.run(["userdel", name], check=True)  # made by this test, a few lines above
    assert not exists(name)


@as_root
def test_what_ran_before_is_not_the_accounts(folder: Path, name: str) -> None:
    """User ids are reused; the demonstration avoids those of running processes."""
    numbers = processes.owners() | {entry.pw_uid for entry in pwd.getpwall()}
    taken = max(numbers & set(accounts.NUMBERS), default=accounts.NUMBERS[0]) + 1
    before = subprocess.Popen(["sleep", "600"], user=taken)
    run = accounts.Run.begin(folder)
    try:
        accounts.create(run, [name], {}, folder)
        assert pwd.getpwnam(name).pw_uid != taken
        accounts.remove(run, folder)
        assert before.poll() is None
    finally:
        before.kill()
        before.wait()


# --- a demonstration's end, of any kind, ends its Hub ---

HUB = """
import os, subprocess, sys, time
if os.fork() == 0:  # as a proxy or a kernel might: nobody's child, in a session of its own
    os.setsid()
    if os.fork() == 0:
        subprocess.Popen(["sleep", "600"])
        print("up", flush=True)
        time.sleep(600)
    os._exit(0)
os.wait()
time.sleep(600)
"""
STARTER = """
import subprocess, sys, time
command = [sys.executable, "-m", "deploy.lifeline", *sys.argv[1:]]
hub = subprocess.Popen(command, stdin=subprocess.PIPE)
time.sleep(600)
"""


@pytest.fixture
def started(folder: Path) -> Iterator[tuple[subprocess.Popen[str], Process]]:
    """A process that has started a command by a lifeline, and the lifeline."""
    (folder / "state").mkdir()
    command = [sys.executable, "-c", STARTER, str(folder), sys.executable, "-c", HUB]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "up\n"
        lifeline = Process(*json.loads((folder / accounts.LIFELINE).read_text()))
        yield starter, lifeline
        starter.kill()
        starter.stdout.close()
        processes.end(lambda: [*processes.descendants(lifeline), *alive([lifeline])])


def alive(some: list[Process]) -> list[Process]:
    return [process for process in some if process.is_alive]


def gone(some: list[Process], seconds: float = 60) -> bool:
    """Whether all of these processes end within that time."""
    deadline = time.monotonic() + seconds
    while alive(some) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(some)


def test_what_a_killed_demonstration_has_started_ends_with_it(
    started: tuple[subprocess.Popen[str], Process],
) -> None:
    starter, lifeline = started
    below = processes.descendants(lifeline)
    assert len(below) == 3, "the command, what it has left alone, and the child of that"
    bystander = subprocess.Popen(["sleep", "600"])
    starter.send_signal(signal.SIGKILL)
    assert gone([*below, lifeline])
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_the_command_ends_with_a_lifeline_that_was_killed(
    started: tuple[subprocess.Popen[str], Process],
) -> None:
    _, lifeline = started
    below = processes.descendants(lifeline)
    command = min(below, key=lambda process: process.start)
    lifeline.send(signal.SIGKILL)
    assert gone([command])
    processes.end(lambda: alive(below))  # a real Hub would have ended these


def test_a_demonstration_that_was_killed_is_waited_for(
    started: tuple[subprocess.Popen[str], Process], folder: Path
) -> None:
    starter, lifeline = started
    owner = Process.of(starter.pid)
    (folder / accounts.OWNER).write_text(json.dumps([owner.pid, owner.start, "0" * 16]))
    accounts.remove_stale()
    assert folder.exists(), "its process runs"
    below = processes.descendants(lifeline)
    starter.kill()
    starter.wait()
    accounts.remove_stale()
    assert not alive([*below, lifeline])
    assert not folder.exists()


LISTENER = """
import os, signal
def say(text):
    os.write(1, f"{text}\\n".encode())  # print may not interrupt itself
for number in (signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, lambda number, frame: say(signal.Signals(number).name))
say("listening")
while True:
    signal.pause()
"""


def test_a_signal_reaches_the_process_that_was_meant() -> None:
    command = [sys.executable, "-c", LISTENER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "listening\n"
        now = Process.of(child.pid)
        Process(now.pid, now.start - 1).send(signal.SIGUSR1)  # would arrive first
        now.send(signal.SIGUSR2)
        heard = child.stdout.readline()
        now.send(signal.SIGKILL)
        assert child.wait(60) == -signal.SIGKILL
    assert heard == "SIGUSR2\n"
    assert not now.is_alive
