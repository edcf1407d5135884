"""Kernels for numba where every pixel of a block has a place of its own in a file, as in another CRS.

Places are worked out once for all bands and dates of a block, from the nodes between which they are linear,
and kept as whole numbers and weights. The numbers are those of :mod:`cubekit.cube.resample`, to the last bit;
arguments are those of :mod:`cubekit.cube.lay_kernels`.
"""

# mypy: disable-error-code="assignment,no-untyped-def,no-untyped-call"
# ruff: noqa: ANN001, ANN201, ANN202, FURB136, PLR0917

import numpy as np

from cubekit.cube.lay_kernels import jitted, settle

_SNAP = 1e-6  # as in resample.py
_ONE = np.float32(1)
_HALF, _LOW_HALF = np.uint32(16), np.uint32(0xFFFF)
_RIM, _OUTSIDE = np.uint8(4), np.uint8(5)  # beside 0 to 3: which of four pixels a place falls into


@jitted
def _places(nodes, mesh, y, line):
    """Write the places of one row: between nodes first along y, then along x, or as they are."""
    rows, shares, past, step = mesh
    if step == 1:
        line[:] = nodes[y]
        return
    upper, lower, share, size = nodes[rows[y]], nodes[rows[y] + 1], shares[y], line.size
    start, last = 0, upper.size - 2
    for node in range(last + 1):
        first = upper[node] + (lower[node] - upper[node]) * share
        second = upper[node + 1] + (lower[node + 1] - upper[node + 1]) * share
        rise, part = second - first, 1.0 / step  # a power of two, so exact
        stop = size if node == last else min(start + step - past, size)
        piece = line[start:stop]
        for x in range(piece.size):
            piece[x] = first + rise * ((past + x) * part)
        start, past = stop, 0


@jitted
def _near(places, start, size, found):
    """Write the pixels of a window that places fall into, -1 for none."""
    stop = start + size
    for x in range(found.size):
        place = places[x]
        index = np.floor(place + _SNAP)
        index = stop - 1.0 if index == stop and place < stop + _SNAP else index  # the last edge belongs to it
        found[x] = np.int32(index - start) if (index >= start) & (index < stop) else np.int32(-1)  # NaN: no


@jitted
def reach(row_nodes, column_nodes, mesh, size, shape):
    """Return the first and last row and column of a file that places fall into; the last is -1 for none."""
    places, rows, columns = np.empty(shape[1]), np.empty(shape[1], np.int32), np.empty(shape[1], np.int32)
    most = np.int32(max(size))
    first, last = (most, most), (np.int32(-1), np.int32(-1))
    for y in range(shape[0]):
        _places(row_nodes, mesh, y, places)
        _near(places, 0, size[0], rows)
        _places(column_nodes, mesh, y, places)
        _near(places, 0, size[1], columns)
        for x in range(rows.size):
            outside = min(rows[x], columns[x]) < 0
            rows[x] = np.int32(-1) if outside else rows[x]
            columns[x] = np.int32(-1) if outside else columns[x]
        top, bottom = _range(rows, most)
        left, right = _range(columns, most)
        first = min(first[0], top), min(first[1], left)
        last = max(last[0], bottom), max(last[1], right)
    return first[0], last[0], first[1], last[1]


@jitted
def _range(numbers, most):
    """Return the least number from zero on, and the greatest."""
    low, high = most, np.int32(-1)
    for x in range(numbers.size):
        number = numbers[x]
        least = most if number < 0 else number
        low = least if least < low else low
        high = number if number > high else high
    return low, high


@jitted
def nearest_spots(row_nodes, column_nodes, mesh, window, shape):
    """Return which pixel of a window each pixel of a block takes, counted through the window; -1 for none."""
    top, left, height, width = window
    spots = np.empty(shape, np.int32)
    places, rows, columns = np.empty(shape[1]), np.empty(shape[1], np.int32), np.empty(shape[1], np.int32)
    for y in range(shape[0]):
        _places(row_nodes, mesh, y, places)
        _near(places, top, height, rows)
        _places(column_nodes, mesh, y, places)
        _near(places, left, width, columns)
        row = spots[y]
        for x in range(row.size):
            inside = min(rows[x], columns[x]) >= 0
            row[x] = np.int32(rows[x] * width + columns[x]) if inside else np.int32(-1)
    return spots


