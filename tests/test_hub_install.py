"""A Hub installed by the command in docs/hub.md, and what students can see of it."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import random
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import nbformat
import pytest

from autograder.data import mnist
from autograder.engine.notebook import grade_id, solved
from autograder.errors import UserError
from deploy import check, courses, processes
from deploy.install import bring, make_account
from deploy.processes import Process
from deploy.site import CourseOnSite, Place, Site
from support.people import answers_in
from support.submissions import (
    ASSIGNMENT,
    NOTEBOOKS,
    ROOT,
    expected_points,
    max_points,
    solution_cells,
)
from support.submissions import source as instructors
from support.waiting import until

pytestmark = pytest.mark.hub

as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="people on a Hub are Unix accounts, which only root can make"
)
FILTERS = NOTEBOOKS[0]
FULL = sum(max_points(FILTERS).values())
HALF = solution_cells(FILTERS)[:3]

# Prints which of the files named on standard input can be opened.
OPEN = """
import os, sys
for path in sys.stdin.read().split("\\0"):
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        continue
    print(path)
"""

# --- the settings ---

GOOD = """
folder = "/srv/hub"
[courses.one]
grader = "g"
instructors = ["i"]
students = ["a"]
assignments = ["ch4-cnn"]
"""
WRONG = {
    "no TOML": ("folder = ", "is no TOML"),
    "no course": ('folder = "/srv/hub"', "there is no table [courses.<name>]"),
    "relative": (GOOD.replace("/srv", "srv"), "folder is not an absolute path"),
    "unknown": (f"port = 3\n{GOOD}", "port is not known here"),
    "type": (f'first_port = "80"\n{GOOD}', "first_port is not of type int"),
    "no students": (GOOD.replace("students", "# "), "courses.one.students is missing"),
    "course": (GOOD.replace(".one", ".One"), "'One' is no name of a course"),
    "assignment": (GOOD.replace("ch4-cnn", "ch5"), "source/ch5 holds no notebooks"),
    "root": (GOOD.replace('"g"', '"root"'), "'root' is no name of a person's account"),
    "hostile": (GOOD.replace('["a"]', '["-a"]'), "'-a' is no name of a person's account"),
    "both": (GOOD.replace('["a"]', '["i"]'), "i is instructor and student"),
    "grader": (GOOD.replace('["a"]', '["g"]'), "g is a grader, and so can be nobody else"),
    "two courses": (GOOD + GOOD.replace('folder = "/srv/hub"', "").replace(".one", ".two"),
                    "g is the grader of two courses"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings_are_one_line(tmp_path: Path, case: str) -> None:
    text, reason = WRONG[case]
    path = tmp_path / "hub.toml"
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        Site.read(path)
    assert reason in str(raised.value)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_the_example_is_what_it_says() -> None:
    site = Site.read(ROOT / "deploy" / "example.toml")
    (course,) = site.courses
    assert course.assignments == (ASSIGNMENT,)
    assert site == replace(Site(site.folder, site.courses), source=site.source), "the defaults"


def test_the_units_commands_are_those_that_start_the_hub(tmp_path: Path) -> None:
    site = Site.read(ROOT / "deploy" / "example.toml")
    command, directory, variables = of_unit(site.unit_text())
    assert command == site.start
    assert directory == site.state
    assert variables["COURSE_HUB"] == str(site.description)
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("there is no systemd-analyze here")
    # systemd only checks that the named programs exist.
    text = site.unit_text().replace(site.start[0], sys.executable)
    unit = tmp_path / "course-hub.service"
    unit.write_text(text.replace(str(site.state), str(tmp_path)))
    done = subprocess.run([verify, "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def of_unit(text: str) -> tuple[list[str], Path, dict[str, str]]:
    """Command, folder and variables of a systemd unit."""
    lines = [line.partition("=") for line in text.splitlines()]
    command = next(value.split() for key, _, value in lines if key == "ExecStart")
    folder = next(Path(value) for key, _, value in lines if key == "WorkingDirectory")
    variables = (value.partition("=") for key, _, value in lines if key == "Environment")
    return command, folder, {name: value for name, _, value in variables}


# --- obstacles ---


@as_root
def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "squatted"
    path.mkdir(mode=0o777)
    os.chown(path, 54_321, 54_321)
    with pytest.raises(UserError, match="somebody else's"):
        bring(Place(path, "root", "root", 0o700))
    assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (54_321, 0o755)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(UserError, match="is no folder"):
        bring(Place(link, "root", "root", 0o700))


@as_root
def test_a_home_without_an_account_is_given_to_nobody(tmp_path: Path) -> None:
    name = f"kit-{secrets.token_hex(6)}"
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="is there"):
        make_account(name, tmp_path)
    assert name not in Path("/etc/passwd").read_text()


# --- two new courses ---


@dataclass(frozen=True)
class Installed:
    """An installation, with the outcomes of the first and the second run of the command."""

    site: Site
    clone: Path
    first: subprocess.CompletedProcess[str]
    again: subprocess.CompletedProcess[str]
    before: dict[str, tuple[int, ...]]
    after: dict[str, tuple[int, ...]]

    def install(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the command again."""
        return install(self.clone, self.site.source, *options)


