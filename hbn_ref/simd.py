"""The products of `kernels` once more, with the processor's vector registers held by hand.

A compiler given the plain loops decides for itself what stays in registers, and often sends its sums to memory and
back. Here a sum is a **block** of ``rows`` output pixels times ``lanes`` output channels. It is one variable, and stays
in registers from the first product to the last. Each step reads ``lanes`` weights once for all rows, and one input for
each row:

                       lanes = 8 channels, one register
                     +-----------------------------------+
    x of pixel m     |  each step k: += product(x, w[k]) |      x is one number, copied to all lanes;
    x of pixel m+1   |  nothing is added across lanes,   |      w[k] are the weights of 8 channels.
    x of pixel m+2   |  nothing is stored before the end |
                     +-----------------------------------+

The product is ``x * w`` for floats and ``popcount(x ^ w)`` for bits. Processors differ in how they count. Only AVX-512
counts the ones of whole words. Others count them in bytes, or look them up, half a byte (16 cases) at a time; then they
must add the eight bytes of each word. So there a lane is a **byte**: 8 bits of one channel, beside 8 bits of the next
channel, and its counts go into one byte, too. A byte can hold the ones of 31 bytes. So every three words (24 bytes) it
is added to a sum of 16 bits, and every thousand words that is added to one of 32 bits. With AVX2 the XOR disappears:
each of the 256 bytes that x may be has tables of its own, which say how many ones ``x ^ w`` has.

===============================  ======================================================  ========  ===============
one vector of bits               instructions                                            products  for 64 products
===============================  ======================================================  ========  ===============
AVX-512, words                   xor, count, add                                         512       0.4
AVX2, words                      xor, 2 and, shift, 2 look-ups, add, add 8 bytes, add    256       2.3
AVX2, bytes                      xor, 2 and, shift, 2 look-ups, 2 add                    256       2.0
**AVX2, bytes, table per byte**  2 look-ups, 2 add                                       256       1.0
NEON, words                      xor, count, 3 add (bytes to 16, 32, 64 bits)            128       2.5
**NEON, bytes**                  xor, count, add                                         128       1.5
no vectors                       xor, count, add                                         64        3.0
===============================  ======================================================  ========  ===============

Numba has no vector type, but lets us add one: `Block` tells it that such a variable is LLVM's ``[rows x <lanes x T>]``,
and each ``@intrinsic`` below tells it what LLVM code one operation on a block becomes. LLVM then splits ``lanes`` over
as many registers as it takes: 64 bytes are two of AVX2. A block that does not fit the processor's registers would go to
memory at every step, so there is a size for each kind of processor (`COUNTS`, `FLOATS`).

The kernels at the end read like any Numba code. They take what their plain twins in `kernels` take, and return the
same: integers exactly, floats up to the rounding of a sum. `engine.run` puts them in their twins' place.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, register_model

from .compiler import compiled

CHUNK, TERMS = 480, 240  # output pixels, and products of a sum, at a time: so what they read stays in the cache
_I8, _I32, _I64 = (ir.IntType(bits) for bits in (8, 32, 64))

# (rows, lanes) of a block, for tiles of 64 and of 32 channels. Blocks of counts depend on the way to count, blocks of
# floats on the bits of a register. There are 32 registers of 512 bits (AVX-512), 16 of 256 (AVX2), 32 of 128 (NEON).
COUNTS = {"words": ((2, 64), (4, 32)), "lookup": ((4, 64), (4, 32)), "bytes": ((4, 64), (4, 32))}
FLOATS = {512: ((6, 64), (8, 32)), 256: ((6, 16), (6, 16)), 128: ((6, 16), (6, 16))}
FEW, MANY = 3, 1020  # words whose ones a byte can count, and 16 bits: 8 * 8 * 1020 < 2^16; the second a multiple


@lru_cache(maxsize=1)
def _processor() -> tuple[int, str]:
    """(`register_bits`, `counting`). The compiler knows best: see how it counts the ones of 8 words."""
    triple, name, features = cpu_target.target_context.codegen().magic_tuple()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=name, features=features)
    module = llvm.parse_assembly(
        "declare <8 x i64> @llvm.ctpop.v8i64(<8 x i64>)\n"
        "define <8 x i64> @f(<8 x i64> %x) {\n"
        "  %y = call <8 x i64> @llvm.ctpop.v8i64(<8 x i64> %x)\n  ret <8 x i64> %y\n}"
    )
    text = machine.emit_assembly(module)
    bits = 512 if "zmm" in text else 256 if "ymm" in text else 128 if "uaddlp" in text or "uadalp" in text else 0
    return bits, "words" if "vpopcnt" in text else "lookup" if re.search("vpshufb.*[yz]mm", text) else "bytes"


def register_bits() -> int:
    """Return the bits of a vector register of this processor, or 0 if it has none that would help."""
    return _processor()[0]


def counting() -> str:
    """Return the best way to count on this processor: "words", "bytes" or "lookup" (bytes, in tables)."""
    return _processor()[1]


# ---------------------------------------------------------------------------- a block, and LLVM's words for it


class Block(types.Type):
    """rows x lanes numbers of one type: a variable in registers."""

    def __init__(self, rows: int, lanes: int, item: types.Type) -> None:
        self.rows, self.lanes, self.item = rows, lanes, item
        super().__init__(f"Block({rows}, {lanes}, {item})")


@register_model(Block)
class _BlockModel(models.PrimitiveModel):
    def __init__(self, manager, block):
        item = manager.lookup(block.item).get_value_type()
        super().__init__(manager, block, ir.ArrayType(ir.VectorType(item, block.lanes), block.rows))


def _place(context, builder, kind, array, index, lanes):
    """The address of the vector that begins at element ``index`` of a flat array."""
    first = cgutils.create_struct_proxy(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(first, [index]), ir.VectorType(first.type.pointee, lanes).as_pointer())


def _load(context, builder, kind, array, index, lanes):
    return builder.load(_place(context, builder, kind, array, index, lanes), align=4)  # an element's, not a vector's


def _element(context, builder, kind, array, index):
    return builder.extract_element(_load(context, builder, kind, array, index, 1), _I32(0))


def _splat(builder, value, lanes):
    """A vector with the same value in every lane."""
    unset = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    return _lanes(builder, [0] * lanes, builder.insert_element(unset, value, _I32(0)))


def _lanes(builder, indices, a, b=None):
    """The lanes of vector a, or of a and b, that have these indices."""
    b = ir.Constant(a.type, ir.Undefined) if b is None else b
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(indices)), list(indices)))


def _call(builder, name, *args):
    """Call one of LLVM's functions that take and return vectors of one type."""
    kind = ir.FunctionType(args[0].type, [args[0].type] * len(args))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _add_product(builder, total, x, w):
    """x * w + total for floats, total + popcount(x ^ w) for words and bytes."""
    item, lanes = x.type.element, x.type.count
    if isinstance(item, ir.IntType):
        return builder.add(total, _call(builder, f"llvm.ctpop.v{lanes}i{item.width}", builder.xor(x, w)))
    return _call(builder, f"llvm.fmuladd.v{lanes}f32", x, w, total)