@jitted
def nearest(values, places, numbers, block):
    """Take the pixel that each place falls into."""
    flat, width = values.reshape(-1), places.shape[1]
    line, ok, at = np.empty(width, np.int32), np.empty(width, np.uint8), np.empty(width, np.uint32)
    for y in range(places.shape[0]):
        spot, gaps = places[y], 0
        for x in range(width):
            at[x] = max(spot[x], 0)
        for x in range(width):
            line[x] = flat[at[x]]
        for x in range(width):
            ok[x] = (spot[x] >= 0) & (line[x] != numbers[0])
            gaps += np.int32(ok[x] == 0)
        settle(line, ok, gaps == 0, numbers, False, block, y, 0, width)


@jitted
def _before(places, start, size, before, shares):
    """Write the pixel before each place, counted by centres, -1 where no pixel follows it, and its share."""
    for x in range(places.size):
        at = places[x] - 0.5 - start
        whole = np.floor(at)
        shares[x] = np.float32(at - whole)
        before[x] = np.int32(whole) if (whole >= 0.0) & (whole < size - 1.0) else np.int32(-1)  # NaN: none


@jitted
def _spots_of_row(before, near, width, first, kinds):
    """Write the first of the four pixels around each place of a row, and which of them it falls into."""
    (rows, columns), (near_rows, near_columns) = before, near
    for x in range(first.size):
        row, column = rows[x], columns[x]
        four = min(row, column) >= 0
        first[x] = np.int32(np.int32(row * width) + column) if four else np.int32(0)
        kind = np.int32(np.int32(2) * np.int32(near_rows[x] - row) + np.int32(near_columns[x] - column))
        inside = min(near_rows[x], near_columns[x]) >= 0
        kinds[x] = (np.uint8(kind) if four else _RIM) if inside else _OUTSIDE


@jitted
def bilinear_spots(row_nodes, column_nodes, mesh, window, spots):
    """Write what `bilinear` needs of the places of a block, and the run of each row with four pixels.

    Shares are float32, as NumPy weighs; which pixel a place falls into is told in float64, as there.
    """
    first, downs, rights, kinds, begins, ends = spots
    shape = first.shape
    places, (top, left, height, width) = np.empty(shape[1]), window
    before = (np.empty(shape[1], np.int32), np.empty(shape[1], np.int32))
    near = (np.empty(shape[1], np.int32), np.empty(shape[1], np.int32))
    for y in range(shape[0]):
        _places(row_nodes, mesh, y, places)
        _near(places, top, height, near[0])
        _before(places, top, height, before[0], downs[y])
        _places(column_nodes, mesh, y, places)
        _near(places, left, width, near[1])
        _before(places, left, width, before[1], rights[y])
        _spots_of_row(before, near, np.int32(width), first[y], kinds[y])
        begin, end, kind = 0, shape[1], kinds[y]
        while begin < end and kind[begin] >= _RIM:
            begin += 1
        stop = begin
        while stop < end and kind[stop] < _RIM:
            stop += 1
        begins[y], ends[y] = begin, stop


@jitted
def _in_pairs(flat, none, low, pairs):
    """Put each pixel and the next one into one number, so that four are picked by two looks; count gaps."""
    gaps = np.int32(0)
    for x in range(pairs.size):
        a, b = np.int32(flat[x]), np.int32(flat[x + 1])
        gaps += np.int32(a == none)
        pairs[x] = np.uint32(np.int32(a - low)) | (np.uint32(np.int32(b - low)) << _HALF)
    return gaps + np.int32(flat[flat.size - 1] == none)


@jitted
def _pick(pairs, first, width, upper, lower):
    for x in range(first.size):
        at = np.uint32(first[x])
        upper[x] = pairs[at]
        lower[x] = pairs[at + width]


@jitted
def _both(pair, low):
    """Take a pair apart."""
    return np.int32(np.int32(pair & _LOW_HALF) + low), np.int32(np.int32(pair >> _HALF) + low)


@jitted
def _weigh_all(upper, lower, low, downs, rights, line):
    """Weigh four pixels for each place, all of which are data."""
    for x in range(line.size):
        (a, b), (c, d) = _both(upper[x], low), _both(lower[x], low)
        down, right = downs[x], rights[x]
        up, left = _ONE - down, _ONE - right
        total = (np.float32(a) * up + np.float32(c) * down) * left
        total += (np.float32(b) * up + np.float32(d) * down) * right
        line[x] = np.int32(np.rint(total))


