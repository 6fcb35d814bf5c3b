"""Real attacks: none of them gains a point, learns a secret, does harm or outlives its kernel.

One class of many hostile and a few honest submissions is graded in parallel.  Most attacks precede
an untouched notebook, which is worth nothing by itself.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

from autograder.course import Course
from autograder.engine.grade import Graded, Job, grade_notebook
from autograder.engine.notebook import grade_id
from autograder.engine.sandbox import CONTROL_GROUP, LAYERS, Sandbox, sandbox
from autograder.engine.submission import SubmittedFiles
from autograder.engine.values import NoValue
from autograder.engine.warm import WarmInterpreter
from autograder.kernel import isolate
from support.environments import NAMESPACES, forbidding
from support.hostile import ATTACKS, FILTERS, FULL, MARK, PATIENCE, hand_in, said
from support.outside import Outside
from support.submissions import (
    ASSIGNMENT,
    NOTEBOOKS,
    PREFIX,
    ROOT,
    CourseCopy,
    expected_points,
    max_points,
    replace_cells,
    solution_cells,
    source,
)

HONEST = {"honest": 100, "another": 100, "half": 5}  # number of written solution cells
ROWS = {attack.row for attack in ATTACKS.values()}
RELEASE = ROOT / "release" / ASSIGNMENT


@dataclass
class Class:
    """A graded class, and a snapshot of the things outside before."""

    course: CourseCopy
    outcome: subprocess.CompletedProcess[str]
    before: tuple[Any, ...]
    files: dict[str, bytes]
    host: set[str]


def write_solved(course: CourseCopy, student: str, *done: str) -> Path:
    """Hand in FILTERS only, with these solution cells."""
    folder = course._submit(student, {FILTERS: done})
    for name in NOTEBOOKS[1:]:
        (folder / f"{name}.ipynb").unlink(missing_ok=True)
    return folder


def guarded(course: CourseCopy) -> dict[str, bytes]:
    """Path → content of the course's files that grading must not change."""
    kept = ("source", "release", "submitted/honest", "submitted/another", "nbgrader_config.py")
    paths = [p for name in kept for p in [course.root / name, *(course.root / name).rglob("*")]]
    paths.append(course.root / ".autograder" / "secret")
    package = [p for p in (ROOT / "autograder").rglob("*.py") if p.is_file()]
    return {
        f"{path} {path.stat().st_mode}": path.read_bytes()
        for path in [*paths, *package]
        if path.is_file()
    }


def public_places() -> set[str]:
    """Canary files in the places that anybody may write to."""
    found = set()
    for folder in ("/tmp", "/var/tmp", "/dev/shm", "/run", "/", "/usr/local"):
        found |= {f"{folder}/{name}" for name in os.listdir(folder) if "CANARY" in name}
    return found


