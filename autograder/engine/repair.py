"""Follow-on errors cost once: later cells are checked again with earlier, wrong ones repaired.

The first solution cell that failed has failed by itself.  What fails behind it may be right and
only lack what it should have made, so the notebook runs again, in a kernel of its own, with the
course's solution in place of each cell that has failed by itself; the checks of the cells behind
are asked again, and a cell keeps the better of its results.

Student code shares that kernel with the course's solution and could read it.  Therefore nothing
of the second run is shown: no output, no message, only which checks passed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nbformat import NotebookNode

from autograder.engine.notebook import label, solution_of, written
from autograder.engine.results import CellResult

# Checks grade cells of the notebook with other sources in some solution cells:
# (solution cell → source, grade cells) → their results.
Again = Callable[[Mapping[str, str], list[str]], list[CellResult]]


def repaired(
    cells: list[CellResult],
    submitted: NotebookNode,
    release: NotebookNode,
    reference: Mapping[str, str],
    again: Again,
    may_go_on: Callable[[], bool],
) -> list[CellResult]:
    """`cells` with the points of those that are right once what stands before them is.

    cells: the results of all grade cells, in order.
    submitted, release: the restored notebook, and the one that was handed out.
    reference: the course's own source of each solution cell.
    may_go_on: whether there is time for another run.
    """
    best = {cell.cell: cell for cell in cells}
    owner = {check: name for check, name in solution_of(submitted) if check in best}
    mine, stubs = written(submitted), written(release)
    order = [name for name in mine if name in owner.values() and name in reference]

    def failed(name: str) -> bool:
        return any(best[c].points < best[c].max_points for c, of in owner.items() if of == name)

    # Wrong in itself: what was never written, and the first failure of each run.
    wrong = {name for name in order if failed(name) and mine[name] == stubs.get(name)}
    while may_go_on():
        doubtful = [name for name in order if failed(name) and name not in wrong]
        if not doubtful:
            break
        if not any(name in wrong for name in order[: order.index(doubtful[0])]):
            wrong.add(doubtful.pop(0))
        if not doubtful:
            break
        before = [n for n in order[: order.index(doubtful[-1])] if n in wrong]
        asked = [c for c, of in owner.items() if of in doubtful]
        for result in again({name: reference[name] for name in before}, asked):
            if result.points > best[result.cell].points:
                earlier = order[: order.index(owner[result.cell])]
                used = [label(name) for name in earlier if name in before]
                result.note = f"checked with the course's own {_listed(used)} in place of yours"
                best[result.cell] = result
        wrong.update([name for name in doubtful if failed(name)][:1])
    return [best[cell.cell] for cell in cells]


def _listed(labels: list[str]) -> str:
    *others, last = [f"[{name}]" for name in dict.fromkeys(labels)]
    return f"{', '.join(others)} and {last}" if others else last