def _look_up(builder, table, w, width):
    """table[w[j]] for all lanes j: x86 looks up in 16 bytes, for ``width`` lanes at once."""
    name = {32: "llvm.x86.avx2.pshuf.b", 64: "llvm.x86.avx512.pshuf.b.512"}[width]
    table = _lanes(builder, [j % 16 for j in range(width)], table)  # each 16 lanes have their own copy
    parts = [_lanes(builder, range(j, j + width), w) for j in range(0, w.type.count, width)]
    found = [_call(builder, name, table, part) for part in parts]
    return found[0] if len(found) == 1 else _lanes(builder, range(w.type.count), *found)


def _tables(builder):
    """The address of 2 x 256 tables: entry j of table 2 x + h is the ones of (half h of byte x) ^ j."""
    ones = [(half ^ j).bit_count() for x in range(256) for half in (x & 15, x >> 4) for j in range(16)]
    table = ir.ArrayType(ir.VectorType(_I8, 16), 512)
    rows = [ir.Constant(table.element, ones[at : at + 16]) for at in range(0, len(ones), 16)]
    return cgutils.global_constant(builder, "ones_of_xor", ir.Constant(table, rows))


def _by_place(builder, words):
    """Eight vectors: the first byte of every word, side by side, the second of every word, ...

    Words 8 q, ..., 8 q + 7 are 8 x 8 bytes, to be transposed: first the halves of 4 x 4 change places, then 2 x 2 in
    each of these, then single bytes (Warren, Hacker's Delight, 2nd ed., 7-3), for every q at once.
    """
    parts = [_lanes(builder, range(j, words.type.count, 8), words) for j in range(8)]
    for step, ones in ((4, 0xFFFFFFFF), (2, 0x0000FFFF0000FFFF), (1, 0x00FF00FF00FF00FF)):
        shift, mask = (ir.Constant(parts[0].type, [number] * parts[0].type.count) for number in (8 * step, ones))
        for j in (j for j in range(8) if not j & step):
            swap = builder.and_(builder.xor(builder.lshr(parts[j], shift), parts[j + step]), mask)
            parts[j] = builder.xor(parts[j], builder.shl(swap, shift))
            parts[j + step] = builder.xor(parts[j + step], swap)
    return [builder.bitcast(part, ir.VectorType(_I8, words.type.count)) for part in parts]