@pytest.fixture(scope="module", params=[isolate.NAMESPACES, isolate.LANDLOCK])
def graded(
    request: pytest.FixtureRequest,
    course_copy: Callable[[], CourseCopy],
    outside: Outside,
    tmp_path_factory: pytest.TempPathFactory,
) -> Class:
    course = course_copy()
    course.keep_first_notebook()
    # A known secret, which the tests can search for.
    (course.root / ".autograder").mkdir(mode=0o700)
    (course.root / ".autograder" / "secret").write_bytes(SECRET)
    for student, count in HONEST.items():
        write_solved(course, student, *solution_cells(FILTERS)[:count])
    names = outside.names | {
        "COURSE_ROOT": str(course.root),
        "NEIGHBOUR": str(course.submission("honest") / f"{FILTERS}.ipynb"),
    }
    for student, attack in ATTACKS.items():
        folder = write_solved(course, student, *(solution_cells(FILTERS) if attack.solved else []))
        hand_in(folder, attack, names)
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(PATIENCE)
    before, files, host = outside.look(), guarded(course), public_places()
    without = forbidding(NAMESPACES) if request.param == isolate.LANDLOCK else []
    outcome = course.run(
        *without,
        *("autograder", "grade", ASSIGNMENT, "--jobs", "2"),
        PYTHONPATH=str(site),
        CANARY_SECRET=ENVIRONMENT,
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    made = Class(course, outcome, before, files, host)
    layers = set(course.results("honest")["sandbox"]) - {CONTROL_GROUP}
    if layers != set(LAYERS[request.param]):
        pytest.skip(f"this machine refuses {request.param}: {layers}")
    return made


BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
SECRET = b"thirty-two bytes nobody may see!"
ENVIRONMENT = "what only the grader knows"


# Tests outside this class, by row in the list of threats.
MUTANTS = "validity/ch4_cnn/7-checkpoints.toml"
ELSEWHERE = {
    1: ["test_definite_answers.py::test_the_answer_is_definite"],
    2: ["test_outputs.py::test_a_students_result_is_never_taken_for_points"],
    3: ["test_outputs.py::test_only_text_and_pictures_are_kept"],
    4: [
        "test_responder.py::"
        "test_a_responder_replaced_by_the_student_answers_no_better_than_they_could"
    ],
    5: [
        "test_responder.py::test_an_array_that_lies_arrives_as_what_it_is",
        "test_wire.py::test_a_subclass_arrives_as_a_plain_array_of_its_real_content",
    ],
    6: ["test_repair.py::test_nothing_of_the_solution_is_shown_or_carried_out"],
    7: [
        "test_isolation.py::test_nothing_outside_can_be_read",
        "test_isolation.py::test_no_folder_outside_can_be_listed",
        "test_isolation.py::test_the_environment_is_the_documented_one",
        "test_isolation.py::test_no_descriptor_is_inherited_but_the_documented_ones",
        "test_isolation.py::test_somebody_without_rights_confines_kernels_too",
    ],
    8: [
        "test_isolation.py::test_nobody_can_be_spoken_to",
        "test_isolation.py::test_no_socket_can_be_made_that_leads_out",
        "test_isolation.py::test_no_place_is_writable_that_others_read",
    ],
    9: ["test_isolation.py::test_nothing_outside_can_be_changed"],
    10: ["test_checking.py::test_the_surroundings_configure_nothing"],
    11: [
        "test_isolation.py::test_nothing_survives_its_kernel",
        "test_isolation.py::test_a_kernel_ends_with_the_process_that_ordered_it",
    ],
    12: [
        "test_isolation.py::test_no_power_over_other_processes",
        "test_isolation.py::test_all_processes_at_once_are_only_its_own",
        "test_isolation.py::test_a_kernel_cannot_reach_a_sibling_or_the_warm_interpreter",
    ],
    13: [
        "test_isolation.py::test_a_limit_gives_a_reason_and_keeps_what_was_shown",
        "test_isolation.py::test_wall_time_ends_a_cell_that_will_not_be_interrupted",
        "test_isolation.py::test_output_without_end_is_stopped",
        "test_isolation.py::test_messages_without_end_are_stopped",
    ],
    14: ["test_definite_answers.py::test_the_answer_is_definite"],
    15: [
        "test_responder.py::test_a_malformed_message_stops_at_most_its_notebook",
        "test_responder.py::test_garbage_written_by_student_code_ends_the_questions",
    ],
    16: [
        "test_threats.py::test_a_checkpoint_that_is_no_regular_file_is_not_read",
        "test_threats.py::test_a_checkpoint_file_that_names_a_path_elsewhere_leads_nowhere",
        "test_threats.py::test_graphs_beside_a_checkpoint_are_never_opened",
        f"{MUTANTS}::data file cut",
    ],
    17: [
        "test_copies.py::test_all_who_share_a_tensor_are_named_in_whatever_order_they_are_graded",
        f"{MUTANTS}::right names, random values",
        f"{MUTANTS}::other names",
        f"{MUTANTS}::another network",
        f"{MUTANTS}::untrained network",
    ],
    18: ["test_threats.py::test_answers_of_an_earlier_grading_are_worth_nothing"],
    19: [
        "test_outputs.py::test_a_page_with_hostile_outputs_runs_and_loads_nothing_of_theirs",
        "test_rendering.py::test_nothing_that_a_student_writes_is_a_live_link",
        "test_results.py::test_what_is_shown_holds_no_control_characters",
        "test_feedback_browser.py::test_a_hostile_page_runs_and_loads_nothing",
    ],
    20: [
        "test_reconcile.py::test_no_hour_and_no_day_ever_holds_more_gradings_than_allowed",
        "test_reconcile.py::test_students_take_turns",
        "test_reconcile.py::test_a_student_whose_notebooks_never_end_keeps_nobody_waiting",
        "test_end_to_end.py::test_feedback_gives_no_value_of_a_hidden_check",
        "test_checking.py::test_seeded_depends_on_secret_and_parts_and_on_nothing_else",
    ],
    21: [
        "test_files.py::test_a_link_is_refused_wherever_it_leads",
        "test_files.py::test_a_fifo_is_refused_without_waiting",
        "test_files.py::test_walk_passes_over_everything_else",
        "test_reconcile.py::test_links_and_devices_are_never_followed",
    ],
    22: ["test_isolation.py::test_no_place_is_writable_that_others_read"],
    23: [
        "test_definite_answers.py::test_a_score_of_an_earlier_submission_does_not_stay",
        "test_definite_answers.py::test_honest_submissions_keep_their_scores",
    ],
    24: [
        "test_arrangement.py::test_no_arrangement_earns_more_than_what_was_solved",
        "test_arrangement.py::test_no_arrangement_of_a_real_notebook_earns_more",
        "test_arrangement.py::test_the_course_does_not_solve_a_cell_whose_check_stands_elsewhere",
        "test_arrangement.py::test_checks_behind_other_cells_earn_nothing",
        "test_arrangement.py::test_another_order_of_a_complete_notebook_costs_nothing",
        "test_repair.py::test_what_is_there_before_a_cell_runs_is_counted_only_beside_its_own",
    ],
    25: [
        "test_isolation.py::test_a_kernel_cannot_send_the_grader_elsewhere",
        "test_isolation.py::test_nothing_of_a_kernel_has_a_name_but_its_scratch_folder",
        "test_isolation.py::test_a_kernel_makes_no_socket_of_its_own",
        "test_provisioner.py::test_a_lost_connection_is_noticed_and_not_made_again",
        "test_files.py::test_walk_follows_no_link_that_takes_a_folders_place",
        "test_files.py::test_remove_takes_what_is_deep_or_closed_and_follows_nothing",
        "test_files.py::test_a_look_at_what_a_kernel_uses_follows_no_link",
        "test_files.py::test_a_link_in_a_submissions_place_tells_nothing",
    ],
    26: [
        "test_costly.py::test_honest_work_keeps_its_score_and_its_page",
        "test_costly.py::test_what_is_costly_gets_a_definite_answer",
        "test_reading.py::test_a_costly_file_is_read_within_bounds_or_refused",
        "test_reading.py::test_a_limit_ends_the_reader_and_says_why",
        "test_rendering.py::test_a_costly_text_takes_nothing_from_the_rest_of_the_page",
        "test_rendering.py::test_a_page_that_goes_over_its_limits_is_plain_and_says_so",
        "test_reconcile.py::test_a_costly_text_is_laid_out_outside_the_service",
    ],
    27: [
        "test_repair.py::test_nothing_of_the_solution_is_shown_or_carried_out",
        "test_repair.py::test_only_which_checks_passed_leaves_a_repaired_run",
        "test_isolation.py::test_two_kernels_at_one_time_do_not_signal_through_a_library",
    ],
}


def test_every_row_of_the_list_has_its_tests() -> None:
    """The last row is about machines: this class covers both levels, test_matrix the rest."""
    assert set(ELSEWHERE) == set(range(1, 28))
    # These rows need other notebooks, other runs or other places.
    assert set(ELSEWHERE) - ROWS == {16, 17, 20, *range(24, 28)}


@pytest.mark.parametrize("row", ELSEWHERE)
def test_the_tests_of_a_row_exist(row: int) -> None:
    for test in ELSEWHERE[row]:
        file, name = test.split("::")
        text = (ROOT / "tests" / file).read_text("utf-8")
        if file.endswith(".toml"):
            assert name in {mutant["name"] for mutant in tomllib.loads(text)["mutant"]}
        else:
            names = {n.name for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)}
            assert name in names


