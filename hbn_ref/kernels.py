"""The engine room: every compiled loop of the package, in one file.

Why one file: Numba's on-disk cache watches the file that a kernel lives in, not the files its helpers come from.

Each kernel works on the half-open range ``start..stop`` of its outermost index and writes only what belongs to
that range, so `run` may cut the work into pieces for several threads and the result never depends on how.
Kernels trust their arguments: shapes and types are checked by the chapters that call them. With
``NUMBA_DISABLE_JIT=1`` the same functions run as plain Python, slowly, for debugging and coverage.

Vocabulary of the products: ``x`` is a padded input, flattened; ``base[m]`` is where output pixel m's patch begins in
it, ``off[k]`` how far patch element k lies from there. One table each, and no copy of the patches is ever made.
"""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from numba import config, njit, types
from numba.extending import intrinsic

JIT = not config.DISABLE_JIT
BLOCK = 512  # rows summed into one partial sum: fixed, so float sums do not depend on the thread count
_OPTIONS = {"nogil": True, "error_model": "numpy", "cache": True}
_FLOAT = {**_OPTIONS, "fastmath": {"contract"}}  # allow a*b + c in one rounding, no reordering of sums


# ---------------------------------------------------------------------------------------------- threads


def _default_threads():
    wanted = os.environ.get("HBN_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_threads = _default_threads()
_pool = None


def _forget_pool():
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # a forked child has no worker threads: let it start its own
    os.register_at_fork(after_in_child=_forget_pool)


def get_num_threads():
    """Return how many threads kernels may use."""
    return _threads


def set_num_threads(threads):
    """Use ``threads`` threads in kernels from now on. No result depends on the number."""
    global _threads, _pool
    if not isinstance(threads, (int, np.integer)) or threads < 1:
        raise ValueError(f"threads: expected a whole number of at least 1, got {threads!r}")
    _threads, _pool = int(threads), None


@contextmanager
def threads(number):
    """Within the block, use ``number`` threads."""
    before = get_num_threads()
    set_num_threads(number)
    try:
        yield
    finally:
        set_num_threads(before)


def run(kernel, n, *args, work=0):
    """Call ``kernel(start, stop, *args)`` over pieces of ``range(n)``, on several threads where it pays.

    ``work`` is a rough count of elementary operations. Returns True if any piece returned something true.
    """
    global _pool
    if _threads == 1 or work < 500_000 or not JIT:
        return bool(kernel(0, n, *args))
    count, pool = _threads, _pool  # another Python thread may change the globals meanwhile
    if pool is None:
        pool = _pool = ThreadPoolExecutor(count - 1, thread_name_prefix="hbn")
    step = max(4, -(-n // (4 * count)) + 3 & ~3)  # about four pieces a thread, in multiples of four rows
    pieces = itertools.count(0, step)  # next() is atomic: whoever is free takes the next piece

    def worker():
        found = False
        while (start := next(pieces)) < n:
            found |= bool(kernel(start, min(start + step, n), *args))
        return found

    others = [pool.submit(worker) for _ in range(count - 1)]
    found = worker()
    return any([found, *(other.result() for other in others)])


# ------------------------------------------------------------------------------------------ bits and words

if JIT:

    @intrinsic
    def popcount(typingctx, word):
        """Number of ones in a uint64, as int64 (int64 + uint64 would be a float in Numba)."""

        def codegen(context, builder, signature, args):
            return builder.ctpop(args[0])  # one machine instruction, vpopcntq where the processor has it

        return types.int64(types.uint64), codegen

else:

    def popcount(word):
        return int(word).bit_count()


@njit(**_OPTIONS)
def pack_signs(start, stop, x, words):
    """words[r] = the sign bits of row x[r], 1 for x >= 0; returns whether a NaN was met."""
    channels = x.shape[1]
    nan = False
    for r in range(start, stop):
        for first in range(0, channels, 64):
            word = np.uint64(0)
            bad = 0
            for c in range(min(64, channels - first)):
                v = x[r, first + c]
                word |= np.uint64(v >= 0) << np.uint64(c)
                bad |= v != v
            words[r, first // 64] = word
            nan |= bad != 0
    return nan


@njit(**_OPTIONS)
def pack_inside(start, stop, x, words):
    """words[r] = one bit per channel: 1 where |x| < 1, the window of the straight-through estimator."""
    channels = x.shape[1]
    for r in range(start, stop):
        for first in range(0, channels, 64):
            word = np.uint64(0)
            for c in range(min(64, channels - first)):
                word |= np.uint64(abs(x[r, first + c]) < 1) << np.uint64(c)
            words[r, first // 64] = word


@njit(**_OPTIONS)
def unpack_rows(start, stop, words, x):
    """x[r] = +1 where the bit of words[r] is 1, -1 where it is 0."""
    for r in range(start, stop):
        for c in range(x.shape[1]):
            bit = (words[r, c >> 6] >> np.uint64(c & 63)) & np.uint64(1)
            x[r, c] = 2 * np.int64(bit) - 1


@njit(**_OPTIONS)
def clear_rows(start, stop, words, x):
    """x[r] = 0 in place wherever the bit of words[r] is 0."""
    for r in range(start, stop):
        for c in range(x.shape[1]):
            x[r, c] *= np.int64((words[r, c >> 6] >> np.uint64(c & 63)) & np.uint64(1))


@njit(**_OPTIONS)
def pack_columns(start, stop, w, words):
    """words[t, k, j] = sign bits over the channels of tap k // W, word k % W, of filter t * lanes + j.

    w is (taps, C_in, C_out). Filters are innermost, so neighbouring words are made side by side.
    """
    channels, filters = w.shape[1], w.shape[2]
    per_tap, lanes = -(-channels // 64), words.shape[2]
    nan = False
    for k in range(start, stop):
        tap, first = k // per_tap, k % per_tap * 64
        for t in range(words.shape[0]):
            row = words[t, k]
            row[:] = 0
            for c in range(min(64, channels - first)):
                bad = 0
                for j in range(min(lanes, filters - t * lanes)):
                    v = w[tap, first + c, t * lanes + j]
                    row[j] |= np.uint64(v >= 0) << np.uint64(c)
                    bad |= v != v
                nan |= bad != 0
    return nan


# ----------------------------------------------------------------------------------- the gather products


@njit(**_OPTIONS)
def _scale_row(out, alpha, total, count, n):
    for j in range(n):  # its own small loop: with four pixels' pointers in one loop LLVM stops vectorising
        out[j] = alpha[j] * (total[j] - 2 * count[j])


def _make_xnor_gather(lanes):
    @njit(**_OPTIONS)
    def xnor_gather(start, stop, x, base, off, w, total, kind, alpha, out):
        """out[m, o] = alpha[o] * (total[kind[m % P], o] - 2 sum_k popcount(x[base[m] + off[k]] ^ w[k, o])).

        w is tile-major, (tiles, K, lanes). Four pixels and four words at a time keep the counts close to the
        processor. ``total`` is n plus what the padded taps wrongly took away, one row per kind of border pixel.
        """
        c0, c1, c2, c3 = (np.empty(lanes, np.int64), np.empty(lanes, np.int64),
                          np.empty(lanes, np.int64), np.empty(lanes, np.int64))  # fmt: skip
        words, pixels = off.size, kind.size
        for t in range(w.shape[0]):
            first = t * lanes
            n = min(lanes, out.shape[1] - first)
            for m in range(start, stop, 4):  # the last group repeats its last pixel: same value, written twice
                m1, m2, m3 = min(m + 1, stop - 1), min(m + 2, stop - 1), min(m + 3, stop - 1)
                b0, b1, b2, b3 = base[m], base[m1], base[m2], base[m3]
                c0[:], c1[:], c2[:], c3[:] = 0, 0, 0, 0
                for k in range(words % 4):
                    x0, x1, x2, x3 = x[b0 + off[k]], x[b1 + off[k]], x[b2 + off[k]], x[b3 + off[k]]
                    for j in range(lanes):
                        c0[j] += popcount(x0 ^ w[t, k, j])
                        c1[j] += popcount(x1 ^ w[t, k, j])
                        c2[j] += popcount(x2 ^ w[t, k, j])
                        c3[j] += popcount(x3 ^ w[t, k, j])
                for k in range(words % 4, words, 4):
                    o0, o1, o2, o3 = off[k], off[k + 1], off[k + 2], off[k + 3]
                    x00, x01, x02, x03 = x[b0 + o0], x[b0 + o1], x[b0 + o2], x[b0 + o3]
                    x10, x11, x12, x13 = x[b1 + o0], x[b1 + o1], x[b1 + o2], x[b1 + o3]
                    x20, x21, x22, x23 = x[b2 + o0], x[b2 + o1], x[b2 + o2], x[b2 + o3]
                    x30, x31, x32, x33 = x[b3 + o0], x[b3 + o1], x[b3 + o2], x[b3 + o3]
                    for j in range(lanes):
                        w0, w1, w2, w3 = w[t, k, j], w[t, k + 1, j], w[t, k + 2, j], w[t, k + 3, j]
                        c0[j] += popcount(x00 ^ w0) + popcount(x01 ^ w1) + popcount(x02 ^ w2) + popcount(x03 ^ w3)
                        c1[j] += popcount(x10 ^ w0) + popcount(x11 ^ w1) + popcount(x12 ^ w2) + popcount(x13 ^ w3)
                        c2[j] += popcount(x20 ^ w0) + popcount(x21 ^ w1) + popcount(x22 ^ w2) + popcount(x23 ^ w3)
                        c3[j] += popcount(x30 ^ w0) + popcount(x31 ^ w1) + popcount(x32 ^ w2) + popcount(x33 ^ w3)
                _scale_row(out[m, first:], alpha[first:], total[kind[m % pixels], first:], c0, n)
                _scale_row(out[m1, first:], alpha[first:], total[kind[m1 % pixels], first:], c1, n)
                _scale_row(out[m2, first:], alpha[first:], total[kind[m2 % pixels], first:], c2, n)
                _scale_row(out[m3, first:], alpha[first:], total[kind[m3 % pixels], first:], c3, n)

    return xnor_gather


@njit(**_OPTIONS)
def _copy_row(out, values, n):
    for j in range(n):
        out[j] = values[j]


def _make_float_gather(lanes):
    @njit(**_FLOAT)
    def float_gather(start, stop, x, base, off, w, out):
        """out[m, o] = sum_k x[base[m] + off[k]] * w[k, o]; w is tile-major, (tiles, K, lanes). The float twin."""
        a0, a1, a2, a3 = (np.empty(lanes, x.dtype), np.empty(lanes, x.dtype),
                          np.empty(lanes, x.dtype), np.empty(lanes, x.dtype))  # fmt: skip
        size = off.size
        for t in range(w.shape[0]):
            first = t * lanes
            n = min(lanes, out.shape[1] - first)
            for m in range(start, stop, 4):
                m1, m2, m3 = min(m + 1, stop - 1), min(m + 2, stop - 1), min(m + 3, stop - 1)
                b0, b1, b2, b3 = base[m], base[m1], base[m2], base[m3]
                a0[:], a1[:], a2[:], a3[:] = 0, 0, 0, 0
                for k in range(size % 4):
                    x0, x1, x2, x3 = x[b0 + off[k]], x[b1 + off[k]], x[b2 + off[k]], x[b3 + off[k]]
                    for j in range(lanes):
                        a0[j] += x0 * w[t, k, j]
                        a1[j] += x1 * w[t, k, j]
                        a2[j] += x2 * w[t, k, j]
                        a3[j] += x3 * w[t, k, j]
                for k in range(size % 4, size, 4):
                    o0, o1, o2, o3 = off[k], off[k + 1], off[k + 2], off[k + 3]
                    x00, x01, x02, x03 = x[b0 + o0], x[b0 + o1], x[b0 + o2], x[b0 + o3]
                    x10, x11, x12, x13 = x[b1 + o0], x[b1 + o1], x[b1 + o2], x[b1 + o3]
                    x20, x21, x22, x23 = x[b2 + o0], x[b2 + o1], x[b2 + o2], x[b2 + o3]
                    x30, x31, x32, x33 = x[b3 + o0], x[b3 + o1], x[b3 + o2], x[b3 + o3]
                    for j in range(lanes):
                        w0, w1, w2, w3 = w[t, k, j], w[t, k + 1, j], w[t, k + 2, j], w[t, k + 3, j]
                        a0[j] = a0[j] + x00 * w0 + x01 * w1 + x02 * w2 + x03 * w3
                        a1[j] = a1[j] + x10 * w0 + x11 * w1 + x12 * w2 + x13 * w3
                        a2[j] = a2[j] + x20 * w0 + x21 * w1 + x22 * w2 + x23 * w3
                        a3[j] = a3[j] + x30 * w0 + x31 * w1 + x32 * w2 + x33 * w3
                _copy_row(out[m, first:], a0, n)
                _copy_row(out[m1, first:], a1, n)
                _copy_row(out[m2, first:], a2, n)
                _copy_row(out[m3, first:], a3, n)

    return float_gather


def _make_weight_gather(lanes):
    @njit(**_FLOAT)
    def weight_gather(start, stop, x, base, off, dout, dw):
        """dw[k, o] += sum_m x[base[m] + off[k]] * dout[m, o]: the forward product with base and off exchanged.

        dout is (M, tiles, lanes), dw (K, tiles, lanes). Pixels are summed in blocks of BLOCK, which keeps dout in
        the cache and the rounding small; the order of the sums is fixed whatever the number of threads.
        """
        a0, a1, a2, a3 = (np.empty(lanes, x.dtype), np.empty(lanes, x.dtype),
                          np.empty(lanes, x.dtype), np.empty(lanes, x.dtype))  # fmt: skip
        for begin in range(0, base.size, BLOCK):
            end = min(begin + BLOCK, base.size)
            for t in range(dout.shape[1]):
                for k in range(start, stop, 4):
                    k1, k2, k3 = min(k + 1, stop - 1), min(k + 2, stop - 1), min(k + 3, stop - 1)
                    o0, o1, o2, o3 = off[k], off[k1], off[k2], off[k3]
                    a0[:], a1[:], a2[:], a3[:] = 0, 0, 0, 0
                    for m in range(begin, begin + (end - begin) % 4):
                        x0, x1, x2, x3 = x[base[m] + o0], x[base[m] + o1], x[base[m] + o2], x[base[m] + o3]
                        for j in range(lanes):
                            a0[j] += x0 * dout[m, t, j]
                            a1[j] += x1 * dout[m, t, j]
                            a2[j] += x2 * dout[m, t, j]
                            a3[j] += x3 * dout[m, t, j]
                    for m in range(begin + (end - begin) % 4, end, 4):
                        b0, b1, b2, b3 = base[m], base[m + 1], base[m + 2], base[m + 3]
                        x00, x01, x02, x03 = x[b0 + o0], x[b1 + o0], x[b2 + o0], x[b3 + o0]
                        x10, x11, x12, x13 = x[b0 + o1], x[b1 + o1], x[b2 + o1], x[b3 + o1]
                        x20, x21, x22, x23 = x[b0 + o2], x[b1 + o2], x[b2 + o2], x[b3 + o2]
                        x30, x31, x32, x33 = x[b0 + o3], x[b1 + o3], x[b2 + o3], x[b3 + o3]
                        for j in range(lanes):
                            d0, d1 = dout[m, t, j], dout[m + 1, t, j]
                            d2, d3 = dout[m + 2, t, j], dout[m + 3, t, j]
                            a0[j] = a0[j] + x00 * d0 + x01 * d1 + x02 * d2 + x03 * d3
                            a1[j] = a1[j] + x10 * d0 + x11 * d1 + x12 * d2 + x13 * d3
                            a2[j] = a2[j] + x20 * d0 + x21 * d1 + x22 * d2 + x23 * d3
                            a3[j] = a3[j] + x30 * d0 + x31 * d1 + x32 * d2 + x33 * d3
                    for j in range(lanes):
                        dw[k, t, j] += a0[j]
                    if k1 > k:  # at the end of the range k1..k3 repeat a row, which must be added only once
                        for j in range(lanes):
                            dw[k1, t, j] += a1[j]
                    if k2 > k1:
                        for j in range(lanes):
                            dw[k2, t, j] += a2[j]
                    if k3 > k2:
                        for j in range(lanes):
                            dw[k3, t, j] += a3[j]

    return weight_gather


# LLVM turns loops of a compile-time length into vector code: one kernel a tile width.
TILE_WIDTHS = (32, 64)
xnor_gather = {lanes: _make_xnor_gather(lanes) for lanes in TILE_WIDTHS}
float_gather = {lanes: _make_float_gather(lanes) for lanes in TILE_WIDTHS}
weight_gather = {lanes: _make_weight_gather(lanes) for lanes in TILE_WIDTHS}


def tile_width(channels):
    """Output channels per tile: the smallest width that holds them, else the largest."""
    return next((width for width in TILE_WIDTHS if channels <= width), TILE_WIDTHS[-1])


# ------------------------------------------------------------------------- what stands between convolutions


@njit(**_FLOAT)
def channel_sums(start, stop, x, sums):
    """sums[b] = (sum of x, sum of x^2) per channel over block b of BLOCK rows of x (R, C); float64."""
    for b in range(start, stop):
        for r in range(b * BLOCK, min((b + 1) * BLOCK, x.shape[0])):
            for c in range(x.shape[1]):
                v = np.float64(x[r, c])
                sums[b, 0, c] += v
                sums[b, 1, c] += v * v


@njit(**_FLOAT)
def scale_shift(start, stop, x, scale, shift, out):
    """out[r, c] = x[r, c] * scale[c] + shift[c]."""
    for r in range(start, stop):
        for c in range(x.shape[1]):
            out[r, c] = x[r, c] * scale[c] + shift[c]


@njit(**_FLOAT)
def batchnorm_sums(start, stop, x, dout, mean, sums):
    """sums[b] = (sum of dout, sum of dout * (x - mean)) per channel over block b of BLOCK rows; float64."""
    for b in range(start, stop):
        for r in range(b * BLOCK, min((b + 1) * BLOCK, x.shape[0])):
            for c in range(x.shape[1]):
                d = np.float64(dout[r, c])
                sums[b, 0, c] += d
                sums[b, 1, c] += d * (x[r, c] - mean[c])


@njit(**_FLOAT)
def batchnorm_dx(start, stop, x, dout, a, b, c, dx):
    """dx[r, i] = a[i] * dout[r, i] + b[i] * x[r, i] + c[i]."""
    for r in range(start, stop):
        for i in range(x.shape[1]):
            dx[r, i] = a[i] * dout[r, i] + b[i] * x[r, i] + c[i]


@njit(**_OPTIONS)
def relu(start, stop, x, out):
    """out = max(x, 0) over flat arrays; NaN stays NaN."""
    zero = x.dtype.type(0)  # a plain 0 would turn the whole loop into float64
    for i in range(start, stop):
        v = x[i]
        out[i] = zero if v <= zero else v


@njit(**_OPTIONS)
def relu_dx(start, stop, out, dout, dx):
    """dx = dout where the output was positive, 0 elsewhere, over flat arrays."""
    zero = dx.dtype.type(0)
    for i in range(start, stop):
        d = dout[i]
        dx[i] = d if out[i] > zero else zero


@njit(**_OPTIONS)
def max_pool(start, stop, x, kh, kw, sh, sw, ph, pw, out, tap):
    """out = the largest value of each window, tap = where in the window it was (row-major, first of equals)."""
    height, width = x.shape[1], x.shape[2]
    for n in range(start, stop):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                best, at = out[n, i, j], tap[n, i, j]
                top, left = max(0, i * sh - ph), max(0, j * sw - pw)
                first = (top - i * sh + ph) * kw + left - j * sw + pw
                for c in range(best.size):
                    best[c] = x[n, top, left, c]
                    at[c] = first
                for y in range(top, min(height, i * sh - ph + kh)):
                    for z in range(left, min(width, j * sw - pw + kw)):
                        here = np.uint8((y - i * sh + ph) * kw + z - j * sw + pw)
                        row = x[n, y, z]
                        for c in range(best.size):
                            larger = row[c] > best[c] or row[c] != row[c]  # a NaN must not be lost
                            at[c] = here if larger else at[c]
                            best[c] = row[c] if larger else best[c]


@njit(**_OPTIONS)
def max_pool_dx(start, stop, dout, tap, kh, kw, sh, sw, ph, pw, dx):
    """dx += dout at the tap that won; dx starts as zeros. Windows may overlap: one image is one thread's."""
    height, width, zero = dx.shape[1], dx.shape[2], dx.dtype.type(0)
    for n in range(start, stop):
        for i in range(dout.shape[1]):
            for j in range(dout.shape[2]):
                d, at = dout[n, i, j], tap[n, i, j]
                for y in range(max(0, i * sh - ph), min(height, i * sh - ph + kh)):
                    for z in range(max(0, j * sw - pw), min(width, j * sw - pw + kw)):
                        here = np.uint8((y - i * sh + ph) * kw + z - j * sw + pw)
                        row = dx[n, y, z]
                        for c in range(d.size):
                            v = d[c]
                            row[c] += v if at[c] == here else zero
