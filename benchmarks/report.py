"""Writes the results, as data and as a readable page."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any

from autograder.course import write_whole

PACKAGES = ("tensorflow", "numpy", "nbgrader", "nbclient", "ipykernel", "pytest")
MB = 1 << 20


def machine() -> dict[str, Any]:
    """A description of the machine, without its name."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line
    )
    model = next((v.strip() for k, v in fields.items() if k.strip() == "model name"), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory, GB": round(memory / 1e9),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in PACKAGES},
    }


def summary(found: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Rows of the table: measurement, ours, stock, and the comparison with its target."""
    kernel, whole, cut = found["kernel start"], found["stock, whole"], found["stock, cut short"]
    small, large, overhead = found["small class"], found["large class"], found["overhead"]
    ours = small["per submission"]
    rows = [
        (
            "kernel ready and first TensorFlow cell run",
            f"{statistics.median(kernel['ours']):.2f} s",
            f"{statistics.median(kernel['stock']):.2f} s",
            f"{kernel['ratio']:.1f} × (wanted: 20 ×)",
        ),
    ]
    for title, stock, wanted in (
        ("a submission in a class, training and all", whole, 60),
        ("a submission, training stopped on both sides", cut, 5),
    ):
        ratio = f"{stock['per submission'] / ours:.1f} × (wanted: {wanted} ×)"
        rows.append((title, f"{ours:.1f} s", f"{stock['per submission']:.1f} s", ratio))
    rows.append(
        (
            "overhead: beyond the student's own cells",
            f"{overhead['overhead']:.2f} s",
            "",
            f"beside {overhead['cells']:.2f} s in the cells (wanted: under 1.5 s)",
        )
    )
    growth = large["per submission"] / ours
    rows.append(
        (
            f"a submission in a class of {large['submissions']} instead of {small['submissions']}",
            f"{large['per submission']:.1f} s",
            "",
            f"{growth:.2f} × (linear: 1)",
        )
    )
    for kind, bytes_ in sorted(large["peak memory"].items()):
        before = small["peak memory"].get(kind, 0)
        rows.append(
            (
                f"peak memory of a process: {kind}",
                f"{bytes_ / MB:.0f} MB",
                "",
                f"{before / MB:.0f} MB in the smaller class",
            )
        )
    return rows


def page(found: dict[str, Any], about: dict[str, Any]) -> str:
    """The readable report, in Markdown."""
    small, whole = found["small class"], found["stock, whole"]
    lines = [
        "# Results",
        "",
        "Written by `make bench`; README.md says what is measured, and how.",
        "",
        "| | ours | stock | |",
        "|---|--:|--:|---|",
        *(f"| {' | '.join(row)} |" for row in summary(found)),
        "",
        f"Ours: {small['submissions']} correct submissions of five notebooks, all different, with "
        f"`--jobs {small['jobs']}`, from the start of the command to its end. Stock: "
        f"{whole['submissions']} of the same submissions through nbgrader's own `autograde`.",
        "",
        "| machine | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in about.items()),
    ]
    return "\n".join(lines) + "\n"


def write(folder: Path, found: dict[str, Any]) -> str:
    """Write `results.json` and `results.md` into `folder`; return the text of the latter."""
    about = machine()
    text = page(found, about)
    content = json.dumps({"machine": about, "measured": found}, indent=1)
    write_whole(folder / "results.json", content + "\n")
    write_whole(folder / "results.md", text)
    return text
