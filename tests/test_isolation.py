"""What a kernel cannot do, at each level of confinement.

The attempts run in a notebook's own cells.  In an unconfined kernel the same attempts succeed or
fail in another way, so it is the sandbox that refuses them.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from autograder.engine import run as run_module
from autograder.engine.run import NotebookRun
from autograder.engine.sandbox import CONTROL_GROUP, LAYERS, Sandbox, refused
from autograder.engine.values import KernelLost, NoValue
from autograder.engine.warm import WarmInterpreter
from autograder.errors import GraderFault
from autograder.kernel import isolate
from autograder.kernel.child import UNCONFINED, Limits, Order
from support.environments import NAMESPACES, forbidding
from support.outside import Outside
from support.submissions import ASSIGNMENT, NOTEBOOKS, CourseCopy
from support.waiting import until

LEVELS = (isolate.NAMESPACES, isolate.LANDLOCK)
AS_ROOT = os.geteuid() == 0

# --- a kernel that runs given attempts ---

ATTEMPT = """
import ctypes, errno, fcntl, mmap, os, resource, signal, socket, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)

def call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "system call")
    return result

def in_child(act):
    pid = os.fork()
    if pid == 0:
        try: act()
        except OSError as error: os._exit(error.errno)
        os._exit(0)
    number = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if number:
        raise OSError(number, "in a child")

def attempt(source):
    space = dict(globals())
    try:
        exec(source, space)
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    return space.get("got", "done")
"""


def book(*sources: str) -> nbformat.NotebookNode:
    """Make a notebook of these cells, each followed by a grade cell: `check-1`, `check-2`, …"""
    cells = []
    for number, source in enumerate(sources, 1):
        cell, check = new_code_cell(source), new_code_cell("")
        cell.metadata["nbgrader"] = {"grade_id": f"work-{number}", "solution": True, "grade": False}
        check.metadata["nbgrader"] = {"grade_id": f"check-{number}", "solution": False}
        check.metadata["nbgrader"] |= {"grade": True, "points": 1}
        cells += [cell, check]
    return new_notebook(cells=cells)


Start = Callable[..., NotebookRun]


@contextlib.contextmanager
def starting(folder: Path) -> Iterator[Start]:
    """Start kernels, each in its own folder below `folder`; they end with the block."""
    running: list[NotebookRun] = []

    def start(place: Sandbox, *sources: str, seconds: float = 30) -> NotebookRun:
        work = folder / f"work-{len(running)}"
        work.mkdir()
        made = NotebookRun(book(*sources), work, sandbox=place, environment={}, seconds=seconds)
        running.append(made)
        return made

    try:
        yield start
    finally:
        for each in running:
            each.close()


@dataclass(frozen=True)
class Kernel:
    """A kernel that runs given attempts."""

    run: NotebookRun
    level: str

    def attempt(self, source: str) -> Any:
        """The value of `got` after `source`, "done" without one, or the name of its errno."""
        return self.run.values_at("check-1").call("attempt", source)

    @property
    def pid(self) -> int:
        """The pid of the kernel in the grader's namespace."""
        return int(self.run._manager.provisioner.process.pid)

    @property
    def scratch(self) -> Path:
        """Its working directory."""
        return Path(self.attempt("got = os.getcwd()"))


