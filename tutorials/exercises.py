"""Checks of exercises: they compare what an answer returns, and say what is wrong so that a student can go on.

A check gets an `Answer` in the place of each function of the student's. That passes copies on, so that no answer can
change what its check computes with. An exercise that nobody has touched returns ``...``, and its check says "not done
yet". A check raises only while grading.
"""

import hashlib
import inspect
import numbers
import os
import re

import numpy as np

ROUNDS = 3  # how often a check draws new cases
WORDS = 25  # that a written answer needs
WORD_BITS = 64
MOST_SHOWN = 8  # numbers of an array in a message


class NotDone(Exception):
    """Nobody has touched the exercise, or the part of it that is named."""


class CheckFailed(AssertionError):
    """Raised by a check while grading."""


# ------------------------------------------------------------------------------------------------- running a check


def _grading():
    return os.environ.get("HBN_GRADE_SEED")


def check(number, *answers, none=False):
    """Decorate the check of an exercise, a function (rng, *answers): it runs at once, on cases that rng draws.

    It says "right", "not done yet" or what is wrong; while grading it raises unless all is right. Functions come to the
    check as an `Answer`. With ``none=True`` they may return None.
    """

    def run(function):
        given = [Answer(answer, none) if callable(answer) else answer for answer in answers]
        secret = int.from_bytes(hashlib.sha256((_grading() or "").encode()).digest()[:8], "big")
        try:
            if any(answer is None or answer is Ellipsis for answer in given):
                raise NotDone
            for round_ in range(ROUNDS):
                function(np.random.default_rng([secret, round_]), *given)
        except NotDone as part:
            named = f": {part}" if len(answers) > 1 and str(part) else ""
            _verdict(number, f"not done yet{named}")
        except Exception as error:
            reason = str(error).strip() or type(error).__name__
            _verdict(number, f"not right yet. {reason}" if isinstance(error, AssertionError)
                     else f"not right yet: it ends with {type(error).__name__}: {reason}")  # fmt: skip
        else:
            print(f"{number}: right")
        return None

    return run


def _verdict(number, text):
    if _grading():
        raise CheckFailed(f"{number}: {text}")
    print(f"{number}: {text}")


class Answer:
    """A student's function, called with copies. ``given`` holds those of the last call, as it left them."""

    def __init__(self, function, none=False):
        self.function, self.none, self.given = function, none, ()
        self.name = getattr(function, "__name__", "it")

    def __call__(self, *args, **options):
        self.given = copied(args)
        try:
            found = self.function(*self.given, **copied(options))
        except AssertionError as error:
            raise AssertionError(f"{self.name} ends with an AssertionError{_after(error)}") from error
        if found is Ellipsis:
            raise NotDone(self.name)
        if found is None and not self.none:
            raise AssertionError(f"{self.name} returned nothing: does it end with a `return`?")
        return found