def test_the_run_is_not_stopped(graded: Class) -> None:
    assert graded.outcome.returncode == 1, graded.outcome.stderr  # some could not be graded
    assert not graded.outcome.stderr
    assert set(graded.course.recorded()) == {*ATTACKS, *HONEST}


@pytest.mark.parametrize("student", ATTACKS)
def test_an_attack_gains_no_point(graded: Class, student: str) -> None:
    attack = ATTACKS[student]
    notebook = graded.course.notebook(student, FILTERS)
    assert notebook["status"] == attack.status
    points = sum(graded.course.points(student)[FILTERS].values())
    assert round(points, 2) == attack.points
    assert graded.course.recorded()[student] == graded.course.points(student)
    assert notebook["reason"].startswith(attack.reason)
    assert notebook["reason"].isprintable()
    assert graded.course.results(student)["max_score"] == FULL


@pytest.mark.parametrize("student", HONEST)
def test_honest_submissions_beside_them_keep_their_scores(graded: Class, student: str) -> None:
    done = solution_cells(FILTERS)[: HONEST[student]]
    assert graded.course.points(student)[FILTERS] == expected_points(FILTERS, done)
    assert graded.course.recorded()[student][FILTERS] == expected_points(FILTERS, done)
    assert graded.course.notebook(student, FILTERS)["reason"] == ""


