"""Top floor: the pictures of the notebooks, each drawn from a little made-up data of the shape that it documents."""

import functools
import inspect
import pickle
import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FuncFormatter
from test_presets import a_choice

from hbn_ref import choices, course_plots, plots

SIX = {f"series {i}": [i + 1.0, i + 3.0, i + 2.0] for i in range(6)}
WORD = [0.5, -1.0, 0.0, -0.0, 2.0, -3.0]  # sign(0) is +1, and so is that of -0.0
Z = np.linspace(-2, 2, 41)
STANDINS = {"sign": np.where(Z >= 0, 1.0, -1.0), "ste": np.clip(Z, -1, 1), "swish_sign": np.tanh(2 * Z)}
SLOPES = {"sign": 0 * Z, "ste": (np.abs(Z) < 1) + 0.0, "swish_sign": 2 / np.cosh(2 * Z) ** 2}
LOSSES = {"sign": np.sign(Z) + 1, "clip(x, -1, 1)": np.clip(Z, -1, 1) + 1}
BEFORE, AFTER = np.linspace(0, 4, 400), np.linspace(-3, 9, 400)
BITS = {"conv2": (1.0, 0.4), "conv3": (0.9, 0.6)}
STAY = {"conv2: before BatchNorm": [90.0, 92.0, 97.0], "classifier": [50.0, 70.0, 66.0]}
LOSS = {"true": [[3.0, 3.0, 3.1], [3.2, 3.0, 2.8]], "STE": [[2.9, 2.0, 1.0], [2.7, 1.0, 2.0]]}
MAPS = {"3 x 3": np.array([[5, 3], [0, -2]]), "large": np.full((11, 10), 0.25)}
POINTS = {"real": ([-1.0, 0.5, 2.0], [-1.0, 0.5, 2.0]), "sign": ([0.0, 0.0, 0.0], [-3.0, 1.0, 0.5])}
STRIPS = {
    "MACs (millions)": {
        "FPrec": [("conv1", 2.0, "real"), ("conv2", 5.0, "real"), ("classifier", 0.05, "real")],
        "Hybrid": [("conv1", 2.0, "real"), ("conv2", 4.0, "binary weights")],
    },
    "bytes": {"FBin": [("conv1", 3.0, "real"), ("conv2", 1.0, "fully binary")]},
}
PUBLISHED = {
    "Sketch-A-Net": {"fprec": [72.8], "wbin": [73.0], "hybrid": [73.1, 71.0], "fbin": [59.6]},
    "GoogLeNet": {"fprec": [75.0], "fbin": [72.2]},
}
ARMS = {"fprec": {"none": [80.0, 82.0], "real": [84.0, 86.0]},
        "fbin": {"none": [60.0, 61.0], "bits": [62.0, 60.0], "real": [70.0, 71.0]}}  # fmt: skip
