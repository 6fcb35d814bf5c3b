"""Checkpoints that several students have handed in: found, named, and left to the instructor.

While a submission is graded, digests of the tensors in its checkpoint are noted.  Training starts
from random numbers and draws random batches, so two trainings never end in the same bits: who
shares a tensor with somebody else has the same file, whatever it is called and whatever else is
in it.  Who copied from whom cannot be told from that; all are named, and no score depends on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from autograder.course import Course, write_whole


def note_tensors(course: Course, assignment: str, student: str, digests: Iterable[str]) -> None:
    """Remember the digests of the tensors that a student's graded submission holds."""
    folder = _folder(course, assignment)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{student}.json", json.dumps(sorted(set(digests))))


def identical_checkpoints(course: Course, assignment: str) -> list[set[str]]:
    """Groups of students whose graded submissions share trained tensors bit for bit.

    Each group has at least two students and is as large as can be; the groups are in the order
    of their first names.  Only students whose submission is still there count.
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
    """Write `autograded/identical-checkpoints-<assignment>.json`; a line for each group.

    The file is there only while there is something to report.
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
