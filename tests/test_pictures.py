"""The pictures: content, position and speed of drawing."""

from __future__ import annotations

import importlib.util
import io
import re
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

SOURCE = Path(__file__).parents[1] / "source" / "ch4-cnn" / "pictures.py"
spec = importlib.util.spec_from_file_location("pictures", SOURCE)
assert spec is not None
assert spec.loader is not None
pictures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pictures)


def panel(value: float, shape: tuple[int, int] = (4, 4)) -> np.ndarray:
    array = np.full(shape, value)
    array[0, 0] = 0
    return array


def drawn(figure: Figure) -> list[AxesImage]:
    return list(figure.axes[0].images)


# grid: panels


def test_all_panels_are_in_one_axes_and_keep_their_own_data() -> None:
    rows = [[panel(1), panel(2)], [panel(3, (2, 5))]]
    figure = pictures.grid(rows)
    assert len(figure.axes) == 1
    shown = [image.get_array() for image in drawn(figure)]
    assert len(shown) == 3
    for got, wanted in zip(shown, [*rows[0], *rows[1]], strict=True):
        assert got is not None
        assert np.array_equal(got, wanted)


def test_panels_are_placed_in_reading_order_upright_and_without_overlap() -> None:
    figure = pictures.grid([[panel(1), panel(2)], [panel(3), panel(4)]])
    places = [image.get_extent() for image in drawn(figure)]
    (a_left, a_right, a_bottom, a_top), b, c, _ = places
    assert (b[0] > a_right, b[3] == a_top) == (True, True)  # b is right of a
    assert (c[3] > a_bottom, c[0] == a_left) == (True, True)  # c is below a
    low, high = figure.axes[0].get_ylim()
    assert low > high  # the vertical axis points down, like rows of an array
    assert a_bottom > a_top


def test_none_leaves_its_place_empty() -> None:
    with_gap = pictures.grid([[None, panel(1)], [panel(2), panel(3)]])
    assert len(drawn(with_gap)) == 3
    first, second = (drawn(with_gap)[k].get_extent() for k in (0, 2))
    assert first[:2] == second[:2]  # the panel stays in its column


def test_every_panel_has_a_frame() -> None:
    figure = pictures.grid([[panel(1), None, panel(2)]])
    (frames,) = figure.axes[0].collections
    assert len(frames.get_paths()) == 2


def test_large_values_are_black_and_pixels_stay_sharp() -> None:
    (image,) = drawn(pictures.grid([[panel(1)]]))
    assert image.get_cmap().name == "gray_r"
    assert image.get_interpolation() == "nearest"


def test_panels_are_square_on_paper() -> None:
    figure = pictures.grid([[panel(1)] * 3, [panel(1)] * 3], titles=["a"], size=0.7)
    figure.canvas.draw()
    corners = figure.axes[0].transData.transform([(0, 0), (1, 1)])
    width, height = np.abs(corners[1] - corners[0]) / figure.dpi
    assert width == pytest.approx(0.7, abs=0.01)
    assert height == pytest.approx(0.7, abs=0.01)


# grid: scales


def limits(figure: Figure) -> list[tuple[float, float]]:
    return [image.get_clim() for image in drawn(figure)]


def test_each_panel_has_its_own_scale_unless_told() -> None:
    assert limits(pictures.grid([[panel(1), panel(7)]])) == [(0, 1), (0, 7)]


def test_one_pair_for_all() -> None:
    figure = pictures.grid([[panel(1)], [panel(7)]], scale=(0, 5))
    assert limits(figure) == [(0, 5), (0, 5)]


def test_one_scale_per_row() -> None:
    rows = [[panel(1)], [panel(7)], [panel(9)]]
    figure = pictures.grid(rows, scale=[(0, 1), "each", (-1, 2)])
    assert limits(figure) == [(0, 1), (0, 7), (-1, 2)]


def test_two_pairs_for_two_rows_are_no_pair() -> None:
    figure = pictures.grid([[panel(1)], [panel(7)]], scale=[(0, 1), (0, 2)])
    assert limits(figure) == [(0, 1), (0, 2)]


def test_one_scale_per_panel() -> None:
    rows = [[panel(1), panel(2)], [panel(3), panel(4)]]
    figure = pictures.grid(rows, scale=[(0, 1), ["each", (0, np.float32(9))]])
    assert limits(figure) == [(0, 1), (0, 1), (0, 3), (0, 9)]


