"""Checks of figures: tables of pictures, bars and scatter plots, by content and position.

Pictures are compared by appearance: large values are dark, however that was achieved.  A colour map
other than grey has no black, so a figure with one may be read in either direction, as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import ClassVar, TypeVar

import numpy as np
import pytest

from autograder.checks import check, diagnose
from autograder.checks.ch4_cnn.adapter import Graph, same
from autograder.checks.ch4_cnn.reference import Array
from autograder.engine.figure import Axes, Figure, Picture, Scatter, Text
from autograder.engine.values import NoValue

MOST_MAPS = 1000
ALIKE = 0.01  # tolerance relative to a picture's range, above the resolution of 8-bit colours
SHADE = 0.02  # tolerance relative to the scale from white to black
COLOURED = 0.2  # a colour map whose red, green and blue differ by more is not grey
ON_TOP = "several pictures lie on top of each other, and only the last of them can be seen: give \
each a subplot (or an extent) of its own"

Boxed = TypeVar("Boxed", Picture, Axes)
Grid = list[list[Picture]]
Turn = Callable[[Array], Array]
Scale = tuple[float, float] | None  # the values of white and black; None: the picture's own range
Mistake = tuple[Callable[[], object], str]


# -- visible pictures --------------------------------------------------------------------------


def seen(figure: Figure) -> list[Picture]:
    """The pictures that lie within their axes and are not covered by a later picture."""
    drawn = [(picture, ax) for ax in figure.axes for picture in ax.pictures]
    if not drawn:
        return []
    boxes = np.array([picture.box for picture, _ in drawn])
    windows = np.array([ax.box for _, ax in drawn])
    inside = _share(boxes, windows) > 0.5
    free = [not (_share(boxes[[n]], boxes[n + 1 :]) > 0.5).any() for n in range(len(drawn))]
    return [picture for n, (picture, _) in enumerate(drawn) if inside[n] and free[n]]


def _share(boxes: Array, others: Array) -> Array:
    """Share (n,) of each box's area that lies in the other box; both (n, 4)."""
    low, high = np.maximum(boxes[:, :2], others[:, :2]), np.minimum(boxes[:, 2:], others[:, 2:])
    sides = boxes[:, 2:] - boxes[:, :2]
    common = np.clip(high - low, 0, None).prod(axis=1)
    return np.asarray(common / np.maximum(sides.prod(axis=1), 1e-12))


def in_rows(things: Iterable[Boxed]) -> list[list[Boxed]]:
    """Pictures (or axes) in rows from top to bottom, each from left to right."""
    rows: list[list[Boxed]] = []
    for thing in sorted(things, key=lambda thing: -float(middle(thing.box)[1])):
        height = thing.box[3] - thing.box[1]
        head = rows[-1][0] if rows else None
        if head is None or middle(head.box)[1] - middle(thing.box)[1] > height / 2:
            rows.append([])
        rows[-1].append(thing)
    return [sorted(row, key=lambda thing: float(thing.box[0])) for row in rows]


def middle(box: Array) -> Array:
    """The centre (2,) of a box (left, bottom, right, top)."""
    return np.asarray((box[:2] + box[2:]) / 2)


def direction(picture: Picture, light: bool = False) -> int:
    """1 if the picture draws larger numbers darker, −1 if lighter.

    With `light`, the result is reversed for a colour map that is not grey.
    """
    ink = 1 - picture.colours @ np.array([0.2126, 0.7152, 0.0722])
    steps = np.diff(ink)
    if (steps >= -ALIKE).all():
        darkens = 1
    elif (steps <= ALIKE).all():
        darkens = -1
    else:
        return 1  # a map without a direction is taken as it is
    return -darkens if light and is_coloured(picture) else darkens


def is_coloured(picture: Picture) -> bool:
    """Whether a picture's colour map is not grey."""
    return bool(np.ptp(picture.colours, axis=1).max() > COLOURED)


def normalised(values: Array) -> Array:
    """Values scaled linearly to the range 0 to 1; zeros if all are the same."""
    low, high = values.min(), values.max()
    return np.asarray((values - low) / (high - low) if high > low else np.zeros_like(values))