COUNTS = np.arange(-4, 5)
PATHS = {
    "gamma = 0": (np.full(9, 2.0), np.full(9, 1), np.full(9, 1), -9),  # its threshold lies outside
    "gamma < 0": (1.5 - COUNTS, (COUNTS < 2) + 0, (COUNTS < 2) + 0, 2),
}
LATENT, PACKED = {"conv1": 4000, "conv2": 64000, "BatchNorms": 900}, {"BatchNorms": 300, "conv1": 4000, "conv2": 2000}
TOP = [("cat", 0.7), ("dog", 0.2), ("sun", 0.04)]
ROWS = [
    {"layer": name, "error": error, "share": share, "score": error + 0.2 / share, "kept_real": kept}
    for name, error, share, kept in (("conv2", 0.3, 0.5, False), ("conv3", 0.9, 0.1, True), ("conv4", 0.4, 0.4, False))
]
WEIGHTS = np.array([[0.1, 0.2, -0.1, -0.2, 0.3], [0.5, 0.4, 0.3, 0.2, 0.1], [-0.5, 0.0, 0.1, 0.2, 0.3]]).T
FLIPS = np.array([0, 0, 0, 0, 0, 1, 2, 6, 7, 40])
SHARES = {
    "operations": {"FPrec, MACs": [30.0, 70.0], "FBin, equivalent": [80.0, 20.0]},
    "bytes": {"a": [2, 1], "b": [4, 9]},
}
SKETCH = np.eye(16)
ENTERS = {"conv2": np.arange(16 * 16 * 20).reshape(16, 16, 20) % 3 == 0, "conv6": np.arange(12).reshape(1, 1, 12) > 5}
STAGES = {"before": np.arange(16.0).reshape(4, 4), "after": np.arange(16.0).reshape(4, 4) - 8}
BIT_MAP = np.array([[0, 1, 1, 0], [1, 0, 0, 1], [1, 1, 1, 1], [1, 0, 0, 1]])
BIT_FILTER = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1]])
LAYERS = [
    {"layer": name, "input": shape, "inputs": inputs, "weights": weights, "macs": macs}
    for name, shape, inputs, weights, macs in (
        ("conv1", [64, 64, 1], "real", "real", 3276800), ("conv2", [32, 32, 32], "binary", "binary", 18874368),
        ("conv3", [16, 16, 64], "real", "binary", 18874368), ("classifier", [1, 1, 256], "real", "real", 3840))
]  # fmt: skip
SMALL_ARRAYS = {"W": np.array([[0.5, -0.25]]), "sign": np.array([[True, False]]), "counts": np.array([[3, -9]])}
RATES, LIMITS = {"Python": 2.0e6, "words, vector": 4.0e11, "real kernel": 3.5e10}, {"real": 6.0e10, "binary": 9.0e11}

CASES = {  # function: arguments
    "lines": ([1, 2, 4], {"AND": [3, 2, 9], "XNOR": [5, 6, 7], "XOR": [1, 2, 3]}, "values n", "mean |error|"),
    "words": (WORD,),
    "bits_before_after": (BEFORE, AFTER, BITS),
    "seeds": (STAY, "predictions that stay (%)"),
    "pseudo_gradients": (Z, STANDINS, SLOPES),
    "staircase": (Z, LOSSES, SLOPES),
    "bands": ([10, 20, 30], LOSS, "step", "training loss"),
    "maps": (MAPS, "taps outside"),
    "scatters": (POINTS, "central difference", "backward pass"),
    "strips": (STRIPS,),
    "drops": (PUBLISHED, "top-1 (%)"),
    "arms": (ARMS, "shortcuts", "test drawings right (%)"),
    "two_paths": (COUNTS, PATHS),
    "bytes_a_layer": (LATENT, PACKED),
    "answer": (np.eye(8), "a test drawing: cat", TOP),
    "cloud": (a_choice(),),
    "latent_weights": (WEIGHTS, FLIPS),
    "grouped_bars": (["conv1", "conv2"], SHARES, "share of the network (%)"),
    "ladder": (RATES, LIMITS, "MACs per second"),
    "network_map": (SKETCH, LAYERS, ("cat", "dog", "sun", "tree"), "conv"),
    "entering_bits": (SKETCH, ENTERS),
    "maps_and_signs": (STAGES,),
    "bit_convolution": (BIT_MAP, BIT_FILTER, (0, 2)),
    "batchnorm_graph": ([1.0, 4.0, 2.0, 5.0], [0.5, -1.0, 0.3, 0.4], 1.5, 0.2, 1),
    "cells": (SMALL_ARRAYS,),
    "five_steps": (ROWS, 0.2, [[0, 2], [1]]),
}
MANY = {  # as many series as a reader can bear
    "lines": ([1, 2, 3], SIX, "x", "y"),
    "bands": ([1, 2, 3], {name: [values] for name, values in SIX.items()}, "x", "y"),
    "seeds": (SIX, "y"),
    "pseudo_gradients": (np.arange(3), SIX, SIX),
    "staircase": (np.arange(3), SIX, SIX),
    "grouped_bars": (["a", "b", "c"], {"panel": SIX}, "y"),
    "ladder": (RATES, {name: 1e9 * values[0] for name, values in list(SIX.items())[:3]}, "x"),
}
every_picture = pytest.mark.parametrize("name", CASES)


def draw(name):
    return getattr(course_plots, name)(*CASES[name])


