"""Checks an installation, by inspection and by trying things as a student."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from autograder.data import mnist
from deploy import courses
from deploy.environment import ROOT
from deploy.site import CourseOnSite, Place, Site

# Prints everything that can be listed or read in the given folders, without following links.
PROBE = """
import os, sys
for top in sys.argv[1:]:
    for folder, folders, files in os.walk(top):
        print(folder)
        for name in files:
            path = os.path.join(folder, name)
            try:
                os.close(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK))
            except OSError:
                continue
            print(path)
    try:
        os.close(os.open(top, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK))
    except OSError:
        pass
    else:
        print(top)
"""
_IMPORTS = {
    True: "import autograder.service, configurable_http_proxy, jupyterhub, nbgrader",
    False: "import jupyterhub, jupyterlab, matplotlib, nbgrader, numpy",
}
# The clone that the installation comes from is not for students either.
_CLONE = [ROOT / name for name in ("source", "solutions", "autograder", ".git")]
# Prints an assignment's notebooks in the course root and those in the gradebook.
_KNOWN = """
import contextlib, json, pathlib, sqlite3, sys
query = (
    "select notebook.name from notebook join assignment on assignment_id = assignment.id "
    "where assignment.name = ?"
)
source = sorted(path.stem for path in pathlib.Path("source", sys.argv[1]).glob("*.ipynb"))
try:
    with contextlib.closing(sqlite3.connect("file:gradebook.db?mode=ro", uri=True)) as database:
        recorded = sorted(name for (name,) in database.execute(query, sys.argv[1:]))
except sqlite3.Error:
    recorded = []
print(json.dumps([source, recorded]))
"""
_PROPERTIES = """
import json, os
from nbgrader.apps import NbGraderApp
app = NbGraderApp()
app.load_config_file()
course, exchange = app.config.CourseDirectory, app.config.Exchange
print(json.dumps([course.course_id, os.path.abspath(course.root), os.path.abspath(exchange.root)]))
"""


def look(site: Site, say: Callable[[str], None]) -> list[str]:
    """All faults of an installation, one line each; nothing is changed."""
    missing = list(_missing(site))
    if missing:
        return missing  # the other checks would only repeat this
    faults = [*_places(site), *_members(site), *_files(site)]
    for course in site.courses:
        say(f"looking at {course.name}")
        faults += [*_course(site, course), *_environments(site, course), *_seen(site, course)]
    return faults


def as_grader(
    site: Site, course: CourseOnSite, *command: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command of the graders' environment in a course's root, as the course's grader."""
    return courses.run(
        course.grader,
        command,
        site.graders_environment / "bin",
        site.root(course),
        _variables(site, course.grader),
        check=check,
    )