def shows(picture: Picture, wanted: Array, light: bool = False, turn: Turn | None = None) -> bool:
    """Whether a picture shows these values, on any scale.

    Args:
        picture: the picture.
        wanted: the expected values.
        light: whether light colours are large, see `direction`.
        turn: applied to the picture's values first, to recognise a mistake.

    """
    values = direction(picture, light) * picture.data
    if turn is not None:
        values = turn(values)
    if values.shape != wanted.shape or not values.size:
        return False
    return bool((np.abs(normalised(values) - normalised(wanted)) <= ALIKE).all())


TURNS: list[tuple[Turn, str]] = [
    (
        lambda values: -values,
        "light and dark are exchanged: 0 is white and large values are dark, "
        "as grid draws them, or imshow with cmap='gray_r'",
    ),
    (lambda values: values[::-1], "the pictures are upside down: row 0 belongs at the top"),
    (lambda values: values[:, ::-1], "the pictures are mirrored: column 0 belongs at the left"),
    (lambda values: values[::-1, ::-1], "the pictures are turned by 180 degrees"),
    (lambda values: values.T, "rows and columns of each picture are exchanged"),
]


def all_show(found: Grid, wanted: list[list[Array]], light: bool, turn: Turn | None = None) -> bool:
    """Whether the pictures show these values, each in its place."""
    return [len(row) for row in found] == [len(row) for row in wanted] and all(
        shows(picture, values, light, turn)
        for row, values_of_row in zip(found, wanted, strict=True)
        for picture, values in zip(row, values_of_row, strict=True)
    )


def misplaced(found: Grid, wanted: list[list[Array]], light: bool) -> list[Mistake]:
    """The known mistakes in orientation and arrangement, for `diagnose`."""

    def in_order(rearranged: Grid) -> bool:
        return all_show(rearranged, wanted, light)

    def exchanged() -> bool:
        flat = [picture for row in found for picture in row]
        values = [panel for row in wanted for panel in row]
        if len(flat) != len(values):
            return False
        wrong = [n for n, p in enumerate(flat) if not shows(p, values[n], light)]
        return len(wrong) == 2 and all(
            shows(flat[one], values[other], light) for one, other in (wrong, wrong[::-1])
        )

    def all_there() -> bool:
        left = [picture for row in found for picture in row]
        for values in (panel for row in wanted for panel in row):
            match = [n for n, p in enumerate(left) if shows(p, values, light)]
            if not match:
                return False
            del left[match[0]]
        return not left

    return [
        *((lambda turn=turn: all_show(found, wanted, light, turn), said) for turn, said in TURNS),
        (exchanged, "two of the pictures are exchanged"),
        (lambda: in_order([row[::-1] for row in found]), "the columns stand in reverse order"),
        (lambda: in_order(found[::-1]), "the rows stand in reverse order"),
        (all_there, "the right pictures are all there, but not each in its own place"),
    ]