# ------------------------------------------------------------------------------ the operations on a block


@intrinsic(prefer_literal=True)
def zeros(typingctx, rows, lanes, like):
    """A block of zeros, of the type of an array, or of that type."""
    block = Block(rows.literal_value, lanes.literal_value, like.dtype)

    def codegen(context, builder, signature, args):
        return ir.Constant(context.get_value_type(block), None)

    return block(rows, lanes, like), codegen


def _patch(context, builder, signature, args, r):
    """base[m + r] + off[k], for operations on (block, x, base, m, off, k, ...).

    LLVM reads the tables, not Numba, which would test whether k is negative.
    """
    start = _element(context, builder, signature.args[2], args[2], builder.add(args[3], _I64(r)))
    return builder.add(start, _element(context, builder, signature.args[4], args[4], args[5]))


@intrinsic
def add_products(typingctx, block, x, base, m, off, k, w, at):
    """block[r, j] + product(x[base[m + r] + off[k]], w[at + j]) for every row r and lane j."""

    def codegen(context, builder, signature, args):
        total, x, w, at = args[0], args[1], args[6], args[7]
        weights = _load(context, builder, signature.args[6], w, at, block.lanes)
        for r in range(block.rows):
            value = _element(context, builder, signature.args[1], x, _patch(context, builder, signature, args, r))
            row = _add_product(builder, builder.extract_value(total, r), _splat(builder, value, block.lanes), weights)
            total = builder.insert_value(total, row, r)
        return total

    return block(block, x, base, m, off, k, w, at), codegen


@intrinsic(prefer_literal=True)
def add_counts(typingctx, block, x, base, m, off, k, byte, w, at, width):
    """block[r, j] + popcount((a byte of x[base[m + r] + off[k]]) ^ w[at + j]), where w is from `slice_words`."""

    def codegen(context, builder, signature, args):
        total, x, byte, w, at = args[0], args[1], args[6], args[7], args[8]
        halves = 2 if width.literal_value else 1
        places = [builder.add(at, _I64(half * block.lanes)) for half in range(halves)]
        weights = [_load(context, builder, signature.args[7], w, place, block.lanes) for place in places]
        words = cgutils.create_struct_proxy(signature.args[1])(context, builder, x).data
        for r in range(block.rows):
            word = builder.gep(words, [_patch(context, builder, signature, args, r)])
            value = builder.load(builder.gep(builder.bitcast(word, _I8.as_pointer()), [byte]))
            row = builder.extract_value(total, r)
            if halves == 1:
                row = _add_product(builder, row, _splat(builder, value, block.lanes), weights[0])
            else:
                first = builder.mul(builder.zext(value, _I64), _I64(2))
                for half in range(2):
                    place = builder.gep(_tables(builder), [_I64(0), builder.add(first, _I64(half))])
                    row = builder.add(row, _look_up(builder, builder.load(place), weights[half], width.literal_value))
            total = builder.insert_value(total, row, r)
        return total

    return block(block, x, base, m, off, k, byte, w, at, width), codegen