@pytest.fixture(scope="module")
def kernel(place: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with starting(tmp_path_factory.mktemp("confined")) as start:
        yield Kernel(start(place, ATTEMPT), place.level)


@pytest.fixture(scope="module")
def free(warm: WarmInterpreter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """An unconfined kernel."""
    with starting(tmp_path_factory.mktemp("free")) as start:
        yield Kernel(start(Sandbox(warm.address, UNCONFINED), ATTEMPT), UNCONFINED)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with starting(tmp_path) as started:
        yield started


def members(group: int) -> set[int]:
    """The processes of a process group, without zombies."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
            if int(fields[2]) == group and fields[0] != b"Z":
                found.add(int(name))
    return found


def status_of(pid: int) -> dict[str, str]:
    """The fields of a process's status in /proc."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


# --- no network of any kind ---

NO_FAMILY = errno.errorcode[errno.EOPNOTSUPP]

SPEAKING = {
    "tcp": "socket.create_connection(TCP, 2)",
    "udp": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'leak', UDP)",
    "abstract": "socket.socket(socket.AF_UNIX).connect(ABSTRACT)",
    "file": "socket.socket(socket.AF_UNIX).connect(SOCKET)",
}


@pytest.mark.parametrize("way", SPEAKING)
def test_nobody_can_be_spoken_to(kernel: Kernel, free: Kernel, outside: Outside, way: str) -> None:
    source = outside.given_to(SPEAKING[way])
    assert free.attempt(source) == "done"
    assert outside.heard() == [way]
    assert kernel.attempt(source) in ("EPERM", NO_FAMILY, "ENOENT", "ECONNREFUSED", "EACCES")
    assert outside.heard() == []


KINDS = {
    "ipv6": "socket.socket(socket.AF_INET6, socket.SOCK_STREAM)",
    "raw": "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
    "packet": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "unix datagram": "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "unix datagram pair": "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "family with high bits": "call(41, ctypes.c_long((1 << 32) | 2), 1, 0)",
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_socket_can_be_made_that_leads_out(kernel: Kernel, free: Kernel, kind: str) -> None:
    if AS_ROOT or kind not in ("raw", "packet"):
        assert free.attempt(KINDS[kind]) == "done"
    assert kernel.attempt(KINDS[kind]) in ("EPERM", NO_FAMILY)


def test_a_socket_in_the_scratch_folder_leads_nowhere(kernel: Kernel, outside: Outside) -> None:
    way = kernel.scratch / "door"
    speak = f"socket.socket(socket.AF_UNIX).connect({str(way)!r})"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(way))
        listener.listen(1)
        listener.setblocking(False)
        way.chmod(0o777)
        assert kernel.attempt(speak) == NO_FAMILY
        with pytest.raises(BlockingIOError):
            listener.accept()
    way.unlink()
    (kernel.scratch / "door").symlink_to(outside.folder / "socket")
    assert kernel.attempt(speak) == NO_FAMILY
    assert outside.heard() == []
    way.unlink()


def test_names_cannot_be_looked_up(kernel: Kernel) -> None:
    assert kernel.attempt("socket.getaddrinfo('example.org', 80)") == "gaierror"
    assert kernel.attempt("socket.getaddrinfo('localhost', 80)") == "gaierror"


# --- no view of other files and processes ---

HIDDEN = {
    "a file": "SECRET_FILE",
    "the hidden checks": "PACKAGE + '/checks/ch4_cnn/test_1_orenist_filter.py'",
    "the engine": "PACKAGE + '/engine/grade.py'",
    "the instructor's notebooks": f"COURSE + '/source/{ASSIGNMENT}/{NOTEBOOKS[0]}.ipynb'",
    "the generator of data": "COURSE + '/data/orenist.py'",
    "accounts": "'/etc/passwd'",
    "memory": f"'/proc/{os.getpid()}/mem'",
    "an environment": "f'/proc/{GRADER}/environ'",
    "a command line": "f'/proc/{VICTIM}/cmdline'",
    "a root folder": "f'/proc/{GRADER}/root' + '/etc/passwd'",
    "a working directory": "f'/proc/{GRADER}/cwd/pyproject.toml'",
    "a way up": "'../' * 20 + SECRET_FILE",
    "a way through its own root": "'/proc/self/root' + SECRET_FILE",
}


@pytest.mark.parametrize("what", HIDDEN)
def test_nothing_outside_can_be_read(
    kernel: Kernel, free: Kernel, outside: Outside, what: str
) -> None:
    source = outside.given_to(f"got = open({HIDDEN[what]}, 'rb').read(20).decode('latin-1')")
    if AS_ROOT and what != "memory":
        assert free.attempt(source) not in ("EACCES", "ENOENT", "EPERM")
    assert kernel.attempt(source) in ("EACCES", "ENOENT", "EPERM")
    through = outside.given_to(
        f"os.symlink({HIDDEN[what]}, 'link')\ngot = open('link', 'rb').read(1)"
    )
    assert kernel.attempt(through) in ("EACCES", "ENOENT", "EPERM")
    (kernel.scratch / "link").unlink()


@pytest.mark.parametrize("folder", ["/", "/tmp", "/root", "/home", "/var", "/etc", "OUTSIDE"])
def test_no_folder_outside_can_be_listed(kernel: Kernel, outside: Outside, folder: str) -> None:
    name = folder if folder == "OUTSIDE" else repr(folder)
    assert kernel.attempt(outside.given_to(f"os.listdir({name})")) in ("EACCES", "ENOENT")


def test_a_kernel_sees_no_process_but_its_own(kernel: Kernel) -> None:
    seen = kernel.attempt("got = [n for n in os.listdir('/proc') if n.isdigit()]")
    if kernel.level == isolate.LANDLOCK:
        assert seen == "EACCES"
    else:
        assert seen == ["1"]


# Files that TensorFlow, NumPy, matplotlib, psutil and the C library read about their own process.
OF_ITS_OWN = (
    *(f"/proc/self/{n}" for n in "cmdline comm environ limits maps stat statm status".split()),
    *(f"/proc/thread-self/{name}" for name in ("comm", "maps", "stat")),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/uptime"),
    *("/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/osrelease"),
    *("/sys/devices/system/cpu/possible", "/sys/devices/system/cpu/online"),
)
TENSORFLOW = """
import tensorflow.compat.v1 as tf
with tf.Session(graph=tf.Graph()) as session:
    got = float(session.run(tf.constant(1.0) + 2.0))
"""


@pytest.mark.parametrize("path", OF_ITS_OWN)
def test_a_kernel_can_read_about_itself(kernel: Kernel, path: str) -> None:
    there = os.path.exists(path)
    assert kernel.attempt(f"open({path!r}, 'rb').read()") == ("done" if there else "ENOENT")


def test_a_kernel_can_list_its_own_threads_and_descriptors(kernel: Kernel) -> None:
    for folder in ("/proc/self/task", "/proc/self/fd", "/proc/self/fdinfo"):
        assert kernel.attempt(f"got = len(os.listdir({folder!r})) > 0"), folder


def test_a_tensorflow_session_runs(kernel: Kernel) -> None:
    assert kernel.attempt(TENSORFLOW) == 3


# The same attempt from the kernel, from a forked process, and from a new program.
TELLING = {
    "itself": "got = open({path}, 'rb').read(1)",
    "a fork": "in_child(lambda: open({path}, 'rb').read(1))",
    "a program": "got = subprocess.run(['cat', {path}], capture_output=True).returncode",
}


@pytest.mark.parametrize("who", TELLING)
@pytest.mark.parametrize("entry", ["cmdline", "environ", "status", "maps", "fd/0", "task", "net"])
@pytest.mark.parametrize("way", ["/proc/", "/proc/self/../"])
def test_nothing_is_told_about_another_process(
    kernel: Kernel, outside: Outside, way: str, entry: str, who: str
) -> None:
    path = f"f'{way}{{VICTIM}}/{entry}'"
    seen = kernel.attempt(outside.given_to(TELLING[who].format(path=path)))
    assert seen in ("EACCES", "ENOENT", 1)
    if who != "a program":
        assert kernel.attempt(outside.given_to(f"os.listdir(f'{way}{{VICTIM}}')")) != "done"


@pytest.mark.parametrize("name", ["latex2mathml", "matplotlib_inline", "yaml"])
def test_what_is_installed_can_be_found(kernel: Kernel, name: str) -> None:
    """Also after the import caches are invalidated."""
    source = f"""
        import importlib, pathlib
        importlib.invalidate_caches()
        module = importlib.import_module({name!r})
        folder = pathlib.Path(module.__file__).parents[1]
        got = {name!r} in os.listdir(folder) and importlib.metadata.version("numpy")
    """
    assert kernel.attempt(textwrap.dedent(source)) == importlib.metadata.version("numpy")


DOCUMENTED = {
    *("PATH", "LANG", "HOME", "TMPDIR", "MPLBACKEND", "MPLCONFIGDIR", "IPYTHONDIR"),
    *("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS", "CUDA_VISIBLE_DEVICES"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
}


def test_the_environment_is_the_documented_one(kernel: Kernel) -> None:
    # Libraries and IPython add variables; none comes from the grader.
    now = set(kernel.attempt("got = list(os.environ)"))
    assert now >= DOCUMENTED - {"LANG"}
    added = now - DOCUMENTED
    assert not {name for name in added if name in os.environ and "TF" not in name} - {
        *("PYDEVD_USE_FRAME_EVAL", "TERM", "CLICOLOR", "PAGER", "GIT_PAGER", "FORCE_COLOR"),
        *("CLICOLOR_FORCE", "JPY_PARENT_PID"),
    }
    first = Path(f"/proc/{kernel.pid}/environ").read_text()
    assert {entry.partition("=")[0] for entry in first.split("\0") if entry} <= DOCUMENTED


def test_no_descriptor_is_inherited_but_the_documented_ones(
    kernel: Kernel, warm: WarmInterpreter
) -> None:
    def targets(pid: int) -> set[str]:
        links = set()
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                links.add(os.readlink(f"/proc/{pid}/fd/{name}"))
        return links

    ours, theirs = targets(warm._process.pid) | targets(os.getpid()), targets(kernel.pid)
    shared = {target for target in ours & theirs if not target.startswith("anon_inode:")}
    assert shared <= {os.readlink(f"/proc/self/fd/{kernel.run._log.fileno()}"), "/dev/null"}
    assert not {target for target in theirs if "pidfd" in target}


# --- no writing outside the scratch folder ---

WRITING = {
    "overwrite": "open(SECRET_FILE, 'w').write('gone')",
    "append": "open(SECRET_FILE, 'a').write('gone')",
    "truncate": "os.truncate(SECRET_FILE, 0)",
    "create": "open(OUTSIDE + '/new', 'w')",
    "mkdir": "os.mkdir(OUTSIDE + '/new')",
    "mkfifo": "os.mkfifo(OUTSIDE + '/new')",
    "symlink": "os.symlink('x', OUTSIDE + '/new')",
    "hard link out": "open('mine', 'w'); os.link('mine', OUTSIDE + '/new')",
    "hard link in": "os.link(SECRET_FILE, 'theirs')",
    "rename out": "open('mine', 'w'); os.rename('mine', OUTSIDE + '/new')",
    "rename in": "os.rename(SECRET_FILE, 'theirs')",
    "delete": "os.unlink(SECRET_FILE)",
    "chmod": "os.chmod(SECRET_FILE, 0o777)",
    "fchmodat2": "call(452, -100, SECRET_FILE.encode(), 0o777, 0)",
    "chown": "os.chown(SECRET_FILE, 12345, 12345)",
    "utime": "os.utime(SECRET_FILE, (0, 0))",
    "setxattr": "os.setxattr(SECRET_FILE, 'user.kit', b'x')",
    "setxattrat": "call(463, -100, SECRET_FILE.encode(), 0, b'user.kit', 0, 0)",
}
REFUSED = ("EACCES", "ENOENT", "EPERM", "EXDEV", "EROFS", "ENOSYS")


@pytest.mark.parametrize("way", WRITING)
def test_nothing_outside_can_be_changed(kernel: Kernel, outside: Outside, way: str) -> None:
    before = outside.look()
    assert kernel.attempt(outside.given_to(WRITING[way])) in REFUSED
    assert outside.look() == before
    with contextlib.suppress(FileNotFoundError):
        (kernel.scratch / "mine").unlink()


@pytest.mark.parametrize(
    "path",
    [
        *("/kit", "/tmp/kit", "/var/tmp/kit", "/dev/shm/kit", "/usr/kit", "/dev/kit", "/proc/kit"),
        "/proc/sys/kernel/core_pattern",
        "/proc/self/oom_score_adj",
        "/proc/self/uid_map",
        f"{sys.prefix}/lib/python{sys.version_info[0]}.{sys.version_info[1]}/sitecustomize.py",
        f"{os.path.dirname(os.__file__)}/usercustomize.py",
    ],
)
def test_no_place_is_writable_that_others_read(kernel: Kernel, path: str) -> None:
    existed = os.path.lexists(path)
    assert kernel.attempt(f"open({path!r}, 'w').write('0')") in REFUSED
    assert os.path.lexists(path) is existed


def test_the_scratch_folder_is_writable(kernel: Kernel) -> None:
    source = """
        os.makedirs('a/b'); open('a/b/c', 'w').write('text'); os.rename('a/b/c', 'a/d')
        os.symlink('d', 'a/e'); got = open('a/e').read()
    """
    assert kernel.attempt(textwrap.dedent(source)) == "text"
    assert (kernel.scratch / "a" / "d").read_text() == "text"


@pytest.mark.parametrize("device", ["S_IFCHR", "S_IFBLK"])
def test_no_device_can_be_made(kernel: Kernel, device: str) -> None:
    source = f"import stat; os.mknod('device', 0o666 | stat.{device}, os.makedev(1, 1))"
    assert kernel.attempt(source) in ("EPERM", "EACCES")


# --- no power over other processes ---

POWER = {
    "signal": "os.kill(VICTIM, signal.SIGTERM)",
    "thread signal": "call(234, VICTIM, VICTIM, signal.SIGTERM)",
    "queued signal": "call(129, VICTIM, signal.SIGTERM, bytes(128))",
    "pidfd": "signal.pidfd_send_signal(os.pidfd_open(VICTIM), signal.SIGTERM)",
    "signal of a descriptor": """
        one, other = socket.socketpair()
        fcntl.fcntl(one, 10, signal.SIGTERM); fcntl.fcntl(one, fcntl.F_SETOWN, VICTIM)
        fcntl.fcntl(one, fcntl.F_SETFL, os.O_ASYNC); other.send(b'x')
    """,
    "signal of a descriptor, by ioctl": """
        import array
        one, other = socket.socketpair()
        fcntl.ioctl(one, 0x8901, array.array('i', [VICTIM]))
        fcntl.fcntl(one, fcntl.F_SETFL, os.O_ASYNC); other.send(b'x')
    """,
    "limits": "resource.prlimit(VICTIM, resource.RLIMIT_CPU, (0, 0))",
    "processors": "os.sched_setaffinity(VICTIM, {0})",
    "scheduling": "os.sched_setscheduler(VICTIM, os.SCHED_IDLE, os.sched_param(0))",
    "priority": "os.setpriority(os.PRIO_PROCESS, VICTIM, 19)",
    "priority of a user": "os.setpriority(os.PRIO_USER, 0, 19)",
    "priority of input": "call(251, 1, VICTIM, 3 << 13)",
    "tracing": "call(101, 16, VICTIM, 0, 0)",
    "reading memory": "call(310, VICTIM, 0, 0, 0, 0, 0)",
    "taking a descriptor": "call(438, os.pidfd_open(VICTIM), 0, 0)",
    "group": "os.setpgid(0, os.getpgid(VICTIM))",
}


@pytest.mark.parametrize("way", POWER)
def test_no_power_over_other_processes(kernel: Kernel, outside: Outside, way: str) -> None:
    before = outside.look()
    source = outside.given_to(textwrap.dedent(POWER[way]))
    assert kernel.attempt(source) in ("EPERM", "ESRCH", "ENOSYS", "EACCES")
    assert outside.look() == before


def test_all_processes_at_once_are_only_its_own(
    place: Sandbox, start: Start, outside: Outside
) -> None:
    sibling = Kernel(start(place, ATTEMPT), place.level)
    before, pid = outside.look(), sibling.pid
    source = "import os\nanswer = 0\ntry: os.kill(-1, 9)\nexcept PermissionError: answer = 1"
    run = start(place, source, "a = 1")
    assert run.values_at("check-2").value("answer") == 1
    assert sibling.attempt("got = 'alive'") == "alive"
    assert sibling.pid == pid
    assert outside.look() == before


def test_a_kernel_cannot_reach_a_sibling_or_the_warm_interpreter(
    kernel: Kernel, start: Start, place: Sandbox, warm: WarmInterpreter
) -> None:
    sibling = Kernel(start(place, ATTEMPT), place.level)
    sibling.attempt("open('mine.txt', 'w').write('mine')")
    for pid in (sibling.pid, warm._process.pid, os.getpid()):
        for number in (signal.SIGKILL, signal.SIGSTOP, 0):
            # Small pids may also exist in the kernel's own namespace.
            if kernel.level == isolate.LANDLOCK or pid not in range(1, 20):
                assert kernel.attempt(f"os.kill({pid}, {int(number)})") in ("EPERM", "ESRCH")
    theirs = str(sibling.scratch / "mine.txt")
    assert kernel.attempt(f"got = open({theirs!r}).read()") in ("EACCES", "ENOENT")
    assert kernel.attempt(f"open({theirs!r}, 'w')") in ("EACCES", "ENOENT")
    assert kernel.attempt(f"socket.socket(socket.AF_UNIX).connect({warm.address!r})") == NO_FAMILY
    assert kernel.attempt(f"socket.socketpair()[0].connect({warm.address!r})") == "EPERM"
    assert sibling.attempt("got = open('mine.txt').read()") == "mine"
    assert refused(warm, place.level) == ""  # the warm interpreter can still fork


# --- the grader is no confused deputy ---

LURE = """
import os, socket, time
def lure(to):
    ends = []
    for number in range(3, 512):
        try:
            one = socket.socket(fileno=os.dup(number))
            if one.family == socket.AF_UNIX and one.getsockname():
                ends.append(one)
        except OSError:
            pass
    for path in {one.getsockname() for one in ends}:
        for act in (lambda: os.unlink(path), lambda: os.symlink(to, path)):
            try: act()
            except OSError: pass
    for one in ends:
        if not one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            one.shutdown(socket.SHUT_RDWR)
"""
KEEP_ON = "\nimport time\ntime.sleep(60)"
THEN = {
    "goes on": (KEEP_ON, "lost its connection to the grader, and was stopped"),
    "ends": ("\nos._exit(0)", "the kernel ended"),
    "is killed": ("\nos.kill(os.getpid(), 9)\nos.abort()", "the kernel ended"),
}


@pytest.fixture
def door(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket that only the grader can reach; `getsockname` gives its path."""
    (tmp_path / "private").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "private" / "door"))
        (tmp_path / "private" / "door").chmod(0o600)
        listener.listen(8)
        listener.setblocking(False)
        yield listener


@pytest.mark.parametrize("then", THEN)
def test_a_kernel_cannot_send_the_grader_elsewhere(
    place: Sandbox, start: Start, door: socket.socket, then: str
) -> None:
    """The kernel replaces its sockets with links and closes its connections."""
    code, reason = THEN[then]
    run = start(place, "a = 1", f"{LURE}\nlure({door.getsockname()!r}){code}", "b = 2", seconds=20)
    assert run.values_at("check-1").value("a") == 1
    with pytest.raises(KernelLost) as lost:
        run.values_at("check-3")
    with pytest.raises(BlockingIOError):
        door.accept()
    assert str(lost.value) == f"{reason} in cell WORK-2"


def test_nothing_of_a_kernel_has_a_name_but_its_scratch_folder(
    place: Sandbox, kernel: Kernel
) -> None:
    """Its log and its sockets have no path that could be replaced."""
    named = kernel.run._log.name
    assert not os.path.exists(named)
    assert not list(place.folder.glob("kit-run-*"))
    assert kernel.attempt("os.write(1, b'said by a kernel\\n'); os.fchmod(1, 0)") in (
        *("done", "EPERM", "EACCES"),
    )
    # A thread in the kernel forwards its output to the log.
    until(lambda: "said by a kernel" in kernel.run.log().splitlines(), "the kernel's line", 10)


LISTENING = {
    "listening stream": "socket.socket(socket.AF_UNIX)",
    "bind": "call(49, -1, 0, 0)",
    "listen": "call(50, -1, 0)",
}


@pytest.mark.parametrize("way", LISTENING)
def test_a_kernel_makes_no_socket_of_its_own(kernel: Kernel, free: Kernel, way: str) -> None:
    """Anybody who can enter its folder could connect to such a socket."""
    assert free.attempt(LISTENING[way]) in ("done", "EBADF")
    assert kernel.attempt(LISTENING[way]) in ("EPERM", NO_FAMILY)


# --- no new privileges, no unneeded system calls ---


def test_no_capability_and_no_way_to_one(kernel: Kernel) -> None:
    status = status_of(kernel.pid)
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb", *(["CapBnd"] if AS_ROOT else [])):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    if AS_ROOT and kernel.level == isolate.NAMESPACES:
        (uid,) = set(map(int, status["Uid"].split()))
        assert uid > isolate.FIRST_UID


def test_a_program_with_a_set_user_bit_gains_nothing(kernel: Kernel) -> None:
    assert os.stat("/usr/bin/su").st_mode & stat.S_ISUID
    source = """
        end, full = os.pipe()
        os.set_blocking(full, False)
        try:
            while True: os.write(full, bytes(512))
        except BlockingIOError: pass
        os.set_blocking(full, True)
        program = subprocess.Popen(['/usr/bin/su', '--help'], stdout=full)  # waits to be read
        get_ipython().user_ns['kept'] = program, end, full
    """
    assert kernel.attempt(textwrap.dedent(source)) == "done"
    deadline = time.monotonic() + 10
    found: list[int] = []
    while not found and time.monotonic() < deadline:
        found = [p for p in members(kernel.pid) if Path(f"/proc/{p}/comm").read_text() == "su\n"]
        time.sleep(0.02)
    (pid,) = found
    rights = ("Uid", "Gid", "CapPrm", "CapEff", "NoNewPrivs", "Seccomp")
    own, its = status_of(kernel.pid), status_of(pid)
    assert {name: its[name] for name in rights} == {name: own[name] for name in rights}
    assert int(its["CapEff"], 16) == 0
    assert len(set(its["Uid"].split())) == 1
    assert kernel.attempt("get_ipython().user_ns.pop('kept')[0].kill()") == "done"


# System calls by their numbers on x86-64, with arguments that have no effect outside the sandbox.
CALLS = {
    "mount": "call(165, 0, 0, 0, 0, 0)",
    "umount2": "call(166, 0, 0)",
    "pivot_root": "call(155, 0, 0)",
    "chroot": "call(161, 0)",
    "unshare user": "call(272, 0x10000000 | 0x200 | (1 << 40))",
    "setns": "call(308, -1, 0)",
    "clone into a user namespace": "call(56, 0x10000000 | 0x800 | 0x10000, 0, 0, 0, 0)",
    "clone3": "call(435, 0, 0)",
    "open_tree": "call(428, -1, 0, 1 << 30)",
    "fsopen": "call(430, 0, 0)",
    "move_mount": "call(429, -1, 0, -1, 0, 1 << 30)",
    "open_by_handle_at": "call(304, -1, 0, 0)",
    "name_to_handle_at": "call(303, -1, 0, 0, 0, 0)",
    "bpf": "call(321, -1, 0, 0)",
    "perf_event_open": "call(298, 0, 0, -1, -1, 0)",
    "userfaultfd": "call(323, 1 << 20)",
    "io_uring_setup": "call(425, 0, 0)",
    "keyctl": "call(250, -1, 0, 0, 0, 0)",
    "add_key": "call(248, 0, 0, 0, 0, 0)",
    "personality": "call(135, 0xffffffff)",
    "ptrace me": "call(101, 12345, 0, 0, 0)",
    "kcmp": "call(312, 0, 0, 99, 0, 0)",
    "kexec_load": "call(246, 0, 99, 0, 1 << 30)",
    "init_module": "call(175, 0, 0, 0)",
    "reboot": "call(169, 0, 0, 0, 0)",
    "swapon": "call(167, 0, 0)",
    "sethostname": "call(170, 0, -1)",
    "settimeofday": "call(164, 0, 1)",
    "syslog": "call(103, 99, 0, 0)",
    "acct": "call(163, 1)",
    "quotactl": "call(179, -1, 0, 0, 0)",
    "fanotify_init": "call(300, -1, 0)",
    "inotify": "call(254, -1, 0, 0)",
    "shared memory": "call(29, 0, 0, 0)",
    "message queue": "call(68, 0, 0)",
    "semaphores": "call(64, 0, -1, 0)",
    "POSIX message queue": "call(240, 0, 0, 0, 0)",
    "memfd_create": "call(319, 0, -1)",
    "memfd_secret": "call(447, -1)",
    "sendmsg": "call(46, -1, 0, 0)",
    "sendmmsg": "call(307, -1, 0, 0, 0)",
    "setsid": "in_child(os.setsid)",
    "setpgid": "in_child(lambda: os.setpgid(0, 0))",
    "parent's death signal": "call(157, 1, 9999, 0, 0, 0)",
    "the same with high bits": "call(157, ctypes.c_long((1 << 32) | 1), 9999, 0, 0, 0)",
    "limits of a process": "call(302, os.getpid(), 99, 0, 0)",
    "move_pages": "call(279, 0, 0, 0, 0, 0, 1 << 20)",
    "what of a file is in memory": "call(27, 0, 0, 0)",
    "reading only that": "call(327, -1, 0, 0, 0, 0, 8)",
    "a folder's notices": "fcntl.fcntl(os.open('/usr/lib', os.O_RDONLY), 1026, 0)",
    "a lease": "fcntl.fcntl(os.open(os.__file__, os.O_RDONLY), 1025)",
    "a call of tomorrow": "call(511)",
}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")
@pytest.mark.parametrize("name", CALLS)
def test_calls_that_no_notebook_needs_are_refused(kernel: Kernel, name: str) -> None:
    assert kernel.attempt(CALLS[name]) in ("EPERM", "ENOSYS")


@pytest.mark.skipif(not AS_ROOT, reason="without root the kernel refuses many of them itself")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")
def test_it_is_the_sandbox_that_refuses_them(free: Kernel) -> None:
    # Calls that a machine may lack, or refuse to everybody in a container.
    unknown_here = {"a call of tomorrow", "memfd_secret", "kcmp", "acct"}
    unknown_here |= {"kexec_load", "init_module"}
    same = {name for name in CALLS if free.attempt(CALLS[name]) in ("EPERM", "ENOSYS")}
    assert same <= unknown_here


# For each covert channel through a library that two kernels read: the sender's action, and the
# receiver's test, which raises EAGAIN after that action.
SAME_FILE = """
import struct
file = open(os.__file__, 'rb')
device = open('/dev/null', 'r+b', buffering=0)
word = struct.unpack('i', file.read(4))[0]

def shared_page():
    libc.mmap.restype = ctypes.c_void_p
    page = libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    return ctypes.c_void_p(page)

def lock(command, kind):
    whole = struct.pack('hhqqi4x', kind, 0, 0, 0, 0)
    found = fcntl.fcntl(file, command, whole)
    if found != whole and struct.unpack('hhqqi4x', found)[0] != fcntl.F_UNLCK:
        raise BlockingIOError(errno.EAGAIN, 'locked')

get_ipython().user_ns['kept'] = file, device
"""
CHANNELS = {
    "flock": (
        "fcntl.flock(file, fcntl.LOCK_EX)",
        "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
    ),
    "record lock": (
        "fcntl.lockf(file, fcntl.LOCK_SH)",
        "lock(fcntl.F_GETLK, fcntl.F_WRLCK)",
    ),
    "lock of a description": ("lock(37, fcntl.F_RDLCK)", "lock(36, fcntl.F_WRLCK)"),
    "lock of a device": (
        "fcntl.lockf(device, fcntl.LOCK_EX)",
        "fcntl.lockf(device, fcntl.LOCK_EX | fcntl.LOCK_NB)",
    ),
    "waiting on a page": (
        """
        page = shared_page()
        def wait(): libc.syscall(202, page, 0, word, 0, 0, 0)
        threading.Thread(target=wait, daemon=True).start()
        """,
        """
        page = shared_page()
        for _ in range(100):
            if call(202, page, 1, 1): raise BlockingIOError(errno.EAGAIN, 'woken')
            time.sleep(0.01)
        """,
    ),
}


def seen(sender: Kernel, receiver: Kernel, name: str) -> list[str]:
    """The results of the receiver's test before and after the sender's action."""
    act, look = (SAME_FILE + textwrap.dedent(part) for part in CHANNELS[name])
    looking = f"try:\n{textwrap.indent(look, '    ')}\n    got = 'free'\n" + textwrap.dedent(
        """
        except OSError as error:
            got = 'taken' if error.errno == errno.EAGAIN else 'refused'
        """
    )
    before = receiver.attempt(looking)
    receiver.attempt("for each in get_ipython().user_ns.pop('kept')[:2]: each.close()")
    sender.attempt(act)
    return [before, receiver.attempt(looking)]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")
@pytest.mark.parametrize("name", CHANNELS)
def test_two_kernels_at_one_time_do_not_signal_through_a_library(
    place: Sandbox, kernel: Kernel, start: Start, name: str
) -> None:
    """One of them may run the course's solution, while the other's output is shown."""
    assert seen(Kernel(start(place, ATTEMPT), place.level), kernel, name) == ["refused", "refused"]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")
@pytest.mark.parametrize("name", CHANNELS)
def test_without_the_sandbox_they_would(
    warm: WarmInterpreter, free: Kernel, start: Start, name: str
) -> None:
    sender = Kernel(start(Sandbox(warm.address, UNCONFINED), ATTEMPT), UNCONFINED)
    assert seen(sender, free, name) == ["free", "taken"]


# One thread initialises a C++ static variable while another one waits for it.
GUARDED = """
standard = ctypes.CDLL("libstdc++.so.6")
guard, made = ctypes.c_uint64(0), []

def used(thread):
    fields = open(f"/proc/self/task/{thread}/stat").read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])  # ticks of processor time

def make():
    for _ in range(2):
        if standard.__cxa_guard_acquire(ctypes.byref(guard)):
            waiting.start()
            # Until the other one waits: it looks again and again, or else it sleeps.
            for _ in range(200):
                if used(waiting.native_id) >= 5:
                    break
                time.sleep(0.01)
            standard.__cxa_guard_release(ctypes.byref(guard))
    made.append(threading.get_ident())

making, waiting = threading.Thread(target=make), threading.Thread(target=make)
making.start()
making.join()
waiting.join(30)
got = len(made)
"""


def test_a_thread_that_waits_for_a_static_variable_goes_on(kernel: Kernel) -> None:
    assert kernel.attempt(GUARDED) == 2


def test_the_libraries_keep_no_time_of_reading(place: Sandbox, kernel: Kernel) -> None:
    """Kernels must not see what others have read; only root can set noatime on a mount."""
    if not AS_ROOT or place.level != isolate.NAMESPACES:
        pytest.skip("only with a mount namespace of root's")
    assert kernel.attempt("got = bool(os.statvfs(os.__file__).f_flag & os.ST_NOATIME)") is True


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only x86-64 has a second set of calls")
def test_the_calls_of_another_machine_end_the_process(kernel: Kernel) -> None:
    source = """
        pid = os.fork()
        if pid == 0:
            libc.syscall(ctypes.c_long(0x40000000 + 39))
            os._exit(0)
        got = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    """
    assert kernel.attempt(textwrap.dedent(source)) == -signal.SIGSYS


def test_without_scoped_signals_the_calls_themselves_are_refused(
    warm: WarmInterpreter, outside: Outside, tmp_path: Path
) -> None:
    """Before ABI 6, Landlock has no signal scope; this simulates such a Linux kernel."""
    script = f"""
        import os, signal, sys
        import pyseccomp
        from autograder.kernel import isolate
        isolate.landlock_abi = lambda: 5
        isolate.restrict_files(isolate.readable().whole, [], [{str(tmp_path)!r}])
        isolate.restrict_calls(isolate.LANDLOCK)
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        for number, arguments in ((62, ()), (234, ({outside.victim.pid},)), (200, ())):
            done = libc.syscall(number, *arguments, {outside.victim.pid}, 0)
            print(done, ctypes.get_errno())
        try:
            print("queued", os.pidfd_open({outside.victim.pid}))
        except OSError as error:
            print("-1", error.errno)
        sys.stdout.flush()
        os.abort()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == ["-1 1"] * 4, done.stderr
    assert done.returncode == -signal.SIGABRT  # a process may still abort itself
    assert outside.victim.poll() is None


# --- limits: the reason is reported, and earlier points are kept ---


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the limits of kernels that start from now on."""
    return lambda **limits: monkeypatch.setattr(
        run_module, "Order", partial(Order, limits=Limits(**limits))
    )


MB, GB = 1 << 20, 1 << 30
OVER = {
    "memory": (
        {"memory": GB},
        "hog = bytearray(1200 << 20)",
        "used more than 1 GB of memory",
    ),
    "memory of many": (
        {"memory": 512 * MB},
        """
        import os, time
        for _ in range(6):
            if os.fork() == 0:
                hog = bytearray(120 << 20); time.sleep(60)
        """,
        "used more than 0.5 GB of memory",
    ),
    "shared memory": (
        {"memory": GB},
        """
        import mmap
        hog = mmap.mmap(-1, 1200 << 20)
        for _ in range(1200): hog.write(bytes(1 << 20))
        """,
        "used more than 1 GB of memory",
    ),
    "processor": (
        {"cpu": 5},
        """
        import os
        for _ in range(3):
            if os.fork() == 0:
                while True: pass
        while True: pass
        """,
        "used more than 5 s of processor time",
    ),
    "processor of the dead": (
        {"cpu": 5},
        """
        import os, time
        while True:
            if os.fork() == 0:
                while time.process_time() < 0.5: pass
                os._exit(0)
            os.wait()
        """,
        "used more than 5 s of processor time",
    ),
    "fork bomb": (
        {"processes": 20},
        """
        import os
        while True:
            try: os.fork()
            except OSError: pass
        """,
        "started more than 20 processes",
    ),
    "threads": (
        {"tasks": 60},
        """
        import threading, time
        for _ in range(80): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        """,
        "started more than 60 processes and threads",
    ),
    "open files": (
        {"opened": 300},
        """
        import os, time
        for _ in range(3):
            if os.fork() == 0:
                hold = [os.open('/dev/null', 0) for _ in range(200)]; time.sleep(60)
        """,
        "opened more than 300 files and sockets at a time",
    ),
    "disk": (
        {"disk": 32 * MB},
        "open('big', 'wb').write(bytes(48 << 20))",
        "wrote more than 0.03125 GB to disk",
    ),
    "deleted file": (
        {"disk": 32 * MB},
        "import os; f = open('big', 'wb'); os.unlink('big'); f.write(bytes(48 << 20)); f.flush()",
        "wrote more than 0.03125 GB to disk",
    ),
    "its log": (
        {"disk": 32 * MB},
        "import os\nfor _ in range(48): os.write(1, b'x' * (1 << 20))",
        "wrote more than 0.03125 GB to disk",
    ),
    "files": (
        {"files": 500},
        "for n in range(600): open(f'f{n}', 'w')",
        "made more than 500 files",
    ),
    "files in a hidden folder": (
        {"files": 500},
        """
        import os
        os.mkdir('dark', 0o300)
        for n in range(600): open(f'dark/f{n}', 'w')
        """,
        # Root can read every folder.
        "made more than 500 files" if AS_ROOT else "made a folder that cannot be looked into",
    ),
    "files too deep for a path": (
        {"files": 500},
        """
        import os
        for n in range(30): os.mkdir('d' * 200); os.chdir('d' * 200)
        """,
        "made a folder that cannot be looked into",
    ),
}


@pytest.mark.parametrize("what", OVER)
def test_a_limit_gives_a_reason_and_keeps_what_was_shown(
    place: Sandbox, start: Start, limit: Callable[..., None], what: str
) -> None:
    limits, source, reason = OVER[what]
    limit(**limits)
    run = start(place, "a = 1", textwrap.dedent(source) + KEEP_ON, "b = 2")
    assert run.values_at("check-1").value("a") == 1
    group = run._manager.provisioner.process.pid
    for check in ("check-2", "check-3"):
        with pytest.raises(KernelLost) as lost:
            run.values_at(check)
        assert str(lost.value) == f"{reason} in cell WORK-2"
    assert run.notes == [f"{reason} in cell WORK-2"]
    assert members(group) == set()
    run.close()
    assert not list(place.folder.glob("kit-run-*"))


def test_wall_time_ends_a_cell_that_will_not_be_interrupted(place: Sandbox, start: Start) -> None:
    source = """
        import signal, os
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        if os.fork() == 0:
            while True: pass
        while True:
            try:
                while True: pass
            except BaseException: pass
    """
    run = start(place, "a = 1", textwrap.dedent(source), seconds=2)
    assert run.values_at("check-1").value("a") == 1
    group = run._manager.provisioner.process.pid
    with pytest.raises(KernelLost, match=r"^stopped after 2 s in cell WORK-2$"):
        run.values_at("check-2")
    assert members(group) == set()


def test_a_kernel_that_stops_itself_is_interrupted_and_goes_on(
    place: Sandbox, start: Start
) -> None:
    """Like at the other level, where process 1 of its namespace cannot be stopped from inside."""
    source = (
        "import os, signal\nif os.fork() == 0:\n    os.kill(0, signal.SIGSTOP)\nos.killpg(0, 19)"
    )
    run = start(place, source + KEEP_ON, seconds=2)
    group = run._manager.provisioner.process.pid
    run.values_at("check-1")
    assert run.notes == ["stopped after 2 s in cell WORK-1"]
    run.close()
    assert run.notes == ["stopped after 2 s in cell WORK-1"]
    assert members(group) == set()


def test_output_without_end_is_stopped(place: Sandbox, start: Start) -> None:
    run = start(place, "a = 1", "while True: print('x' * 10**6, flush=True)")
    assert run.values_at("check-1").value("a") == 1
    with pytest.raises(KernelLost, match=r"^stopped after printing 64 MB in cell WORK-2$"):
        run.values_at("check-2")
    assert len(nbformat.writes(run.notebook)) < 16 * MB


@pytest.mark.parametrize("kind", ["comm_msg", "comm_open", "status", "update_display_data"])
def test_messages_without_end_are_stopped(place: Sandbox, start: Start, kind: str) -> None:
    source = f"""
        k = get_ipython().kernel
        content = {{"comm_id": "c", "target_name": "t", "execution_state": "busy",
                    "data": {{"text/plain": "x" * 10**6}}, "metadata": {{}}, "transient": {{}}}}
        while True:
            k.session.send(k.iopub_socket, {kind!r}, content, parent=k.get_parent("shell"),
                           ident=b"x", buffers=[bytes(10**6)])
    """
    run = start(place, textwrap.dedent(source))
    with pytest.raises(KernelLost, match=r"^stopped after printing 64 MB in cell WORK-1$"):
        run.values_at("check-1")
    assert not run._client.widget_state


def test_a_fault_of_the_graders_in_running_a_cell_is_not_the_kernels(
    place: Sandbox, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise NameError("name 'signal' is not defined")

    run = start(place, "a = 1")
    monkeypatch.setattr(type(run._client), "process_message", broken)
    with pytest.raises(GraderFault, match=r"^a cell could not be run: NameError$"):
        run.values_at("check-1")


MULTIPART = """
import os, socket, struct, time
connections = []
for number in range(3, 200):
    try:
        one = socket.socket(fileno=os.dup(number))
        if str(one.getsockname()).endswith('/k-2') and one.getpeername() is not None:
            connections.append(one)
    except OSError:
        pass
part = struct.pack('>BQ', 3, 8 << 20) + bytes(8 << 20)  # a part, and more to come
for one in connections:
    one.setblocking(True)
    for _ in range(400):
        one.sendall(part)
"""


def test_a_message_of_parts_without_end_is_stopped(
    place: Sandbox, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "TAKEN_LIMIT", 256 * MB)
    run = start(place, "a = 1", MULTIPART + KEEP_ON, seconds=30)
    assert run.values_at("check-1").value("a") == 1
    with pytest.raises(
        KernelLost, match=r"^sent more than the grader can take in, and was stopped in cell WORK-2$"
    ):
        run.values_at("check-2")


def test_a_process_cannot_dump_its_memory(kernel: Kernel) -> None:
    # With a limit of 0, Linux would still start a program that collects dumps.
    assert kernel.attempt("got = list(resource.getrlimit(resource.RLIMIT_CORE))") == [1, 1]
    source = "pid = os.fork()\nif pid == 0: os.abort()\ngot = os.WCOREDUMP(os.waitpid(pid, 0)[1])"
    assert kernel.attempt(source) is False
    assert not list(kernel.scratch.glob("core*"))


@pytest.mark.parametrize("which", ["RLIMIT_NOFILE", "RLIMIT_AS", "RLIMIT_FSIZE", "RLIMIT_CPU"])
def test_limits_cannot_be_raised(kernel: Kernel, which: str) -> None:
    soft, hard = kernel.attempt(f"got = list(resource.getrlimit(resource.{which}))")
    assert 0 < soft == hard < 1 << 40
    raised = f"resource.setrlimit(resource.{which}, ({soft} * 2, {hard} * 2))"
    with pytest.raises(NoValue, match="not allowed to raise"):
        kernel.attempt(raised)


# --- every process is dead before a score is decided ---

SURVIVORS = {
    "child": "if os.fork() == 0: beat()",
    "double fork": "if os.fork() == 0:\n    if os.fork() == 0: beat()\n    os._exit(0)",
    "own session": "if os.fork() == 0:\n    try: os.setsid()\n    except OSError: pass\n    beat()",
    "daemon": """
if os.fork() == 0:
    for leave in (os.setsid, lambda: os.setpgid(0, 0)):
        try: leave()
        except OSError: pass
    for n in range(3, 500):
        try: os.close(n)
        except OSError: pass
    if os.fork() == 0: beat()
    os._exit(0)
""",
    "ignores signals": """
if os.fork() == 0:
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    beat()
""",
    "program": """
import subprocess
subprocess.Popen(['sh', '-c', 'trap "" TERM HUP INT; while :; do echo . >> beat; sleep 0.02; done'])
""",
    "thread": "import threading; threading.Thread(target=beat).start()",
    "reborn at exit": "import atexit; atexit.register(beat)\nif os.fork() == 0: beat()",
    "new name": """
import ctypes
if os.fork() == 0:
    ctypes.CDLL(None).prctl(15, b'kworker/0:1', 0, 0, 0)
    beat()
""",
}
BEAT = """
import os, signal, time
def beat():
    while True:
        with open('beat', 'a') as file: file.write('.')
        time.sleep(0.02)
"""


@pytest.mark.parametrize("how", SURVIVORS)
def test_nothing_survives_its_kernel(
    place: Sandbox, start: Start, tmp_path: Path, how: str
) -> None:
    run = start(place, BEAT + SURVIVORS[how], "a = 1")
    assert run.values_at("check-2").value("a") == 1
    group = run._manager.provisioner.process.pid
    beats, deadline = tmp_path / "work-0" / "beat", time.monotonic() + 10
    while not (beats.exists() and beats.stat().st_size > 1) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert beats.stat().st_size > 1  # it runs as long as its kernel
    run.close()
    assert members(group) == set()
    size = beats.stat().st_size
    time.sleep(0.2)
    assert beats.stat().st_size == size


def test_a_kernel_ends_with_the_process_that_ordered_it(
    warm: WarmInterpreter, place: Sandbox, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    script = f"""
        import os, signal, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_isolation import BEAT, SURVIVORS, Sandbox, starting
        with starting(Path({str(tmp_path / "work")!r})) as start:
            run = start(Sandbox({warm.address!r}, {place.level!r}), BEAT + SURVIVORS["daemon"])
            run.values_at("check-1")
            print(run._manager.provisioner.process.pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    group, deadline = int(done.stdout), time.monotonic() + 10
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert members(group) == set()


# --- without root ---


@pytest.mark.skipif(not AS_ROOT, reason="only root can become somebody else")
def test_somebody_without_rights_confines_kernels_too(outside: Outside, tmp_path: Path) -> None:
    """The warm interpreter and the grader run as `nobody`, in the test's mount namespace."""
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("unshare and setpriv are not there")
    tmp_path.chmod(0o777)
    parents = [tmp_path, *tmp_path.parents]
    tries = {
        **{f"speak {way}": source for way, source in SPEAKING.items()},
        **{f"read {what}": f"open({path}).read(1)" for what, path in HIDDEN.items()},
        **{f"change {way}": source for way, source in WRITING.items()},
        **{f"power {way}": textwrap.dedent(source) for way, source in POWER.items()},
    }
    (tmp_path / "tries.json").write_text(
        json.dumps({name: outside.given_to(source) for name, source in tries.items()})
    )
    script = f"""
        import json, os, sys, tempfile
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_isolation import ATTEMPT, LEVELS, Kernel, Sandbox, starting
        from autograder.engine.sandbox import refused
        from autograder.engine.warm import WarmInterpreter
        tries = json.loads(Path("tries.json").read_text())
        found = {{"uid": os.getuid()}}
        with WarmInterpreter() as warm:
            warm.wait()
            for level in LEVELS:
                reason = refused(warm, level)
                found[level] = {{"refused": reason}}
                if reason:
                    continue
                with starting(Path(tempfile.mkdtemp())) as start:
                    kernel = Kernel(start(Sandbox(warm.address, level), ATTEMPT), level)
                    for name, source in tries.items():
                        found[level][name] = kernel.attempt(source)
                    found[level]["write"] = kernel.attempt("open('x', 'w').write('x')")
                    status = Path(f"/proc/{{kernel.pid}}/status").read_text()
                    found[level]["status"] = [
                        line.split()[1]
                        for line in status.splitlines()
                        if line.startswith(("CapEff", "NoNewPrivs", "Seccomp:"))
                    ]
        print(json.dumps(found))
    """
    # A Python below root's home is only reachable through a bind mount in this namespace.
    home = Path(pwd.getpwuid(0).pw_dir)
    hidden = [p for p in (sys.base_prefix, sys.prefix) if Path(p).is_relative_to(home)]
    views = "".join(
        f"mkdir -p {tmp_path}/view{n} && mount --bind {path} {tmp_path}/view{n} && "
        for n, path in enumerate(hidden)
    )
    if hidden:
        views += f"mount -t tmpfs -o mode=755 tmpfs {home} && "
        views += "".join(
            f"mkdir -p {path} && mount --bind {tmp_path}/view{n} {path} && "
            for n, path in enumerate(hidden)
        )
    opened = [parent for parent in parents if parent.stat().st_mode & 0o005 != 0o005]
    for parent in opened:  # pytest's own folders are private
        parent.chmod(parent.stat().st_mode | 0o005)
    before = outside.look()
    done = subprocess.run(
        [
            *("unshare", "--mount", "sh", "-c"),
            f'{views} exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"',
            *("sh", sys.executable, "-c", textwrap.dedent(script)),
        ],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("uid") == 65534
    assert outside.look() == before
    assert outside.heard() == []
    held = [level for level in LEVELS if not found[level]["refused"]]
    assert isolate.LANDLOCK in held
    for level in held:
        answers = found[level]
        assert answers.pop("status") == ["0" * 16, "1", "2"]
        assert (answers.pop("write"), answers.pop("refused")) == ("done", "")
        allowed = {"ECONNREFUSED", NO_FAMILY, "ESRCH", *REFUSED}
        assert {name: answer for name, answer in answers.items() if answer not in allowed} == {}


# --- machines without the sandbox: an error, and nothing is graded ---

NEITHER = (NAMESPACES, "landlock_create_ruleset")


@pytest.fixture(scope="module")
def small(course_copy: Callable[[], CourseCopy]) -> CourseCopy:
    """A course with one notebook and one submission."""
    course = course_copy()
    course.keep_first_notebook()
    shutil.copytree(course.root / "release" / ASSIGNMENT, course.submission("student"))
    return course


GRADE = ("autograder", "grade", ASSIGNMENT, "--force")


@pytest.mark.parametrize(
    "forbidden", [NEITHER, (NAMESPACES, "seccomp"), (NAMESPACES, "landlock_restrict_self")]
)
def test_nothing_is_graded_where_nothing_confines(small: CourseCopy, forbidden: str) -> None:
    shutil.rmtree(small.root / "autograded", ignore_errors=True)
    done = small.run(*forbidding(*forbidden), *GRADE)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("autograder: this machine cannot confine student code, so nothing is")
    assert "unshare" in line
    assert not (small.root / "autograded").exists()
    assert small.recorded() == {}


def test_nbgrader_grades_nothing_either(small: CourseCopy) -> None:
    done = small.run(*forbidding(*NEITHER), "nbgrader", "autograde", ASSIGNMENT, "--force")
    assert done.returncode != 0
    assert "this machine cannot confine student code" in done.stderr
    assert not list(small.root.glob("autograded/*/*/results.json"))


def test_without_namespaces_landlock_confines_and_is_recorded(small: CourseCopy) -> None:
    done = small.run(*forbidding(NAMESPACES), *GRADE)
    assert done.returncode == 0, done.stderr
    layers = [layer for layer in small.results("student")["sandbox"] if layer != CONTROL_GROUP]
    assert layers == LAYERS[isolate.LANDLOCK]


def test_grading_unconfined_is_asked_for_by_name_and_recorded(small: CourseCopy) -> None:
    done = small.run(*forbidding(*NEITHER), *GRADE, "--run-student-code-unconfined")
    assert done.returncode == 0, done.stderr
    layers = [layer for layer in small.results("student")["sandbox"] if layer != CONTROL_GROUP]
    assert layers == LAYERS[UNCONFINED] == ["resource limits"]


def test_the_doctor_names_the_layers(small: CourseCopy, warm: WarmInterpreter) -> None:
    done = small.run("autograder", "doctor", COLUMNS="300")
    assert done.returncode == 0, done.stderr
    said = {line.split()[0]: " ".join(line.split()[1:]) for line in done.stdout.splitlines()}
    for level in LEVELS:
        reason = refused(warm, level)
        assert said[level] == (f"refused: {reason}" if reason else ", ".join(LAYERS[level]))


def test_the_doctor_says_that_nothing_confines(small: CourseCopy) -> None:
    done = small.run(*forbidding(*NEITHER), "autograder", "doctor")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("autograder: this machine cannot confine student code")
    assert done.stdout.count("refused: ") == 2


WAYS = ("wheel", "path", "table", "environment inside")


@pytest.mark.parametrize("way", WAYS)
def test_the_project_stays_hidden_wherever_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    """Below /usr, as in a container image: from a wheel, and from a checkout in three ways."""
    base = tmp_path / "usr" / "local" / "lib"
    packages, project = base / "site-packages", base / "project"
    kit = packages if way == "wheel" else project
    for folder in (packages / "numpy", kit / "autograder" / "kernel", project / "solutions"):
        folder.mkdir(parents=True)
    for name in ("data", "release"):
        (project / name).mkdir()
    (kit / "autograder" / "kernel" / "isolate.py").touch()
    if way == "wheel":
        (kit / "autograder" / "data").mkdir()
    else:
        (kit / "autograder" / "data").symlink_to("../data")
    (packages / "egg.zip").touch()
    (base / "libm.so").touch()
    (base / "lib64").symlink_to("project")
    monkeypatch.setattr(isolate, "__file__", str(kit / "autograder" / "kernel" / "isolate.py"))
    monkeypatch.setattr(isolate, "SYSTEM", (str(tmp_path / "usr"),))
    path = [str(packages), str(packages / "egg.zip"), "/nowhere", ""]
    monkeypatch.setattr(sys, "path", [*path, str(project)] if way == "path" else path)
    elsewhere = tmp_path / "elsewhere" / "other"
    elsewhere.mkdir(parents=True)
    if way == "table":
        table = types.ModuleType("__editable___autograder_finder")
        vars(table)["MAPPING"] = {"autograder": str(kit / "autograder"), "other": str(elsewhere)}
        monkeypatch.setitem(sys.modules, table.__name__, table)
    environment = project / ".venv"
    if way == "environment inside":
        (environment / "lib").mkdir(parents=True)
        monkeypatch.setattr(sys, "prefix", str(environment))
    view = isolate.readable.__wrapped__()
    shown = [path for path in view.whole if not os.path.islink(path)]
    for one in (base / "libm.so", base / "lib64", packages / "numpy", packages / "egg.zip"):
        assert view.has(str(one)), one
    assert view.has(str(elsewhere)) == (way == "table")
    if way != "wheel":
        assert view.has(str(environment / "lib")) == (way == "environment inside")
    ours = [kit / "autograder"]
    if way != "wheel":
        ours += [project / name for name in ("autograder", "data", "solutions", "release")]
    for secret in ours:
        assert not [path for path in shown if secret.is_relative_to(path)], secret
        assert not [path for path in shown if Path(path).is_relative_to(secret)], secret
    # The folders around it can be listed, as Python must to find packages.
    assert (str(packages) in view.parts) == (way == "wheel")
    assert str(base) in view.parts
