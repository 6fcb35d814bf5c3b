"""Follow-on errors cost once: later cells are checked again with earlier, wrong ones repaired.

The first solution cell that fails has failed by itself.  Later cells may be right and only lack
what it should have made, so the notebook runs again, in its own kernel, with the course's solution
in place of each cell that has failed by itself.  The checks of the later cells run again, and each
cell keeps the better of its results.

Student code shares that kernel with the course's solution and could read it.  Therefore nothing of
the second run is shown: no output, no message, only which checks passed.  For the same reason the
student has no say in it: the cells stand in the release's order, each check belongs to the
release's solution cell, and points that the course's solutions before a cell earn there do not
count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from nbformat import NotebookNode

from autograder.engine.notebook import label, solution_of, written
from autograder.engine.results import CellResult

# Checks grade cells with other sources in some solution cells: (solution cell → source, grade
# cells) → their results.
Again = Callable[[Mapping[str, str], list[str]], list[CellResult]]


@dataclass
class _Standing:
    """The best results so far.

    Attributes:
        best: by grade cell.
        owner: the solution cell that each grade cell judges.

    """

    best: dict[str, CellResult]
    owner: dict[str, str]

    @classmethod
    def of(cls, cells: list[CellResult], release: NotebookNode) -> _Standing:
        best = {cell.cell: cell for cell in cells}
        return cls(best, {check: name for check, name in solution_of(release) if check in best})

    def checks(self, names: Collection[str]) -> list[str]:
        """The grade cells of these solution cells."""
        return [check for check, name in self.owner.items() if name in names]

    def failed(self, name: str) -> bool:
        """Whether a solution cell lacks points."""
        checks = [self.best[check] for check in self.checks([name])]
        return any(cell.points < cell.max_points for cell in checks)

    def better(self, results: list[CellResult]) -> list[CellResult]:
        """The results that are worth more than the best so far."""
        return [result for result in results if result.points > self.best[result.cell].points]

    def take(self, results: list[CellResult], unearned: list[CellResult]) -> list[CellResult]:
        """Keep the results that gain something beyond `unearned`, and return them.

        A check in `unearned` passes without the cell's own work, so it counts only together with
        another check that does not.
        """
        free = {result.cell: _passed(result) for result in unearned}
        kept = [r for r in results if _passed(r) - _passed(self.best[r.cell]) - free[r.cell]]
        self.best.update({result.cell: result for result in kept})
        return kept


def repaired(
    cells: list[CellResult],
    submitted: NotebookNode,
    release: NotebookNode,
    reference: Mapping[str, str],
    again: Again,
    too_early: Callable[[list[str]], list[CellResult]],
    may_go_on: Callable[[], bool],
) -> list[CellResult]:
    """`cells`, with the points of cells that are right once the cells before them are.

    cells: the results of all grade cells, in order.
    submitted: the notebook as it ran, in the release's order.
    release: the notebook as it was handed out.
    reference: the course's own source of each solution cell.
    again: checks the submitted notebook.
    too_early: checks these grade cells in the course's own solution, before the cells they judge
        have run.
    may_go_on: whether there is time for another run.
    """
    standing = _Standing.of(cells, release)
    failed = standing.failed
    mine, stubs = written(submitted), written(release)
    order = [name for name in stubs if name in standing.owner.values() and name in reference]

    unearned: list[CellResult] = []
    # Wrong in themselves: cells that were never written, and the first failure of each run.
    wrong = {name for name in order if failed(name) and mine[name] == stubs[name]}
    while may_go_on():
        doubtful = [name for name in order if failed(name) and name not in wrong]
        if not doubtful:
            break
        if not any(name in wrong for name in order[: order.index(doubtful[0])]):
            wrong.add(doubtful.pop(0))
        if not doubtful:
            break
        ahead = order[: order.index(doubtful[-1])]
        repairs = {name: reference[name] for name in ahead if name in wrong}
        better = standing.better(again(repairs, standing.checks(doubtful)))
        if better:
            unearned = unearned or too_early(standing.checks(doubtful))
            for result in standing.take(better, unearned):
                earlier = order[: order.index(standing.owner[result.cell])]
                used = [label(name) for name in earlier if name in repairs]
                result.note = f"checked with the course's own {_listed(used)} in place of yours"
        wrong.update([name for name in doubtful if failed(name)][:1])
    return [standing.best[cell.cell] for cell in cells]


def in_own_order(
    cells: list[CellResult],
    submitted: NotebookNode,
    release: NotebookNode,
    again: Again,
    may_go_on: Callable[[], bool],
) -> list[CellResult]:
    """`cells`, with the points of cells that are right where the student has put them.

    A moved cell may need the cells before its new place.  Those may also have done its work, so a
    check counts only if it fails once this one cell is reset to the release.  No course solution is
    involved.

    submitted: the notebook in the student's order.
    again: checks that notebook.

    The other parameters are those of `repaired`.
    """
    standing = _Standing.of(cells, release)
    mine, stubs = written(submitted), written(release)
    lacking = [n for n in stubs if standing.failed(n) and mine[n] != stubs[n]]
    if not lacking or not may_go_on():
        return cells
    better = standing.better(again({}, standing.checks(lacking)))
    for name in lacking:
        results = [result for result in better if standing.owner[result.cell] == name]
        if results and may_go_on():
            unearned = again({name: stubs[name]}, [result.cell for result in results])
            for result in standing.take(results, unearned):
                result.note = "checked in your own order of cells"
    return [standing.best[cell.cell] for cell in cells]


def _passed(result: CellResult) -> set[str]:
    return {check.id for check in result.checks if check.passed}


def _listed(labels: list[str]) -> str:
    *others, last = [f"[{name}]" for name in dict.fromkeys(labels)]
    return f"{', '.join(others)} and {last}" if others else last