@jitted
def _weighed(a, b, c, d, none, down, right):
    """Weigh those of four pixels that are data."""
    wa, wb = np.float32(a != none), np.float32(b != none)
    wc, wd = np.float32(c != none), np.float32(d != none)
    up, left = _ONE - down, _ONE - right
    total = (np.float32(a) * wa * up + np.float32(c) * wc * down) * left
    total += (np.float32(b) * wb * up + np.float32(d) * wd * down) * right
    share = (wa * up + wc * down) * left + (wb * up + wd * down) * right
    return np.int32(np.rint(total / share))


@jitted
def _weigh_some(upper, lower, numbers, downs, rights, kinds, line, ok):
    """Weigh those of four pixels that are data, where that is so of the one that the place falls into."""
    none, low = numbers[0], numbers[2]
    for x in range(line.size):
        (a, b), (c, d) = _both(upper[x], low), _both(lower[x], low)
        kind = kinds[x]
        above, below = b if kind & 1 else a, d if kind & 1 else c
        ok[x] = (below if kind & 2 else above) != none
        line[x] = _weighed(a, b, c, d, none, downs[x], rights[x])


@jitted
def _has_gap(upper, lower, low, none):
    gaps = np.int32(0)
    for x in range(upper.size):
        (a, b), (c, d) = _both(upper[x], low), _both(lower[x], low)
        gaps |= np.int32(a == none) | np.int32(b == none) | np.int32(c == none) | np.int32(d == none)
    return gaps != 0


@jitted
def bilinear(values, places, numbers, block):
    """Weigh the four pixels around each place: runs of a row at once, those on the rim one by one."""
    (first, downs, rights, kinds, begins, ends), pairs, fields = places
    size = first.shape[1]
    whole = _in_pairs(values.reshape(-1), numbers[0], numbers[2], pairs) == 0
    width = np.uint32(values.shape[1])
    above, below = np.empty(size, np.uint32), np.empty(size, np.uint32)
    line, ok = np.empty(size, np.int32), np.empty(size, np.uint8)
    rows, columns = np.empty(size), np.empty(size)
    for y in range(first.shape[0]):
        begin, end = begins[y], ends[y]
        count, down, right = end - begin, downs[y, begin:end], rights[y, begin:end]
        run = line[begin:end]
        upper, lower = above[:count], below[:count]
        _pick(pairs, first[y, begin:end], width, upper, lower)
        full = whole or not _has_gap(upper, lower, numbers[2], numbers[0])
        if full:
            _weigh_all(upper, lower, numbers[2], down, right, run)
        else:
            _weigh_some(upper, lower, numbers, down, right, kinds[y, begin:end], run, ok[begin:end])
        if count < size:
            ok[:begin] = 0
            if full:
                ok[begin:end] = 1
            ok[end:] = 0
            _places(fields[0], fields[2], y, rows)
            _places(fields[1], fields[2], y, columns)
            _weigh_rest(values, fields[3], (begin, end), kinds[y], (rows, columns), numbers[0], line, ok)
        settle(line, ok, full and count == size, numbers, True, block, y, 0, size)


@jitted
def _weigh_rest(values, window, run, kinds, places, none, line, ok):
    """Weigh what lies before and behind the run of a row, pixel by pixel."""
    (top, left, height, width), (begin, end), (rows, columns) = window, run, places
    for x in range(kinds.size):
        if begin <= x < end or kinds[x] == _OUTSIDE:
            continue
        down_at, right_at = rows[x] - 0.5 - top, columns[x] - 0.5 - left
        whole_row = min(max(np.floor(down_at), -1.0), height - 1.0)
        whole_column = min(max(np.floor(right_at), -1.0), width - 1.0)
        down, right = np.float32(down_at - whole_row), np.float32(right_at - whole_column)
        r0, c0 = max(np.int64(whole_row), 0), max(np.int64(whole_column), 0)
        r1, c1 = min(np.int64(whole_row) + 1, height - 1), min(np.int64(whole_column) + 1, width - 1)
        row = r1 if np.floor(rows[x] + _SNAP) - top > r0 else r0
        column = c1 if np.floor(columns[x] + _SNAP) - left > c0 else c0
        if values[row, column] != none:
            a, b = np.int32(values[r0, c0]), np.int32(values[r0, c1])
            c, d = np.int32(values[r1, c0]), np.int32(values[r1, c1])
            line[x], ok[x] = _weighed(a, b, c, d, none, down, right), 1
