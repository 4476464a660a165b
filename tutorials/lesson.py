"""What makes a notebook a lesson: figures, the map of the course, guesses before results, knobs to turn, fair timing.

`course` hands all of it out.

Nothing here stops a notebook. If a reader makes no guess, there is the result alone. Where no widget can be shown
(without ipywidgets, on paper, on a page, in a test), a knob is shown in three fixed positions.
"""

import io
import os
import time
from collections.abc import Iterable
from numbers import Real
from pathlib import Path

CHAPTERS = ("bits", "binarize", "conv", "layers", "models", "train", "cost", "hybrid", "deploy")
_guesses = {}


def show(figure, name, alt=None):
    """Display a matplotlib figure with its alternative text; HBN_FIGURES=FOLDER also writes it there.

    Pictures that carry such a text already need no ``alt``.
    """
    from IPython.display import Image, display

    alt = alt or figure.get_label()
    folder = os.environ.get("HBN_FIGURES")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for kind in ("svg", "png"):
            figure.savefig(Path(folder, f"{name}.{kind}"), dpi=200)
        Path(folder, f"{name}.txt").write_text(alt + "\n", "utf-8")
    display(Image(_png(figure), alt=alt), metadata={"image/png": {"alt": alt}})


def _png(figure):
    """A figure as PNG with at most 256 colours: a third of the bytes, and no visible difference."""
    from PIL import Image

    whole, small = io.BytesIO(), io.BytesIO()
    figure.savefig(whole, format="png", dpi=80)
    picture = Image.open(whole).convert("RGB")
    picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def here(chapter):
    """Show the map of the course, with the place of a chapter marked: "bits", "binarize", ... "deploy"."""
    import numpy as np

    from data_tools import doodles
    from hbn_ref import cost, course_plots, models

    drawing = doodles.images("cat", 1, np.random.default_rng(3), 64)[0, :, :, 0]
    model = models.build("small", "hybrid", num_classes=len(doodles.CLASSES), in_channels=1, input_size=64,
                         keep_real=("conv5", "conv6"), init=False)  # fmt: skip
    classes = sorted(doodles.CLASSES, key=lambda name: name != "cat")  # what is drawn comes first
    figure = course_plots.network_map(drawing, cost.table(model)["layers"], classes, chapter)
    show(figure, f"{CHAPTERS.index(chapter) + 1:02}-map")


def guess(number, *values):
    """Note a guess, of one value or several, for the cell that calls `reveal` with the same number; ... is no guess."""
    flat = [value for own in values for value in _flat(own)]
    if not flat or any(value is None or value is Ellipsis for value in flat):
        _guesses.pop(number, None)
        print(f"guess {number}: none yet. Write one in the place of ... and run this cell again, or go on without.")
    else:
        _guesses[number] = flat
        print(f"guess {number}: noted: {_written(flat)}")


def reveal(number, *values, unit=""):
    """Say what was guessed under this number, if anything, and what it was."""
    after = f" {unit}" if unit else ""
    truth = f"it was {_written([value for own in values for value in _flat(own)])}{after}"
    said = f"you said {_written(_guesses[number])}{after}, " if number in _guesses else ""
    print(f"guess {number}: {said}{truth}")


def slider(draw, name=None, shown=None, **knob):
    """Let a reader turn a knob, one keyword with its positions: ``slider(draw, gamma=[0.001, 0.01, 0.1])``.

    ``draw(position)`` prints, or returns a figure, which is shown and saved as ``name``. Where widgets can be shown it
    is a slider; elsewhere the first, the middle and the last position are shown, or those of ``shown``.
    """
    if len(knob) != 1:
        raise TypeError(f"slider: expected one knob with its positions, got {len(knob)}")
    [(label, positions)] = knob.items()
    positions = list(positions)
    if not positions:
        raise ValueError(f"{label}: expected at least one position, got none")
    middle = positions[len(positions) // 2]
    widgets = _widgets()
    if widgets:
        options = [(_written([position]), position) for position in positions]
        control = widgets.SelectionSlider(options=options, value=middle, description=label, continuous_update=False,
                                          style={"description_width": "initial"})  # fmt: skip
        widgets.interact(lambda position: _show(draw(position), name), position=control)
        return
    fixed = dict.fromkeys((positions[0], middle, positions[-1]) if shown is None else shown)
    for k, position in enumerate(fixed, start=1):
        print(f"{label} = {_written([position])}")
        _show(draw(position), name and f"{name}-{k}")


def _show(figure, name):
    if figure is not None:
        show(figure, name or "slider")


def _widgets():
    """Return the module ipywidgets if somebody is there to turn a knob, else None.

    A page (Lab, Notebook, VS Code) can answer a question of the kernel's, and says so with each cell that it runs. A
    program that runs notebooks unattended (nbclient, so nbconvert and the grader, too) says that it cannot.
    """
    try:
        from IPython import get_ipython

        if os.environ.get("HBN_WIDGETS") == "0" or not get_ipython().kernel._allow_stdin:
            return None
        import ipywidgets
    except (ImportError, AttributeError):  # not in a notebook, or no widgets here
        return None
    return ipywidgets


def in_turns(calls, rounds):
    """Time {name: function}, A B C, A B C, ...: {name: seconds of each round}. Each runs twice before it is timed."""
    for call in (*calls.values(), *calls.values()):
        call()
    seconds = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def _flat(value):
    """A value in a list, or those of a list, tuple or array, one level after the other."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [value]
    return [part for own in value for part in _flat(own)]


def _written(values):
    """Numbers and words in a row, as a reader writes them."""

    def one(value):
        if isinstance(value, bool) or not isinstance(value, Real):
            return str(value)
        return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1e4 else f"{value:.3g}"

    return ", ".join(map(one, values))