# -- the table of images, filters and maps -----------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A figure, read as the table that the notebook asks for.

    Attributes:
        first: the first row, of input images.
        filters: pictures of a filter's shape in each row below.
        maps: pictures of a map's shape in each row below.
        others: pictures of any other shape below the first row.
        light: whether light colours are large, see `direction`.
        covered: number of pictures that cannot be seen.
        texts: all texts of the figure.

    """

    first: list[Picture]
    filters: Grid
    maps: Grid
    others: list[Picture]
    light: bool
    covered: int
    texts: list[Text]

    @classmethod
    def of(cls, figure: Figure, kernel: tuple[int, ...], wanted: list[list[Array]]) -> Table:
        """Read a figure.

        Args:
            figure: the figure.
            kernel: shape of a picture of a filter.
            wanted: the expected maps; the reading of colours that fits more of them is used.

        """
        panels = [panel for row in wanted for panel in row]
        pictures = seen(figure)
        coloured = [picture for picture in pictures if is_coloured(picture)]
        fit = [
            sum(any(shows(picture, panel, light) for panel in panels) for picture in coloured)
            for light in (False, True)
        ]
        rows = in_rows(pictures)
        has_first = bool(rows) and all(picture.data.shape != kernel for picture in rows[0])
        first, below = (rows[0], rows[1:]) if has_first else ([], rows)
        if len(first) == 10 and not np.ptp(first[0].data):
            first = first[1:]  # a blank picture in the empty place
        shape = panels[0].shape
        return cls(
            first,
            [[picture for picture in row if picture.data.shape == kernel] for row in below],
            [[picture for picture in row if picture.data.shape == shape] for row in below],
            [p for row in below for p in row if p.data.shape not in (kernel, shape)],
            light=fit[1] > fit[0],
            covered=sum(len(ax.pictures) for ax in figure.axes) - len(pictures),
            texts=figure.texts,
        )


def maps_of(values: Array) -> list[list[Array]]:
    """Feature maps (n, h, w, c) as rows of pictures, one row per filter.

    Raises NoValue for more than `MOST_MAPS`.
    """
    if values.shape[0] * values.shape[3] > MOST_MAPS:
        raise NoValue(f"{values.shape[0]} × {values.shape[3]} feature maps are too many to draw")
    return [[values[i, :, :, f] for i in range(len(values))] for f in range(values.shape[3])]


def turned(figure: Figure) -> Figure:
    """The figure with rows and columns of its layout exchanged."""

    def turn(box: Array) -> Array:
        left, bottom, right, top = box
        return np.array([1 - top, 1 - right, 1 - bottom, 1 - left])

    return Figure(
        [
            replace(
                ax,
                box=turn(ax.box),
                pictures=[replace(picture, box=turn(picture.box)) for picture in ax.pictures],
            )
            for ax in figure.axes
        ],
        figure.texts,
    )


def titles_over(box: Array, texts: list[Text], reach: float) -> list[Text]:
    """The texts nearest above a box, at most `reach` box heights away."""
    left, bottom, right, top = box
    margin, height = (right - left) / 10, top - bottom
    above = [
        (float(text.at[1] - top) / height, text)
        for text in texts
        if left - margin <= text.at[0] <= right + margin
        and -0.1 * height <= text.at[1] - top < reach * height
    ]
    nearest = min((distance for distance, _ in above), default=0.0)
    return [text for distance, text in above if distance <= nearest + 0.02]


def numbers_in(text: str) -> list[float]:
    """The first 20 numbers in a text, in order."""
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)[:20]]


def names_class(texts: list[Text], label: int) -> bool:
    """Whether one of these titles names this class, possibly after the image's index."""
    named = [numbers_in(text.text) for text in texts]
    return any(len(numbers) in (1, 2) and numbers[-1] == label for numbers in named)


def on_scale(picture: Picture, panels: list[Array], scale: Scale, light: bool) -> bool:
    """Whether a picture is drawn on this scale.

    Args:
        picture: the picture.
        panels: the values that it may show; if it shows none of them, its own data are used.
        scale: the values of white and black; None for the picture's own range.
        light: whether light colours are large, see `direction`.

    """
    sign = direction(picture, light)
    values = next((panel for panel in panels if shows(picture, panel, light)), sign * picture.data)
    level = picture.level if sign > 0 else 1 - picture.level
    if scale is None:
        if not np.ptp(values):
            return not np.ptp(level)  # any single shade
        wanted = normalised(values)
    else:
        wanted = np.clip((values - scale[0]) / (scale[1] - scale[0]), 0, 1)
    return bool((np.abs(level - wanted) <= SHADE).all())


