"""Figures are described as they are seen, and a kernel's description is read within limits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure as Drawn
from matplotlib.image import AxesImage

from autograder.engine import figure as answers
from autograder.engine.figure import Figure, NotAFigure, Picture
from autograder.kernel import figures

IMAGE = np.arange(12.0).reshape(3, 4)
Draw = Callable[[Any], object]


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    plt.close("all")


def seen(drawn: Drawn) -> Figure:
    return answers.read(figures.told(drawn))


def only_picture(draw: Draw) -> Picture:
    drawn, ax = plt.subplots()
    draw(ax)
    (picture,) = seen(drawn).axes[0].pictures
    return picture


UPRIGHT: dict[str, Draw] = {
    "imshow": lambda ax: ax.imshow(IMAGE),
    "origin below, rows turned": lambda ax: ax.imshow(IMAGE[::-1], origin="lower"),
    "an extent": lambda ax: ax.imshow(IMAGE, extent=(0, 1, 0, 1)),
    "an extent and an axis upside down": lambda ax: (
        ax.imshow(IMAGE[::-1], extent=(0, 1, 0, 1)), ax.set_ylim(1, 0)),
    "matshow": lambda ax: ax.matshow(IMAGE),
    "mesh, rows turned": lambda ax: ax.pcolormesh(IMAGE[::-1]),
    "mesh, axis turned": lambda ax: (ax.pcolormesh(IMAGE), ax.invert_yaxis()),
    "mesh between lines": lambda ax: (
        ax.pcolormesh(np.arange(5), np.arange(4), IMAGE), ax.set_ylim(3, 0)),
    "pcolor": lambda ax: ax.pcolor(IMAGE[::-1]),
    "mirrored twice": lambda ax: (ax.imshow(IMAGE[:, ::-1]), ax.invert_xaxis()),
}  # fmt: skip
TURNED: dict[str, tuple[Draw, np.ndarray]] = {
    "origin below": (lambda ax: ax.imshow(IMAGE, origin="lower"), IMAGE[::-1]),
    "mesh": (lambda ax: ax.pcolormesh(IMAGE), IMAGE[::-1]),
    "axis turned": (lambda ax: (ax.imshow(IMAGE), ax.invert_xaxis()), IMAGE[:, ::-1]),
    "transposed": (lambda ax: ax.imshow(IMAGE.T), IMAGE.T),
}


@pytest.mark.parametrize("how", UPRIGHT)
def test_an_upright_picture_is_upright_however_it_was_drawn(how: str) -> None:
    assert only_picture(UPRIGHT[how]).data.tolist() == IMAGE.tolist()


@pytest.mark.parametrize("how", TURNED)
def test_a_turned_picture_is_turned(how: str) -> None:
    draw, wanted = TURNED[how]
    assert only_picture(draw).data.tolist() == wanted.tolist()


def test_levels_lie_between_the_limits() -> None:
    picture = only_picture(lambda ax: ax.imshow(IMAGE, vmin=2, vmax=7, cmap="gray_r"))
    assert picture.limits.tolist() == [2, 7]
    assert picture.level == pytest.approx(np.clip((IMAGE - 2) / 5, 0, 1))
    assert picture.colours[[0, -1]].tolist() == [[1, 1, 1], [0, 0, 0]]


def test_colours_that_are_counted_become_levels() -> None:
    shades = ListedColormap(["white", "grey", "black"])
    norm = BoundaryNorm([0, 4, 8, 12], 3)
    picture = only_picture(lambda ax: ax.imshow(IMAGE, cmap=shades, norm=norm))
    assert picture.level.tolist() == [[0] * 4, [0.5] * 4, [1] * 4]


@pytest.mark.parametrize("scale", [1, 255])
def test_pixels_with_colours_are_shown_by_their_luminance(scale: int) -> None:
    pixels = np.zeros((2, 2, 3), np.uint8 if scale == 255 else float)
    pixels[0, 0] = scale
    picture = only_picture(lambda ax: ax.imshow(pixels))
    assert picture.level == pytest.approx(np.array([[1, 0], [0, 0]]))
    assert picture.colours[0].tolist() == [0, 0, 0]


def test_what_is_clear_looks_white() -> None:
    picture = only_picture(lambda ax: ax.imshow(np.zeros((2, 2, 4))))
    assert picture.level == pytest.approx(np.ones((2, 2)))


def test_what_cannot_be_seen_is_not_told() -> None:
    drawn, (left, right) = plt.subplots(1, 2)
    left.imshow(IMAGE)
    right.imshow(IMAGE).set_visible(False)
    right.imshow(IMAGE, alpha=0.0)
    left.set_title("seen")
    right.set_title(" ")
    assert [len(ax.pictures) for ax in seen(drawn).axes] == [1, 0]
    right.set_visible(False)
    figure = seen(drawn)
    assert len(figure.axes) == 1
    assert [text.text for text in figure.texts] == ["seen"]


@pytest.mark.parametrize("own", [False, True])
def test_a_scale_of_colours_is_no_picture(own: bool) -> None:
    drawn, (ax, beside) = plt.subplots(1, 2)
    image = ax.imshow(IMAGE)
    drawn.colorbar(image, cax=beside) if own else drawn.colorbar(image, ax=ax)
    assert sum(len(ax.pictures) for ax in seen(drawn).axes) == 1


def test_parts_of_a_figure_have_their_place_in_the_whole() -> None:
    drawn = plt.figure()
    ((left, right),) = drawn.subfigures(1, 2, squeeze=False)
    left.subplots().imshow(IMAGE)
    right.subplots().imshow(IMAGE)
    right.suptitle("right")
    figure = seen(drawn)
    one, other = (ax.box for ax in figure.axes)
    assert 0 < one[0] < one[2] < 0.5 < other[0] < other[2] < 1
    assert figure.texts[0].at[0] == pytest.approx(0.75)


def test_bars_are_told_with_what_is_written_below() -> None:
    drawn, ax = plt.subplots()
    ax.bar(["a", "b"], [0.25, 0.5])
    (told,) = seen(drawn).axes
    assert told.bars[:, 0] + told.bars[:, 2] / 2 == pytest.approx([0, 1])
    assert told.bars[:, 3].tolist() == [0.25, 0.5]
    assert told.ticks == [(0, "a"), (1, "b")]


# -- hostile figures -----------------------------------------------------------------------------


def test_a_text_is_cut_and_a_huge_image_is_refused() -> None:
    drawn, ax = plt.subplots()
    ax.set_title("x\x1b[31m\n\u202e" + "y" * (1 << 20))
    (text,) = seen(drawn).texts
    assert len(text.text) == figures.TEXT_LENGTH
    ax.imshow(np.zeros((1100, 1000)))
    with pytest.raises(ValueError, match="too large"):
        figures.told(drawn)


def test_numbers_that_are_none_stay_none() -> None:
    holes = np.array([[np.nan, 1.0], [np.inf, 2.0]])
    picture = only_picture(lambda ax: ax.imshow(holes))
    assert np.isnan(picture.level).tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize("thing", [None, 3, "fig", [], plt, {"axes": []}])
def test_what_is_no_figure_raises(thing: object) -> None:
    with pytest.raises(TypeError):
        figures.told(thing)


def test_an_artist_of_their_own_speaks_for_itself_alone() -> None:
    class Liar(AxesImage):
        def get_extent(self) -> Any:
            return (float("nan"),) * 4

    drawn, ax = plt.subplots()
    ax.add_image(liar := Liar(ax))
    liar.set_data(IMAGE)
    with pytest.raises(NotAFigure):
        seen(drawn)


# -- hostile descriptions --------------------------------------------------------------------------


def told() -> dict[str, Any]:
    """The description of a figure with all kinds of content."""
    drawn, (first, second) = plt.subplots(1, 2)
    first.imshow(IMAGE)
    first.set_title("title")
    second.scatter([1, 2], [3, 4])
    second.bar([1, 2], [3, 4])
    return figures.told(drawn)


def test_a_figure_survives_its_telling() -> None:
    figure = answers.read(told())
    assert [len(ax.pictures) + len(ax.scatters) + len(ax.bars) for ax in figure.axes] == [1, 3]


NONSENSE: list[Any] = [
    None, 1, "x", [], {}, np.zeros(0), np.zeros((3, 3, 3)), np.full(4, np.nan),
    np.zeros((2, (1 << 20) + 1), np.uint8), [[1, 2]], {"axes": 3},
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values inside an answer."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


@pytest.mark.parametrize("nonsense", range(len(NONSENSE)))
def test_nonsense_anywhere_is_no_figure_or_harmless(nonsense: int) -> None:
    sound = told()
    for path in list(places(sound)):
        answer = copy.deepcopy(sound)
        holder = answer
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = NONSENSE[nonsense]
        try:
            figure = answers.read(answer)
        except NotAFigure:
            continue
        for ax in figure.axes:
            assert ax.box.shape == (4,)
            assert all(p.data.shape == p.level.shape and p.data.ndim == 2 for p in ax.pictures)
            assert all(s.points.shape[1:] == (2,) for s in ax.scatters)
            assert ax.bars.shape[1:] == (4,)
        assert all(isinstance(text.text, str) for text in figure.texts)


@pytest.mark.parametrize("part", ["axes", "texts", "pictures", "scatters"])
def test_more_than_can_be_looked_at_is_refused(part: str) -> None:
    answer = told()
    holder = answer
    if part in ("pictures", "scatters"):
        holder = answer["axes"][0 if part == "pictures" else 1]
    holder[part] = holder[part] * (answers.FIGURE_LIMIT + 1)
    with pytest.raises(NotAFigure):
        answers.read(answer)


@pytest.mark.parametrize("key", ["box", "data", "level", "colours", "limits"])
def test_a_picture_without_a_part_is_refused(key: str) -> None:
    answer = told()
    del answer["axes"][0]["pictures"][0][key]
    with pytest.raises(NotAFigure):
        answers.read(answer)
