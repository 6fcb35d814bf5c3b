"""Pictures for the notebooks: many small images drawn as one, in an instant."""

from __future__ import annotations

import io
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

__all__ = ["digit_bars", "grid"]

Row = Sequence[Any]  # 2-D arrays, or None for an empty place
GAP = 0.12  # between two panels, as a part of a panel
TITLE = 0.28  # room for a title, in inches
FRAME = "0.6"  # grey


class Picture(Figure):
    """A figure that shows itself at the end of a cell."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def grid(
    rows: Sequence[Row],
    titles: Sequence[Any] | None = None,
    scale: Any = "each",
    size: float = 1.0,
) -> Figure:
    """Draw rows of small images: 0 is white, large values are black.

    rows    a list of rows; a row is a list of 2-D arrays, or None for an empty place
    titles  a list of texts above the first row, or a list of such lists, one per row
    scale   which values are white and black: "each" (every panel from its own
            smallest to its own largest value) or a pair (white, black); or a list
            of those, one per row; a row may again have a list, one per panel
    size    width of a panel in inches
    """
    rows = [list(row) for row in rows]
    _check(rows)
    titles_of = _titles_by_row(titles, len(rows))
    columns = max(len(row) for row in rows)

    figure = Picture()
    axes = figure.add_axes((0, 0, 1, 1))
    frames = []
    top = GAP / 2
    for r, row in enumerate(rows):
        if titles_of[r]:
            top += TITLE / size
        for c, panel in enumerate(row):
            left = c * (1 + GAP) + GAP / 2
            if c < len(titles_of[r]) and titles_of[r][c] is not None:
                axes.text(
                    left + 0.5,
                    top - 0.06 / size,
                    str(titles_of[r][c]),
                    ha="center",
                    va="bottom",
                    fontsize=9,
                )
            if panel is None:
                continue
            vmin, vmax = _scale_at(scale, r, c)
            axes.imshow(
                panel,
                extent=(left, left + 1, top + 1, top),
                cmap="gray_r",
                interpolation="nearest",
                vmin=vmin,
                vmax=vmax,
            )
            frames.append(Rectangle((left, top), 1, 1))
        top += 1 + GAP

    width, height = columns * (1 + GAP), top - GAP / 2
    lines = PatchCollection(frames, facecolor="none", edgecolor=FRAME, linewidth=0.6)
    axes.add_collection(lines)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    axes.set_axis_off()
    figure.set_size_inches(width * size, height * size)
    return figure


def digit_bars(items: Sequence[tuple[Any, Any, str]]) -> Figure:
    """Draw digits, each with the probabilities of the ten classes beside it.

    items   at most ten tuples (image of 28 x 28, ten probabilities, title)
    """
    if len(items) > 10:
        raise ValueError(f"digit_bars has room for 10 items, got {len(items)}")
    figure = Picture(figsize=(12, 10), layout="constrained")
    for k, (image, probabilities, title) in enumerate(items):
        for what, value, wanted in [
            ("image", image, (28, 28)),
            ("probabilities", probabilities, (10,)),
        ]:
            shape = np.shape(value)
            if shape != wanted:
                message = f"item {k}: {what} has shape {shape}, expected {wanted}"
                raise ValueError(message)
        digit = figure.add_subplot(5, 4, 2 * k + 1)
        digit.imshow(image, cmap="gray_r", interpolation="nearest", vmin=0, vmax=1)
        digit.set(xticks=[], yticks=[], title=title)
        bars = figure.add_subplot(5, 4, 2 * k + 2)
        bars.bar(range(10), probabilities, align="center", color="0.35")
        bars.set(xticks=range(10), xlim=(-0.5, 9.5), ylim=(0, 1))
    return figure


def _check(rows: Sequence[Row]) -> None:
    if not any(panel is not None for row in rows for panel in row):
        raise ValueError("grid has nothing to draw: all rows are empty")
    for r, row in enumerate(rows):
        for c, panel in enumerate(row):
            if panel is None:
                continue
            shape = np.shape(panel)
            if len(shape) != 2 or 0 in shape:
                where = f"row {r}, column {c}"
                raise ValueError(f"{where}: expected a 2-D array, got shape {shape}")


def _titles_by_row(titles: Sequence[Any] | None, rows: int) -> list[list[Any]]:
    """Titles as one list per row; rows without titles have an empty list."""
    titles = [] if titles is None else list(titles)
    by_row: list[list[Any]]
    if any(isinstance(entry, list | tuple) for entry in titles):
        by_row = [list(entry or []) for entry in titles]
    else:
        by_row = [titles]
    return by_row[:rows] + [[] for _ in range(rows - len(by_row))]


def _scale_at(scale: Any, row: int, column: int) -> tuple[float | None, float | None]:
    """White and black for one panel, from a scale for all, per row or per panel."""
    for index in (row, column):
        if not _is_one_scale(scale):
            if index >= len(scale):
                where = f"row {row}, column {column}"
                raise ValueError(f"{where}: no scale, the list ends too early")
            scale = scale[index]
    if not _is_one_scale(scale):
        raise ValueError(f'scale is "each" or a pair (white, black), got {scale!r}')
    return (None, None) if isinstance(scale, str) else (scale[0], scale[1])


def _is_one_scale(scale: Any) -> bool:
    if isinstance(scale, str):
        if scale != "each":
            raise ValueError(f'scale is "each" or a pair (white, black), got {scale!r}')
        return True
    return len(scale) == 2 and all(isinstance(value, Real) for value in scale)