class PictureChecks:
    """The table of images, filters and feature maps ([OFE-08], [ODE-09], [MDR-08])."""

    shown: ClassVar = "conv_vals"
    one_scale: ClassVar = True  # all maps share a scale from 0 to the maximum; else each has one

    @pytest.fixture
    def maps(self, graph: Graph) -> list[list[Array]]:
        """The expected maps, one row per filter."""
        values = graph.array(self.shown)
        assert values.ndim == 4
        assert np.ptp(values) > 0
        return maps_of(values)

    @pytest.fixture
    def filters(self, graph: Graph) -> list[list[Array]]:
        """The expected filters, one per row."""
        kernel = graph.array("filter_vals")
        assert kernel.ndim == 4
        assert np.ptp(kernel) > 0
        return [[kernel[:, :, 0, f]] for f in range(kernel.shape[3])]

    @pytest.fixture
    def table(self, graph: Graph, maps: list[list[Array]], filters: list[list[Array]]) -> Table:
        """The figure as a table; fails if it shows no maps of this cell."""
        table = Table.of(graph.figure(), filters[0][0].shape, maps)
        rows, columns = maps[0][0].shape
        diagnose(
            any(table.maps) and not (table.others and self.shown == "pool_vals"),
            (lambda: table.covered, ON_TOP),
            (
                lambda: table.first,
                f"below the images, fig shows other pictures than maps of {rows}×{columns}: "
                f"{self.shown}[i, :, :, f] is wanted; or is fig still that of an earlier cell?",
            ),
        )
        return table

    @check(
        "The first row shows the nine images, each over its own maps",
        hint="the first row shows the first nine images, each reshaped to 28×28, behind one empty "
        "place",
        weight=2,
    )
    def test_images(self, table: Table, first_nine: Array) -> None:
        images = [list(first_nine.reshape(9, 28, 28))]
        found = [table.first]
        diagnose(
            all_show(found, images, table.light) and stands_over(table.first, table.maps),
            (lambda: table.covered, ON_TOP),
            (
                lambda: all_show(found, images, table.light),
                "the images do not stand over their own maps: the first place of the first row "
                "stays empty",
            ),
            *misplaced(found, images, table.light),
        )

    @check(
        "Above each image stands its class",
        hint="the title of image i is the position of the 1 in its label, np.argmax; the empty "
        "place has none",
    )
    def test_titles(self, table: Table, first_nine: Array, nine_classes: list[int]) -> None:
        images = list(first_nine.reshape(9, 28, 28))
        titles = [titles_over(picture.box, table.texts, 2) for picture in table.first[-9:]]
        own = [
            next((n for n in range(9) if shows(picture, images[n], table.light)), place)
            for place, picture in enumerate(table.first[-9:])
        ]
        # Identical images may have their titles in either order.
        right = [names_class(texts, nine_classes[n]) for n, texts in zip(own, titles, strict=True)]
        diagnose(
            len(titles) == 9 and all(right),
            (lambda: table.covered and len(titles) < 9, ON_TOP),
            (
                lambda: not any(titles),
                "no title stands above the images: the class of each belongs there",
            ),
            (
                lambda: (
                    len(titles) == 9
                    and not titles[-1]
                    and all(
                        names_class(texts, nine_classes[n])
                        for n, texts in enumerate(titles[:-1], 1)
                    )
                ),
                "the titles are shifted by one place: the empty place has one, too (None)",
            ),
            (lambda: any(not texts for texts in titles), "some of the images have no title"),
            (
                lambda: all(len(numbers_in(text.text)) > 2 for texts in titles for text in texts),
                "the titles hold whole labels: the class is the position of the 1, np.argmax",
            ),
        )

    @check(
        "Each row begins with its filter",
        hint="filter f is filter_vals[:, :, 0, f], for every f; it stands at the left of its maps",
        weight=2,
    )
    def test_filters(self, table: Table, filters: list[list[Array]]) -> None:
        found = table.filters
        diagnose(
            all_show(found, filters, table.light)
            and all(
                one.box[0] < other.box[0]
                for row, maps in zip(found, table.maps, strict=True)
                for one in row
                for other in maps
            ),
            (lambda: table.covered, ON_TOP),
            (
                lambda: all_show(found, filters, table.light),
                "a filter stands at the left of its maps, in the first place of its row",
            ),
            (
                lambda: (
                    all_show(found, len(filters) * filters[:1], table.light)
                    or all_show(found, len(filters) * filters[-1:], table.light)
                ),
                "every row begins with the same filter: filter f is filter_vals[:, :, 0, f]",
            ),
            *misplaced(found, filters, table.light),
        )

    @check(
        "Below, each row shows the maps of its filter, one for each image",
        hint="the map of image i and filter f has all rows, all columns and two numbers as its "
        "index, [i, :, :, f], for every i and every f: one loop stands inside the other",
        weight=4,
    )
    def test_maps(self, graph: Graph, table: Table, maps: list[list[Array]]) -> None:
        found, light = table.maps, table.light
        kernel = graph.array("filter_vals").shape[:2]
        index = f"the map of image i and filter f is {self.shown}[i, :, :, f]"

        def all_of(choose: Callable[[int, int], Array]) -> bool:
            wanted = [[choose(f, i) for i in range(len(maps[0]))] for f in range(len(maps))]
            return all_show(found, wanted, light)

        diagnose(
            all_show(found, maps, light),
            (lambda: table.covered, ON_TOP),
            (
                lambda: all_show(Table.of(turned(graph.figure()), kernel, maps).maps, maps, light),
                "rows and columns of the table are exchanged: each filter has a row, each image a "
                "column",
            ),
            (
                lambda: len(found) != len(maps),
                f"below the images stand {len(found)} rows, but each "
                "filter has one: write one loop inside the other, for every f and every i",
            ),
            (
                lambda: any(len(row) != len(maps[0]) for row in found),
                f"a row shows more or fewer maps than there are images: {index}, for every i",
            ),
            (
                lambda: all_of(lambda f, i: maps[0][i]) or all_of(lambda f, i: maps[-1][i]),
                f"every row shows the maps of the same filter: {index}, for every f",
            ),
            (
                lambda: all_of(lambda f, i: maps[f][0]) or all_of(lambda f, i: maps[f][-1]),
                f"every column shows the maps of the same image: {index}, for every i",
            ),
            *misplaced(found, maps, light),
            (
                lambda: all_of(lambda f, i: np.abs(maps[f][i])),
                "the maps are drawn without their signs: draw the numbers as they are",
            ),
            (lambda: True, f"{index}, for every i and every f: one loop stands inside the other"),
        )

    @check(
        "Each picture is drawn on its scale: the images, the filters and the maps",
        hint="images go from 0 to 1, and a filter from its own smallest to its own largest weight; "
        "the text says whether the maps share a scale",
    )
    def test_scale(
        self, table: Table, maps: list[list[Array]], filters: list[list[Array]], first_nine: Array
    ) -> None:
        images = list(first_nine.reshape(9, 28, 28))
        weights, panels = ([p for row in rows for p in row] for rows in (filters, maps))
        kernels, drawn = ([p for row in rows for p in row] for rows in (table.filters, table.maps))
        scale = (0.0, max(float(panel.max()) for panel in panels)) if self.one_scale else None

        def are_on(pictures: list[Picture], of: list[Array], scale: Scale) -> bool:
            return all(on_scale(picture, of, scale, table.light) for picture in pictures)

        def share_limits() -> bool:
            return bool(np.ptp([picture.limits for picture in drawn], axis=0).max() == 0)

        diagnose(
            are_on(table.first, images, (0, 1))
            and are_on(kernels, weights, None)
            and are_on(drawn, panels, scale),
            (
                lambda: not are_on(table.first, images, (0, 1)),
                "the images go from 0, white, to 1, black",
            ),
            (
                lambda: not are_on(kernels, weights, None),
                "a filter has its own scale, from its smallest to its largest weight",
            ),
            (
                lambda: self.one_scale and are_on(drawn, panels, None),
                "each map has a scale of its own, so that they cannot be compared: all go from 0 "
                "to the largest value of all",
            ),
            (
                lambda: self.one_scale and share_limits(),
                "the maps share a scale, but it does not go from 0 to the largest value of all",
            ),
            (
                lambda: self.one_scale,
                "the maps do not share one scale, from 0 to the largest value of all",
            ),
            (
                share_limits,
                "all maps share a scale, but each has its own here, from its smallest "
                "to its largest value",
            ),
        )


