"""The engine room: every plain compiled loop of the package, in one file. Two of them have vector twins in `simd`.

Why one file: Numba's cache on disk watches the file that a kernel is in, not the files that its helpers come from.

Each kernel works on the half-open range ``start..stop`` of its outermost index, and writes only what belongs to that
range. So `engine.run` may cut the work into pieces for several threads, and the result never depends on how it does.
Kernels trust their arguments: the chapters that call them check shapes and types. With ``NUMBA_DISABLE_JIT=1`` the
same functions run as plain Python, slowly, for debugging and coverage.

Vocabulary of the products: ``x`` is a padded input, flattened; ``base[m]`` is where output pixel m's patch begins in
it, ``off[k]`` is how far element k of a patch lies from there. These two tables stand in for copies of the patches.
"""

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from .compiler import compiled

JIT = not config.DISABLE_JIT
BLOCK = 512  # rows per partial sum: fixed, so that float sums do not depend on the number of threads
CHUNK = 480  # products per partial sum, in `simd`, too
SPARE = 7  # rows beyond the end of a table that the products may read, and write
_FLOAT = {"fastmath": {"contract"}}  # allow a*b + c in one rounding, no reordering of sums


# ------------------------------------------------------------------------------------------ bits and words


def _vector(context, builder, kind, array, at):
    """The address of the vector of 64 values that begins at element ``at`` of a flat array."""
    first = cgutils.create_struct_proxy(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(first, [at]), ir.VectorType(first.type.pointee, 64).as_pointer())


def _mask(compare, python):
    """Return a function (x, at) that gives one word: one bit per value of x[at : at + 64], as ``compare`` says.

    The comparison of two vectors is a mask with one bit per lane. With 64 lanes it is a word already: no shifts.
    """
    if not JIT:
        return lambda x, at: np.packbits(python(x[at : at + 64]), bitorder="little").view(np.uint64)[0]

    @intrinsic
    def mask(typingctx, x, at):
        def codegen(context, builder, signature, args):
            values = builder.load(_vector(context, builder, x, *args), align=4)  # an element's alignment
            return builder.bitcast(compare(builder, values), ir.IntType(64))

        return types.uint64(x, at), codegen

    return mask


def _same(values, number):
    return ir.Constant(values.type, [number] * values.type.count)


signs = _mask(lambda b, v: b.fcmp_ordered(">=", v, _same(v, 0)), lambda v: v >= 0)
nans = _mask(lambda b, v: b.fcmp_unordered("uno", v, v), np.isnan)
inside = _mask(  # |x| < 1, the window of the straight-through estimator
    lambda b, v: b.and_(b.fcmp_ordered("<", v, _same(v, 1)), b.fcmp_ordered(">", v, _same(v, -1))),
    lambda v: np.abs(v) < 1,
)

positive = _mask(lambda b, v: b.fcmp_unordered(">", v, _same(v, 0)), lambda v: ~(v <= 0))  # or NaN