@intrinsic(prefer_literal=True)
def slice_words(typingctx, w, at, lanes, halves, slices, to):
    """Lay out ``lanes`` words w[at], w[at + 1], ... as their first bytes, side by side, then their second bytes, ...

    With halves = 2 each byte becomes two: its lower half, ``lanes`` of them, then its upper half.
    """
    count = lanes.literal_value

    def codegen(context, builder, signature, args):
        w, at, _, _, slices, to = args
        words = _load(context, builder, signature.args[0], w, at, count)
        for part in _by_place(builder, words):
            four, low = (ir.Constant(part.type, [number] * count) for number in (4, 15))
            halved = [builder.and_(part, low), builder.lshr(part, four)]
            for piece in halved if halves.literal_value == 2 else [part]:
                builder.store(piece, _place(context, builder, signature.args[4], slices, to, count), align=1)
                to = builder.add(to, _I64(count))
        return context.get_dummy_value()

    return types.void(w, at, lanes, halves, slices, to), codegen


@intrinsic
def widen(typingctx, wide, narrow):
    """wide + narrow, the same of more and of fewer bits."""

    def codegen(context, builder, signature, args):
        total, narrow = args
        for r in range(wide.rows):
            row = builder.extract_value(total, r)
            row = builder.add(row, builder.zext(builder.extract_value(narrow, r), row.type))
            total = builder.insert_value(total, row, r)
        return total

    return wide(wide, narrow), codegen


@intrinsic
def unknown(typingctx, number):
    """The same number, but LLVM cannot know it: a loop of so many steps is not unrolled."""

    def codegen(context, builder, signature, args):
        return builder.asm(ir.FunctionType(_I64, [_I64]), "", "=r,0", args, side_effect=False)

    return types.int64(types.int64), codegen


@intrinsic
def load(typingctx, block, array, at, step):
    """The block with the rows array[at : at + lanes], array[at + step : at + step + lanes], ..."""

    def codegen(context, builder, signature, args):
        total, array, at, step = args
        for r in range(block.rows):
            row = _load(context, builder, signature.args[1], array, at, block.lanes)
            total, at = builder.insert_value(total, row, r), builder.add(at, step)
        return total

    return block(block, array, at, step), codegen


@intrinsic
def store(typingctx, block, array, at, step):
    """Write the rows of a block where `load` finds them."""

    def codegen(context, builder, signature, args):
        total, array, at, step = args
        for r in range(block.rows):
            place = _place(context, builder, signature.args[1], array, at, block.lanes)
            builder.store(builder.extract_value(total, r), place, align=4)
            at = builder.add(at, step)
        return context.get_dummy_value()

    return types.void(block, array, at, step), codegen


@intrinsic
def scaled(typingctx, counts, total, kind, m, alpha, first, columns):
    """The block alpha[first + j] * (total[kind[m + r] * columns + first + j] - 2 counts[r, j]), of alpha's type."""
    block = Block(counts.rows, counts.lanes, alpha.dtype)

    def codegen(context, builder, signature, args):
        _, total_type, kind_type, _, alpha_type, _, _ = signature.args
        counts, total, kind, m, alpha, first, columns = args
        scale = _load(context, builder, alpha_type, alpha, first, block.lanes)
        minus_two = ir.Constant(scale.type, [-2] * block.lanes)
        out = ir.Constant(context.get_value_type(block), None)
        for r in range(block.rows):
            row = _element(context, builder, kind_type, kind, builder.add(m, _I64(r)))
            at = builder.add(builder.mul(row, columns), first)
            most = _load(context, builder, total_type, total, at, block.lanes)
            count = builder.extract_value(counts, r)
            if count.type.element != _I32:
                count = builder.trunc(count, ir.VectorType(_I32, block.lanes))
            if scale.type.element == _I32:
                value = builder.mul(scale, builder.sub(most, builder.add(count, count)))
            else:  # one instruction, and as exact: whole numbers below 2^24
                value = builder.fmul(scale, _add_product(builder, most, builder.sitofp(count, scale.type), minus_two))
            out = builder.insert_value(out, value, r)
        return out

    return block(counts, total, kind, m, alpha, first, columns), codegen


# -------------------------------------------------------------------------------------------- the kernels


