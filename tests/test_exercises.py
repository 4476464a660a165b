"""Checks of exercises: what counts as right, and what is said of the rest."""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tutorials"))
exercises = pytest.importorskip("exercises")


def refused(got, expected, *options, **more):
    """What `same` says of a wrong answer."""
    with pytest.raises(AssertionError) as error:
        exercises.same(got, expected, *options, **more)
    return str(error.value)


# ------------------------------------------------------------------------------------------------ running a check


@pytest.fixture
def grading(monkeypatch):
    monkeypatch.setenv("HBN_GRADE_SEED", "secret")


def said(capsys, *answers, body=lambda rng, answer: exercises.same(answer(2), 4), **options):
    exercises.check("9.9", *answers, **options)(body)
    return capsys.readouterr().out.strip()


def nothing(x):
    x + x


def test_a_check_says_right_wrong_not_done_yet_or_nothing(capsys):
    assert said(capsys, lambda x: 2 * x) == "9.9: right"
    assert said(capsys, lambda x: x) == "9.9: not right yet. the result is 2, expected 4"
    assert said(capsys, lambda x: ...) == said(capsys, ...) == said(capsys, None) == "9.9: not done yet"
    assert "not right yet: it ends with ZeroDivisionError" in said(capsys, lambda x: x / 0)
    assert said(capsys, nothing) == "9.9: not right yet. nothing returned nothing: does it end with a `return`?"


def test_none_is_an_answer_where_the_check_says_so(capsys):
    assert (
        said(capsys, nothing, body=lambda rng, answer: exercises.same(answer(2) is None, True), none=True)
        == "9.9: right"
    )


def test_the_part_that_is_not_done_is_named(capsys):
    def both(rng, f, g):
        exercises.same(f(2), 4)
        exercises.same(g(2), 4)

    def second(x):
        return ...

    assert said(capsys, lambda x: 2 * x, second, body=both) == "9.9: not done yet: second"


def test_an_answer_that_raises_an_assertion_of_its_own(capsys):
    def strict(x):
        assert x > 2

    assert said(capsys, strict).startswith("9.9: not right yet. strict ends with an AssertionError")


@pytest.mark.parametrize("answer", [lambda x: x, lambda x: ..., lambda x: x / 0, nothing])
def test_only_grading_makes_a_check_raise(grading, answer):
    with pytest.raises(exercises.CheckFailed, match=r"^9\.9: not"):
        exercises.check("9.9", answer)(lambda rng, answer: exercises.same(answer(2), 4))


def test_hidden_cases_come_from_the_seed(monkeypatch):
    drawn = []

    def draw(seed):
        monkeypatch.setenv("HBN_GRADE_SEED", seed)
        exercises.check("9.9", 1)(lambda rng, answer: drawn.append(rng.random()))

    for seed in ("a", "a", "b"):
        draw(seed)
    assert drawn[:3] == drawn[3:6] and not set(drawn[:3]) & set(drawn[6:]) and len(set(drawn[:3])) == exercises.ROUNDS


def test_an_answer_cannot_touch_what_the_check_computes_with(capsys):
    def greedy(x, rows, by_name, *, more):
        for array in (x, rows[0], rows[1][0], by_name["a"][0], more):
            array[...] = 0
        rows.clear()
        by_name.clear()
        return 0

    def body(rng, answer):
        x = np.ones(3)
        rows, by_name = [x, (x,)], {"a": [x]}
        answer(x, rows, by_name, more=x)
        exercises.same(x, np.ones(3))
        exercises.same([len(rows), len(by_name)], [2, 1])
        exercises.same(answer.given[0], np.zeros(3))  # where a check asks what became of what it gave

    assert said(capsys, greedy, body=body) == "9.9: right"


# ----------------------------------------------------------------------------------------- whole numbers and words


def uint64(*values):
    return np.array(values, np.uint64)


WORDS = uint64(0x9ABC_DEF0_1234_5679, 0x2B)  # 70 values


def test_words_are_compared_bit_by_bit():
    text = refused(uint64(2**63 + 1), uint64(2**63))
    assert text == "the result: bit 0 of word 0 is 1, expected 0: it stands for value 0; 1 of 64 bits differ"
    maps = np.arange(2**60, 2**60 + 12, dtype=np.uint64).reshape(1, 3, 2, 2)
    wrong = maps.copy()
    wrong[0, 1, 0, 1] ^= np.uint64(4)
    assert "at (0, 1, 0), bit 2 of word 1 is 0, expected 1: it stands for value 66; 1 of 768" in refused(wrong, maps)


@pytest.mark.parametrize("bit", range(64))
def test_no_bit_is_lost(bit):
    assert f"bit {bit} of word 0" in refused(WORDS ^ uint64(1 << bit, 0), WORDS, values=70)