def test_nothing_outside_was_touched_or_spoken_to(graded: Class, outside: Outside) -> None:
    assert outside.look() == graded.before
    assert outside.heard() == []
    assert guarded(graded.course) == graded.files
    assert public_places() == graded.host


@pytest.mark.parametrize("student", ATTACKS)
def test_nothing_was_learned(graded: Class, student: str) -> None:
    written = said(graded.course.root / "autograded" / student)
    for canary in (Outside.SECRET, SECRET.decode(), ENVIRONMENT, "root:x:0", "grade_cell("):
        assert canary not in written
    solution = solution_texts()
    if not ATTACKS[student].solved:
        assert not [text for text in solution if text in written]


def solution_texts() -> list[str]:
    """Distinctive lines of the instructor's notebook."""
    source = nbformat.read(ROOT / "source" / ASSIGNMENT / f"{FILTERS}.ipynb", as_version=4)
    inside = [c.source.split(BEGIN)[1].split(END)[0] for c in source.cells if BEGIN in c.source]
    lines = [line.strip() for text in inside for line in text.splitlines()]
    return [line for line in lines if len(line) > 40]


def test_the_stack_of_an_answer_shows_no_expected_value(graded: Class) -> None:
    notebook = executed(graded.course, "stack-inspected")
    text = json.dumps(notebook.cells[-1].outputs)
    assert "LOOKED []" in text


def executed(course: CourseCopy, student: str) -> Any:
    return nbformat.read(
        course.root / "autograded" / student / ASSIGNMENT / f"{FILTERS}.ipynb", as_version=4
    )


def test_no_process_survives(graded: Class) -> None:
    names = set()
    for path in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            names.add(path.read_text().strip())
    assert names
    assert MARK not in names


def test_nothing_is_left_in_the_graders_own_folders(graded: Class) -> None:
    course = graded.course
    given = {
        p.name: p.read_bytes() for p in RELEASE.iterdir() if p.is_file() and p.suffix != ".ipynb"
    }
    for student in ATTACKS:
        folder = course.root / "autograded" / student / ASSIGNMENT
        made = {path.name: path for path in folder.iterdir()}
        assert made.keys() <= {"results.json", f"{FILTERS}.ipynb", *given}
        assert not [path for path in made.values() if path.is_symlink() or not path.is_file()]
        # nbgrader copies the course's own files there.
        assert {n: made[n].read_bytes() for n in given if n in made}.items() <= given.items()
    ours = Path(tempfile.gettempdir()).glob("kit-*")
    assert not [where for top in ours for where, inner, _ in os.walk(top) if "dark" in inner]


def test_each_result_says_what_confined_its_kernel(graded: Class) -> None:
    for student in HONEST:
        assert "Landlock" in graded.course.results(student)["sandbox"]


# --- row 16: checkpoints ---


@pytest.fixture(scope="module")
def place(warm: WarmInterpreter) -> Sandbox:
    return sandbox(warm)


def tensors(folder: Path, place: Sandbox) -> dict[str, list[Any]]:
    found = SubmittedFiles(folder, place).tensors(PREFIX)
    return {name: value.tolist() for name, value in found.items()}


TENSORS = {"weights": [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]}
INSTEAD: dict[str, Callable[[Path, Path], object]] = {
    "symlink": lambda path, genuine: path.symlink_to(genuine),
    "link to a link": lambda path, genuine: path.symlink_to(f"../submission/{path.name}"),
    "hard link": lambda path, genuine: os.link(genuine, path),
    "FIFO": lambda path, genuine: os.mkfifo(path),
    "folder": lambda path, genuine: path.mkdir(),
    "device": lambda path, genuine: os.mknod(path, 0o20644, os.makedev(1, 5)),
}


