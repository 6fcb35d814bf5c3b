"""Generates parts of the documentation: `thresholds.md`, its histograms, and a feedback page.

    python docs/make_figures.py               everything
    python docs/make_figures.py thresholds    thresholds.md and its histograms only

The feedback page is a real one: a temporary course releases notebook 1, grades a half-done
submission with one mistake, and generates its feedback.  The screenshot needs Chromium on the PATH.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

from autograder.checks.ch4_cnn import (  # noqa: E402
    TRAINING_STEPS,
    thresholds,
)

RECORD = ROOT / "autograder" / "checks" / "ch4_cnn" / "measured.json"
LIMIT = 1e-4  # largest accepted probability that a correct solution falls beyond a bound
LIMIT_OF_MISTAKES = 1e-3  # an undeserved point does less harm than a missing one
MANY = 50  # seeds needed to see the shape of the tail


# -- the model ---------------------------------------------------------------------------------


def log_odds(share: np.ndarray) -> np.ndarray:
    """The log-odds, which spread out accuracies near 1 over the real line."""
    odds: np.ndarray = np.log(share / (1 - share))
    return odds


@dataclass(frozen=True)
class Quantity:
    """A quantity measured over many seeds, and the bound that a check sets for it.

    Attributes:
        name: part of the histogram's file name.
        title: title in the page.
        kind: its key in measured.json.
        keys: keys below the seed, down to the value.
        bound_name: name of the bound in thresholds.py.
        upper: whether values must stay below the bound, rather than above.
        scale: transformation that makes the values roughly normal.
        about: description in the page.
        limit: largest accepted probability that chance carries a run across the bound.

    """

    name: str
    title: str
    kind: str
    keys: tuple[str, ...]
    bound_name: str
    upper: bool
    scale: Callable[[np.ndarray], np.ndarray]
    about: str
    limit: float = LIMIT

    @property
    def bound(self) -> float:
        """The bound, from thresholds.py."""
        return float(getattr(thresholds, self.bound_name))

    def values(self, record: dict[str, Any]) -> np.ndarray:
        """Measured values, one per seed, (n,) float64."""
        found = []
        for entry in record.get(self.kind, {}).values():
            for key in self.keys:
                entry = entry[key]
            found.append(entry)
        return np.array(found, float)

    def beyond(self, values: np.ndarray) -> int:
        """Number of values beyond the bound."""
        return int(((values >= self.bound) if self.upper else (values <= self.bound)).sum())

    def failure(self, values: np.ndarray) -> float:
        """Probability that one more run falls beyond the bound; 1 for fewer than three values."""
        if len(values) < 3:
            return 1.0
        sign = 1 if self.upper else -1
        scaled = np.sort(sign * self.scale(values))
        bound = sign * float(self.scale(np.array(self.bound)))
        return max(normal_model(scaled, bound), tail_model(scaled, bound))


def normal_model(y: np.ndarray, bound: float) -> float:
    """P(next > bound) if `y` (n,) is normally distributed with unknown mean and deviation."""
    spread = y.std(ddof=1) * math.sqrt(1 + 1 / len(y))
    return student_tail((bound - y.mean()) / spread, len(y) - 1)


def tail_model(y: np.ndarray, bound: float) -> float:
    """P(next > bound) if the highest tenth of `y` (n,), sorted, decays exponentially.

    0 for fewer than MANY values, too few to fit the tail.
    """
    if len(y) < MANY:
        return 0.0
    count = len(y) // 10
    start = y[-count - 1]
    if bound <= start:
        return float((y > bound).mean())
    return count / len(y) * math.exp(-(bound - start) / (y[-count:] - start).mean())


def student_tail(t: float, freedom: int) -> float:
    """P(T > t) for Student's t distribution with `freedom` degrees of freedom.

    With T = √ν·cot φ the density becomes sin^(ν−1) φ on (0, π).
    """
    if t < 0:
        return 1 - student_tail(-t, freedom)
    end = math.atan2(math.sqrt(freedom), t)

    def area(upto: float) -> float:
        angle = np.linspace(0, upto, 20_001)
        return float(np.trapezoid(np.sin(angle) ** (freedom - 1), angle))

    return area(end) / (2 * area(math.pi / 2))


QUANTITIES = (
    Quantity(
        "orenist-fixed",
        "ORENIST loss with the given filters",
        "orenist",
        ("fixed", "loss"),
        "ORENIST_LOSS",
        True,
        np.log,
        "The share of the initial loss 90·ln 3 that remains after 200 steps on the 90 images in\n"
        "notebook 2. Training that does nothing leaves 1.",
    ),
    Quantity(
        "orenist-trained",
        "ORENIST loss with trained filters",
        "orenist",
        ("trained", "loss"),
        "ORENIST_LOSS",
        True,
        np.log,
        "The same share in notebook 3, where the network learns the filters, too.",
    ),
    Quantity(
        "mnist-early",
        "Digit accuracy in a grading run",
        "early",
        ("accuracy",),
        "MNIST_EARLY_ACCURACY",
        False,
        log_odds,
        f"The test accuracy of notebook 4 in a grading run, which computes {TRAINING_STEPS} steps "
        "on all training digits.\nAn untrained network has 0.1.",
    ),
    Quantity(
        "mnist-first",
        "Digit accuracy without new batches",
        "first",
        ("accuracy",),
        "MNIST_EARLY_ACCURACY",
        True,
        log_odds,
        "The same accuracy for a loop that trains on its first batch again and again. It must\n"
        "stay below the bound: here p is the probability of marks for nothing.",
        limit=LIMIT_OF_MISTAKES,
    ),
    Quantity(
        "mnist-final",
        "Digit accuracy after 4000 steps",
        "mnist",
        ("accuracy",),
        "MNIST_ACCURACY",
        False,
        log_odds,
        "The test accuracy of a checkpoint as students hand it in, on all 10 000 test digits.\n"
        "A checkpoint that was saved too early stays below the bound.",
    ),
)


# -- thresholds.md -----------------------------------------------------------------------------

HEAD = """\
# Thresholds

