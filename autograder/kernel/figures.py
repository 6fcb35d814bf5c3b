"""Describes what a matplotlib figure shows as plain data, without judging or rendering it.

Positions are fractions of the whole figure, with (0, 0) at its lower left corner.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.container import BarContainer
from matplotlib.figure import Figure, FigureBase
from matplotlib.image import AxesImage
from matplotlib.text import Text

TEXT_LENGTH = 200
MOST_PIXELS = 1 << 20  # in one image
SHADES = 33  # points at which a colour map is sampled
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def told(figure: Any) -> dict[str, Any]:
    """The visible axes and texts of a figure.

    Raises TypeError for an object that is no figure, ValueError for an image that is too large.
    """
    if not isinstance(figure, Figure):
        raise TypeError(f"a {type(figure).__name__} is not a figure")
    beside = _colour_bars(figure)
    if beside and figure.get_layout_engine() is not None:
        figure.draw_without_rendering()  # the layout moves panels to make room for colour bars
    size = np.asarray(figure.bbox.size, float)
    shown = [ax for ax in figure.axes if ax.get_visible() and ax not in beside]
    shown.sort(key=lambda ax: float(ax.get_zorder()))
    return {
        "axes": [_axes(ax, size) for ax in shown],
        "texts": [_text(text, size) for text in _texts(figure, shown)],
    }


def _colour_bars(figure: Figure) -> list[Axes]:
    """The axes of colour bars."""
    artists = [artist for ax in figure.axes for artist in (*ax.images, *ax.collections)]
    bars = [getattr(artist, "colorbar", None) for artist in artists]
    return [bar.ax for bar in bars if bar is not None]


def _axes(ax: Axes, size: np.ndarray) -> dict[str, Any]:
    drawn = [a for a in (*ax.images, *ax.collections) if a.get_visible() and a.get_alpha() != 0]
    drawn.sort(key=lambda artist: float(artist.get_zorder()))
    meshes = [a for a in drawn if isinstance(a, AxesImage) or hasattr(a, "get_coordinates")]
    ticks = [float(tick) for tick in ax.get_xticks()]
    labels = ax.xaxis.get_major_formatter().format_ticks(ticks)
    return {
        "box": _box(ax.transAxes.transform([(0, 0), (1, 1)]), size),
        "xlim": np.array(ax.get_xlim(), float),
        "ylim": np.array(ax.get_ylim(), float),
        "ticks": np.array(ticks, float),
        "labels": [str(label)[:TEXT_LENGTH] for label in labels],
        "pictures": [_picture(a, size) for a in meshes if a.get_array() is not None],
        "scatters": [_scatter(a) for a in drawn if isinstance(a, PathCollection)],
        "bars": _bars(ax),
    }


def _box(corners: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Left, bottom, right and top of points (n, 2) in screen coordinates."""
    places = np.asarray(corners, float) / size
    return np.concatenate([places.min(axis=0), places.max(axis=0)])


def _picture(artist: Any, size: np.ndarray) -> dict[str, Any]:
    """An image or a mesh as it is seen, upper row first however it was drawn.

    The result holds its box and:

    data: the values it shows, (rows, columns).
    level: their positions on the colour map, from 0 to 1.
    colours: the map from its beginning to its end, on a white background.
    limits: the values at the ends of the map.

    Pixels that carry their own colours are shown by their luminance, on a map from black to white.
    """
    data, corners = _laid_out(artist)
    if data.size > MOST_PIXELS:
        raise ValueError(f"an image of {data.size} values is too large to look at")
    if data.ndim == 3:
        scale = 255.0 if data.dtype.kind in "iu" else 1.0
        data = _on_white(np.ma.getdata(data) / scale) @ _LUMINANCE
        level, low, high = data, 0.0, 1.0
        colours = np.linspace(0, 1, SHADES)[:, None].repeat(3, axis=1)
    else:
        data = np.ma.masked_invalid(np.ma.asarray(data, float))
        level = np.ma.asarray(artist.norm(data))
        if level.dtype.kind in "iu":  # the norm returns colour indices
            level = level / (artist.cmap.N - 1)
        low, high = (float("nan") if end is None else float(end) for end in artist.get_clim())
        colours = _on_white(artist.cmap(np.linspace(0, 1, SHADES)))
    data, level = (np.ma.filled(values, np.nan) for values in (data, level))
    across, down = corners[1] - corners[0], corners[2] - corners[0]
    if abs(across[0]) < abs(across[1]):
        data, level, across, down = data.T, level.T, down, across
    columns, rows = (slice(None, None, -1 if end < 0 else 1) for end in (across[0], -down[1]))
    return {
        "box": _box(np.array([*corners, corners[1] + corners[2] - corners[0]]), size),
        "data": data[rows, columns],
        "level": np.clip(level[rows, columns], 0, 1),
        "colours": colours,
        "limits": np.array([low, high]),
    }


def _laid_out(artist: Any) -> tuple[Any, np.ndarray]:
    """An artist's array, and three of its corners on the screen.

    These are its start, the end of its first row and the end of its first column.
    """
    data = artist.get_array()
    if isinstance(artist, AxesImage):
        left, right, bottom, top = artist.get_extent()
        start, end = (top, bottom) if artist.origin == "upper" else (bottom, top)
        corners = [(left, start), (right, start), (left, end)]
    else:
        mesh = artist.get_coordinates()
        corners = [mesh[0, 0], mesh[0, -1], mesh[-1, 0]]
        if data.ndim == 1:
            rows, columns = mesh.shape[:2]
            data = data.reshape((rows - 1, columns - 1) if data.size < rows * columns else -1)
    return data, np.asarray(artist.get_transform().transform(corners), float)


def _on_white(colours: Any) -> np.ndarray:
    """Red, green and blue of colours (…, 3 or 4) on a white background."""
    lit: np.ndarray = np.asarray(colours, float)
    if lit.shape[-1] == 4:
        alpha = lit[..., 3:]
        lit = lit[..., :3] * alpha + (1 - alpha)
    return lit


def _scatter(group: PathCollection) -> dict[str, Any]:
    """Points (n, 2) in data coordinates, their sizes, and the outline (m, 2) of the marker."""
    paths = group.get_paths()
    return {
        "points": np.asarray(np.ma.getdata(group.get_offsets()), float),
        "sizes": np.asarray(group.get_sizes(), float),
        "outline": np.asarray(paths[0].vertices, float) if paths else np.zeros((0, 2)),
    }


def _bars(ax: Axes) -> np.ndarray:
    """Left, bottom, width and height of every bar, (n, 4), in data coordinates."""
    found = [bar for group in ax.containers if isinstance(group, BarContainer) for bar in group]
    rows = [(bar.get_x(), bar.get_y(), bar.get_width(), bar.get_height()) for bar in found]
    return np.array(rows, float).reshape(-1, 4)


def _texts(figure: FigureBase, shown: list[Axes]) -> Iterator[Text]:
    """The texts of a figure, its subfigures and these axes, except those along an axis."""
    for child in (*figure.get_children(), *(c for ax in shown for c in ax.get_children())):
        if isinstance(child, Text) and child.get_visible() and child.get_text().strip():
            yield child
    for part in figure.subfigs:
        yield from _texts(part, [])


def _text(text: Text, size: np.ndarray) -> dict[str, Any]:
    place = text.get_transform().transform(text.get_unitless_position())
    return {"text": text.get_text()[:TEXT_LENGTH], "at": np.asarray(place, float) / size}
