"""The products of `kernels` once more, with the processor's vector registers held by hand.

A compiler given the plain loops decides for itself what stays in registers, and often sends its sums to memory and
back. Here a sum is a **block**: ``rows`` output pixels times ``lanes`` output channels, one variable, in registers
from the first product to the last. Each step reads ``lanes`` weights once for all rows, and one input for each row:

                       lanes = 8 channels, one register
                     +-----------------------------------+
    x of pixel m     |  each step k: += product(x, w[k]) |      x is one number, copied to all lanes;
    x of pixel m+1   |  nothing is added across lanes,   |      w[k] are the weights of 8 channels.
    x of pixel m+2   |  nothing is stored before the end |
                     +-----------------------------------+

The product is ``popcount(x ^ w)`` for words and ``x * w`` for floats. That is all the difference there is.
Numba has no vector type, but lets us add one: `Block` tells it that such a variable is LLVM's ``[rows x <lanes x T>]``,
and each ``@intrinsic`` below tells it what LLVM code one operation on a block becomes. LLVM then splits ``lanes`` over
as many registers as it takes: 32 words are four of AVX-512. A block that does not fit the processor's registers would
go to memory at every step, so there is a size for each kind of processor (`BLOCKS`).
The kernels at the end read like any Numba code, take what their plain twins in `kernels` take, and return the same:
integers exactly, floats up to the rounding of a sum. `engine.run` puts them in their twins' place.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, register_model

from .compiler import compiled

CHUNK = 480  # output pixels, and products of one sum, at a time: what they read stays in the cache. A multiple of rows
_I32, _I64 = ir.IntType(32), ir.IntType(64)

# Bits of a vector register: (rows, lanes) of a block of words for tiles of 64 and 32, and of floats for 64 and 32.
# There are 32 registers of 512 bits (AVX-512), 16 of 256 (AVX2), 32 of 128 (NEON); the inputs need a few of them.
BLOCKS = {
    512: ((2, 64), (4, 32), (6, 64), (8, 32)),
    256: ((2, 8), (2, 8), (6, 16), (6, 16)),
    128: ((4, 8), (4, 8), (6, 16), (6, 16)),
}


@lru_cache(maxsize=1)
def register_bits() -> int:
    """Bits of a vector register on this processor, 0 if it has none that would help.

    Nobody knows better than the compiler: let it count the ones of 8 words and look at what it wrote.
    """
    triple, name, features = cpu_target.target_context.codegen().magic_tuple()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=name, features=features)
    module = llvm.parse_assembly(
        "declare <8 x i64> @llvm.ctpop.v8i64(<8 x i64>)\n"
        "define <8 x i64> @f(<8 x i64> %x) {\n"
        "  %y = call <8 x i64> @llvm.ctpop.v8i64(<8 x i64> %x)\n  ret <8 x i64> %y\n}"
    )
    text = machine.emit_assembly(module)
    return 512 if "zmm" in text else 256 if "ymm" in text else 128 if "uaddlp" in text or "uadalp" in text else 0


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
    first = builder.insert_element(unset, value, _I32(0))
    return builder.shuffle_vector(first, unset, ir.Constant(ir.VectorType(_I32, lanes), None))


def _add_product(builder, total, x, w):
    """popcount(x ^ w) + total for words, x * w + total for floats, through LLVM's functions for whole vectors."""
    if x.type.element == _I64:
        name, args = f"llvm.ctpop.v{x.type.count}i64", [builder.xor(x, w)]
    else:
        name, args = f"llvm.fmuladd.v{x.type.count}f32", [x, w, total]
    kind = ir.FunctionType(x.type, [x.type] * len(args))
    value = builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)
    return builder.add(total, value) if len(args) == 1 else value


# ------------------------------------------------------------------------------ the operations on a block


@intrinsic(prefer_literal=True)
def zeros(typingctx, rows, lanes, x):
    """A block of zeros, of the type of array x."""
    block = Block(rows.literal_value, lanes.literal_value, x.dtype)

    def codegen(context, builder, signature, args):
        return ir.Constant(context.get_value_type(block), None)

    return block(rows, lanes, x), codegen


