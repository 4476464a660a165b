"""Top floor: the pictures of a drawing, of bits, of one operation; what all pictures keep is in test_course_plots."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch
from test_course_plots import (
    BIT_FILTER,
    BIT_MAP,
    CASES,
    ENTERS,
    LAYERS,
    ROWS,
    SKETCH,
    SMALL_ARRAYS,
    STAGES,
    WORD,
    heights,
    labelled,
    legend,
    names,
    picture,
    texts,
    xy,
)

from hbn_ref import course_plots, plots, reference
from hbn_ref.course_plots.network import SUBJECTS

DESCRIBED = ("batchnorm_graph", "bit_convolution", "cells", "entering_bits", "five_steps", "maps_and_signs",
             "network_map", "staircase", "strips", "words")  # fmt: skip


@pytest.mark.parametrize("name", DESCRIBED)
def test_these_pictures_say_what_they_show(name):
    said = picture(name).get_label()
    assert said == getattr(course_plots, name)(*CASES[name]).get_label()
    assert said.endswith(".") and "\n" not in said and 5 < len(said.split()) < 150


def test_strips_say_how_long_they_are_and_what_is_widest():
    said = course_plots.strips({"ms": {"a": [("x", 1, "real"), ("", 3, "real")]}}).get_label()
    assert said == "Strips of parts laid end to end. ms: a 4, the widest part real with 3."


# ------------------------------------------------------------------------------------------------ the map


def test_the_map_has_every_layer_what_enters_it_and_the_classes():
    [axes] = picture("network_map").axes
    shown = [text.replace("-\n", "") for text in texts(axes)]
    for row in LAYERS:
        bits = "bits" if row["inputs"] == "binary" else "real"
        assert row["layer"] in shown and f"{' x '.join(map(str, row['input']))}\n{bits}" in shown
        assert f"{row['macs'] / 1e6:.2g} M" in shown
    assert "cat\ndog\nsun\n..." in shown and np.array_equal(axes.images[0].get_array(), SKETCH)
    assert "one binary layer, conv2, seen closely" in shown


@pytest.mark.parametrize("chapter", [*SUBJECTS, None])
def test_the_map_marks_one_chapter_and_numbers_all(chapter):
    figure = course_plots.network_map(SKETCH, LAYERS, ("cat", "dog"), chapter)
    [axes] = figure.axes
    here = [text for text in texts(axes) if "you are here" in text]
    numbers = [text for text in texts(axes) if text in "2 3 4 5 6 7 8 9".split()]  # a bit may be 1
    frames = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    if chapter is None:
        assert not here and not frames and "Marked" not in figure.get_label()
    else:
        number = list(SUBJECTS).index(chapter) + 1
        assert here == [f"{number}: you are here"] and str(number) not in numbers
        assert len(frames) == (2 if chapter == "layers" else 1)
        assert {to_hex(frame.get_edgecolor()).upper() for frame in frames} == {plots.COLOURS["fbin"]}
        assert figure.get_label().endswith(f"Marked as the place of this chapter: {SUBJECTS[chapter]}.")
    assert len(numbers) == 8 - (chapter not in (None, "bits"))
    figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent()) for text in axes.texts if text.get_text()]
    for i, (one, box) in enumerate(boxes):
        assert not [(one, other) for other, second in boxes[i + 1 :] if box.overlaps(second)]


def test_a_chapter_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="chapter: expected one of bits, .* got 'bit'"):
        course_plots.network_map(SKETCH, LAYERS, ("cat",), "bit")


# ------------------------------------------------------------------------------------------ bits and maps


def test_what_enters_a_layer_is_shown_channel_by_channel():
    drawing, large, small = picture("entering_bits").axes
    assert np.array_equal(drawing.images[0].get_array(), SKETCH)
    image = np.array(large.images[0].get_array())
    tiles = {image[17 * i : 17 * i + 16, 17 * j : 17 * j + 16].tobytes() for i in range(3) for j in range(3)}
    channels = [ENTERS["conv2"][:, :, c].astype(image.dtype).tobytes() for c in range(20)]
    assert len(tiles & set(channels)) == len(tiles) and (image[16] == 2).all() and (image[:, 33] == 2).all()
    assert large.get_xlabel() == "16 x 16 x 20 bits\n9 of 20 channels" and large.get_title() == "enters conv2"
    assert np.array(small.images[0].get_array()).ravel().tolist() == [*ENTERS["conv6"].ravel()[:9]]


def test_channels_that_vary_most_are_shown():
    bits = np.zeros((8, 8, 40), bool)
    bits[:4, :, 20:36] = True
    image = np.array(course_plots.entering_bits(SKETCH, {"a": bits}).axes[1].images[0].get_array())
    assert image.shape == (35, 35) and (image[:4, :4] == 1).all() and (image[4:8, :4] == 0).all()
    assert (image == 1).sum() == 16 * 32


@pytest.mark.parametrize("error", [False, True])
def test_a_map_stands_above_its_signs_and_its_error(error):
    figure = course_plots.maps_and_signs(STAGES, drawing=SKETCH, error=error)
    for title, values in STAGES.items():
        [upper] = [axes for axes in figure.axes if axes.get_title() == title]
        assert np.array_equal(upper.images[0].get_array(), values)
        assert upper.images[0].get_clim() == (-np.abs(values).max(), np.abs(values).max())  # 0 is white
        signs = [axes for axes in figure.axes if axes.get_title() == f"its sign: {np.mean(values >= 0):.0%} are +1"]
        assert any(np.array_equal(axes.images[0].get_array(), values >= 0) for axes in signs)
        squares = (1 - np.abs(values)) ** 2
        below = [axes for axes in figure.axes if axes.get_title() == f"squared error, mean {squares.mean():.2f}"]
        assert [np.allclose(axes.images[0].get_array(), squares) for axes in below] == [True] * error
    assert np.array_equal(figure.axes[0].images[0].get_array(), SKETCH)
    labels = {axes.get_ylabel() for axes in figure.axes} - {""}
    assert labels == {"value", "(value - sign)²"} if error else labels == {"value"}


def test_a_word_beside_the_drawing_that_it_is_made_of():
    figure = course_plots.words(WORD, drawing=SKETCH, place=(3, 5))
    left, *rows = figure.axes
    assert np.array_equal(left.images[0].get_array(), SKETCH) and left.get_xlabel() == "row 3, 6 pixels"
    [frame] = left.patches
    assert (frame.get_x(), frame.get_width(), frame.get_y() + frame.get_height() / 2) == (4.5, 6, 3)
    assert [texts(axes) for axes in rows] == [texts(axes) for axes in picture("words").axes]
    assert "the 64-bit word 29: 6 bits in use" in figure.get_label()
    one = course_plots.words(WORD[:1], drawing=SKETCH, place=(3, 5))
    assert one.axes[0].get_xlabel() == "row 3, 1 pixel" and one.get_label().startswith("A row of 1 pixel of a drawing")


def test_cells_hold_their_numbers_and_frames():
    framed = {"sign": [[False, True]]}
    figure = course_plots.cells(SMALL_ARRAYS, framed=framed, label="changed")
    assert [texts(axes) for axes in figure.axes] == [["+0.50", "-0.25"], ["1", "0"], ["3", "-9"]]
    assert [len(axes.patches) for axes in figure.axes] == [0, 1, 0]
    assert figure.axes[1].patches[0].get_x() == pytest.approx(0.53) and figure.get_supxlabel() == "framed: changed"
    assert figure.get_label() == "Small arrays, row by row. W: 0.5 -0.25. sign: 1 0. counts: 3 -9. Framed: changed."


def test_cells_of_small_numbers_have_one_scale_and_the_decimals_that_they_need():
    figure = course_plots.cells({"W": [[0.0936, -0.02]], "left over": [[0.001, 0.0]], "n": [[0, 0]], "0": [[0.0]]})
    assert [texts(axes) for axes in figure.axes] == [["+0.094", "-0.020"], ["+0.001", "+0.000"], ["0", "0"], ["+0.000"]]
    scales = [axes.images[0].get_clim() for axes in figure.axes]
    assert scales[0] == scales[1] == scales[3] == pytest.approx((-1.6 * 0.0936, 1.6 * 0.0936))
    assert texts(course_plots.cells({"W": np.zeros((1, 1))}).axes[0]) == ["+0.00"]


# ------------------------------------------------------------------------------------------ one operation


@pytest.mark.parametrize("border", [0, 1, -1])
def test_counts_of_bits_are_those_of_the_reference(border):
    rng = np.random.default_rng(border + 1)
    for bits, weights in ((BIT_MAP, BIT_FILTER), (rng.integers(0, 2, (3, 5)), rng.integers(0, 2, (1, 3)))):
        signs, filters = 2.0 * bits[None, :, :, None] - 1, 2.0 * weights[:, :, None, None] - 1
        padding = tuple(size // 2 for size in weights.shape)
        truth = reference.xnor_conv2d_forward(signs, filters, padding=padding, pad_value=border, scale=False)[
            0, :, :, 0
        ]
        last = tuple(size - 1 for size in bits.shape)
        figure = course_plots.bit_convolution(bits, weights, last, border)
        assert texts(figure.axes[3])[:-1] == [f"{count:+.0f}" if count else "0" for count in truth.ravel()]
        assert f"the count is {texts(figure.axes[3])[-2]}." in figure.get_label()


def test_a_pixel_is_counted_tap_by_tap():
    whole, taps, differ, counts = picture("bit_convolution").axes
    ring = np.pad(BIT_MAP.astype(str), 1, constant_values="·")
    assert texts(whole)[:-1] == ring.ravel().tolist() and texts(taps)[:-1] == BIT_FILTER.ravel().astype(str).tolist()
    assert texts(differ)[:-1] == list("···101000")
    assert texts(counts)[:-1] == ["-2", "+2", "+2"]  # nothing yet below the pixel that is counted
    assert [axes.texts[-1].get_text() for axes in (whole, differ, counts)] == [
        "hatched: outside, adds nothing", "3 taps outside: n = 6\npopcount = 2", "6 - 2 · 2 = +2"]  # fmt: skip
    for axes, corner, size in ((whole, (2, 0), 3), (counts, (2, 0), 1)):
        frame = axes.patches[-1]
        assert (frame.get_xy(), frame.get_width(), frame.get_height()) == (corner, size, size)
    hatched = [bool(patch.get_hatch()) for patch in whole.patches[:-1]]
    assert np.array_equal(np.reshape(hatched, (6, 6)), ring == "·")


def test_a_border_that_is_no_border_is_an_error():
    with pytest.raises(ValueError, match="border: expected 0, 1 or -1, got 2"):
        course_plots.bit_convolution(BIT_MAP, BIT_FILTER, (0, 0), 2)


@pytest.mark.parametrize("j", range(4))
def test_three_arrows_add_up_to_the_gradient(j):
    x, dout, gamma, beta, _ = (np.array(value, float) for value in CASES["batchnorm_graph"])
    four = x[:, None, None, None]
    truth, _, _ = reference.batchnorm_backward(dout[:, None, None, None], four, gamma[None])
    out = reference.batchnorm_forward(four, gamma[None], beta[None]).ravel()
    figure = course_plots.batchnorm_graph(x, dout, float(gamma), float(beta), j)
    [axes] = figure.axes
    parts = [float(text.split(": ")[1]) for text in legend(figure)]
    assert sum(parts) == pytest.approx(truth[j, 0, 0, 0], abs=2e-3)
    assert {f"{part:+.3f}" for part in parts} <= set(texts(axes))
    assert f"{out[j]:+.2f}" in texts(axes) and f"their sum is {truth[j, 0, 0, 0]:+.3f}." in figure.get_label()
    normal = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    assert parts[1] == pytest.approx(-gamma * dout.mean() / np.sqrt(x.var() + 1e-5), abs=1e-3)
    assert parts[2] == pytest.approx(-gamma * normal[j] * (dout * normal).mean() / np.sqrt(x.var() + 1e-5), abs=1e-3)


@pytest.mark.parametrize("x, dout", [([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([1.0] * 6, [1.0] * 6)])
def test_a_graph_of_two_to_five_values(x, dout):
    with pytest.raises(ValueError, match="expected two rows of 2 to 5 numbers"):
        course_plots.batchnorm_graph(x, dout)


# -------------------------------------------------------------------------------------------- five steps


@pytest.mark.parametrize("step", range(1, 6))
def test_the_figure_of_five_steps_grows(step):
    figure = course_plots.five_steps(ROWS, 0.2, [[0, 2], [1]], step)
    drawn = [bool(axes.patches or axes.lines) for axes in figure.axes]
    assert drawn == [k <= step for k in range(1, 6)]
    assert [axes.get_title()[:2] for axes in figure.axes] == ["1.", "2.", "3.", "4.", "5."]
    assert figure.get_label().count("; ") == step - 1 and ("kept real" in figure.get_label()) == (step == 5)
    hatched = [bool(bar.get_hatch()) for bar in figure.axes[0].patches]
    assert hatched == ([row["kept_real"] for row in ROWS] if step == 5 else [False] * 3)  # the end is not told before
    assert bool(figure.legends) == (step >= 4)
    assert step < 4 or any("kept real" in name for name in labelled(figure.axes[3])) == (step == 5)


def test_five_steps_show_error_share_score_and_choice():
    error, share, score, clusters, choice = picture("five_steps").axes
    assert heights(error.patches) == [row["error"] for row in ROWS]
    assert heights(share.patches) == [row["share"] for row in ROWS] and share.get_yscale() == "log"
    above = labelled(score)["gamma / NF"]
    assert [bar.get_y() + bar.get_height() for bar in above] == pytest.approx([row["score"] for row in ROWS])
    ringed = xy(labelled(clusters)["kept real, on the left green and hatched"])
    assert ringed == ([ROWS[1]["score"]], [1])
    assert texts(choice) == ["bits", "real", "bits"] and names(choice.yaxis) == [row["layer"] for row in ROWS]
    assert [bool(bar.get_hatch()) for bar in choice.patches] == [False, True, False]


@pytest.mark.parametrize("step", [0, 6, 2.5])
def test_there_are_five_steps(step):
    with pytest.raises(ValueError, match="step: expected a whole number from 1 to 5"):
        course_plots.five_steps(ROWS, 0.2, [[0, 2], [1]], step)
