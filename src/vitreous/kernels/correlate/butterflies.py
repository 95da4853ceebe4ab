"""Butterflies of Fourier transforms on sixteen columns at once, written as vector instructions for numba.

numba's compiler does not turn a butterfly over columns into vector code (it cannot know that the legs do not overlap):
each is emitted here in LLVM's terms. A *row* is sixteen complex numbers, one of each column: 16 real parts, then 16
imaginary ones, float32, 128 bytes. Addresses are in bytes.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.extending import intrinsic

LANES = 16
ROW = 8 * LANES  # bytes
RADICES = (8, 5, 4, 3, 2)

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_FUSE = ("contract", "nsz")
_Complex = tuple[Any, Any]  # IR values: real, imaginary


def _add(at: Any, x: _Complex, y: _Complex) -> _Complex:
    return at.fadd(x[0], y[0], flags=_FUSE), at.fadd(x[1], y[1], flags=_FUSE)


def _subtract(at: Any, x: _Complex, y: _Complex) -> _Complex:
    return at.fsub(x[0], y[0], flags=_FUSE), at.fsub(x[1], y[1], flags=_FUSE)


def _multiply(at: Any, x: _Complex, y: _Complex, *, conjugate: bool = False) -> _Complex:
    """x y, or x conj(y)."""
    rr, ii = at.fmul(x[0], y[0], flags=_FUSE), at.fmul(x[1], y[1], flags=_FUSE)
    ri, ir_ = at.fmul(x[0], y[1], flags=_FUSE), at.fmul(x[1], y[0], flags=_FUSE)
    if conjugate:
        return at.fadd(rr, ii, flags=_FUSE), at.fsub(ir_, ri, flags=_FUSE)
    return at.fsub(rr, ii, flags=_FUSE), at.fadd(ri, ir_, flags=_FUSE)


def _scale(at: Any, x: _Complex, factor: float) -> _Complex:
    constant = ir.Constant(_VECTOR, [ir.Constant(ir.FloatType(), factor)] * LANES)
    return at.fmul(x[0], constant, flags=_FUSE), at.fmul(x[1], constant, flags=_FUSE)


def _times_i(at: Any, x: _Complex, sign: int) -> _Complex:
    """sign i x."""
    if sign > 0:
        return at.fneg(x[1]), x[0]
    return x[1], at.fneg(x[0])


def _transform(at: Any, x: list[_Complex], sign: int) -> list[_Complex]:
    """X_k = sum_j x_j exp(sign 2 pi i j k / n), n = 2, 3, 4, 5 or 8, unnormalised."""
    n = len(x)
    if n == 2:
        return [_add(at, *x), _subtract(at, *x)]
    if n in (4, 8):
        half = n // 2
        sums = [_add(at, x[j], x[j + half]) for j in range(half)]
        differences = [_subtract(at, x[j], x[j + half]) for j in range(half)]
        turned = [_turn(at, one, sign, j, n) for j, one in enumerate(differences)]
        even, odd = _transform(at, sums, sign), _transform(at, turned, sign)
        return [(even, odd)[k % 2][k // 2] for k in range(n)]
    return _odd_transform(at, x, sign)


def _turn(at: Any, x: _Complex, sign: int, j: int, n: int) -> _Complex:
    """x exp(sign 2 pi i j / n) for j / n in eighths below a half."""
    eighth = 8 * j // n
    if eighth == 0:
        return x
    if eighth == 2:
        return _times_i(at, x, sign)
    turned = _times_i(at, x, sign)
    both = _add(at, turned, x) if eighth == 1 else _subtract(at, turned, x)
    return _scale(at, both, math.sqrt(0.5))


def _odd_transform(at: Any, x: list[_Complex], sign: int) -> list[_Complex]:
    """n = 3 or 5: cosines of the sums and sines of the differences of legs j and n - j."""
    n = len(x)
    pairs = range(1, (n + 1) // 2)
    sums = {j: _add(at, x[j], x[n - j]) for j in pairs}
    differences = {j: _subtract(at, x[j], x[n - j]) for j in pairs}
    total = x[0]
    for j in pairs:
        total = _add(at, total, sums[j])
    result = [total] * n
    for k in pairs:
        roots = {j: cmath.exp(2j * math.pi * j * k / n) for j in pairs}
        even, odd = x[0], None
        for j in pairs:
            even = _add(at, even, _scale(at, sums[j], roots[j].real))
            part = _scale(at, differences[j], roots[j].imag)
            odd = part if odd is None else _add(at, odd, part)
        assert odd is not None
        turned = _times_i(at, odd, sign)
        result[k], result[n - k] = _add(at, even, turned), _subtract(at, even, turned)
    return result


def _pointer(at: Any, address: Any, kind: Any) -> Any:
    return at.inttoptr(address, ir.PointerType(kind))


def _offset(at: Any, address: Any, step: Any, count: int) -> Any:
    return at.add(address, at.mul(step, ir.Constant(ir.IntType(64), count)))


def _load(at: Any, address: Any) -> _Complex:
    second = at.add(address, ir.Constant(ir.IntType(64), 4 * LANES))
    real, imaginary = (at.load(_pointer(at, one, _VECTOR), align=4) for one in (address, second))
    return real, imaginary


def _store(at: Any, value: _Complex, address: Any) -> None:
    second = at.add(address, ir.Constant(ir.IntType(64), 4 * LANES))
    for part, one in zip(value, (address, second), strict=True):
        at.store(part, _pointer(at, one, _VECTOR), align=4)


def _broadcast(at: Any, address: Any, count: int) -> _Complex:
    """The complex float32 number `count` of a table in all lanes."""
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [ir.Constant(ir.IntType(32), 0)] * LANES)
    empty = ir.Constant(_VECTOR, ir.Undefined)
    both = []
    for part in range(2):
        where = at.add(address, ir.Constant(ir.IntType(64), 4 * (2 * count + part)))
        scalar = at.load(_pointer(at, where, ir.FloatType()), align=4)
        both.append(at.shuffle_vector(at.insert_element(empty, scalar, ir.Constant(ir.IntType(32), 0)), empty, lanes))
    return both[0], both[1]


def _shuffled(at: Any, first: Any, second: Any, order: list[int]) -> Any:
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [ir.Constant(ir.IntType(32), i) for i in order])
    return at.shuffle_vector(first, second, lanes)


def _procedure(emit: Callable[..., None]) -> Any:
    """A numba function of four addresses (or distances, in bytes) that emits instructions and returns nothing."""

    def procedure(context: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            emit(builder, *values)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, types.int64), generate

    return intrinsic(procedure)


def _forward(radix: int, *, turned: bool) -> Any:
    """(address of leg 0, distance of the legs, address of radix - 1 factors): transform, then turn, in place."""

    def emit(at: Any, leg: Any, step: Any, twiddles: Any, _: Any) -> None:
        x = [_load(at, _offset(at, leg, step, k)) for k in range(radix)]
        for k, value in enumerate(_transform(at, x, -1)):
            done = _multiply(at, value, _broadcast(at, twiddles, k - 1)) if turned and k else value
            _store(at, done, _offset(at, leg, step, k))

    return _procedure(emit)


def _inverse(radix: int, *, turned: bool) -> Any:
    """Undoes `_forward` but for a factor of radix: turn back, transform back, in place."""

    def emit(at: Any, leg: Any, step: Any, twiddles: Any, _: Any) -> None:
        x = [_load(at, _offset(at, leg, step, k)) for k in range(radix)]
        if turned:
            x = [x[0], *(_multiply(at, x[k], _broadcast(at, twiddles, k - 1), conjugate=True) for k in range(1, radix))]
        for k, value in enumerate(_transform(at, x, 1)):
            _store(at, value, _offset(at, leg, step, k))

    return _procedure(emit)


def _emit_take(at: Any, source: Any, row: Any, factor: Any, _: Any) -> None:
    second = at.add(source, ir.Constant(ir.IntType(64), 4 * LANES))
    low, high = (at.load(_pointer(at, one, _VECTOR), align=4) for one in (source, second))
    real, imaginary = (_shuffled(at, low, high, [2 * i + part for i in range(LANES)]) for part in range(2))
    _store(at, _multiply(at, (real, imaginary), _broadcast(at, factor, 0)), row)


def _emit_product(at: Any, row: Any, image: Any, _: Any, __: Any) -> None:
    _store(at, _multiply(at, _load(at, image), _load(at, row), conjugate=True), row)


def _emit_products(at: Any, row: Any, image: Any, twin: Any, _: Any) -> None:
    a, s = _load(at, image), _load(at, row)
    rr, ii = at.fmul(a[0], s[0], flags=_FUSE), at.fmul(a[1], s[1], flags=_FUSE)
    ri, ir_ = at.fmul(a[0], s[1], flags=_FUSE), at.fmul(a[1], s[0], flags=_FUSE)
    plus, minus = _add(at, (rr, ir_), (ii, ri)), _subtract(at, (rr, ir_), (ii, ri))
    _store(at, (plus[0], minus[1]), row)
    _store(at, (minus[0], plus[1]), twin)


def _emit_transpose(at: Any, source: Any, target: Any, _: Any, __: Any) -> None:
    row = ir.Constant(ir.IntType(64), ROW)
    both = list(zip(*(_load(at, _offset(at, source, row, i)) for i in range(LANES)), strict=True))
    for part, lines in enumerate(both):
        for i, line in enumerate(_transposed(at, list(lines))):
            where = at.add(target, ir.Constant(ir.IntType(64), i * ROW + part * 4 * LANES))
            at.store(line, _pointer(at, where, _VECTOR), align=4)


def _transposed(at: Any, lines: list[Any]) -> list[Any]:
    """Sixteen vectors as a matrix: exchange its off-diagonal blocks of 8, of 4, of 2, of 1."""
    for size in (8, 4, 2, 1):
        low = [LANES + i - size if i & size else i for i in range(LANES)]
        high = [LANES + i if i & size else i + size for i in range(LANES)]
        for i in (one for one in range(LANES) if not one & size):
            a, b = lines[i], lines[i + size]
            lines[i], lines[i + size] = _shuffled(at, a, b, low), _shuffled(at, a, b, high)
    return lines


def _emit_pack(at: Any, first: Any, second: Any, low: Any, high: Any) -> None:
    p, q = _load(at, first), _load(at, second)
    plus, minus = _add(at, p, (q[1], q[0])), _subtract(at, p, (q[1], q[0]))
    _store(at, (minus[0], plus[1]), low)
    _store(at, (plus[0], at.fneg(minus[1])), high)


def _emit_pack_real(at: Any, first: Any, second: Any, target: Any, _: Any) -> None:
    _store(at, (_load(at, first)[0], _load(at, second)[0]), target)


def _emit_raise(at: Any, value: Any, maps: Any, number: Any, _: Any) -> None:
    integers = ir.VectorType(ir.IntType(32), LANES)
    addresses = [at.add(maps, ir.Constant(ir.IntType(64), 4 * LANES * i)) for i in range(3)]
    kinds = (_VECTOR, integers, _VECTOR)
    places = [_pointer(at, one, kind) for one, kind in zip(addresses, kinds, strict=True)]
    new = at.load(_pointer(at, value, _VECTOR), align=4)
    high, best, total = (at.load(place, align=4) for place in places)
    lane = at.insert_element(
        ir.Constant(integers, ir.Undefined), at.trunc(number, ir.IntType(32)), ir.Constant(ir.IntType(32), 0)
    )
    label = at.shuffle_vector(lane, ir.Constant(integers, ir.Undefined), ir.Constant(integers, [0] * LANES))
    tie = at.and_(at.fcmp_ordered("==", new, high), at.icmp_signed("<", label, best))
    better = at.or_(at.fcmp_ordered(">", new, high), tie)
    at.store(at.select(better, new, high), places[0], align=4)
    at.store(at.select(better, label, best), places[1], align=4)
    at.store(at.fadd(total, at.fmul(new, new, flags=_FUSE), flags=_FUSE), places[2], align=4)


# What each of the four arguments is; "-" is not looked at.
take = _procedure(_emit_take)  # (source, row, factor, -): 16 interleaved complex numbers, times the factor, to a row
product = _procedure(_emit_product)  # (row, image, -, -): image times conj(row), to row
products = _procedure(_emit_products)  # (row, image, twin, -): as product; and image times row, to twin
transpose = _procedure(_emit_transpose)  # (source, target, -, -): 16 rows, lanes become rows
pack = _procedure(_emit_pack)  # (p, q, low, high): p + i q at low, conj(p) + i conj(q) at high
pack_real = _procedure(_emit_pack_real)  # (p, q, target, -): their real parts as real and imaginary part
take_up = _procedure(_emit_raise)  # (value, maps, number, -): 16 values into their maximum, its number, sum of squares
forward_2, forward_3, forward_4 = (_forward(radix, turned=True) for radix in (2, 3, 4))
forward_5, forward_8 = (_forward(radix, turned=True) for radix in (5, 8))
inverse_2, inverse_3, inverse_4 = (_inverse(radix, turned=True) for radix in (2, 3, 4))
inverse_5, inverse_8 = (_inverse(radix, turned=True) for radix in (5, 8))
last_2, last_3, last_4 = (_forward(radix, turned=False) for radix in (2, 3, 4))
last_5, last_8 = (_forward(radix, turned=False) for radix in (5, 8))
first_2, first_3, first_4 = (_inverse(radix, turned=False) for radix in (2, 3, 4))
first_5, first_8 = (_inverse(radix, turned=False) for radix in (5, 8))