@intrinsic
def add_products(typingctx, block, x, base, m, step, w, at):
    """block[r, j] + product(x[base[m + r] + step], w[at + j]) for every row r and lane j."""

    def codegen(context, builder, signature, args):
        _, x_type, base_type, _, _, w_type, _ = signature.args
        total, x, base, m, step, w, at = args
        weights = _load(context, builder, w_type, w, at, block.lanes)
        for r in range(block.rows):
            start = _element(context, builder, base_type, base, builder.add(m, _I64(r)))
            value = _element(context, builder, x_type, x, builder.add(start, step))
            row = _add_product(builder, builder.extract_value(total, r), _splat(builder, value, block.lanes), weights)
            total = builder.insert_value(total, row, r)
        return total

    return block(block, x, base, m, step, w, at), codegen


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
        out = ir.Constant(context.get_value_type(block), None)
        for r in range(block.rows):
            row = _element(context, builder, kind_type, kind, builder.add(m, _I64(r)))
            at = builder.add(builder.mul(row, columns), first)
            most = _load(context, builder, total_type, total, at, block.lanes)
            count = builder.trunc(builder.extract_value(counts, r), ir.VectorType(_I32, block.lanes))
            twice = builder.add(count, count)
            if scale.type.element == _I32:
                value = builder.mul(scale, builder.sub(most, twice))
            else:
                value = builder.fmul(scale, builder.fsub(most, builder.sitofp(twice, scale.type)))
            out = builder.insert_value(out, value, r)
        return out

    return block(counts, total, kind, m, alpha, first, columns), codegen


# -------------------------------------------------------------------------------------------- the kernels


def _make_xnor_gather(rows, lanes):
    @compiled()
    def xnor_gather(start, stop, x, base, off, w, total, kind, alpha, out):
        """The twin of `kernels.xnor_gather`; lanes divide its tiles."""
        columns, tile = out.shape[1], w.shape[2]
        weights, totals, result = w.reshape(-1), total.reshape(-1), out.reshape(-1)
        zero = zeros(rows, lanes, x)
        for begin in range(start, stop, CHUNK):
            for first in range(0, columns, lanes):
                for m in range(begin, min(begin + CHUNK, stop), rows):
                    counts, at = zero, first // tile * off.size * tile + first % tile
                    for k in range(off.size):
                        counts = add_products(counts, x, base, m, off[k], weights, at)
                        at += tile
                    block = scaled(counts, totals, kind, m, alpha, first, columns)
                    store(block, result, m * columns + first, columns)

    return xnor_gather


def _make_float_gather(rows, lanes):
    @compiled()
    def float_gather(start, stop, x, base, off, w, out, fresh):
        """The twin of `kernels.float_gather`; lanes divide its columns."""
        columns, weights, result = out.shape[1], w.reshape(-1), out.reshape(-1)
        zero = zeros(rows, lanes, x)
        for begin in range(start, stop, CHUNK):
            for k0 in range(0, off.size, CHUNK):
                for first in range(0, columns, lanes):
                    for m in range(begin, min(begin + CHUNK, stop), rows):
                        sums, at = zero, k0 * columns + first
                        if k0 or not fresh:
                            sums = load(zero, result, m * columns + first, columns)
                        for k in range(k0, min(k0 + CHUNK, off.size)):
                            sums = add_products(sums, x, base, m, off[k], weights, at)
                            at += columns
                        store(sums, result, m * columns + first, columns)

    return float_gather


def xnor_gather(width: int) -> Callable[..., Any]:
    """The packed product for this processor, for tiles of 64 or 32 columns."""
    return _make_xnor_gather(*BLOCKS.get(register_bits(), BLOCKS[128])[width == 32])


def float_gather(width: int) -> Callable[..., Any]:
    """The float product for this processor, for tiles of 64 or 32 columns."""
    return _make_float_gather(*BLOCKS.get(register_bits(), BLOCKS[128])[2 + (width == 32)])