if JIT:

    @intrinsic
    def keep(typingctx, word, x, at, out):
        """out[at : at + 64] = x[at : at + 64] where the bit of the word is 1, 0 elsewhere. Out may be x."""

        def codegen(context, builder, signature, args):
            word, x, at, out = args
            source, target = (_vector(context, builder, signature.args[i], args[i], at) for i in (1, 3))
            mask = builder.bitcast(word, ir.VectorType(ir.IntType(1), 64))
            values = builder.load(source, align=4)
            builder.store(builder.select(mask, values, _same(values, 0)), target, align=4)
            return context.get_dummy_value()

        return types.void(word, x, at, out), codegen

    @intrinsic
    def spread(typingctx, word, alpha, first, out, at):
        """out[at + c] = alpha[first + c] where bit c of the word is 1, -alpha[first + c] where it is 0; 64 of them."""

        def codegen(context, builder, signature, args):
            word, alpha, first, out, at = args
            values = builder.load(_vector(context, builder, signature.args[1], alpha, first), align=4)
            mask = builder.bitcast(word, ir.VectorType(ir.IntType(1), 64))
            target = _vector(context, builder, signature.args[3], out, at)
            builder.store(builder.select(mask, values, builder.fneg(values)), target, align=4)
            return context.get_dummy_value()

        return types.void(word, alpha, first, out, at), codegen

    @intrinsic
    def at_least(typingctx, x, at, t, first):
        """One word: bit c tells whether x[at + c] >= t[first + c], for arrays of int32."""

        def codegen(context, builder, signature, args):
            x_type, _, t_type, _ = signature.args
            x, at, t, first = args
            values = builder.load(_vector(context, builder, x_type, x, at), align=4)
            least = builder.load(_vector(context, builder, t_type, t, first), align=4)
            return builder.bitcast(builder.icmp_signed(">=", values, least), ir.IntType(64))

        return types.uint64(x, at, t, first), codegen

    @intrinsic
    def popcount(typingctx, word):
        """Number of ones in a uint64, as int64 (int64 + uint64 would be a float in Numba)."""

        def codegen(context, builder, signature, args):
            return builder.ctpop(args[0])  # one instruction: vpopcntq, if the processor has it

        return types.int64(types.uint64), codegen

else:

    def keep(word, x, at, out):
        bits = np.unpackbits(np.array([word]).view(np.uint8), bitorder="little")
        out[at : at + 64] = np.where(bits, x[at : at + 64], 0)

    def spread(word, alpha, first, out, at):
        bits = np.unpackbits(np.array([word]).view(np.uint8), bitorder="little")
        out[at : at + 64] = np.where(bits, alpha[first : first + 64], -alpha[first : first + 64])

    def at_least(x, at, t, first):
        return np.packbits(x[at : at + 64] >= t[first : first + 64], bitorder="little").view(np.uint64)[0]

    def popcount(word):
        return int(word).bit_count()


@compiled()
def pack_signs(start, stop, x, words):
    """words[r] = the sign bits of row x[r], 1 for x >= 0. Returns whether there was a NaN."""
    channels, flat = x.shape[1], x.reshape(-1)
    whole, rest, nan = channels // 64, np.full(64, -1, x.dtype), np.uint64(0)
    for r in range(start, stop):
        for i in range(whole):
            words[r, i] = signs(flat, r * channels + 64 * i)
            nan |= nans(flat, r * channels + 64 * i)
        if channels % 64:  # the last word: from a copy, where the other values give zero bits
            for c in range(channels % 64):
                rest[c] = x[r, 64 * whole + c]
            words[r, whole] = signs(rest, 0)
            nan |= nans(rest, 0)
    return nan != 0


@compiled()
def pack_inside(start, stop, x, words):
    """words[r] = one bit per channel: 1 where |x| < 1."""
    channels, flat = x.shape[1], x.reshape(-1)
    whole, rest = channels // 64, np.full(64, 1, x.dtype)
    for r in range(start, stop):
        for i in range(whole):
            words[r, i] = inside(flat, r * channels + 64 * i)
        if channels % 64:
            for c in range(channels % 64):
                rest[c] = x[r, 64 * whole + c]
            words[r, whole] = inside(rest, 0)


@compiled()
def pack_at_least(start, stop, x, threshold, flip, words):
    """words[r] = one bit per channel: (x[r, c] >= threshold[c]) XOR flip. threshold is padded to whole words."""
    channels, flat = x.shape[1], x.reshape(-1)
    whole, rest = channels // 64, np.zeros(64, x.dtype)
    for r in range(start, stop):
        for i in range(whole):
            words[r, i] = at_least(flat, r * channels + 64 * i, threshold, 64 * i) ^ flip[i]
        if channels % 64:
            rest[: channels % 64] = x[r, 64 * whole :]
            words[r, whole] = at_least(rest, 0, threshold, 64 * whole) ^ flip[whole]


@compiled()
def unpack_rows(start, stop, words, x):
    """x[r] = +1 where the bit of words[r] is 1, -1 where it is 0."""
    for r in range(start, stop):
        for c in range(x.shape[1]):
            bit = (words[r, c >> 6] >> np.uint64(c & 63)) & np.uint64(1)
            x[r, c] = 2 * np.int64(bit) - 1