`python docs/make_figures.py` writes this page; edit the script, not the page.

A few checks compare a number that depends on chance (initial weights, order of the batches)
with a bound. Each bound lies between the values of correct solutions and those of wrong ones.
`autograder/checks/ch4_cnn/measure.py` trains the solutions of `source/ch4-cnn` under many random
seeds. `measured.json` beside it holds the results, and `thresholds.py` the bounds.

"Accuracy 1.0 on ORENIST" would not do as a bound: {perfect}
"""

MODEL = """\
## Probability of an unfair failure

The model puts the values on a scale on which they are roughly normal: y = ln(a / (1 − a)) for an
accuracy a, y = ln s for a share s of the loss. With mean ȳ and standard deviation s_y of the n
measured values, and y_b the bound on the same scale, one more correct solution falls beyond the
bound with probability

```
p₁ = P(T > |y_b − ȳ| / (s_y · √(1 + 1/n))),    T: Student's t with n − 1 degrees of freedom
```

This is the prediction interval of a normal distribution whose mean and deviation are both
unknown. Its tails are heavier the fewer the seeds, so few measurements give a large p₁, not a
small one.

Rare local minima can make a tail heavier than that. From {many} seeds on, the model therefore also
takes the tenth of the values that lies nearest to the bound by itself, as an exponential
distribution: with k values beyond y_u, on average m beyond it,

```
p₂ = k/n · exp(−|y_b − y_u| / m)
```

The table shows the larger of the two. `tests/test_docs.py` demands that it is below 1 in {limit}
for every bound, and below 1 in {mistakes} where only a mistake would gain by it. The test fails
when somebody tightens a bound too far, and when there are too few seeds to know. The column
"beyond" needs no model; by itself, 0 of n beyond says with 95 % confidence only that p < 3/n.

To add seeds, run `python -m autograder.checks.ch4_cnn.measure mnist 20`, then
`python docs/make_figures.py thresholds`.
"""


SAMPLES = """\
## Samples on which a wrong function could agree

Checks of layers, losses and accuracies draw images, weights and labels. The table says how far
wrong functions are from the right one on {seeds} draws, in units of the checks' tolerances: below 1
they would pass. Right functions in another precision must stay below 1. The checks make labels so
that no wrong share agrees with the right one by arithmetic. p is the probability that a check
misjudges one more draw, by the same prediction interval on y = log₁₀ of the distance;
`tests/test_checks_chance.py` demands that it is below 1 in {limit}.