@pytest.mark.parametrize("scale", ["same", [[["each"]]]])
def test_unknown_scale(scale: object) -> None:
    with pytest.raises(ValueError, match="scale is"):
        pictures.grid([[panel(1)]], scale=scale)


def test_scale_list_too_short() -> None:
    with pytest.raises(ValueError, match="row 1, column 0: no scale"):
        pictures.grid([[panel(1)], [panel(2)]], scale=[(0, 1)])


# grid: titles


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_titles_stand_above_the_first_row() -> None:
    figure = pictures.grid([[panel(1), panel(2)], [panel(3)]], titles=[0, "b"])
    assert texts(figure) == ["0", "b"]
    top = drawn(figure)[0].get_extent()[3]
    assert all(text.get_position()[1] < top for text in figure.axes[0].texts)


def test_titles_for_every_row_stand_above_their_panels() -> None:
    rows = [[panel(1), panel(2)], [panel(3), panel(4)]]
    figure = pictures.grid(rows, titles=[["a", None], ["c", "d"]])
    assert texts(figure) == ["a", "c", "d"]
    c = figure.axes[0].texts[1].get_position()
    left, right, _, top = drawn(figure)[2].get_extent()
    above = drawn(figure)[0].get_extent()[2]
    assert left < c[0] < right
    assert above < c[1] < top


# grid: errors


@pytest.mark.parametrize("shape", [(28, 28, 0), (28,), (28, 0), (28, 28, 1), ()])
def test_panel_that_is_no_picture_is_named(shape: tuple[int, ...]) -> None:
    said = f"row 1, column 1: expected a 2-D array, got shape {shape}"
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        pictures.grid([[panel(1)], [panel(1), np.zeros(shape)]])


@pytest.mark.parametrize("rows", [[], [[]], [[None]]])
def test_nothing_to_draw(rows: list[list[None]]) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        pictures.grid(rows)


def test_figure_shows_itself_without_pyplot() -> None:
    figure = pictures.grid([[panel(1)]])
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_seventeen_rows_of_ten_are_instant() -> None:
    rows = [[panel(1, (28, 28))] * 10] * 17
    pictures.grid([[panel(1)]]).savefig(io.BytesIO())  # loads the fonts
    start = time.process_time()
    pictures.grid(rows, size=0.8).savefig(io.BytesIO())
    assert time.process_time() - start < 1.5  # 170 separate axes take longer


# digit_bars


def item(title: str = "3 / 5") -> tuple[np.ndarray, np.ndarray, str]:
    return np.eye(28), np.arange(10) / 45, title


def test_digits_and_bars_stand_side_by_side() -> None:
    figure = pictures.digit_bars([item(), item("1 / 7")])
    digit, bars, second, _ = figure.axes
    assert [digit.get_title(), second.get_title()] == ["3 / 5", "1 / 7"]
    assert np.array_equal(digit.images[0].get_array(), np.eye(28))
    heights = [bar.get_height() for bar in bars.patches]
    assert heights == pytest.approx(np.arange(10) / 45)
    places = [axes.get_subplotspec().get_geometry()[:3] for axes in figure.axes]
    assert places == [(5, 4, 0), (5, 4, 1), (5, 4, 2), (5, 4, 3)]


def test_bars_reach_from_zero_to_one() -> None:
    figure = pictures.digit_bars([item()])
    assert figure.axes[1].get_ylim() == (0, 1)
    assert list(figure.axes[1].get_xticks()) == list(range(10))


def test_ten_fit_and_eleven_do_not() -> None:
    assert len(pictures.digit_bars([item()] * 10).axes) == 20
    with pytest.raises(ValueError, match="room for 10 items, got 11"):
        pictures.digit_bars([item()] * 11)


def test_no_item_is_an_empty_figure() -> None:
    assert pictures.digit_bars([]).axes == []


@pytest.mark.parametrize(
    ("image", "probabilities", "said"),
    [
        (np.zeros(784), np.zeros(10), r"item 0: image has shape \(784,\)"),
        (np.eye(28), np.zeros((1, 10)), r"item 0: probabilities has shape \(1, 10\)"),
    ],
)
def test_item_of_another_shape_is_named(
    image: np.ndarray, probabilities: np.ndarray, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        pictures.digit_bars([(image, probabilities, "")])