@compiled()
def unpack_scaled(start, stop, words, alpha, w):
    """w[r, o] = alpha[o] where bit o of words[r] is 1, -alpha[o] where it is 0; w may have columns beyond the bits."""
    columns, flat = w.shape[1], w.reshape(-1)
    for r in range(start, stop):
        for i in range(columns // 64):
            spread(words[r, i], alpha, 64 * i, flat, r * columns + 64 * i)
        for c in range(columns - columns % 64, columns):
            bit = words[r, c >> 6] >> np.uint64(c & 63) & np.uint64(1)
            w[r, c] = alpha[c] if bit else -alpha[c]


@compiled()
def clear_rows(start, stop, words, x):
    """x[r] = 0 in place wherever the bit of words[r] is 0."""
    channels, flat = x.shape[1], x.reshape(-1)
    for r in range(start, stop):
        for i in range(channels // 64):
            keep(words[r, i], flat, r * channels + 64 * i, flat)
        for c in range(channels - channels % 64, channels):
            if not words[r, c >> 6] >> np.uint64(c & 63) & np.uint64(1):
                x[r, c] = 0


@compiled()
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


@compiled()
def _scale_row(out, alpha, total, count):
    for j in range(count.size):  # a loop of its own: LLVM does not vectorise one with four pixels' pointers
        out[j] = alpha[j] * (total[j] - 2 * count[j])


def _make_xnor_gather(lanes):
    @compiled()
    def xnor_gather(start, stop, x, base, off, w, total, kind, alpha, out):
        """out[m, o] = alpha[o] * (total[kind[m], o] - 2 sum_k popcount(x[base[m] + off[k]] ^ w[k, o])).

        w is tile-major, (tiles, K, lanes). It takes four pixels and four words at a time, so that the counts stay close
        to the processor. ``total`` has one row per kind of border pixel: n plus what padded taps wrongly took away.
        """
        c0, c1, c2, c3 = (np.empty(lanes, np.int64), np.empty(lanes, np.int64),
                          np.empty(lanes, np.int64), np.empty(lanes, np.int64))  # fmt: skip
        words = off.size
        for t in range(w.shape[0]):
            first = t * lanes
            for m in range(start, stop, 4):
                b0, b1, b2, b3 = base[m], base[m + 1], base[m + 2], base[m + 3]
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
                _scale_row(out[m, first:], alpha[first:], total[kind[m], first:], c0)
                _scale_row(out[m + 1, first:], alpha[first:], total[kind[m + 1], first:], c1)
                _scale_row(out[m + 2, first:], alpha[first:], total[kind[m + 2], first:], c2)
                _scale_row(out[m + 3, first:], alpha[first:], total[kind[m + 3], first:], c3)

    return xnor_gather


@compiled()
def _add_row(out, values, fresh):
    if fresh:
        for j in range(values.size):
            out[j] = values[j]
    else:
        for j in range(values.size):
            out[j] += values[j]


def _make_float_gather(lanes):
    @compiled(**_FLOAT)
    def float_gather(start, stop, x, base, off, w, out, fresh):
        """out[m, o] = sum_k x[base[m] + off[k]] * w[k, o], the float twin; w is (K, columns), columns = lanes * tiles.

        With base and off exchanged, and dout in the place of w, it sums over pixels, which gives dw. It sums blocks of
        CHUNK products: so the weights stay in the cache, rounding is small, and the order is fixed. Unless ``fresh``,
        it adds to out.
        """
        a0, a1, a2, a3 = (np.empty(lanes, x.dtype), np.empty(lanes, x.dtype),
                          np.empty(lanes, x.dtype), np.empty(lanes, x.dtype))  # fmt: skip
        for begin in range(0, off.size, CHUNK):
            end = min(begin + CHUNK, off.size)
            quads = begin + (end - begin) % 4
            for first in range(0, out.shape[1], lanes):
                for m in range(start, stop, 4):
                    b0, b1, b2, b3 = base[m], base[m + 1], base[m + 2], base[m + 3]
                    a0[:], a1[:], a2[:], a3[:] = 0, 0, 0, 0
                    for k in range(begin, quads):
                        x0, x1, x2, x3 = x[b0 + off[k]], x[b1 + off[k]], x[b2 + off[k]], x[b3 + off[k]]
                        for j in range(lanes):
                            a0[j] += x0 * w[k, first + j]
                            a1[j] += x1 * w[k, first + j]
                            a2[j] += x2 * w[k, first + j]
                            a3[j] += x3 * w[k, first + j]
                    for k in range(quads, end, 4):
                        o0, o1, o2, o3 = off[k], off[k + 1], off[k + 2], off[k + 3]
                        x00, x01, x02, x03 = x[b0 + o0], x[b0 + o1], x[b0 + o2], x[b0 + o3]
                        x10, x11, x12, x13 = x[b1 + o0], x[b1 + o1], x[b1 + o2], x[b1 + o3]
                        x20, x21, x22, x23 = x[b2 + o0], x[b2 + o1], x[b2 + o2], x[b2 + o3]
                        x30, x31, x32, x33 = x[b3 + o0], x[b3 + o1], x[b3 + o2], x[b3 + o3]
                        for j in range(first, first + lanes):
                            w0, w1, w2, w3 = w[k, j], w[k + 1, j], w[k + 2, j], w[k + 3, j]
                            i = j - first
                            a0[i] = a0[i] + x00 * w0 + x01 * w1 + x02 * w2 + x03 * w3
                            a1[i] = a1[i] + x10 * w0 + x11 * w1 + x12 * w2 + x13 * w3
                            a2[i] = a2[i] + x20 * w0 + x21 * w1 + x22 * w2 + x23 * w3
                            a3[i] = a3[i] + x30 * w0 + x31 * w1 + x32 * w2 + x33 * w3
                    _add_row(out[m, first:], a0, fresh and begin == 0)
                    _add_row(out[m + 1, first:], a1, fresh and begin == 0)
                    _add_row(out[m + 2, first:], a2, fresh and begin == 0)
                    _add_row(out[m + 3, first:], a3, fresh and begin == 0)

    return float_gather


# LLVM turns loops into vector code if it knows their length: so there is one kernel per tile width.
TILE_WIDTHS = (64, 32)
xnor_gather = {lanes: _make_xnor_gather(lanes) for lanes in TILE_WIDTHS}
float_gather = {lanes: _make_float_gather(lanes) for lanes in TILE_WIDTHS}


def tile_width(channels: int) -> int:
    """Output channels per tile: the width that leaves the fewest columns unused, or the larger of two equals."""
    return min(TILE_WIDTHS, key=lambda width: -channels % width)


def spare(table: np.ndarray) -> np.ndarray:
    """Return a table of rows with SPARE more, copies of the last: products work on whole blocks of rows."""
    return np.concatenate([table, np.repeat(table[-1:], SPARE)])


# ------------------------------------------------------------------------- what stands between convolutions


@compiled(**_FLOAT)
def channel_sums(start, stop, x, sums):
    """sums[b] = (sum of x, sum of x^2) per channel over block b of BLOCK rows of x (R, C); float64."""
    for b in range(start, stop):
        for r in range(b * BLOCK, min((b + 1) * BLOCK, x.shape[0])):
            for c in range(x.shape[1]):
                v = np.float64(x[r, c])
                sums[b, 0, c] += v
                sums[b, 1, c] += v * v


@compiled(**_FLOAT)
def scale_shift(start, stop, x, scale, shift, out):
    """out[r, c] = x[r, c] * scale[c] + shift[c]."""
    for r in range(start, stop):
        for c in range(x.shape[1]):
            out[r, c] = x[r, c] * scale[c] + shift[c]


@compiled(**_FLOAT)
def batchnorm_sums(start, stop, x, dout, mean, sums):
    """sums[b] = (sum of dout, sum of dout * (x - mean)) per channel over block b of BLOCK rows; float64."""
    for b in range(start, stop):
        for r in range(b * BLOCK, min((b + 1) * BLOCK, x.shape[0])):
            for c in range(x.shape[1]):
                d = np.float64(dout[r, c])
                sums[b, 0, c] += d
                sums[b, 1, c] += d * (x[r, c] - mean[c])


@compiled(**_FLOAT)
def batchnorm_dx(start, stop, x, dout, a, b, c, dx):
    """dx[r, i] = a[i] * dout[r, i] + b[i] * x[r, i] + c[i]."""
    for r in range(start, stop):
        for i in range(x.shape[1]):
            dx[r, i] = a[i] * dout[r, i] + b[i] * x[r, i] + c[i]


@compiled()
def relu(start, stop, x, out, words):
    """out = max(x, 0) over flat arrays; NaN stays NaN. Bit i % 64 of word i // 64 says whether value i stays."""
    rest = np.zeros(64, x.dtype)
    for i in range(start, stop):
        first, last = 64 * i, min(64 * i + 64, x.size)
        if last - first == 64:
            words[i] = positive(x, first)
            keep(words[i], x, first, out)
        else:
            rest[: last - first] = x[first:last]
            words[i] = positive(rest, 0)
            keep(words[i], rest, 0, rest)
            out[first:last] = rest[: last - first]


@compiled()
def relu_dx(start, stop, words, dout, dx):
    """dx = dout where the bit is 1, 0 elsewhere, over flat arrays."""
    for i in range(start, stop):
        if 64 * i + 64 <= dx.size:
            keep(words[i], dout, 64 * i, dx)
        else:
            for j in range(64 * i, dx.size):
                dx[j] = dout[j] if words[i] >> np.uint64(j - 64 * i) & np.uint64(1) else 0


@compiled()
def max_pool(start, stop, x, kh, kw, sh, sw, ph, pw, out, tap):
    """out = the largest value of each window; tap = where in the window it was, row by row, the first of equals."""
    height, width, channels = x.shape[1], x.shape[2], x.shape[3]
    best, at = np.empty(channels, x.dtype), np.empty(channels, np.int32)  # local: LLVM knows that they do not overlap
    for n in range(start, stop):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                top, left = max(0, i * sh - ph), max(0, j * sw - pw)
                first = np.int32((top - i * sh + ph) * kw + left - j * sw + pw)
                for c in range(channels):
                    best[c] = x[n, top, left, c]
                    at[c] = first
                for y in range(top, min(height, i * sh - ph + kh)):
                    for z in range(left, min(width, j * sw - pw + kw)):
                        here = np.int32((y - i * sh + ph) * kw + z - j * sw + pw)
                        for c in range(channels):
                            v, b = x[n, y, z, c], best[c]
                            larger = (v > b) | (v != v)  # a NaN must not be lost; `or` would branch for each value
                            at[c] = here if larger else at[c]
                            best[c] = v if larger else b
                for c in range(channels):
                    out[n, i, j, c] = best[c]
                for c in range(channels):
                    tap[n, i, j, c] = at[c]


@compiled()
def max_pool_dx(start, stop, dout, tap, kh, kw, sh, sw, ph, pw, dx):
    """dx = the sum of dout over the windows that a value won. Windows may overlap: one thread does a whole image."""
    height, width, channels, zero = dx.shape[1], dx.shape[2], dx.shape[3], dx.dtype.type(0)
    for n in range(start, stop):
        dx[n] = zero  # here and not in a pass of its own: the image stays in the cache
        for i in range(dout.shape[1]):
            for j in range(dout.shape[2]):
                for y in range(max(0, i * sh - ph), min(height, i * sh - ph + kh)):
                    for z in range(max(0, j * sw - pw), min(width, j * sw - pw + kw)):
                        here = np.uint8((y - i * sh + ph) * kw + z - j * sw + pw)
                        for c in range(channels):
                            v = dout[n, i, j, c]
                            dx[n, y, z, c] += v if tap[n, i, j, c] == here else zero
