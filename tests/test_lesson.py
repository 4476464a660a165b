"""What makes a notebook a lesson: the map, guesses, and knobs that are sliders or three fixed positions."""

import base64
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tutorials"))
course = pytest.importorskip("course")
lesson = pytest.importorskip("lesson")
nbformat = pytest.importorskip("nbformat")
teacher = pytest.importorskip("teacher")


@pytest.fixture(autouse=True)
def nothing_guessed(monkeypatch):
    monkeypatch.setattr(lesson, "_guesses", {})


@pytest.fixture
def shown(monkeypatch):
    """What `show` is given: (figure, name, alternative text)."""
    calls = []
    monkeypatch.setattr(lesson, "show", lambda figure, name, alt=None: calls.append((figure, name, alt)))
    return calls


def said(capsys):
    return capsys.readouterr().out.strip()


# ------------------------------------------------------------------------------------------------- guesses


def test_what_was_guessed_stands_beside_what_it_was(capsys):
    course.guess("1.6", 60)
    assert said(capsys) == "guess 1.6: noted: 60"
    course.reveal("1.6", 81.234, unit="%")
    assert said(capsys) == "guess 1.6: you said 60 %, it was 81.2 %"


def test_who_guesses_nothing_reads_the_result_alone(capsys):
    for nothing in ((...,), (), (None,), (80, ...)):
        course.guess("1.6", *nothing)
        assert said(capsys).startswith("guess 1.6: none yet.")
        course.reveal("1.6", 81.2)
        assert said(capsys) == "guess 1.6: it was 81.2"
    course.reveal("9.9", 3)  # a cell that was not run at all
    assert said(capsys) == "guess 9.9: it was 3"


def test_a_guess_may_be_taken_back_and_changed(capsys):
    course.guess("1.6", 60)
    course.guess("1.6", 70)
    course.reveal("1.6", 81)
    assert "you said 70, it was 81" in said(capsys)
    course.guess("1.6", ...)
    course.reveal("1.6", 81)
    assert said(capsys).endswith("1.6: it was 81")


def test_guesses_of_several_numbers_and_of_words(capsys):
    course.guess("1.6", 80, [70.5, 1_000_000])
    course.reveal("1.6", np.array([84.0, 81.25]), 0.00012345)
    assert said(capsys).endswith("1.6: you said 80, 70.5, 1,000,000, it was 84, 81.2, 0.000123")
    course.guess("5.3", ("MACs", "weights"))
    course.reveal("5.3", "MACs", True)
    assert said(capsys).endswith("5.3: you said MACs, weights, it was MACs, True")


# --------------------------------------------------------------------------------------------------- knobs


def test_without_widgets_a_knob_has_three_positions(capsys):
    course.slider(lambda share: print(2 * share), share=[0, 1, 2, 3, 4])
    assert said(capsys).splitlines() == ["share = 0", "0", "share = 2", "4", "share = 4", "8"]
    course.slider(lambda share: print(share), share=(1, 2))
    assert said(capsys).splitlines() == ["share = 1", "1", "share = 2", "2"]
    course.slider(lambda gamma: print(gamma), gamma=iter([0.001, 0.01, 0.1]), shown=(0.5,))
    assert said(capsys).splitlines() == ["gamma = 0.5", "0.5"]


def test_figures_of_a_knob_are_saved_under_names_of_their_own(shown):
    course.slider(lambda k: f"figure {k}", "08-gamma", k=[1, 2, 3])
    assert [call[:2] for call in shown] == [(f"figure {k}", f"08-gamma-{k}") for k in (1, 2, 3)]


@pytest.mark.parametrize("knobs, error", [({}, TypeError), ({"a": [1], "b": [2]}, TypeError), ({"a": []}, ValueError)])
def test_a_slider_has_one_knob_with_positions(knobs, error):
    with pytest.raises(error, match="expected"):
        course.slider(print, **knobs)


