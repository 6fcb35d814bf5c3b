"""A figure as the kernel tells it: a claim about what is seen, checked for its form alone.

Places are fractions of the whole figure, (0, 0) its lower left corner; a box is left, bottom,
right and top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

FIGURE_LIMIT = 2000  # axes, pictures, scatters and texts; the largest of the chapter has some 350
MOST_PIXELS = 1 << 20  # in one picture
MOST_POINTS = 1 << 16
TEXT_LENGTH = 200


class NotAFigure(Exception):
    """What was told is no figure, or more than can be looked at."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One image, the upper row first, as it is seen.

    box: (4,); data (rows, columns): what it shows; level: the same, from 0 to 1 on its colour map;
    colours (n, 3): the map, from its beginning to its end, on white; limits (2,): the numbers at
    these ends, NaN for none.
    """

    box: Array
    data: Array
    level: Array
    colours: Array
    limits: Array


@dataclass(frozen=True, eq=False)
class Scatter:
    """Points (n, 2) in the axes' numbers, their sizes, and the outline (m, 2) of the marker."""

    points: Array
    sizes: Array
    outline: Array


@dataclass(frozen=True, eq=False)
class Axes:
    """One pair of axes.

    bars: (n, 4), left, bottom, width and height in the axes' numbers.
    ticks: where the x axis is marked, and with what.
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
    """A title or another text, and the place it is written at, (2,)."""

    text: str
    at: Array


@dataclass(frozen=True, eq=False)
class Figure:
    """All visible axes and texts; what is drawn later lies on top."""

    axes: list[Axes]
    texts: list[Text]


def read(told: Any) -> Figure:
    """A figure from a kernel's answer.  Raises NotAFigure."""
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
    """An array of this shape (None: any length) and of at most so many numbers, as float64."""
    if isinstance(value, np.ndarray) and value.ndim == len(shape) and value.size <= most:
        fits = all(want in (None, size) for size, want in zip(value.shape, shape, strict=True))
        if fits and (not finite or bool(np.isfinite(value).all())):
            return value.astype(float)
    raise NotAFigure("one of its arrays has not the form that belongs there")