def as_person(
    site: Site, name: str, *command: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command of the students' environment as this user, in their home."""
    variables = _variables(site, name)
    home = Path(variables["HOME"])
    programs = site.students_environment / "bin"
    return courses.run(name, command, programs, home, variables, check=check)


def _variables(site: Site, name: str) -> dict[str, str]:
    return {
        "HOME": pwd.getpwnam(name).pw_dir,
        "MNIST_DIR": str(site.mnist),
        "NBGRADER_EXCHANGE": str(site.exchange),
        "JUPYTER_CONFIG_PATH": str(site.kit / "deploy" / "jupyter" / "everyone"),
    }


def is_known(site: Site, course: CourseOnSite, assignment: str) -> bool:
    """Whether gradebook and exchange have all notebooks of an assignment."""
    handed_out = site.exchange / course.name / "outbound" / assignment
    # As the grader, because root must not open files that another account may have placed there.
    said = as_grader(site, course, "python", "-I", "-c", _KNOWN, assignment, check=False)
    source, recorded = json.loads(said.stdout) if said.returncode == 0 else ([], [])
    return bool(source) and source == recorded == _notebooks(handed_out)


def _notebooks(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.ipynb"))


# -- the checks ------------------------------------------------------------------------------------


def _missing(site: Site) -> Iterator[str]:
    again = "run this command without --check"
    for course in site.courses:
        for name in (course.grader, *course.people):
            with contextlib.suppress(KeyError):
                pwd.getpwnam(name)
                continue
            yield f"there is no account {name}; {again}"
    for group in (*(course.group for course in site.courses), site.graders):
        with contextlib.suppress(KeyError):
            grp.getgrnam(group)
            continue
        yield f"there is no group {group}; {again}"
    folders = [place.path for place in _all_places(site)]
    for path in (*folders, site.shared, site.students_environment, site.description):
        if not path.exists():
            yield f"{path} is not there; {again}"


def _all_places(site: Site) -> Iterator[Place]:
    yield from site.places()
    for course in site.courses:
        yield from site.places_of(course)


def _places(site: Site) -> Iterator[str]:
    for place in _all_places(site):
        status = place.path.lstat()
        owner, group = pwd.getpwnam(place.owner).pw_uid, grp.getgrnam(place.group).gr_gid
        if not stat.S_ISDIR(status.st_mode):
            yield f"{place.path} is no folder"
        elif (status.st_uid, status.st_gid) != (owner, group):
            yield f"{place.path} does not belong to {place.owner}:{place.group}"
        elif stat.S_IMODE(status.st_mode) != place.mode:
            yield f"{place.path} has mode {stat.S_IMODE(status.st_mode):o}, not {place.mode:o}"


def _members(site: Site) -> Iterator[str]:
    graders = {course.grader for course in site.courses}
    wanted = {course.group: {course.grader, *course.people} for course in site.courses}
    for group, members in {**wanted, site.graders: graders}.items():
        present = set(grp.getgrnam(group).gr_mem)
        for name in sorted(members - present):
            yield f"{name} is not in the group {group}; run this command without --check"
        for name in sorted(present - members):
            yield (
                f"{name} is in the group {group}, but not in {site.source}; "
                f"`gpasswd --delete {name} {group}` removes them"
            )
    for course in site.courses:
        for name in (course.grader, *course.people):
            home = Path(pwd.getpwnam(name).pw_dir)
            if not home.is_dir():
                yield f"{name} has no home {home}"
            elif home.stat().st_mode & 0o077:
                yield f"{home} is open to others; `chmod 700 {home}` closes it"


def _files(site: Site) -> Iterator[str]:
    again = "run this command without --check"
    try:
        if json.loads(site.description.read_text("utf-8")) != site.place():
            yield f"{site.description} is older than {site.source}; {again}"
        if site.description.stat().st_mode & 0o077:
            yield f"{site.description} is open to others"
        if site.unit.read_text("utf-8") != site.unit_text():
            yield f"{site.unit} is older than {site.source}; {again}"
    except (OSError, ValueError) as error:
        yield f"{error}; {again}"
    for name in mnist.FILES:
        if not (site.mnist / name).exists():
            yield f"{site.mnist / name} is not there; {again}"
    if site.extra and not Path(site.extra).is_file():
        yield f"{site.extra} is not there"


def _course(site: Site, course: CourseOnSite) -> Iterator[str]:
    for assignment in course.assignments:
        if not is_known(site, course, assignment):
            yield (
                f"{course.name}: gradebook or exchange do not know all notebooks of {assignment}; "
                "run this command without --check"
            )
    said = as_grader(site, course, "python", "-c", _PROPERTIES, check=False)
    wanted = [course.name, str(site.root(course)), str(site.exchange)]
    if said.returncode != 0 or json.loads(said.stdout.splitlines()[-1]) != wanted:
        yield (
            f"{site.root(course)}/nbgrader_config.py does not name the course {wanted[0]}, "
            f"its root {wanted[1]} and the exchange {wanted[2]}: {_last(said)}"
        )
    doctor = as_grader(site, course, "autograder", "doctor", check=False)
    if doctor.returncode != 0:
        yield f"`autograder doctor` as {course.grader} says: {_last(doctor)}"


def _environments(site: Site, course: CourseOnSite) -> Iterator[str]:
    said = as_grader(site, course, "python", "-c", _IMPORTS[True], check=False)
    if said.returncode != 0:
        yield f"{course.grader} cannot use {site.graders_environment}: {_last(said)}"
    for name in _of_each_kind(course):
        try:
            said = as_person(site, name, "python", "-I", "-c", _IMPORTS[False], check=False)
        except OSError as error:
            yield f"{name} cannot run {site.students_environment}/bin/python: {error.strerror}"
            continue
        if said.returncode != 0:
            yield f"{name} cannot use {site.students_environment}: {_last(said)}"
        said = as_person(site, name, "python", "-I", "-c", "import autograder", check=False)
        if said.returncode == 0:
            yield f"{site.students_environment} holds the hidden checks, and {name} can read them"


def _of_each_kind(course: CourseOnSite) -> list[str]:
    """One student for each set of groups among the students of the course."""
    kinds = {}
    for name in reversed(course.students):
        own = pwd.getpwnam(name).pw_gid
        kinds[frozenset(os.getgrouplist(name, own)) - {own}] = name
    return list(kinds.values())


def _seen(site: Site, course: CourseOnSite) -> Iterator[str]:
    """Faults that a student meets: private files they can read, or an exchange they cannot use."""
    for name in _of_each_kind(course):
        private = [site.state, site.graders_environment, *map(site.root, site.courses)]
        mine = site.exchange / course.name
        private += [mine / "inbound", mine / "feedback"]
        private += [
            site.exchange / other.name for other in site.courses if name not in other.people
        ]
        people = {n for c in site.courses for n in (c.grader, *c.people)} - {name}
        private += [Path(pwd.getpwnam(other).pw_dir) for other in sorted(people)]
        probe = "python", "-I", "-c", PROBE
        try:
            said = as_person(site, name, *probe, *map(str, private), check=False)
            clone = as_person(site, name, *probe, *map(str, _CLONE), check=False)
            own = as_person(site, name, *probe, str(mine / "outbound"), check=False)
        except OSError as error:
            yield f"{name} cannot run {site.students_environment}/bin/python: {error.strerror}"
            continue
        if said.returncode or clone.returncode or own.returncode:
            yield f"the look with the eyes of {name} failed: {_last(said)}"
        for top in private:
            seen = [
                path for path in map(Path, said.stdout.splitlines()) if path.is_relative_to(top)
            ]
            if seen:
                more = f" and {len(seen) - 1} more below {top}" if len(seen) > 1 else ""
                yield f"{name} can read {seen[0]}{more}"
        if clone.stdout:
            yield (
                f"{name} can read {clone.stdout.splitlines()[0]} and so on, with solutions and "
                f"checks; `chmod 700 {ROOT}` closes it"
            )
        if course.assignments and not own.stdout.strip():
            yield f"{name} cannot read {mine / 'outbound'}, and so cannot fetch anything"
        if not _can_hand_in(site, name, mine / "inbound"):
            yield f"{name} cannot hand in: {mine / 'inbound'} cannot be written"


def _can_hand_in(site: Site, name: str, inbound: Path) -> bool:
    script = "import os, sys; sys.exit(not os.access(sys.argv[1], os.W_OK | os.X_OK))"
    done = as_person(site, name, "python", "-I", "-c", script, str(inbound), check=False)
    return done.returncode == 0


def _last(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"