| | least | most | p |
|---|--:|--:|--:|
"""


def misjudged(entry: dict[str, float]) -> float:
    """Probability that one more draw falls on the other side of the tolerance."""
    n, deviation = int(entry["seeds"]), entry["deviation"]
    if n < 2:
        return 1.0
    # The record has three decimals, so the deviation may be rounded to 0.
    away = abs(entry["mean"]) / (max(deviation, 0.001) * math.sqrt(1 + 1 / n))
    return student_tail(away, n - 1)


def samples_text(samples: dict[str, dict[str, float]]) -> str:
    """The section about samples, with the measured values."""
    seeds = int(next(iter(samples.values()))["seeds"])
    rows = [
        f"| {name} | {10 ** entry['least']:.2g} | {10 ** entry['most']:.2g} "
        f"| {chance(misjudged(entry))} |"
        for name, entry in samples.items()
    ]
    return SAMPLES.format(seeds=seeds, limit=grouped(1 / LIMIT)) + "\n".join(rows) + "\n"


def grouped(number: float) -> str:
    """A number in groups of three digits, from 100 on with two significant digits."""
    if number >= 100:
        digits = int(math.log10(number)) - 1
        number = round(number / 10**digits) * 10**digits
    return f"{number:,.0f}".replace(",", " ")


def chance(probability: float) -> str:
    """A probability as text "1 in n"."""
    if probability < 1e-9:
        return "under 1 in a billion"
    return f"1 in {grouped(1 / probability)}" if probability < 0.5 else "not known yet"


def thresholds_text(record: dict[str, Any]) -> str:
    """The content of thresholds.md for the measured values."""
    parts = [HEAD.format(perfect=perfect(record))]
    rows = [
        "| | seeds | least | mean | most | bound | beyond | p |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for quantity in QUANTITIES:
        values = quantity.values(record)
        sign = "<" if quantity.upper else ">"
        if len(values):
            found = f"{values.min():.4f} | {values.mean():.4f} | {values.max():.4f}"
        else:
            found = "– | – | –"
        rows.append(
            f"| {quantity.title} | {len(values)} | {found} | {sign} {quantity.bound:g} "
            f"| {quantity.beyond(values)} | {chance(quantity.failure(values))} |"
        )
    parts.append("\n".join(rows) + "\n")
    for quantity in QUANTITIES:
        parts.append(f"## {quantity.title}\n\n{quantity.about}\n")
        if len(quantity.values(record)):
            parts.append(f"![Histogram: {quantity.title}](thresholds-{quantity.name}.svg)\n")
        else:
            parts.append("Not measured yet.\n")
    parts.append(samples_text(record["samples"]))
    parts.append(
        MODEL.format(limit=grouped(1 / LIMIT), mistakes=grouped(1 / LIMIT_OF_MISTAKES), many=MANY)
    )
    return "\n".join(parts)


def perfect(record: dict[str, Any]) -> str:
    """A sentence on how many correct ORENIST solutions classify every image correctly."""
    count = len(record["orenist"])
    if not count:
        return "not every correct solution reaches it in 200 steps."
    fixed, trained = (
        sum(entry[kind]["accuracy"] == 1 for entry in record["orenist"].values())
        for kind in ("fixed", "trained")
    )
    return (
        f"of {count} correct solutions,\n{fixed} reach it in 200 steps with the given filters and "
        f"{trained} with trained ones; the others stay\nin a local minimum. The checks therefore "
        "look at tensors, at single training steps and at the loss."
    )


def histogram(quantity: Quantity, values: np.ndarray, target: Path) -> None:
    """Draw the values and the bound; the same values give the same file."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    with plt.rc_context({"svg.hashsalt": "kit", "svg.fonttype": "none", "font.size": 9}):
        fig, ax = plt.subplots(figsize=(6.4, 2.2), layout="constrained")
        ends = np.append(values, quantity.bound)
        bins = np.linspace(ends.min(), ends.max(), 61).tolist()
        ax.hist(values, bins=bins, color="#3b6ea8", edgecolor="white", linewidth=0.5)
        ax.axvline(quantity.bound, color="#b42318", linewidth=1.5)
        top = ax.get_ylim()[1]
        side = "right" if quantity.upper else "left"
        sign = "<" if quantity.upper else ">"
        ax.annotate(
            f"bound {sign} {quantity.bound:g}",
            (quantity.bound, top),
            xytext=(-5 if quantity.upper else 5, -4),
            textcoords="offset points",
            ha=side,
            va="top",
            color="#b42318",
        )
        of_the_start = ", share of the start" if quantity.scale is np.log else ""
        ax.set_xlabel(quantity.title + of_the_start)
        ax.set_ylabel("seeds")
        locator = ax.yaxis.get_major_locator()
        assert isinstance(locator, MaxNLocator)
        locator.set_params(integer=True)
        ax.spines[["top", "right"]].set_visible(False)
        fig.savefig(target, format="svg", metadata={"Date": None})
        plt.close(fig)