def test_with_somebody_there_a_knob_is_a_slider(monkeypatch, capsys, shown):
    widgets = pytest.importorskip("ipywidgets")
    made = []
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=True)))
    monkeypatch.setattr(widgets, "interact", lambda function, position: made.append((function, position)))
    course.slider(lambda gamma: f"at {gamma}", "08-gamma", gamma=[0.001, 0.01, 0.1])
    [(turn, control)] = made
    assert said(capsys) == "" and isinstance(control, widgets.SelectionSlider)
    assert (control.description, control.value, control.options) == (
        "gamma", 0.01, (("0.001", 0.001), ("0.01", 0.01), ("0.1", 0.1)))  # fmt: skip
    turn(0.1)
    assert shown == [("at 0.1", "08-gamma", None)]
    monkeypatch.setenv("HBN_WIDGETS", "0")
    course.slider(lambda gamma: None, gamma=[1])
    assert said(capsys) == "gamma = 1"


def test_contenders_take_turns_and_none_is_timed_at_its_first_call():
    called = []
    seconds = course.in_turns({name: lambda name=name: called.append(name) for name in "ab"}, 3)
    assert "".join(called) == "ab" * 5
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
    assert all(value > 0 for values in seconds.values() for value in values)


def test_a_notebook_that_runs_unattended_keeps_three_pictures_and_their_words(monkeypatch, tmp_path):
    """As for a page of GitHub's, where no widget is shown."""
    from nbformat.v4 import new_code_cell, new_notebook

    cells = [
        "import course",
        "course.here('conv')",
        "course.guess('1.6', ...)\ncourse.reveal('1.6', 81)",
        "from hbn_ref import course_plots\ncourse.slider(lambda k: course_plots.cells({'a': [[k]]}), k=[1, 2, 3])",
    ]
    made = teacher.execute(new_notebook(cells=[new_code_cell(source) for source in cells]))  # fmt: skip
    assert teacher.failures(made) == {}
    outputs = [output for cell in made.cells for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", ())]
    alts = [picture.metadata["image/png"]["alt"] for picture in pictures]
    assert alts[0].endswith("Marked as the place of this chapter: the convolution of bits, and its border.")
    assert alts[1:] == [f"Small arrays, row by row. a: {k}." for k in (1, 2, 3)]
    assert all(base64.b64decode(picture.data["image/png"])[:4] == b"\x89PNG" for picture in pictures)
    assert not any("widget" in kind for output in outputs for kind in output.get("data", ()))
    assert [output.text.splitlines()[-1] for output in made.cells[2].outputs] == ["guess 1.6: it was 81"]


@pytest.mark.parametrize("chapter", course.CHAPTERS)
def test_every_chapter_has_its_place_on_the_map(chapter, shown):
    from hbn_ref.course_plots.network import SUBJECTS

    assert tuple(SUBJECTS) == course.CHAPTERS
    course.here(chapter)
    [(figure, name, _)] = shown
    assert name == f"{course.CHAPTERS.index(chapter) + 1:02}-map"
    assert figure.get_label().endswith(f"Marked as the place of this chapter: {SUBJECTS[chapter]}.")


def test_a_picture_on_a_page_has_few_colours_near_its_own(monkeypatch):
    import io

    import numpy as np
    from matplotlib.figure import Figure
    from PIL import Image

    shown_ones = []
    monkeypatch.setattr(
        "IPython.display.display", lambda picture, metadata: shown_ones.append((picture.data, metadata))
    )
    figure = Figure((3, 2))
    axis = figure.subplots()
    axis.imshow(np.add.outer(np.arange(40.0), np.arange(60.0)), cmap="PuOr")
    axis.plot([0, 59], [0, 39], color="green")
    whole = io.BytesIO()
    figure.savefig(whole, format="png", dpi=80)
    course.show(figure, "name", "A slope in many colours.")
    [(data, metadata)] = shown_ones
    small, exact = (Image.open(io.BytesIO(one)) for one in (data, whole.getvalue()))
    assert metadata == {"image/png": {"alt": "A slope in many colours."}}
    assert small.mode == "P" and small.size == exact.size and len(data) < 0.7 * len(whole.getvalue())
    apart = np.abs(np.asarray(small.convert("RGB"), int) - np.asarray(exact.convert("RGB"), int))
    assert apart.max() <= 16