def install(clone: Path, settings: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command like an administrator whose files are closed to others."""
    return subprocess.run(
        [sys.executable, "-m", "deploy.install", settings, *options],
        cwd=clone,
        env={**os.environ, "MNIST_DIR": str(mnist.find())},
        capture_output=True,
        text=True,
        umask=0o077,
    )


def closed_clone(folder: Path) -> None:
    """Copy the installed parts of the repository, like a clone made under umask 077."""
    folder.mkdir()
    for name in ("autograder", "data", "deploy", "release", "source", "solutions"):
        ignore = shutil.ignore_patterns("__pycache__", "mnist", "mdc_session*")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignore)
    for name in ("nbgrader_config.py", "pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    """Two courses with unique accounts; everything is removed in the end."""
    token = secrets.token_hex(3)
    top = Path(tempfile.mkdtemp(prefix="kit-hub-"))
    top.chmod(0o755)
    (top / "homes").mkdir()
    (top / "homes").chmod(0o755)
    closed_clone(top / "clone")
    url, first_port = free_ports(6)
    settings = top / "hub.toml"
    settings.write_text(f"""
folder = "{top}/hub"
url = "http://127.0.0.1:{url}"
first_port = {first_port}
homes = "{top}/homes"
graders = "kit-{token}-graders"
[courses.kit-{token}-one]
grader = "kit-{token}-g1"
instructors = ["kit-{token}-i"]
students = ["kit-{token}-a", "kit-{token}-b"]
assignments = ["{ASSIGNMENT}"]
[courses.kit-{token}-two]
grader = "kit-{token}-g2"
instructors = ["kit-{token}-i"]
students = ["kit-{token}-c"]
assignments = ["{ASSIGNMENT}"]
""")
    since = Process.of(os.getpid()).start
    try:
        first = install(top / "clone", settings)
        site = Site.read(settings)
        before = versions(site)
        again = install(top / "clone", settings)
        yield Installed(site, top / "clone", first, again, before, versions(site))
    finally:
        remove(token, top, since)


def free_ports(count: int) -> tuple[int, int]:
    """A free port, and the first of `count` consecutive free ports."""
    while True:
        base = random.randrange(20_000, 32_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(base, base + count + 1):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return base, base + 1


def versions(site: Site) -> dict[str, tuple[int, ...]]:
    """Metadata of the installation's files and folders, which change when they are rewritten."""
    found: dict[str, tuple[int, ...]] = {}
    for path in [p for p in site.folder.rglob("*") if "site-packages" not in p.parts]:
        status = path.lstat()
        # The checks themselves leave caches of the programs that they start.
        if path.is_file() and not {"__pycache__", ".autograder"} & set(path.parts):
            found[str(path)] = (status.st_ino, status.st_mtime_ns, status.st_uid, status.st_mode)
    return found


def remove(token: str, top: Path, since: int) -> None:
    """Remove the accounts and groups with homes below `top`, made by this test, and `top`."""
    mine = [
        entry for entry in pwd.getpwall()
        if entry.pw_name.startswith(f"kit-{token}-") and Path(entry.pw_dir).parent == top / "homes"
    ]  # fmt: skip
    processes.end(lambda: processes.of_accounts([entry.pw_uid for entry in mine], since))
    for entry in mine:
        subprocess.run(["userdel", entry.pw_name], check=True)
    for group in grp.getgrall():
        if f"kit-{token}-" in group.gr_name:
            subprocess.run(["groupdel", group.gr_name], check=True)
    shutil.rmtree(top)


@as_root
def test_it_sets_up_what_it_then_finds_in_order(installed: Installed) -> None:
    assert (installed.first.returncode, installed.first.stderr) == (0, "")
    assert "all is well; start the Hub with" in installed.first.stdout
    assert f"systemctl enable --now {installed.site.unit}" in installed.first.stdout


@as_root
def test_setting_up_again_changes_nothing(installed: Installed) -> None:
    assert (installed.again.returncode, installed.again.stderr) == (0, "")
    assert "account" not in installed.again.stdout
    assert installed.after == installed.before
    assert any(path.endswith("gradebook.db") for path in installed.before)


@as_root
def test_accounts_have_private_homes_and_no_password(installed: Installed) -> None:
    shadow = dict(line.split(":")[:2] for line in Path("/etc/shadow").read_text().splitlines())
    for course in installed.site.courses:
        for name in (course.grader, *course.people):
            home = Path(pwd.getpwnam(name).pw_dir)
            assert (stat.S_IMODE(home.stat().st_mode), home.owner()) == (0o700, name)
            assert shadow[name].startswith("!")


@as_root
def test_a_release_that_is_there_does_not_keep_the_gradebook_empty(
    installed: Installed, tmp_path: Path
) -> None:
    """For example, after the gradebook was lost or a release copied into the course's folder."""
    course = installed.site.courses[1]
    root = installed.site.root(course)
    assert list((root / "release" / ASSIGNMENT).glob("*.ipynb"))
    shutil.move(root / "gradebook.db", tmp_path)
    only = replace(installed.site, courses=(course,))
    found = check.look(only, lambda line: None)
    assert len([line for line in found if "do not know all notebooks" in line]) == 1
    assert installed.install().returncode == 0
    assert check.is_known(installed.site, course, ASSIGNMENT)


FAULTS = {
    "course folder": ("{course} has mode 755, not 700", "can read {course}"),
    "checks": ("{grader} has mode 755, not 750", "can read {grader}"),
    "state": ("{state} has mode 755, not 700", "can read {state}"),
    "inbound": ("{inbound} has mode 755, not 1733", "cannot hand in: {inbound}"),
    "home": ("{home} is open to others", "can read {home}"),
    "clone": ("can read {source}", "with solutions and checks; `chmod 700 {clone}` closes it"),
    "member": ("root is in the group {group}, but not in", ""),
    "description": ("{description} is older than", ""),
    "unit": ("{unit} is older than", ""),
    "digits": ("{digits} is not there", ""),
}


@pytest.fixture(scope="module")
def found(installed: Installed) -> str:
    """The output of --check for an installation with many faults, which are undone afterwards."""
    site = installed.site
    one, *_ = site.courses
    names = words(installed)
    opened = ["course", "grader", "state", "inbound", "home", "clone", "source"]
    modes = {path: stat.S_IMODE(Path(names[path]).stat().st_mode) for path in opened}
    digits = Path(names["digits"])
    try:
        for path in opened:
            Path(names[path]).chmod(0o755)
        subprocess.run(["gpasswd", "--add", "root", one.group], check=True, capture_output=True)
        site.description.write_text("{}")
        site.unit.write_text("")
        digits.rename(digits.with_name("moved"))
        done = installed.install("--check")
    finally:
        digits.with_name("moved").rename(digits)
        subprocess.run(["gpasswd", "--delete", "root", one.group], check=True, capture_output=True)
        for path in opened:
            Path(names[path]).chmod(modes[path])
        assert installed.install().returncode == 0
    assert done.returncode == 1
    return done.stderr


def words(installed: Installed) -> dict[str, str]:
    """The paths and names in an installation that the faults mention."""
    site = installed.site
    one, *_ = site.courses
    return {
        "clone": str(installed.clone),
        "source": str(installed.clone / "source"),
        "course": str(site.root(one)),
        "grader": str(site.graders_environment),
        "state": str(site.state),
        "inbound": str(site.exchange / one.name / "inbound"),
        "home": pwd.getpwnam(one.students[1]).pw_dir,
        "group": one.group,
        "description": str(site.description),
        "unit": str(site.unit),
        "digits": str(site.mnist / "t10k-labels-idx1-ubyte"),
    }


@as_root
@pytest.mark.parametrize("fault", FAULTS)
def test_check_names_what_is_not_in_order(installed: Installed, found: str, fault: str) -> None:
    for text in FAULTS[fault]:
        assert text.format(**words(installed)) in found


# --- submissions are graded ---


@pytest.fixture(scope="module")
def graded(installed: Installed) -> Iterator[Installed]:
    """Both courses, each with a graded submission."""
    site = installed.site
    command, folder, variables = of_unit(site.unit.read_text())
    log = site.folder.parent / "hub.log"
    with log.open("wb") as file:
        hub = subprocess.Popen(
            [sys.executable, "-m", "deploy.lifeline", folder.parent, *command],
            cwd=ROOT,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        for name, course in site.place()["courses"].items():
            health = f"{course['autograder_url']}/services/{name}-autograder/health"
            until(partial(up, health), f"the service of {name} is up ({log})")
        until(lambda: up(f"{site.url}/hub/health"), "the Hub is up")
        one, two = site.courses
        hand_in(site, one, one.students[0], solution_cells(FILTERS))
        hand_in(site, two, two.students[0], HALF)
        roots = [site.root(course) for course in site.courses]
        until(lambda: all(map(answers_in, roots)), "both are graded", 600)
        yield installed
    finally:
        assert hub.stdin is not None
        hub.stdin.close()
        hub.wait()


def up(url: str) -> bool:
    """Whether the address answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as page:
            return bool(page.status == 200)
    except OSError:
        return False


def hand_in(site: Site, course: CourseOnSite, student: str, done: list[str]) -> None:
    """Fetch, solve some cells of the first notebook, and submit it alone, as the student."""
    at = ["--course", course.name]
    check.as_person(site, student, "nbgrader", "fetch_assignment", ASSIGNMENT, *at)
    work = Path(pwd.getpwnam(student).pw_dir) / course.name / ASSIGNMENT
    right = {grade_id(cell): cell.source for cell in solved(instructors(FILTERS)).cells}
    path = work / f"{FILTERS}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if grade_id(cell) in done:
            cell.source = right[grade_id(cell)]
    nbformat.write(notebook, path)
    for other in NOTEBOOKS[1:]:
        (work / f"{other}.ipynb").unlink()
    check.as_person(site, student, "nbgrader", "submit", ASSIGNMENT, *at)


@as_root
def test_a_submission_in_each_course_has_the_right_score(graded: Installed) -> None:
    one, two = graded.site.courses
    for course, points in ((one, FULL), (two, sum(expected_points(FILTERS, HALF).values()))):
        (answer,) = answers_in(graded.site.root(course))
        assert (answer["kind"], answer["student"]) == ("graded", course.students[0])
        assert answer["score"] == points
        result = graded.site.root(course) / "autograded" / course.students[0] / ASSIGNMENT
        assert json.loads((result / "results.json").read_text("utf-8"))["score"] == points
        at = ["--course", course.name]
        student = course.students[0]
        check.as_person(graded.site, student, "nbgrader", "fetch_feedback", ASSIGNMENT, *at)
        (page,) = Path(pwd.getpwnam(student).pw_dir).rglob(f"{FILTERS}.html")
        assert f"{points:g} of" in page.read_text("utf-8")
        assert "shown as plain text" not in page.read_text("utf-8")
    assert 0 < sum(expected_points(FILTERS, HALF).values()) < FULL


@as_root
def test_a_student_reads_nothing_but_what_is_theirs(graded: Installed) -> None:
    site = graded.site
    one, two = site.courses
    reader = one.students[1]  # has no submission, and is in one course only
    others = {name for c in site.courses for name in (c.grader, *c.people)} - {reader}
    private = [
        *(site.root(course) for course in site.courses),
        site.graders_environment,
        site.state,
        site.exchange / two.name,
        *(Path(pwd.getpwnam(name).pw_dir) for name in sorted(others)),
    ]
    paths = [path for top in private for path in top.rglob("*")]
    names = "\0".join(map(str, paths))
    # These files must be among them, or the test would prove nothing.
    for course in site.courses:
        root, student = site.root(course), course.students[0]
        for wanted in (
            root / "source" / ASSIGNMENT / f"{FILTERS}.ipynb",
            root / "gradebook.db",
            root / ".autograder" / "secret",
            root / "submitted" / student / ASSIGNMENT / f"{FILTERS}.ipynb",
            Path(pwd.getpwnam(student).pw_dir) / course.name / ASSIGNMENT / f"{FILTERS}.ipynb",
        ):
            assert wanted in paths
    assert any(path.name == "test_1_orenist_filter.py" for path in paths), "hidden checks"
    assert site.description in paths
    assert opened(reader, site, names) == []
    # The same script can read the student's own files, and the owners can read theirs.
    own = site.exchange / one.name / "outbound" / ASSIGNMENT / f"{FILTERS}.ipynb"
    assert opened(reader, site, str(own)) == [str(own)]
    of_grader = opened(one.grader, site, names)
    assert str(site.root(one) / "gradebook.db") in of_grader
    assert not [path for path in of_grader if path.startswith(str(site.root(two)))]


@as_root
def test_what_a_student_finds_by_looking_around_is_for_everybody(graded: Installed) -> None:
    site = graded.site
    one, _ = site.courses
    walked = check.as_person(site, one.students[1], "python", "-c", check.PROBE, str(site.folder))
    seen = [Path(line) for line in walked.stdout.splitlines()]
    everybodys = [
        *(site.folder / name for name in ("env", "python", "mnist", "kit", "courses", "exchange")),
        site.unit,
    ]
    strange = [
        path for path in seen
        if path != site.folder and not any(path.is_relative_to(top) for top in everybodys)
        and not path.name.endswith(".stamp")
    ]  # fmt: skip
    assert strange == []
    own = site.exchange / one.name
    for path in seen:
        if path.is_relative_to(site.exchange) and path != site.exchange:
            assert path == own or path.is_relative_to(own / "outbound")
        assert path == site.folder / "courses" or site.folder / "courses" not in path.parents
    assert any(path.is_relative_to(own / "outbound") for path in seen)
    assert check.as_person(
        site, one.students[1], "python", "-c", "import autograder", check=False
    ).returncode  # fmt: skip


def opened(user: str, site: Site, names: str) -> list[str]:
    """The files among those named that a user can open."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [site.students_environment / "bin" / "python", "-I", "-c", OPEN],
        input=names,
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        **courses.account(user),
    )
    return done.stdout.splitlines()


@as_root
def test_neither_course_sees_the_other(graded: Installed) -> None:
    one, two = graded.site.courses
    for course, other in ((one, two), (two, one)):
        done = check.as_person(
            graded.site, course.students[0], "nbgrader", "fetch_assignment", ASSIGNMENT,
            "--course", other.name, check=False,
        )  # fmt: skip
        assert done.returncode != 0
        home = Path(pwd.getpwnam(course.students[0]).pw_dir)
        assert not (home / other.name).exists() or not list((home / other.name).rglob("*.ipynb"))


@as_root
def test_all_is_still_well_after_the_first_submissions(graded: Installed) -> None:
    done = graded.install("--check")
    assert (done.returncode, done.stderr) == (0, "")