def _make_word_gather(rows, lanes):
    @compiled()
    def xnor_gather(start, stop, x, base, off, w, total, kind, alpha, out):
        """The twin of `kernels.xnor_gather` that counts in words; lanes divide its tiles."""
        columns, tile = out.shape[1], w.shape[2]
        weights, totals, result = w.reshape(-1), total.reshape(-1), out.reshape(-1)
        zero = zeros(rows, lanes, x)
        for begin in range(start, stop, CHUNK):
            for first in range(0, columns, lanes):
                for m in range(begin, min(begin + CHUNK, stop), rows):
                    counts, at = zero, first // tile * off.size * tile + first % tile
                    for k in range(off.size):
                        counts = add_products(counts, x, base, m, off, k, weights, at)
                        at += tile
                    block = scaled(counts, totals, kind, m, alpha, first, columns)
                    store(block, result, m * columns + first, columns)

    return xnor_gather


def _make_byte_gather(rows, lanes, width):
    """With look-ups of ``width`` bytes at once, or none for 0."""
    halves = 2 if width else 1

    @compiled()
    def xnor_gather(start, stop, x, base, off, w, total, kind, alpha, out):
        """The twin of `kernels.xnor_gather` that counts in bytes; lanes divide its tiles."""
        columns, tile, words, eight = out.shape[1], w.shape[2], off.size, unknown(8)
        weights, totals, result = w.reshape(-1), total.reshape(-1), out.reshape(-1)
        slices, before = np.empty(words * 8 * halves * lanes, np.uint8), np.zeros(rows * lanes, np.int32)
        for first in range(0, columns, lanes):
            at = first // tile * words * tile + first % tile
            for k in range(words):
                slice_words(weights, at + k * tile, lanes, halves, slices, k * 8 * halves * lanes)
            for m in range(start, stop, rows):
                many, at = zeros(rows, lanes, np.uint16), 0
                for k0 in range(0, words, FEW):
                    few = zeros(rows, lanes, np.uint8)
                    for k in range(k0, min(k0 + FEW, words)):
                        for byte in range(eight):
                            few = add_counts(few, x, base, m, off, k, byte, slices, at, width)
                            at += halves * lanes
                    many = widen(many, few)
                    if k0 % MANY == MANY - FEW:
                        store(widen(load(zeros(rows, lanes, before), before, 0, lanes), many), before, 0, lanes)
                        many = zeros(rows, lanes, np.uint16)
                counts = widen(load(zeros(rows, lanes, before), before, 0, lanes), many)
                if words > MANY - FEW:
                    before[:] = 0
                block = scaled(counts, totals, kind, m, alpha, first, columns)
                store(block, result, m * columns + first, columns)

    return xnor_gather


def _make_float_gather(rows, lanes):
    @compiled()
    def float_gather(start, stop, x, base, off, w, out, fresh):
        """The twin of `kernels.float_gather`; lanes divide its columns."""
        columns, weights, result = out.shape[1], w.reshape(-1), out.reshape(-1)
        zero, row, panel = zeros(rows, lanes, x), zeros(1, lanes, x), np.empty(TERMS * lanes, x.dtype)
        for begin in range(start, stop, CHUNK):
            for k0 in range(0, off.size, TERMS):
                end = min(k0 + TERMS, off.size)
                for first in range(0, columns, lanes):
                    for k in range(k0, end):  # weights that are far apart in w, side by side for all pixels
                        store(load(row, weights, k * columns + first, 0), panel, (k - k0) * lanes, 0)
                    for m in range(begin, min(begin + CHUNK, stop), rows):
                        sums, at = zero, 0
                        if k0 or not fresh:
                            sums = load(zero, result, m * columns + first, columns)
                        for k in range(k0, end):
                            sums = add_products(sums, x, base, m, off, k, panel, at)
                            at += lanes
                        store(sums, result, m * columns + first, columns)

    return float_gather


def xnor_gather(width: int) -> Callable[..., Any]:
    """The packed product for this processor, for tiles of 64 or 32 columns."""
    way = counting()
    rows, lanes = COUNTS[way][width == 32]
    if way == "words":
        return _make_word_gather(rows, lanes)
    return _make_byte_gather(rows, lanes, min(register_bits() // 8, lanes) if way == "lookup" else 0)


def float_gather(width: int) -> Callable[..., Any]:
    """The float product for this processor, for tiles of 64 or 32 columns."""
    return _make_float_gather(*FLOATS[register_bits() or 128][width == 32])