def stands_over(first: list[Picture], maps: Grid) -> bool:
    """Whether a row of pictures is aligned with the columns of the maps below it.

    One aligned picture is enough, because a colour bar may squeeze the others together.
    """
    below = next((row for row in maps if row), [])
    gaps = [
        abs(middle(one.box)[0] - middle(other.box)[0]) / (other.box[2] - other.box[0])
        for one, other in zip(first, below, strict=False)
    ]
    return min(gaps, default=1.0) < 0.5


class PooledPictureChecks(PictureChecks):
    """The same table after pooling ([OFE-10], [ODE-10], [MDR-09])."""

    shown = "pool_vals"


# -- digits beside their bars --------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Item:
    """A misclassified digit.

    Attributes:
        prediction: the network's answer.
        actual: the right class.
        probabilities: (10,).
        image: (784,).

    """

    prediction: int
    actual: int
    probabilities: Array
    image: Array

    def is_in(self, picture: Picture, turn: Turn | None = None) -> bool:
        """Whether this picture shows the digit; colours may be read in either direction."""
        image = self.image.reshape(28, 28)
        return any(shows(picture, image, light, turn) for light in (False, True))

    def has_bars(self, ax: Axes) -> bool:
        """Whether the bars of these axes are the digit's probabilities."""
        heights = heights_by_digit(ax)
        return heights is not None and same(heights, self.probabilities)


