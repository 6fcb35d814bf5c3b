"""A figure as the kernel describes it: a claim, validated only for its form.

Positions are fractions of the whole figure, with (0, 0) at its lower left corner.  A box is left,
bottom, right and top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

FIGURE_LIMIT = 2000  # axes, pictures, scatters and texts; the chapter's largest has some 350
MOST_PIXELS = 1 << 20  # in one picture
MOST_POINTS = 1 << 16
TEXT_LENGTH = 200


class NotAFigure(Exception):
    """The description is no figure, or exceeds the limits."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One image as it is seen, upper row first.

    Attributes:
        box: its place in the figure, (4,).
        data: the values it shows, (rows, columns).
        level: the same from 0 to 1 on its colour map.
        colours: the map from its beginning to its end, on white, (n, 3).
        limits: the values at the ends of the map, NaN for none, (2,).

    """

    box: Array
    data: Array
    level: Array
    colours: Array
    limits: Array


@dataclass(frozen=True, eq=False)
class Scatter:
    """A scatter plot.

    Attributes:
        points: in data coordinates, (n, 2).
        sizes: of the points.
        outline: of the marker, (m, 2).

    """

    points: Array
    sizes: Array
    outline: Array


@dataclass(frozen=True, eq=False)
class Axes:
    """One pair of axes.

    Attributes:
        box: its place in the figure, (4,).
        xlim: the limits of the x axis, (2,).
        ylim: the limits of the y axis, (2,).
        ticks: positions and labels on the x axis.
        pictures: the images and meshes in it.
        scatters: the scatter plots in it.
        bars: left, bottom, width and height in data coordinates, (n, 4).

    """

    box: Array
    xlim: Array
    ylim: Array
    ticks: list[tuple[float, str]]
    pictures: list[Picture]
    scatters: list[Scatter]
    bars: Array


@dataclass(frozen=True, eq=False)
class Text:
    """A title or other text, and its position, (2,)."""

    text: str
    at: Array


@dataclass(frozen=True, eq=False)
class Figure:
    """All visible axes and texts; later ones are drawn on top."""

    axes: list[Axes]
    texts: list[Text]


def read(told: Any) -> Figure:
    """The figure in a kernel's answer.  Raises NotAFigure."""
    match told:
        case {"axes": list(axes), "texts": list(texts)} if len(axes) + len(texts) <= FIGURE_LIMIT:
            figure = Figure([_axes(entry) for entry in axes], [_text(entry) for entry in texts])
            parts = sum(len(ax.pictures) + len(ax.scatters) for ax in figure.axes)
            if len(axes) + len(texts) + parts <= FIGURE_LIMIT:
                return figure
    raise NotAFigure("it has no axes and texts, or more than can be looked at")


def _axes(entry: Any) -> Axes:
    match entry:
        case {
            "box": box,
            "xlim": xlim,
            "ylim": ylim,
            "ticks": ticks,
            "labels": list(labels),
            "pictures": list(pictures),
            "scatters": list(scatters),
            "bars": bars,
        } if all(isinstance(label, str) for label in labels):
            if len(pictures) + len(scatters) > FIGURE_LIMIT:
                raise NotAFigure("one of its axes holds more than can be looked at")
            positions = _numbers(ticks, (None,)).tolist()
            return Axes(
                box=_numbers(box, (4,), finite=True),
                xlim=_numbers(xlim, (2,)),
                ylim=_numbers(ylim, (2,)),
                ticks=[(p, t[:TEXT_LENGTH]) for p, t in zip(positions, labels, strict=False)],
                pictures=[_picture(entry) for entry in pictures],
                scatters=[_scatter(entry) for entry in scatters],
                bars=_numbers(bars, (None, 4)),
            )
    raise NotAFigure("one of its axes could not be read")


def _picture(entry: Any) -> Picture:
    match entry:
        case {"box": box, "data": data, "level": level, "colours": colours, "limits": limits}:
            seen = _numbers(data, (None, None), most=MOST_PIXELS)
            shades = _numbers(colours, (None, 3), finite=True)
            if not len(shades):
                raise NotAFigure("a picture has no colours")
            return Picture(
                box=_numbers(box, (4,), finite=True),
                data=seen,
                level=_numbers(level, seen.shape, most=MOST_PIXELS),
                colours=shades,
                limits=_numbers(limits, (2,)),
            )
    raise NotAFigure("one of its pictures could not be read")


def _scatter(entry: Any) -> Scatter:
    match entry:
        case {"points": points, "sizes": sizes, "outline": outline}:
            return Scatter(
                points=_numbers(points, (None, 2)),
                sizes=_numbers(sizes, (None,)),
                outline=_numbers(outline, (None, 2)),
            )
    raise NotAFigure("one of its scatters could not be read")


def _text(entry: Any) -> Text:
    match entry:
        case {"text": str(text), "at": at}:
            return Text(text[:TEXT_LENGTH], _numbers(at, (2,)))
    raise NotAFigure("one of its texts could not be read")


def _numbers(
    value: Any, shape: tuple[int | None, ...], *, finite: bool = False, most: int = MOST_POINTS
) -> Array:
    """An array of this shape (None: any length) with at most `most` numbers, as float64."""
    if isinstance(value, np.ndarray) and value.ndim == len(shape) and value.size <= most:
        fits = all(want in (None, size) for size, want in zip(value.shape, shape, strict=True))
        if fits and (not finite or bool(np.isfinite(value).all())):
            return value.astype(float)
    raise NotAFigure("one of its arrays has not the form that belongs there")