def test_a_bit_of_the_tail_stands_for_no_value():
    text = refused(WORDS ^ uint64(0, 1 << 6), WORDS, values=70)
    assert "bit 6 of word 1 is 1, expected 0: it is in the tail, which is 0; 1 of 128 bits differ" in text


@pytest.mark.parametrize("words", [WORDS.view(np.int64), WORDS.view(np.int64).tolist(), WORDS.tolist(), tuple(WORDS),
                                   [WORDS[0], 0x2B], WORDS.astype(object)])  # fmt: skip
def test_words_in_other_types_and_in_lists(words):
    exercises.same(words, WORDS)


def test_words_in_floats_are_refused():
    assert "holds float64, expected words of uint64" in refused(uint64(2**63).astype(float), uint64(2**63))


def in_bits(words):
    return np.unpackbits(words.view(np.uint8), bitorder="little")


@pytest.mark.parametrize(
    "wrong, place",
    [
        (lambda: np.packbits(in_bits(WORDS)).view(">u8"), "bit 63"),
        (lambda: np.packbits(in_bits(WORDS)).view(np.uint64), "bit 7"),
        (WORDS.byteswap, "bit 56"),
        (lambda: WORDS[::-1], "bit 0 of word 1"),
        (lambda: np.packbits(in_bits(WORDS)[::-1], bitorder="little").view(np.uint64), "bit 63 of word 1"),
        (lambda: np.packbits(in_bits(WORDS)[69::-1].tolist() + [0] * 58, bitorder="little").view(np.uint64),
         "bit 5 of word 1"),
        (lambda: WORDS << np.uint64(1), "bit 1"),
    ],
)  # fmt: skip
def test_bits_in_another_order_are_told_by_the_place_of_value_0(wrong, place):
    text = refused(wrong().astype(np.uint64), WORDS, values=70)
    assert text.startswith("the result: value 0 belongs to bit 0") and text.endswith(f"yours is in {place}")


@pytest.mark.parametrize("values, mask", [(70, uint64(2**64 - 1, 2**6 - 1)), (None, uint64(2**64 - 1, 2**64 - 1))])
def test_inverted_bits_are_told(values, mask):
    assert "every bit is inverted" in refused(WORDS ^ mask, WORDS, values=values)


def test_whole_numbers_are_compared_as_whole_numbers():
    assert refused(2**53 + 1, 2**53) == "the result is 9007199254740993, expected 9007199254740992"
    assert refused(np.uint64(2**64 - 3), -3) == "the result is 18446744073709551613, expected -3"
    assert refused(2.0**53, 2**53 + 1) and refused(2.5, 2) and refused(float("nan"), 2) and refused(2**70, 5)
    for five in (5, 5.0, np.int8(5), np.uint64(5), np.float32(5), np.array(5)):
        exercises.same(five, 5)


def test_truth_values_are_compared_as_truth_values():
    expected = np.array([True, False])
    for right in ([True, False], (1, 0), np.array([1, 0], np.uint8), np.array([1.0, 0.0])):
        exercises.same(right, expected)
    assert refused([2, 0], expected) == "the result at (0,) is 2, expected True; 1 of 2 differ"
    assert refused([0.5, 0], expected)


# -------------------------------------------------------------------------------------------------- real numbers


def test_real_numbers_to_a_tolerance_of_the_largest():
    exercises.same(np.array([1.0, np.nan]), np.array([1.0 + 1e-9, np.nan]), tolerance=1e-6)
    exercises.same([1000.0005, 0.0], [1000.0, 0.0005], tolerance=1e-6)
    assert refused(0.001, 0.0005, 1e-3)  # small numbers are not all alike
    assert refused([1.0, np.nan], [1.0, 0.0], 1e-6) and refused(np.inf, 1.0, 1e-6)
    exercises.same([np.inf, -1e-13], [np.inf, 0.0], 1e-12)


def test_same_names_shape_place_and_number():
    with pytest.raises(AssertionError, match=r"the map has the shape \(2,\), expected \(3,\)"):
        exercises.same(np.zeros(2), np.zeros(3), what="the map")
    with pytest.raises(AssertionError, match=r"at \(1, 0\) is 5.0, expected 0.0; 1 of 4 differ$"):
        exercises.same(np.array([[0, 0], [5.0, 0]]), np.zeros((2, 2)))


def test_numbers_that_are_all_wrong_in_the_same_way():
    x = np.random.default_rng(0).standard_normal((3, 4))
    assert refused(-x, x).endswith("12 of 12 differ; every sign is reversed")
    assert refused(9 * x, x, 1e-9).endswith("all are 9 times what is expected")
    assert refused(x - 2, x, 1e-9).endswith("all are 2 too small")
    assert refused(x[::-1], x, 1e-9).endswith("8 of 12 differ")