@functools.lru_cache
def picture(name):
    """Drawn once, then only looked at."""
    return draw(name)


def names(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def legend(owner):
    """The texts of the legend of a picture, or of one of its axes."""
    found = owner.legends[0] if isinstance(owner, Figure) else owner.get_legend()
    return [text.get_text() for text in found.get_texts()]


def xy(line):
    return [float(x) for x in line.get_xdata()], [float(y) for y in line.get_ydata()]


def labelled(axes):
    """{name: the line or the bars of that name}."""
    handles, found = axes.get_legend_handles_labels()
    bars = {container[0]: container for container in axes.containers}  # a histogram's name is that of its first bar
    return {name: bars.get(handle, handle) for name, handle in zip(found, handles, strict=True)}


def heights(bars):
    return [bar.get_height() for bar in bars]


def widths(bars):
    return [bar.get_width() for bar in bars]


def middles(bars, way="x"):
    """Where bars stand; of lying bars, the way is y."""
    return [bar.get_x() + bar.get_width() / 2 if way == "x" else bar.get_y() + bar.get_height() / 2 for bar in bars]


def segments(axes):
    """{(x, lower y, upper y)} of all vertical strokes, {(y, left x, right x)} of all horizontal ones; rounded."""
    ends = [np.round(part, 9) for lines in axes.collections for part in lines.get_segments()]
    upright = {(a[0], *sorted((a[1], b[1]))) for a, b in ends if a[0] == b[0]}
    return upright, {(a[1], *sorted((a[0], b[0]))) for a, b in ends if a[1] == b[1]}


def look(handle):
    """What is left of a series when its colour is taken away."""
    if isinstance(handle, Line2D):
        hollow = handle.get_markerfacecolor() == "none"
        return handle.get_marker(), handle.get_linestyle(), hollow, handle.get_linewidth()
    return "bar", getattr(handle, "patches", [handle])[0].get_hatch() or ""


# --------------------------------------------------------------------------------------------- every picture


def test_every_function_has_a_case():
    public = set(course_plots.__all__)
    assert public == {name for name, _ in inspect.getmembers(course_plots, inspect.isfunction)}
    assert set(CASES) == public and set(MANY) <= public


@every_picture
def test_a_picture_is_saved_whole_without_a_warning_and_nothing_runs_off_it(name, tmp_path):
    figure = picture(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # a matter of the libraries among themselves
        plots.save(figure, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 > -0.01 and box.y0 > -0.01 and box.x1 < width + 0.01 and box.y1 < height + 0.01


@every_picture
def test_a_picture_leaves_matplotlib_and_its_data_alone(name):
    settings, windows, data = dict(matplotlib.rcParams), pyplot.get_fignums(), pickle.dumps(CASES[name])
    assert isinstance(draw(name), Figure)
    assert dict(matplotlib.rcParams) == settings and pyplot.get_fignums() == windows
    assert pickle.dumps(CASES[name]) == data


@every_picture
def test_every_axis_with_numbers_has_a_label(name):
    figure = picture(name)
    for axes in figure.axes:
        for axis, of_all in ((axes.xaxis, figure.get_supxlabel()), (axes.yaxis, figure.get_supylabel())):
            named = isinstance(axis.get_major_formatter(), (FixedFormatter, FuncFormatter))
            assert named or not any(names(axis)) or axis.get_label_text() or of_all


@every_picture
def test_every_series_with_a_name_has_it_written(name):
    figure = picture(name)
    owners = [*(axes for axes in figure.axes if axes.get_legend()), *([figure] if figure.legends else [])]
    written = {text for owner in owners for text in legend(owner)}
    for axes in figure.axes:  # where there is no legend, below its dots
        assert set(labelled(axes)) <= (written or {text.replace("\n", " ") for text in names(axes.xaxis)})


@every_picture
def test_series_differ_by_more_than_colour(name):
    figure = picture(name)
    for found in (*figure.legends, *(axes.get_legend() for axes in figure.axes)):
        looks = [look(handle) for handle in found.legend_handles] if found else []
        assert len(set(looks)) == len(looks)


@pytest.mark.parametrize("name", MANY)
def test_many_series_differ_by_more_than_colour(name):
    for axes in getattr(course_plots, name)(*MANY[name]).axes:
        looks = [look(handle) for handle in labelled(axes).values()]
        assert len(set(looks)) == len(looks) >= 3


@every_picture
def test_colours_are_those_of_the_house(name):
    house = {
        to_hex(colour) for colour in (*plots.COLOURS.values(), plots.KEPT, plots.BINARY, "black", "white", "#CC79A7")
    }
    for axes in picture(name).axes:
        colours = {line.get_color() for line in axes.lines} | {patch.get_facecolor() for patch in axes.patches}
        assert {to_hex(colour) for colour in colours} <= house


@every_picture
def test_a_name_in_a_legend_of_all_panels_has_one_style(name):
    figure, styles = picture(name), {}
    for axes in figure.axes if figure.legends else ():
        for text, handle in labelled(axes).items():
            colour = handle.get_color() if isinstance(handle, Line2D) else handle.patches[0].get_facecolor()
            styles.setdefault(text, set()).add((look(handle), to_hex(colour)))
    assert all(len(found) == 1 for found in styles.values())


# ---------------------------------------------------------------------------------------- lines, dots, bands


def test_lines_show_their_values():
    [axes] = picture("lines").axes
    series = {name: xy(line) for name, line in labelled(axes).items()}
    assert series == {"AND": ([1, 2, 4], [3, 2, 9]), "XNOR": ([1, 2, 4], [5, 6, 7]), "XOR": ([1, 2, 4], [1, 2, 3])}
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("values n", "mean |error|", "linear")


def test_lines_take_any_iterable_a_title_and_a_logarithmic_axis():
    [axes] = course_plots.lines(iter([1, 2, 3]), SIX, "x", "y", log=True, title="six").axes
    assert [xy(line) for line in axes.lines] == [([1, 2, 3], values) for values in SIX.values()]
    assert (axes.get_title(), axes.get_yscale()) == ("six", "log")


def test_seeds_show_each_seed_and_the_mean():
    [axes] = picture("seeds").axes
    for i, (name, values) in enumerate(STAY.items()):
        x, y = xy(labelled(axes)[name])
        assert y == values and len(set(x)) == 3 and all(abs(place - i) < 0.25 for place in x)
    assert {(y, (left + right) / 2) for y, left, right in segments(axes)[1]} == {(93, 0), (62, 1)}
    assert names(axes.xaxis) == ["conv2:\nbefore BatchNorm", "classifier"]
    assert axes.get_ylabel() == "predictions that stay (%)"


def test_bands_reach_from_the_lowest_to_the_highest_seed():
    [axes] = picture("bands").axes
    for (name, values), band in zip(LOSS.items(), axes.collections, strict=True):
        x, y = xy(labelled(axes)[name])
        assert x == [10, 20, 30] and y == pytest.approx(np.mean(values, axis=0))
        corners = band.get_paths()[0].vertices
        for place, own in zip(x, np.transpose(values), strict=True):
            height = corners[corners[:, 0] == place, 1]
            assert (height.min(), height.max()) == (own.min(), own.max())
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "training loss")


def test_pseudo_gradients_show_functions_left_and_slopes_right():
    figure = picture("pseudo_gradients")
    for axes, series in zip(figure.axes, (STANDINS, SLOPES), strict=True):
        assert {name: xy(line) for name, line in labelled(axes).items()} == {
            name: (Z.tolist(), values.tolist()) for name, values in series.items()
        }
    assert legend(figure) == list(STANDINS)
    assert [axes.get_ylabel().partition(",")[0] for axes in figure.axes] == ["forward pass of the stand-in", "slope"]


def test_staircase_shows_losses_above_gradients():
    upper, lower = picture("staircase").axes
    for axes, series in ((upper, LOSSES), (lower, SLOPES)):
        assert {name: xy(line)[1] for name, line in labelled(axes).items()} == {
            name: values.tolist() for name, values in series.items()
        }
    assert upper.get_position().y0 > lower.get_position().y1
    assert (upper.get_ylabel(), lower.get_ylabel(), lower.get_xlabel()) == ("loss", "gradient used", "the weight w")


def test_a_weight_on_the_staircase_is_marked_in_both_parts():
    figure = course_plots.staircase(*CASES["staircase"], at=-0.5)
    for marked, plain in zip(figure.axes, picture("staircase").axes, strict=True):
        [line] = [line for line in marked.lines if xy(line)[0] == [-0.5, -0.5]]
        assert xy(line)[1] == [0, 1] and len(marked.lines) == len(plain.lines) + 1
    assert figure.get_label().endswith("A line marks w = -0.5.")


def test_scatters_show_points_and_where_both_are_equal():
    for axes, (title, (x, y)) in zip(picture("scatters").axes, POINTS.items(), strict=True):
        equal, points = axes.lines
        assert xy(points) == (x, y) and xy(equal) == ([-3, 2], [-3, 2]) and equal.get_label() == "equal"
        assert (axes.get_title(), axes.get_xlabel()) == (title, "central difference")
    assert picture("scatters").axes[0].get_ylabel() == "backward pass"


def test_drops_show_every_accuracy_and_the_fall_from_fprec_to_fbin():
    [axes] = picture("drops").axes
    for y, tops in enumerate(PUBLISHED.values()):
        own = [line for line in axes.lines if set(line.get_ydata()) == {y}]
        fall, *points = [xy(line)[0] for line in own]
        assert fall == [tops["fbin"][0], tops["fprec"][0]] and points == list(tops.values())
        markers = [line.get_marker() for line in own[1:]]
        assert markers == [plots.MARKERS[variant] for variant in tops]
    assert texts(axes) == ["13.2 points", "2.8 points"] and names(axes.yaxis) == list(PUBLISHED)
    assert legend(picture("drops")) == ["FPrec", "WBin", "Hybrid", "FBin"] and axes.get_xlabel() == "top-1 (%)"


def test_arms_show_each_seed_above_its_arm_and_join_the_means():
    [axes] = picture("arms").axes
    assert names(axes.xaxis) == ["none", "bits", "real"] and legend(axes) == ["FPrec", "FBin"]
    for variant, found in ARMS.items():
        means, *seeds = [line for line in axes.lines if line.get_color() == plots.COLOURS[variant]]
        places = [["none", "bits", "real"].index(arm) for arm in found]
        at, values = (np.array(own, float) for own in xy(means))
        assert at.tolist() == [0, 1, 2] and values[places].tolist() == [np.mean(values) for values in found.values()]
        assert np.isnan(np.delete(values, places)).all()  # no line through an arm that was not trained
        assert [xy(line)[1] for line in seeds] == list(found.values())
        assert [np.mean(xy(line)[0]) for line in seeds] == pytest.approx(places)
        assert {line.get_marker() for line in seeds} == {plots.MARKERS[variant]}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("shortcuts", "test drawings right (%)")


def test_two_paths_show_values_above_the_bits_of_both_and_the_threshold():
    figure = picture("two_paths")
    for i, (title, (values, floats, whole, t)) in enumerate(PATHS.items()):
        upper, lower = figure.axes[i], figure.axes[i + 2]
        assert upper.get_title() == title and lower.get_xlabel() == "count i"
        assert xy(labelled(upper)["value after BatchNorm, float"]) == (COUNTS.tolist(), values.tolist())
        assert xy(labelled(lower)["its sign as a bit"]) == (COUNTS.tolist(), floats.tolist())
        assert xy(labelled(lower)["(i >= t) XOR flip, whole numbers"]) == (COUNTS.tolist(), whole.tolist())
        for axes in (upper, lower):
            shown = [xy(line)[0] for name, line in labelled(axes).items() if name == "threshold t"]
            assert shown == ([[t, t]] if t in COUNTS else [])
    assert [axes.get_ylabel() for axes in figure.axes] == ["value", "", "bit", ""]


# ------------------------------------------------------------------------------------------------------ grids


def test_words_show_values_signs_and_bits_and_a_grey_tail():
    values, signs, bits = picture("words").axes
    assert values.images[0].get_array().tolist() == [WORD] and texts(signs) == list("+-+++-")
    assert signs.images[0].get_array().tolist() == [[1, -1, 1, 1, 1, -1]]
    assert texts(bits) == list("101110") + 58 * ["0"]
    assert [text.get_position()[0] for text in bits.texts] == [c + 0.5 for c in range(64)]
    colours = [to_hex(patch.get_facecolor()) for patch in bits.patches]
    one, tail = plots.COLOURS["wbin"].lower(), plots.BINARY.lower()
    assert colours == [one, "#ffffff", one, one, one, "#ffffff", *[tail] * 58]
    assert [names(axes.yaxis) for axes in (values, signs, bits)] == [["value"], ["sign"], ["bit"]]
    assert "58 bits" in bits.get_xlabel() and all(axes.get_xlim() == (0, 64) for axes in (values, signs, bits))


def test_a_full_word_has_no_tail():
    bits = course_plots.words(np.ones(64)).axes[2]
    assert texts(bits) == 64 * ["1"] and "0 bits" in bits.get_xlabel()


@pytest.mark.parametrize("signed", [False, True])
def test_maps_show_their_arrays_each_on_its_scale(signed):
    small, large, *scales = course_plots.maps(MAPS, "taps outside", signed=signed).axes
    for axes, (title, values), top in zip((small, large), MAPS.items(), (5, 0.25), strict=True):
        assert axes.get_title() == title and np.array_equal(axes.images[0].get_array(), values)
        assert axes.images[0].get_clim() == (-top if signed else 0, top)
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("column", "row")
    assert texts(small) == ["5", "3", "-2"] and texts(large) == []  # no 0, and none in a large map
    assert [text.get_position() for text in small.texts] == [(0, 0), (1, 0), (1, 1)]
    assert [scale.get_ylabel() for scale in scales] == 2 * ["taps outside"]


def test_a_map_of_zeros_can_be_drawn():
    assert texts(course_plots.maps({"right everywhere": np.zeros((2, 2))}, "errors").axes[0]) == []


# ------------------------------------------------------------------------------------------------------- bars


def test_histograms_are_split_at_0_where_the_sign_splits_them():
    for axes, values in zip(picture("bits_before_after").axes, (BEFORE, AFTER), strict=False):
        bars = {name[:7]: own for name, own in labelled(axes).items()}
        assert all(bar.get_x() + bar.get_width() < 1e-9 for bar in bars["sign -1"] if bar.get_height())
        assert all(bar.get_x() > -1e-9 for bar in bars["sign +1"] if bar.get_height())
        shown = sum(heights([*bars["sign -1"], *bars["sign +1"]]))
        assert 0.95 * len(values) < shown <= len(values) and axes.get_yscale() == "log"
        minus, plus = legend(axes)
        share = np.mean(values >= 0)
        assert (minus, plus) == (f"sign -1: {1 - share:.0%}", f"sign +1: {share:.0%}")
    assert [axes.get_title() for axes in picture("bits_before_after").axes[:2]] == [
        "before BatchNorm",
        "after BatchNorm",
    ]


def test_shares_of_bits_stand_in_pairs_above_their_layers():
    axes = picture("bits_before_after").axes[2]
    bars = labelled(axes)
    assert heights(bars["before"]) == pytest.approx([100, 90]) and heights(bars["after"]) == pytest.approx([40, 60])
    assert np.add(middles(bars["before"]), middles(bars["after"])) / 2 == pytest.approx(axes.get_xticks())
    assert names(axes.xaxis) == list(BITS) and xy(axes.lines[0])[1] == [50, 50]
    assert axes.get_ylabel() == "bits that are +1 (%)"


def test_strips_lay_their_parts_end_to_end():
    hatches = {"real": None, "binary weights": "//", "fully binary": "xx"}
    for axes, (label, rows) in zip(picture("strips").axes, STRIPS.items(), strict=True):
        parts = [(y, *part) for y, row in enumerate(rows.values()) for part in row]
        assert widths(axes.patches) == pytest.approx([width for _, _, width, _ in parts])
        assert middles(axes.patches, "y") == pytest.approx([y for y, *_ in parts])
        assert [bar.get_hatch() for bar in axes.patches] == [hatches[kind] for *_, kind in parts]
        for row in range(len(rows)):
            own = [bar for bar, part in zip(axes.patches, parts, strict=True) if part[0] == row]
            ends = np.cumsum(widths(own))
            assert [bar.get_x() for bar in own] == pytest.approx([0, *ends[:-1]])
        assert names(axes.yaxis) == list(rows) and axes.get_xlabel() == label and axes.yaxis_inverted()
    assert legend(picture("strips")) == list(hatches)


def test_strips_name_the_parts_that_are_wide_enough():
    first, second = picture("strips").axes
    assert texts(first) == ["conv1", "conv2", "conv1", "conv2"] and texts(second) == ["conv1", "conv2"]
    assert [text.get_position() for text in first.texts] == [(1, 0), (4.5, 0), (1, 1), (4, 1)]


@pytest.mark.parametrize("packed", [PACKED, {name: PACKED[name] for name in LATENT}], ids=["another order", "the same"])
def test_bytes_a_layer_stand_in_pairs_with_the_factor(packed):
    [axes] = course_plots.bytes_a_layer(LATENT, packed).axes
    before, after = labelled(axes)["float32, as trained"], labelled(axes)["packed"]
    assert widths(before) == [4000, 64000, 900] and widths(after) == [4000, 2000, 300]
    assert np.add(middles(before, "y"), middles(after, "y")) / 2 == pytest.approx(axes.get_yticks())
    assert names(axes.yaxis) == list(LATENT) and texts(axes) == ["1.0 times", "32.0 times", "3.0 times"]
    assert [text.get_position()[1] for text in axes.texts] == pytest.approx(middles(before, "y"))
    assert axes.get_xscale() == "log" and axes.yaxis_inverted() and axes.get_xlabel() == "bytes, logarithmic"


def test_answer_shows_the_image_and_the_likeliest_classes_from_the_top():
    left, right = picture("answer").axes
    assert np.array_equal(left.images[0].get_array(), np.eye(8)) and left.get_title() == "a test drawing: cat"
    assert widths(right.patches) == pytest.approx([70, 20, 4]) and texts(right) == ["70 %", "20 %", "4 %"]
    assert names(right.yaxis) == ["cat", "dog", "sun"] and right.yaxis_inverted()
    first, *others = [bar.get_facecolor() for bar in right.patches]
    assert first not in others and len(set(others)) == 1
    assert right.get_xlabel() == "probability (%)"


def test_five_steps_show_error_share_and_their_sum():
    error, share, score = picture("five_steps").axes[:3]
    for axes, key in ((error, "error"), (share, "share")):
        assert heights(axes.patches) == [row[key] for row in ROWS] and names(axes.xaxis) == ["conv2", "conv3", "conv4"]
        assert [bool(bar.get_hatch()) for bar in axes.patches] == [row["kept_real"] for row in ROWS]
    below, above = labelled(score)["E"], labelled(score)["gamma / NF"]
    assert heights(below) == [row["error"] for row in ROWS] == [bar.get_y() for bar in above]
    assert [bar.get_y() + bar.get_height() for bar in above] == pytest.approx([row["score"] for row in ROWS])
    assert names(score.xaxis) == ["conv2", "conv3", "conv4"] and "gamma = 0.2" in score.get_title()
    labels = [axes.get_ylabel() for axes in (error, share, score)]
    assert labels == ["E", "NF, logarithmic", "M"] and share.get_yscale() == "log"


def test_five_steps_number_clusters_from_the_highest_and_ring_what_is_kept():
    axes = picture("five_steps").axes[3]
    found = {name: xy(line) for name, line in labelled(axes).items()}
    score = [row["score"] for row in ROWS]
    ringed = found.pop("kept real, on the left green and hatched")
    assert found == {"cluster 1": ([score[1]], [1]), "cluster 2": ([score[0], score[2]], [0, 2])}
    assert ringed == ([score[1]], [1])
    assert names(axes.yaxis) == ["conv2", "conv3", "conv4"] and axes.get_xlabel() == "M, logarithmic"


def test_grouped_bars_stand_around_their_labels():
    for axes, (title, series) in zip(picture("grouped_bars").axes, SHARES.items(), strict=True):
        bars = labelled(axes)
        assert {name: heights(own) for name, own in bars.items()} == {name: list(v) for name, v in series.items()}
        assert np.mean([middles(own) for own in bars.values()], axis=0) == pytest.approx([0, 1])
        edges = [own[0].get_x() for own in bars.values()]
        assert np.diff(edges) == pytest.approx(list(bars.values())[0][0].get_width())  # side by side
        assert names(axes.xaxis) == ["conv1", "conv2"] and axes.get_title() == title
        assert axes.get_ylabel() == "share of the network (%)" and axes.get_yscale() == "linear"
    assert course_plots.grouped_bars(["a"], {"": {"x": [1]}}, "y", log=True).axes[0].get_yscale() == "log"


def test_grouped_bars_of_a_variant_have_its_colour():
    bars = labelled(picture("grouped_bars").axes[0])
    colours = {name: to_hex(own[0].get_facecolor()).upper() for name, own in bars.items()}
    assert colours == {"FPrec, MACs": plots.COLOURS["fprec"], "FBin, equivalent": plots.COLOURS["fbin"]}


def test_ladder_climbs_from_the_bottom_and_ends_at_its_limits():
    [axes] = picture("ladder").axes
    assert widths(axes.patches) == list(RATES.values()) and names(axes.yaxis) == list(RATES)
    assert middles(axes.patches, "y") == pytest.approx([0, 1, 2]) and not axes.yaxis_inverted()
    assert texts(axes) == ["2.0 M", "400.0 G", "35.0 G"]
    assert [bool(bar.get_hatch()) for bar in axes.patches] == [False, False, True]
    lines = {name.split(":")[0]: xy(line)[0] for name, line in labelled(axes).items()}
    assert lines == {k: [v, v] for k, v in LIMITS.items()} and all(" G" in name for name in labelled(axes))
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "MACs per second"
    assert axes.get_xlim()[0] < min(RATES.values()) and axes.get_xlim()[1] > max(LIMITS.values())


# ------------------------------------------------------------------------------------------- cloud, weights


def test_cloud_has_a_bar_of_one_standard_error_for_every_choice():
    result = a_choice()
    [axes] = picture("cloud").axes
    upright, _ = segments(axes)
    for key, tops in result["choices"].items():
        a, b = sorted(tops.values())  # of two seeds, the standard error reaches from one to the other
        assert (result["ops"][key], a, b) in upright
    rows = [row for row in choices.choice_rows(result) if row["rule"] == "at random"]
    for row in rows:
        x, low, high = np.round((row["ops"], row["top1"] - row["top1_se"], row["top1"] + row["top1_se"]), 9)
        assert (x, low, high) in upright


def test_cloud_of_one_seed_has_no_bars():
    result = a_choice()
    for part in (*result["choices"].values(), result["layers"], result["kept"]):
        part.pop("4")
    [axes] = course_plots.cloud(result).axes
    assert segments(axes) == (set(), set())
    assert sorted(xy(axes.lines[0])[1]) == sorted(tops["0"] for tops in result["choices"].values())


def test_latent_weights_are_marked_where_they_cross_0():
    left, _ = picture("latent_weights").axes
    for own, line, marks, crossed in zip(WEIGHTS.T, left.lines[::2], left.lines[1::2], ([2, 4], [], [1]), strict=False):
        assert xy(line) == (list(range(5)), own.tolist())
        assert xy(marks) == (crossed, own[crossed].tolist()) and marks.get_marker() == "o"
        colour = labelled(left)["flipped" if crossed else "never flipped"].get_color()
        assert line.get_color() == colour
    assert (left.get_xlabel(), left.get_ylabel()) == ("step", "latent weight")
    assert legend(picture("latent_weights")) == ["flipped", "never flipped", "a flip"]


def test_weights_are_counted_by_their_flips():
    _, right = picture("latent_weights").axes
    assert heights(right.patches) == pytest.approx([50, 10, 10, 0, 0, 0, 30])
    assert names(right.xaxis) == ["0", "1", "2", "3", "4", "5", "6+"]
    assert (right.get_xlabel(), right.get_ylabel()) == ("flips of a weight", "share of the weights (%)")