@pytest.mark.parametrize("shard", ["index", "data-00000-of-00001"])
@pytest.mark.parametrize("kind", INSTEAD)
def test_a_checkpoint_that_is_no_regular_file_is_not_read(
    saved: Path, place: Sandbox, tmp_path: Path, kind: str, shard: str
) -> None:
    if kind == "device" and os.geteuid() != 0:
        pytest.skip("only root can make a device")
    genuine, folder = tmp_path / "genuine", tmp_path / "submission"
    shutil.copytree(saved, genuine)
    shutil.copytree(saved, folder)
    assert tensors(folder, place) == TENSORS
    path = folder / f"{PREFIX}.{shard}"
    path.unlink()
    INSTEAD[kind](path, genuine / path.name)
    with pytest.raises(NoValue, match=r"not handed in|regular file|link"):
        tensors(folder, place)
    assert (genuine / path.name).read_bytes() == (saved / path.name).read_bytes()


def test_a_checkpoint_file_that_names_a_path_elsewhere_leads_nowhere(
    saved: Path, place: Sandbox, tmp_path: Path
) -> None:
    folder = tmp_path / "submission"
    folder.mkdir()
    text = f'model_checkpoint_path: "{saved / PREFIX}"\nall_model_checkpoint_paths: "{saved}/x"\n'
    (folder / "checkpoint").write_text(text)
    with pytest.raises(NoValue, match="were not handed in"):
        tensors(folder, place)
    with pytest.raises(NoValue):
        SubmittedFiles(folder, place).tensors(f"../{saved.name}/{PREFIX}")
    with pytest.raises(NoValue):
        SubmittedFiles(folder, place).tensors(str(saved / PREFIX))


def test_graphs_beside_a_checkpoint_are_never_opened(
    saved: Path, place: Sandbox, tmp_path: Path
) -> None:
    """Opening one of them would block forever, so they cannot have been read."""
    folder = tmp_path / "submission"
    shutil.copytree(saved, folder)
    (folder / f"{PREFIX}.meta").unlink()
    (folder / "variables").mkdir()
    for name in (f"{PREFIX}.meta", "saved_model.pb", "keras_metadata.pb", f"{PREFIX}.pkl"):
        os.mkfifo(folder / name)
    assert tensors(folder, place) == TENSORS


# --- row 18: results of an earlier grading ---

SUM = "fig-4-3-neighbourhood-sum"
RECORD = """
import base64 as _base64, json as _json
_right, RECORDED = neighbourhood_sum, []
def neighbourhood_sum(patch, kernel):
    value = float(_right(patch, kernel))
    RECORDED.append([repr((patch.tolist(), kernel.tolist())), value])
    return value
"""
TELL = "print('RECORDED', _base64.b64encode(_json.dumps(RECORDED).encode()).decode())"
REPLAY = """
RECORDED = dict({recorded!r})
def neighbourhood_sum(patch, kernel):
    return RECORDED.get(repr((patch.tolist(), kernel.tolist())), 0.0)
"""


def test_answers_of_an_earlier_grading_are_worth_nothing(
    course_copy: Callable[[], CourseCopy], place: Sandbox
) -> None:
    course = course_copy()
    (right,) = [cell.source for cell in source(FILTERS).cells if grade_id(cell) == SUM]

    def graded_with(student: str, code: str, last: str) -> Graded:
        folder = course.solved(student, FILTERS)
        path = folder / f"{FILTERS}.ipynb"
        replace_cells(path, {SUM: code})
        notebook = nbformat.read(path, as_version=4)
        notebook.cells.append(nbformat.v4.new_code_cell(last))
        nbformat.write(notebook, path)
        root = Course.at(course.root)
        release, written = root.release(ASSIGNMENT), root.source(ASSIGNMENT)
        return grade_notebook(
            Job(ASSIGNMENT, FILTERS, folder, release, written, b"of the course", sandbox=place)
        )

    def sum_points(graded: Graded) -> float:
        return next(c.points for c in graded.result.cells if c.cell == f"{SUM}-check")

    first = graded_with("recorder", right + RECORD, TELL)
    full = max_points(FILTERS)[f"{SUM}-check"]
    assert sum_points(first) == full
    (told,) = [
        output.text
        for cell in nbformat.reads(first.executed, as_version=4).cells
        for output in cell.get("outputs", [])
        if output.get("text", "").startswith("RECORDED")
    ]
    recorded = json.loads(base64.b64decode(told.split()[1]))
    assert len(recorded) > 1  # the slide's, and hidden ones
    assert len({value for _, value in recorded}) > 1
    again = graded_with("replays", REPLAY.format(recorded=recorded), "")
    assert sum_points(again) == round(full / 5, 2)  # the slide's sum, which is public