@pytest.mark.parametrize(
    "got, text",
    [
        ("abc", "the result is the text 'abc', expected numbers of the shape (2, 2)"),
        ([[1, 2], [3]], "the result has rows of several lengths"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], "the result has rows of several lengths"),
        ([["a", 1], [2, 3]], "the result is a list with the text 'a' in it"),
        ({1: 2}, "the result is a dict"),
        (None, "the result is None"),
        ([1, None], "the result is a list with None in it"),
        (1j, "the result is the number 1j"),
        (lambda: 1, "the result is a function"),
    ],
)
def test_what_is_no_array_of_numbers(got, text):
    assert refused(got, np.zeros((2, 2))).startswith(text)


# ------------------------------------------------------------------------------------------------ several pieces

DX, DGAMMA, DBETA = np.random.default_rng(1).standard_normal((4, 3, 4, 3)), np.arange(1.0, 4), np.arange(4.0, 7)
PIECES = {"dx": DX, "dgamma": DGAMMA, "dbeta": DBETA}


def wrong_pieces(got, expected=PIECES, **options):
    with pytest.raises(AssertionError) as error:
        exercises.parts(got, expected, 1e-9, **options)
    return str(error.value)


@pytest.mark.parametrize("kind", [tuple, list, lambda pieces: np.array(pieces, dtype=object)])
def test_pieces_come_in_any_sequence(kind):
    exercises.parts(kind([DX, DGAMMA, DBETA]), PIECES)
    exercises.parts(kind([1, 2.5]), {"a": 1, "b": 2.5})


def test_pieces_stacked_in_one_array():
    exercises.parts(np.array([1.0, 2.5]), {"a": 1.0, "b": 2.5})
    exercises.parts(np.stack([DGAMMA, DBETA]), {"dgamma": DGAMMA, "dbeta": DBETA})


def test_the_first_wrong_piece_is_named_and_the_right_ones_are():
    text = wrong_pieces((DX, DGAMMA, DBETA + [0, 1, 0]))
    assert text == "dbeta at (1,) is 6.0, expected 5.0; 1 of 3 differ (right: dx, dgamma)"
    assert wrong_pieces((2 * DX, DGAMMA + 1, DBETA)).endswith("all are 2 times what is expected (right: dbeta)")
    assert wrong_pieces((DX, None, DBETA), what="for stride 2").startswith("for stride 2: dgamma is None")
    with pytest.raises(exercises.NotDone):
        exercises.parts((DX, ..., DBETA), PIECES)


def test_a_piece_has_its_own_scale():
    assert wrong_pieces([1000.0, 2e-10], {"a": 1000.0, "b": 1e-10}).startswith("b is 2e-10, expected 1e-10 (right: a)")


@pytest.mark.parametrize(
    "got, came",
    [
        (DX, "one array of the shape (4, 3, 4, 3)"), ((DX, DGAMMA), "a tuple of 2"), ({"dx": DX}, "a dict"),
        (3, "the number 3"), (np.float64(3), "the number 3.0"), ("dx", "the text 'dx'"), (None, "None"),
    ],
)  # fmt: skip
def test_what_came_in_the_place_of_pieces(got, came):
    assert wrong_pieces(got) == f"expected (dx, dgamma, dbeta), got {came}"


# ------------------------------------------------------------------------------------------------- a test's test


def equal_to_one(thing):
    assert thing == 1


def test_catches_wants_good_code_passed_and_every_fault_noticed():
    exercises.catches(equal_to_one, 1, {"two": 2, "three": 3})
    with pytest.raises(AssertionError, match="does not notice: one"):
        exercises.catches(equal_to_one, 1, {"two": 2, "one": 1})
    with pytest.raises(AssertionError, match="^your test refuses a correct kernel"):
        exercises.catches(equal_to_one, 2, {})
    with pytest.raises(exercises.NotDone):
        exercises.catches(lambda thing: ..., 1, {})


def test_a_test_that_refuses_right_code_is_shown_its_case():
    def wrong_test(dot):
        assert dot(uint64(3), b=uint64(5), n=70) == 0, "for n = 70"

    with pytest.raises(AssertionError) as error:
        exercises.catches(wrong_test, lambda a, b, n: 66, {})
    text = "your test refuses a correct kernel: a = [3], b = [5], n = 70 -> 66 is right: for n = 70"
    assert str(error.value).startswith(text)


def test_a_test_that_returns_its_verdict_is_told_to_raise():
    with pytest.raises(AssertionError, match=r"does not notice: two \(it returned False; it has to raise an Assert"):
        exercises.catches(lambda thing: thing == 1, 1, {"two": 2})
