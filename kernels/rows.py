"""Reading the table: rows of jobs, the views they hold, and what a job has for each of its channels."""

import triton
import triton.language as tl
from triton.language import constexpr

from fastnas.kernels.columns import BASES, JOB_COLUMNS


@triton.jit
def job_row(table, jobs, index):
    """The row of the job that entry `index` of a list names; `jobs` is the list's place in the table."""
    return table + tl.load(table + jobs + index) * JOB_COLUMNS


@triton.jit
def number(row, column: constexpr):
    """A column that holds a size: int32, which is what arithmetic on pixels is done in."""
    return tl.load(row + column).to(tl.int32)


@triton.jit
def view(bases, row, column: constexpr):
    """A view's first element, and how many elements lie from image to image. Only one with a base may be followed."""
    base = tl.load(row + column)
    pointer = bases[0]
    for i in tl.static_range(1, BASES):
        pointer = tl.where(base == i, bases[i], pointer)
    return pointer + tl.load(row + column + 1), tl.load(row + column + 2)


@triton.jit
def exists(row, column: constexpr):
    """Whether a view has a base."""
    return tl.load(row + column) >= 0


@triton.jit
def only_if(condition, mask):
    """A mask where a scalar condition holds: a select, since & of the two has a wrong type in the interpreter."""
    return tl.where(condition, mask, mask != mask)


@triton.jit
def per_channel(buffer, place, channel, known, other: constexpr):
    """(C,): buffer[place + channel] where the channel is known and there is a place, elsewhere `other`."""
    return tl.load(buffer + place + channel, mask=only_if(place >= 0, known), other=other)


@triton.jit
def factor(params, row, column: constexpr):
    """One number of `params`; 1 where the row has no place for it."""
    place = tl.load(row + column)
    return tl.load(params + place, mask=place >= 0, other=1.0)