def copied(value):
    """Copy arrays, and the lists, tuples, dicts and sets that hold them; anything else stays what it is."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if type(value) in (list, tuple, set):
        return type(value)(copied(item) for item in value)
    return {key: copied(item) for key, item in value.items()} if type(value) is dict else value


def _after(error):
    text = str(error).strip()
    return f": {text}" if text else ""


# --------------------------------------------------------------------------------------------------- comparing


def same(got, expected, tolerance=0.0, what="the result", values=None):
    """Raise if an answer is ``...`` (not done), or not what is expected. Arrays, lists and tuples are alike.

    Whole numbers, truth values and words (uint64) are compared as what they are, real numbers to ``tolerance`` times
    the largest expected. ``values`` is how many values a row of words holds: a message calls bits after them the tail.
    """
    if got is Ellipsis:
        raise NotDone
    expected = np.asarray(expected)
    array = _array(got, expected, what)
    compare = _same_words if expected.dtype == np.uint64 else _same_numbers
    compare(array, expected, tolerance, what, values)


def parts(got, expected, tolerance=0.0, what="it"):
    """Compare an answer of several pieces with {name: what is expected}, and name the first wrong piece.

    Each piece is compared by itself, to ``tolerance`` times its own largest number.
    """
    wrong, right = [], []
    found = pieces(got, *expected.values(), names=tuple(expected), what=what)
    for (name, value), piece in zip(expected.items(), found, strict=True):
        try:
            same(piece, value, tolerance, name if what == "it" else f"{what}: {name}")
            right.append(name)
        except AssertionError as error:
            wrong.append(str(error))
    if wrong:
        others = f" (right: {', '.join(right)})" if right else ""
        raise AssertionError(wrong[0] + others)


def pieces(got, *expected, names, what="it"):
    """Return the pieces of an answer in a list, or say what came instead.

    A tuple and a list are alike; so is an array, if it holds pieces of the shapes of ``expected``.
    """
    if got is Ellipsis:
        raise NotDone
    wanted = f"{'' if what == 'it' else f'{what}: '}expected ({', '.join(names)})"
    if isinstance(got, np.ndarray):
        stacked = got.ndim and len(got) == len(names) and all(got.shape[1:] == np.shape(value) for value in expected)
        if got.dtype != object and not stacked:
            raise AssertionError(f"{wanted}, got one array of the shape {got.shape}")
    elif not isinstance(got, (list, tuple)):
        raise AssertionError(f"{wanted}, got {_a(got)}")
    if len(got) != len(names):
        raise AssertionError(f"{wanted}, got {_a(got)} of {len(got)}")
    return list(got)


def array(got, shape, kind, what):
    """Return an answer as an array of ``kind`` (bool, int or float) and of this shape, or say what came instead."""
    if got is Ellipsis:
        raise NotDone
    found = _array(got, np.empty(shape, kind), what)
    if kind is not float:
        fits = (found == 0) | (found == 1) if kind is bool else np.equal(found, np.floor(found.astype(np.float64)))
        if not fits.all():
            at = tuple(int(i) for i in np.argwhere(~fits)[0])
            wanted = "True or False" if kind is bool else "a whole number"
            raise AssertionError(f"{what} at {at} is {found[at]}, expected {wanted}")
    return found.astype(kind)


def _array(got, expected, what):
    """Return an answer as an array of the expected shape; whole numbers in a list stay whole, however large."""
    wanted = f"expected {_described(expected)}"
    if got is None:
        raise AssertionError(f"{what} is None, {wanted}")
    try:
        array = np.asarray(got) if hasattr(got, "dtype") else np.array(got, dtype=object)
    except ValueError:  # lists whose lengths differ
        raise AssertionError(f"{what} has rows of several lengths, {wanted}") from None
    if array.dtype == object:
        if array.ndim and any(isinstance(item, (list, tuple)) for item in array.flat):
            raise AssertionError(f"{what} has rows of several lengths, {wanted}")
        array = _typed(array)
    if array is None or array.dtype.kind not in "biufO":
        raise AssertionError(f"{what} is {_a(got)}{_holding(got)}, {wanted}")
    if array.shape != expected.shape:
        raise AssertionError(f"{what} has the shape {array.shape}, expected {expected.shape}")
    return array


def _typed(array):
    """Return an array of objects as booleans, whole numbers (int64, or Python's if they are larger) or float64."""
    items = [
        item.item() if isinstance(item, np.ndarray) and item.ndim == 0 else item for item in array.ravel().tolist()
    ]
    if all(isinstance(item, (bool, np.bool_)) for item in items):
        return np.array(items, bool).reshape(array.shape)
    if all(isinstance(item, (numbers.Integral, np.bool_)) for item in items):
        small = all(-(2**63) <= int(item) < 2**63 for item in items)
        return np.array([int(item) for item in items], np.int64 if small else object).reshape(array.shape)
    if all(isinstance(item, (numbers.Real, np.bool_)) for item in items):
        return np.array(items, np.float64).reshape(array.shape)
    return None


def _same_words(got, expected, _, what, values):
    if got.dtype.kind not in "iuO":
        raise AssertionError(f"{what} holds {got.dtype}, expected words of uint64: no other type has all 64 bits")
    words = np.array([int(word) % 2**WORD_BITS for word in got.ravel().tolist()], np.uint64).reshape(got.shape)
    if not np.array_equal(words, expected):
        raise AssertionError(f"{what}: {_wrong_bits(words, expected, values)}")


def _bits(words):
    """Words (..., W) -> truth values (..., W, 64), bit 0 first."""
    return (words[..., None] >> np.arange(WORD_BITS, dtype=np.uint64) & np.uint64(1)).astype(bool)


def _wrong_bits(got, expected, values):
    """Say where value 0 went if all bits changed places, else which bit is the first wrong one."""
    got, expected = _bits(np.atleast_1d(got)), _bits(np.atleast_1d(expected))
    count = expected.shape[-2] * WORD_BITS
    used = (np.arange(count) < (count if values is None else values)).reshape(expected.shape[-2:])
    wrong = got != expected
    if np.array_equal(wrong, np.broadcast_to(used, wrong.shape)) or wrong.all():
        return "every bit is inverted; 1 stands for +1, 0 for -1 and for the tail"
    for word, bit, turned in _turned(expected, used):
        if np.array_equal(got, turned):
            return f"value 0 belongs to bit 0{' of word 0' if word else ''}; yours is in bit {bit}" + (
                f" of word {word}" if word else ""
            )
    *pixel, word, bit = (int(i) for i in np.argwhere(wrong)[0])
    value = word * WORD_BITS + bit
    stands = f"it stands for value {value}" if used[word, bit] else "it is in the tail, which is 0"
    where = f"at {tuple(pixel)}, " if pixel else ""
    is_, should = (int(bits[(*pixel, word, bit)]) for bits in (got, expected))
    share = f"{wrong.sum():,} of {wrong.size:,} bits differ"
    return f"{where}bit {bit} of word {word} is {is_}, expected {should}: {stands}; {share}"


def _turned(bits, used):
    """Yield (word, bit, bits) for other orders: where value 0 is then, and what the right bits look like in it."""
    last = bits.shape[-2] - 1
    by_byte = (*bits.shape[:-1], 8, 8)
    for axes in ((-1, -2), (-1,), (-2,), (-3, -1, -2), (-3,), (-3, -1), (-3, -2)):
        if last or -3 not in axes:
            bit = (7 if -1 in axes else 0) + (56 if -2 in axes else 0)
            yield last if -3 in axes else 0, bit, np.flip(bits.reshape(by_byte), axes).reshape(bits.shape)
    yield 0, 1, np.concatenate([np.zeros_like(bits[..., :1]), bits[..., :-1]], axis=-1)  # all moved up by one
    flat = bits.reshape(*bits.shape[:-2], -1)
    count = int(used.sum())
    back = np.concatenate([flat[..., :count][..., ::-1], flat[..., count:]], axis=-1)  # the values from last to first
    yield *divmod(count - 1, WORD_BITS), back.reshape(bits.shape)
    back = bits.copy()
    for word, own in enumerate(used.sum(axis=1)):  # the same in each word
        back[..., word, :own] = bits[..., word, :own][..., ::-1]
    yield 0, int(used[0].sum()) - 1, back


def _same_numbers(got, expected, tolerance, what, _):
    whole = expected.dtype.kind in "biu"
    if whole:
        wrong = _unequal(got, expected)
    else:
        got, exact = got.astype(np.float64), expected.astype(np.float64)
        scale = np.abs(exact[np.isfinite(exact)]).max(initial=0.0) or 1.0
        with np.errstate(invalid="ignore"):
            near = (got == exact) | (np.abs(got - exact) <= tolerance * scale) | (np.isnan(got) & np.isnan(exact))
        wrong = ~near
    if not wrong.any():
        return
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    place = f" at {at}" if at else ""
    share = f"; {wrong.sum():,} of {wrong.size:,} differ" if wrong.size > 1 else ""
    share += _pattern(got, expected, tolerance)
    raise AssertionError(f"{what}{place} is {got[at]}, expected {expected[at]}{share}")


def _unequal(got, expected):
    """Return where whole numbers differ. Python compares unlike types, as it rounds none of them."""
    if got.dtype == expected.dtype or got.dtype == bool or expected.dtype == bool:
        return np.asarray(got != expected)
    pairs = zip(got.ravel().tolist(), expected.ravel().tolist(), strict=True)
    return np.array([a != b for a, b in pairs], bool).reshape(expected.shape)


def _pattern(got, expected, tolerance):
    """A remark if all numbers of an array are wrong in the same way."""
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    if got.size < 4 or not np.isfinite(got).all() or not np.ptp(expected):
        return ""
    used = expected != 0
    if (got[~used] == 0).all():
        ratios = got[used] / expected[used]
        if np.ptp(ratios) <= 1e-6 * np.abs(ratios).max() and abs(ratios[0] - 1) > 1e-6:
            factor = np.median(ratios)
            return "; every sign is reversed" if factor == -1 else f"; all are {factor:.4g} times what is expected"
    apart = got - expected
    if np.ptp(apart) <= max(tolerance, 1e-9) * np.abs(expected).max() and abs(apart.flat[0]) > tolerance:
        return f"; all are {abs(np.median(apart)):.4g} too {'large' if apart.flat[0] > 0 else 'small'}"
    return ""


# ------------------------------------------------------------------------------- a student's own test, and words


def catches(test, good, faults, kernel="kernel"):
    """Check a student's own test: it passes ``good`` and raises AssertionError for each of ``faults`` {name: thing}.

    A message calls them ``kernel``.
    """
    test, calls = getattr(test, "function", test), []

    def watched(*args, **options):
        calls[:] = [(copied(args), copied(options), None)]
        result = good(*args, **options)
        calls[:] = [(*calls[0][:2], copied(result))]
        return result

    try:
        said = test(watched if callable(good) else good)
    except AssertionError as error:
        case = f": {_call(good, *calls[0])} is right" if calls else ""
        raise AssertionError(f"your test refuses a correct {kernel}{case}{_after(error)}") from error
    if said is Ellipsis:
        raise NotDone
    for name, fault in faults.items():
        try:
            said = test(fault)
        except AssertionError:
            continue
        returned = "" if said is None else f" (it returned {_brief(said)}; it has to raise an AssertionError)"
        raise AssertionError(f"your test does not notice: {name}{returned}")


def _call(function, args, options, result):
    """A call in a line, such as "a = [3], b = [5], n = 70 -> 66"."""
    try:
        named = inspect.signature(function).bind(*args, **options).arguments
    except (TypeError, ValueError):
        named = {f"argument {k}": value for k, value in enumerate(args)} | options
    return ", ".join(f"{name} = {_brief(value)}" for name, value in named.items()) + f" -> {_brief(result)}"


def _brief(value):
    if isinstance(value, np.ndarray) and value.size > MOST_SHOWN:
        return f"{value.dtype} {value.shape}"
    if isinstance(value, (np.ndarray, np.generic)):
        return str(value.tolist())
    return f"({', '.join(map(_brief, value))})" if isinstance(value, tuple) else repr(value)


def words(number, text):
    """A written answer: its words are counted here, the teacher marks it."""
    count = len(re.findall(r"\w+", str(text)))
    print(f"{number}: {'not done yet' if count < WORDS else f'{count} words, for your teacher to read'}")


# ------------------------------------------------------------------------------------------ how things are named


def _a(value):
    """What something is, with its article: "a list", "one array of the shape (2,)"."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}, shape {value.shape}"
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 60 else f"a text that begins with {value[:40]!r}"
    if isinstance(value, (numbers.Number, np.generic)):
        return f"the number {value}"
    if value is None:
        return "None"
    name = "function" if callable(value) else type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _holding(value):
    """ " with a str in it", for a list whose elements are not numbers."""
    while isinstance(value, (list, tuple)) and value:
        odd = [item for item in value if not isinstance(item, numbers.Number)]
        if not odd or isinstance(odd[0], (list, tuple)):
            value = odd[0] if odd else None
            continue
        return f" with {_a(odd[0])} in it"
    return ""


def _described(expected):
    if expected.dtype == np.uint64:
        return f"words (uint64) of the shape {expected.shape}" if expected.shape else "one word (uint64)"
    kind = {"b": "truth value", "i": "whole number", "u": "whole number"}.get(expected.dtype.kind, "number")
    return f"{kind}s of the shape {expected.shape}" if expected.shape else f"one {kind}"