def heights_by_digit(ax: Axes) -> Array | None:
    """Bar heights (10,) of the digits 0 to 9; None unless each has exactly one bar, from 0.

    A bar belongs to the digit in its tick label, otherwise to the nearest position on the axis.
    """
    digits: list[float] = []
    for left, bottom, width, _ in ax.bars:
        at = left + width / 2
        marked = [text for place, text in ax.ticks if abs(place - at) < 0.45]
        written = numbers_in(marked[0]) if marked else []
        digits.append(written[0] if len(written) == 1 else np.round(at))
        if abs(bottom) > ALIKE:
            return None
    if sorted(digits) != list(range(10)):
        return None
    return np.asarray(ax.bars[np.argsort(digits), 3])


def pairs_in(figure: Figure) -> list[tuple[Picture, Axes]]:
    """Each picture with the bars beside or below it; empty unless every picture has bars."""
    pictures = [picture for row in in_rows(seen(figure)) for picture in row]
    bars = [ax for row in in_rows(ax for ax in figure.axes if len(ax.bars)) for ax in row]
    places = [middle(box) for box in (*(p.box for p in pictures), *(ax.box for ax in bars))]
    if len(pictures) != len(bars):
        return []
    pairs = list(zip(pictures, bars, strict=True))
    return pairs if all(_are_neighbours(p.box, ax.box, places) for p, ax in pairs) else []


def _are_neighbours(one: Array, other: Array, places: list[Array]) -> bool:
    """Whether two boxes share a row or column with none of these places between them."""
    sides = np.minimum(one[2:] - one[:2], other[2:] - other[:2])
    apart = np.abs(middle(one) - middle(other))
    for along, across in ((0, 1), (1, 0)):
        if apart[across] < sides[across] / 2:
            low, high = sorted((middle(one)[along], middle(other)[along]))
            return not any(
                low + 1e-6 < place[along] < high - 1e-6
                and abs(place[across] - middle(one)[across]) < sides[across] / 2
                for place in places
            )
    return False


class BarChecks:
    """Digits, each beside the probabilities of the ten classes ([MDR-10])."""

    @check(
        "Each of them is drawn beside the probabilities of all ten digits",
        hint="ten bars for each digit, at the heights of its probabilities",
    )
    def test_bars(self, graph: Graph, listed: list[Item]) -> None:
        figure = graph.figure()
        pictures, pairs = seen(figure), pairs_in(figure)
        bars = [ax for ax in figure.axes if len(ax.bars)]
        covered = sum(len(ax.pictures) for ax in figure.axes) - len(pictures)

        def have_bars() -> bool:
            return all(any(item.has_bars(ax) for ax in bars) for item in listed)

        def are_drawn(turn: Turn | None = None) -> bool:
            return all(any(item.is_in(picture, turn) for picture in pictures) for item in listed)

        diagnose(
            len(pairs) == len(listed)
            and all(
                any(item.is_in(picture) and item.has_bars(ax) for picture, ax in pairs)
                for item in listed
            ),
            (lambda: covered, ON_TOP),
            *((lambda turn=turn: are_drawn(turn), said) for turn, said in TURNS),
            (
                lambda: have_bars() and are_drawn() and len(pairs) == len(listed),
                "the bars of a digit stand beside the image of another one",
            ),
            (
                lambda: have_bars() and are_drawn(),
                "each image stands beside its own bars, and beside nothing else",
            ),
            (lambda: have_bars() and len(bars) == len(listed), "not every digit is drawn"),
            (
                lambda: are_drawn() and any(heights_by_digit(ax) is None for ax in bars),
                "a bar of each digit stands at the digit's place, from 0 up",
            ),
        )

    @check(
        "The title of each says 'prediction / actual'",
        hint="the title names two digits: the network's answer, then the right one",
    )
    def test_titles(self, graph: Graph, listed: list[Item]) -> None:
        figure = graph.figure()
        pairs = pairs_in(figure)
        titles: list[tuple[Item, list[list[float]]]] = []
        for item in listed:
            own = [pair for pair in pairs if item.is_in(pair[0])]
            own = own or [pair for pair in pairs if item.has_bars(pair[1])]
            texts = [
                numbers_in(text.text)[:2]
                for picture, ax in own[:1]
                for box in (picture.box, ax.box)
                for text in titles_over(box, figure.texts, 1)
            ]
            titles.append((item, texts))

        def say(words: Callable[[Item], list[float]]) -> bool:
            return all(words(item) in texts for item, texts in titles)

        diagnose(
            say(lambda item: [item.prediction, item.actual]),
            (
                lambda: say(lambda item: [item.actual, item.prediction]),
                "the two digits stand the wrong way round: 'prediction / actual'",
            ),
            (
                lambda: pairs and not any(texts for _, texts in titles),
                "no title stands above the digits: 'prediction / actual' belongs there",
            ),
            (
                lambda: all(
                    any([item.prediction, item.actual] in texts for _, texts in titles)
                    for item in listed
                ),
                "the titles stand above other digits than their own",
            ),
        )

    @check(
        "The bars share one scale, from 0 to 1",
        hint="set_ylim takes two arguments: set_ylim(0, 1)",
    )
    def test_scale(self, graph: Graph) -> None:
        limits = [ax.ylim for ax in graph.figure().axes if len(ax.bars)]
        assert limits
        assert all(same(ylim, np.array([0.0, 1.0])) for ylim in limits)