def make_thresholds() -> None:
    """Write thresholds.md and its histograms."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    (DOCS / "thresholds.md").write_text(thresholds_text(record), encoding="utf-8")
    for quantity in QUANTITIES:
        values = quantity.values(record)
        if len(values):
            histogram(quantity, values, DOCS / f"thresholds-{quantity.name}.svg")


# -- the feedback page -------------------------------------------------------------------------

ASSIGNMENT, NOTEBOOK, STUDENT = "ch4-cnn", "1-orenist-filter", "half-done"
SLIP = ("ofe-04-edge-filter", "/ 23.0", "/ 25.0")
WRITTEN = 7  # solution cells that the student has filled in
SHOWN = "ofe-04-edge-filter-check"


def graded_page(root: Path) -> Path:
    """Release, submit and grade notebook 1 in a course at `root`; return its feedback page."""
    import nbformat

    from autograder.course import Course
    from autograder.engine.notebook import grade_id, is_solution, solved

    shutil.copy(ROOT / "nbgrader_config.py", root)
    course = Course.at(root)
    source, submitted = course.source(ASSIGNMENT), course.submitted(STUDENT, ASSIGNMENT)
    shutil.copytree(
        ROOT / "source" / ASSIGNMENT, source, ignore=lambda _, names: {n for n in names if skip(n)}
    )
    run(root, "autograder", "release", ASSIGNMENT, "--no-solutions")
    shutil.copytree(course.release(ASSIGNMENT), submitted)
    answers = solved(nbformat.read(source / f"{NOTEBOOK}.ipynb", as_version=4))
    written = [cell for cell in answers.cells if is_solution(cell)][:WRITTEN]
    known = {grade_id(cell): cell.source for cell in written}
    notebook = nbformat.read(submitted / f"{NOTEBOOK}.ipynb", as_version=4)
    for cell in notebook.cells:
        if is_solution(cell) and grade_id(cell) in known:
            cell.source = known[grade_id(cell)]
            if grade_id(cell) == SLIP[0]:
                cell.source = cell.source.replace(*SLIP[1:])
    nbformat.write(notebook, submitted / f"{NOTEBOOK}.ipynb")
    run(root, "autograder", "grade", ASSIGNMENT)
    run(root, "nbgrader", "generate_feedback", ASSIGNMENT)
    return root / "feedback" / STUDENT / ASSIGNMENT / f"{NOTEBOOK}.html"


def run(root: Path, *command: str) -> None:
    """Run a module of the environment in the course root.  Exits if it fails."""
    beside = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=root, env=environment, capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(f"make_figures: {' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def skip(name: str) -> bool:
    """Whether a file of `source/` is not needed for notebook 1."""
    return name.endswith(".ipynb") and name != f"{NOTEBOOK}.ipynb"


def chromium() -> str:
    """The path of Chromium.  Exits if there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        found = shutil.which(name)
        if found:
            return found
    sys.exit("make_figures: no Chromium on the PATH; install it (on Debian: apt install chromium)")


def photograph(page: Path, browser: str, target: Path) -> None:
    """Take a screenshot of one grade cell of a feedback page, from heading to last check."""
    from playwright.sync_api import FloatRect, sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=arguments)
        view = opened.new_page(viewport={"width": 1000, "height": 800})
        view.route("http*://**", lambda route: route.abort())
        view.goto(page.as_uri())
        cell = view.locator(f"#cell-{SHOWN}")
        box = cell.bounding_box()
        assert box is not None
        margin = 12
        clip = FloatRect(
            x=box["x"] - margin,
            y=box["y"] - margin,
            width=box["width"] + 2 * margin,
            height=box["height"] + 2 * margin,
        )
        view.screenshot(path=target, clip=clip, full_page=True)
        opened.close()


def make_feedback() -> None:
    """Write feedback.png."""
    browser = chromium()
    with tempfile.TemporaryDirectory(prefix="kit-docs-") as folder:
        photograph(graded_page(Path(folder)), browser, DOCS / "feedback.png")


if __name__ == "__main__":
    make_thresholds()
    if sys.argv[1:] != ["thresholds"]:
        make_feedback()
