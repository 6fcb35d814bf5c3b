"""Reports checkpoints that several students handed in, and leaves the judgement to the instructor.

Grading stores digests of the tensors in each checkpoint.  Training starts from random weights and
draws random batches, so two runs never end in the same bits: students who share a trained tensor
share a training run, whatever their files are called or contain besides.  The digests do not show
who copied from whom, so the report names all of them, and no score depends on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from autograder.course import Course, write_whole


def note_tensors(course: Course, assignment: str, student: str, digests: Iterable[str]) -> None:
    """Store the digests of the tensors in a student's graded submission."""
    folder = _folder(course, assignment)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{student}.json", json.dumps(sorted(set(digests))))


def identical_checkpoints(course: Course, assignment: str) -> list[set[str]]:
    """Groups of students whose graded submissions share trained tensors bit for bit.

    Groups are the connected components of two or more students, sorted by their first member.
    Students whose submission has been removed do not count.
    """
    owners: dict[str, set[str]] = {}
    for student in course.students(assignment):
        try:
            text = (_folder(course, assignment) / f"{student}.json").read_text(encoding="utf-8")
            digests = json.loads(text)
        except (OSError, ValueError):
            continue
        for digest in digests:
            owners.setdefault(digest, set()).add(student)
    groups: list[set[str]] = []
    for together in owners.values():
        joined = [group for group in groups if group & together]
        groups = [group for group in groups if not group & together]
        groups.append(together.union(*joined))
    return sorted((group for group in groups if len(group) > 1), key=sorted)


def report_copies(course: Course, assignment: str) -> list[str]:
    """Write `autograded/identical-checkpoints-<assignment>.json`; return one line per group.

    The file is removed when there is nothing to report.
    """
    groups = [sorted(group) for group in identical_checkpoints(course, assignment)]
    path = course.root / "autograded" / f"identical-checkpoints-{assignment}.json"
    if groups:
        path.parent.mkdir(exist_ok=True)
        write_whole(path, json.dumps(groups, ensure_ascii=False, indent=1) + "\n")
    else:
        path.unlink(missing_ok=True)
    return [f"the same checkpoint, bit for bit: {', '.join(group)}" for group in groups]


def _folder(course: Course, assignment: str) -> Path:
    return course.private / "tensors" / assignment