# -- points --------------------------------------------------------------------------------------


MARKERS = ("|", "_", "+")  # by class


def marker_of(scatter: Scatter) -> str:
    """The shape of a marker's outline: "|", "_" or "+"; empty for any other."""
    outline = scatter.outline
    if not len(outline) or not np.isfinite(outline).all():
        return ""
    wide, high = np.abs(outline).max(axis=0) > 1e-6
    on_a_line = (np.abs(outline).min(axis=1) < 1e-6).all()
    if not on_a_line or not (wide or high):
        return ""
    return "+" if wide and high else "_" if wide else "|"


def compare_scatters(figure: Figure, classes: list[Array]) -> None:
    """Fail unless one subplot shows the points (n, 2) of each class, with the class's marker.

    Raises Mistake for a known mistake, otherwise AssertionError.
    """
    found = [(scatter, ax) for ax in figure.axes for scatter in ax.scatters]

    def drawn(points: Array, swap: bool = False) -> list[tuple[Scatter, Axes]]:
        wanted = points[:, ::-1] if swap else points
        return [(s, ax) for s, ax in found if same_points(s.points, wanted)]

    def have(markers: Sequence[str], of: list[list[tuple[Scatter, Axes]]]) -> bool:
        return all(
            any(marker_of(scatter) == marker for scatter, _ in one)
            for marker, one in zip(markers, of, strict=True)
        )

    own = [drawn(points) for points in classes]
    chosen = [
        [(s, ax) for s, ax in one if marker_of(s) == marker]
        for one, marker in zip(own, MARKERS, strict=True)
    ]
    together = [ax for ax in figure.axes if all(any(a is ax for _, a in one) for one in chosen)]
    sizes = [size for one in chosen for scatter, _ in one for size in scatter.sizes]
    diagnose(
        together
        and all(size == 200 for size in sizes)
        and any(all(inside(points, ax) for points in classes) for ax in together),
        (
            lambda: all(drawn(points, swap=True) for points in classes) and not all(own),
            "z1 and z2 are exchanged: z1 goes to the right",
        ),
        (lambda: not found, "fig shows no scatter"),
        (lambda: len(found) < 3, "fig shows fewer than three scatters: one per class is wanted"),
        (
            lambda: all(own) and len({s.outline.tobytes() for one in own for s, _ in one}) == 1,
            "all classes have the same marker",
        ),
        (
            lambda: any(have(order, own) for order in permutations(MARKERS)) and not all(chosen),
            "the markers belong to other classes: | for vertical strokes, _ for horizontal ones, "
            "+ for crosses",
        ),
        (
            lambda: all(own) and not all(chosen),
            "the markers look like the drawings: '|', '_' and '+'",
        ),
        (
            lambda: all(chosen) and not together,
            "each class has a subplot of its own: they can be compared in one",
        ),
        (lambda: together and any(size != 200 for size in sizes), "the markers have s=200"),
        (lambda: together, "some of the points lie beyond the limits of the axes"),
    )


def same_points(points: Array, wanted: Array) -> bool:
    """Whether these are the same points (n, 2), in any order, which is not visible."""
    if points.shape != wanted.shape:
        return False
    near = (np.abs(points[:, None] - wanted[None]) < 1e-4).all(axis=2)
    return bool(near.any(axis=0).all() and near.any(axis=1).all())


def inside(points: Array, ax: Axes) -> bool:
    """Whether points (n, 2) lie within the limits of their axes."""
    limits = np.sort(np.stack([ax.xlim, ax.ylim]), axis=1)
    slack = 0.01 * np.ptp(limits, axis=1)
    return bool((points >= limits[:, 0] - slack).all() and (points <= limits[:, 1] + slack).all())
