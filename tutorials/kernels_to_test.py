"""Five convolutions of bits for exercise 3.4, two of them faulty, and the cases on which to find out which.

It is more fun not to read on: each fault can be guessed from the smallest case that a kernel gets wrong.
"""

import functools

import numpy as np

from hbn_ref import conv, reference, testing

CASES = sorted((case for case in testing.conv_cases() if case.macs() < 30_000), key=testing.ConvCase.macs)[::3]
LETTERS = "ABCDE"


@functools.cache
def truth(case):
    """The right counts of a case."""
    counts = reference.xnor_conv2d_forward(*case.arrays(), scale=False, **case.options())
    counts.setflags(write=False)  # kept, so that many kernels can be held against it
    return counts


def draw(rng):
    """Five kernels by their letters, and which letters are faulty."""
    kernels = [_run, _halves, _steps, *(FAULTS[i] for i in rng.permutation(len(FAULTS))[:2])]
    order = rng.permutation(5)
    faulty = {letter for letter, i in zip(LETTERS, order) if i > 2}
    return {letter: kernels[i] for letter, i in zip(LETTERS, order)}, faulty


def _run(x, w, **options):
    return conv.xnor_conv2d_forward(x, w, scale=False, need_cache=False, **options)[0]


def _halves(x, w, **options):
    half = x.shape[3] // 2
    if half < 2:
        return _run(x, w, **options)
    return _run(x[..., :half], w[:, :, :half], **options) + _run(x[..., half:], w[:, :, half:], **options)


def _steps(x, w, stride, **options):
    down, right = reference.pair(stride)
    return _run(x, w, stride=1, **options)[:, ::down, ::right]


FAULTS = (
    lambda x, w, stride, **options: _run(x, w, stride=reference.pair(stride)[0], **options),
    lambda x, w, **options: _run(np.where(x > 0, x, -1), w, **options),
    lambda x, w, **options: _run(x[..., :128], w[:, :, :128], **options),
    lambda x, w, **options: _run(x, w[::-1, ::-1], **options),
    lambda x, w, **options: _run(x, w, **options).astype(np.int64).astype(np.int8),
    lambda x, w, pad_value, **options: _run(x, w, pad_value=1 if pad_value else 0, **options),
)
