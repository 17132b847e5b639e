"""Compiled inner loops of dose engine and optimiser.

Numba's cache looks at the file of a compiled function alone: a loop that took a helper or a constant from another file
would stay as it was compiled when that file changes.

A map holds its four Gaussians side by side, so that a node and its right neighbour are eight numbers in a row, and two
reads of eight bring all that straight lines between four nodes need. Compilers don't find this by themselves: it is
written out in LLVM's own vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

from doseledger.planning.machine.linac import N_GAUSSIANS

# Spacing of the depth table in mm; straight lines between its entries err by less than 1e-4 of the maximum.
DEPTH_STEP_MM = 1.0
# Points of a reported dose that are looked at together: what is known of them stays in the nearest cache.
BLOCK = 512

_INDEX, _REAL = ir.IntType(32), ir.FloatType()
_FAST = ("fast",)
# A node of a flat map, the length of a row of nodes, the shares of the way across and down to the next nodes; and the
# weights of the Gaussians in a flat array, with the first one's index.
_LOOK = (
    types.float32[::1],
    types.Tuple((types.uint64, types.uint64, types.float32, types.float32)),
    types.float32[::1],
    types.uint64,
)


def _lanes(builder: Any, scalar: Any, n: int) -> Any:
    """Return a vector of n equal numbers."""
    none = ir.Constant(ir.VectorType(_REAL, n), ir.Undefined)
    return _some(builder, builder.insert_element(none, scalar, ir.Constant(_INDEX, 0)), [0] * n)


def _some(builder: Any, vector: Any, lanes: list[int]) -> Any:
    """Return some lanes of a vector as a vector."""
    none = ir.Constant(vector.type, ir.Undefined)
    return builder.shuffle_vector(vector, none, ir.Constant(ir.VectorType(_INDEX, len(lanes)), lanes))


def _between(builder: Any, first: Any, last: Any, share: Any) -> Any:
    """Return the vector that lies at a share of the way from one to another."""
    way = builder.fmul(_lanes(builder, share, first.type.count), builder.fsub(last, first, flags=_FAST), flags=_FAST)
    return builder.fadd(first, way, flags=_FAST)


def _address(context: Any, builder: Any, array: Any, first: Any, n: int) -> Any:
    """Return where n numbers in a row of a flat array lie."""
    data = context.make_array(_LOOK[0])(context, builder, array).data
    return builder.bitcast(builder.gep(data, [first]), ir.PointerType(ir.VectorType(_REAL, n)))


@intrinsic
def _blend(typing, maps, place, weights, first):  # type: ignore[no-untyped-def]
    """Return Σ_g weight_g · map_g at a place between four nodes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # 1. a node and its right neighbour are eight numbers in a row: two reads bring all four nodes
        maps, place, weights, first = arguments
        node, row, across, down = (builder.extract_value(place, k) for k in range(4))
        upper = builder.load(_address(context, builder, maps, node, 8), align=4)
        lower = builder.load(_address(context, builder, maps, builder.add(node, row), 8), align=4)
        # 2. a straight line down, then one across: the four Gaussians at the place
        both = _between(builder, upper, lower, down)
        value = _between(builder, _some(builder, both, [0, 1, 2, 3]), _some(builder, both, [4, 5, 6, 7]), across)
        # 3. times their weights, summed
        weight = builder.load(_address(context, builder, weights, first, 4), align=4)
        value = builder.fmul(value, weight, flags=_FAST)
        value = builder.fadd(_some(builder, value, [0, 1]), _some(builder, value, [2, 3]), flags=_FAST)
        one, other = (builder.extract_element(value, ir.Constant(_INDEX, k)) for k in (0, 1))
        return builder.fadd(one, other, flags=_FAST)

    return types.float32(*_LOOK), generate


@intrinsic
def _spread(typing, maps, place, weights, first, value):  # type: ignore[no-untyped-def]
    """Add to four nodes what a value between them gives to each: the transpose of `_blend`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        maps, place, weights, first, value = arguments
        node, row, across, down = (builder.extract_value(place, k) for k in range(4))
        # 1. the value's share of each Gaussian
        weight = builder.load(_address(context, builder, weights, first, 4), align=4)
        weight = builder.fmul(weight, _lanes(builder, value, 4), flags=_FAST)
        # 2. shared out to left and right, then to the upper and the lower row
        right = builder.fmul(weight, _lanes(builder, across, 4), flags=_FAST)
        left = builder.fsub(weight, right, flags=_FAST)
        both = builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(_INDEX, 8), list(range(8))))
        lower = builder.fmul(both, _lanes(builder, down, 8), flags=_FAST)
        upper = builder.fsub(both, lower, flags=_FAST)
        # 3. added to the four nodes
        for at, more in ((node, upper), (builder.add(node, row), lower)):
            address = _address(context, builder, maps, at, 8)
            builder.store(builder.fadd(builder.load(address, align=4), more, flags=_FAST), address, align=4)
        return context.get_dummy_value()

    return types.void(*_LOOK, types.float32), generate


@njit(cache=True, fastmath=True, error_model="numpy")
def weigh(points, view, depth, table, weight):  # type: ignore[no-untyped-def]
    """Fill each Gaussian's weight, (point, gaussian), at points (3, point) in mm: depth dose times inverse square."""
    # 1. inverse square and place in the fan; 2. radiological depth there, over the first of the places
    held = np.empty((4, points.shape[1]), dtype=np.float32)
    square, deep = held[0], held[1]
    _see(points, view, depth.shape, held)
    _fill_depth(depth, held[1:], deep)
    # 3. each Gaussian's depth dose, on a straight line between two entries of the table
    entries = table.ravel()
    deepest = np.float32(table.shape[0] - 1.001)
    for p in range(points.shape[1]):
        entry = min(deep[p] / np.float32(DEPTH_STEP_MM), deepest)
        k = np.uint32(np.int32(entry))
        f = entry - np.float32(k)
        k *= np.uint32(N_GAUSSIANS)
        for g in range(N_GAUSSIANS):
            low, high = entries[k + np.uint32(g)], entries[k + np.uint32(g + N_GAUSSIANS)]
            weight[p, g] = square[p] * (low + f * (high - low))


@njit(cache=True, fastmath=True, error_model="numpy")
def spread_out(points, view, stretch, rule, weight, wide):  # type: ignore[no-untyped-def]
    """Move weights, (point, gaussian), of stretched Gaussians to other widths; return how many points have any.

    Stretch is (gaussian, *fan); the rule that of `stretch.Ladder`; wide is (group, point, gaussian), filled with 0.
    """
    variance, slot, what, counts = rule
    own, free, stretches = what[0], what[1], what[2]
    least, full = counts[0], counts[1]
    n = points.shape[1]
    held = np.empty((4, n), dtype=np.float32)
    stretched = np.empty((N_GAUSSIANS, n), dtype=np.float32)
    # 1. place in the fan; 2. the stretch of each Gaussian there
    _see(points, view, stretch.shape[1:], held)
    for g in range(N_GAUSSIANS):
        _fill_depth(stretch[g], held[1:], stretched[g])
    used = 0
    moved = np.empty(N_GAUSSIANS, dtype=np.float32)
    for p in range(n):
        some = False
        for g in range(N_GAUSSIANS):
            k = stretched[g, p]
            if k < full:
                k = np.float32(1.0) + (k - least) * (full - np.float32(1.0)) / (full - least)
            stretched[g, p] = k
            moved[g] = np.float32(0.0)
            if k > np.float32(1.0):
                some = True
                moved[g] = stretches[g] * weight[p, g]
                weight[p, g] -= moved[g]
        if not some:
            continue
        used += 1
        for g in range(N_GAUSSIANS):
            if moved[g] == np.float32(0.0):
                continue
            # 3. between the two widths whose variances lie about the stretched one
            wanted = min(own[g] + free[g] * (stretched[g, p] ** 2 - np.float32(1.0)), variance[-1])
            j = 0
            while j < variance.shape[0] - 2 and variance[j + 1] < wanted:
                j += 1
            share = (wanted - variance[j]) / (variance[j + 1] - variance[j])
            for s, part in ((slot[j], moved[g] * (np.float32(1.0) - share)), (slot[j + 1], moved[g] * share)):
                if s < N_GAUSSIANS:
                    weight[p, s] += part
                else:
                    wide[s // N_GAUSSIANS - 1, p, s % N_GAUSSIANS] += part
    return used


@njit(cache=True, fastmath=True, error_model="numpy")
def _see(points, view, shape, held):  # type: ignore[no-untyped-def]
    """Fill the inverse square of points and their place in a fan of a shape in nodes: ray across, step, ray along."""
    s0, s1, s2 = view[0]
    d0, d1, d2 = view[3]
    a0, a1, a2 = view[5]
    b0, b1, b2 = view[6]
    c0, c1, c2 = view[7]
    start_x, start_y, start_step = view[8]
    source_axis_mm = view[4, 2]
    zero = np.float32(0.0)
    # The fan's edge holds beyond it.
    end_x, end_step, end_y = np.float32(shape[0] - 1.001), np.float32(shape[1] - 1.001), np.float32(shape[2] - 1.001)
    square, ray_x, step, ray_y = held[0], held[1], held[2], held[3]
    px, py, pz = points[0], points[1], points[2]
    for p in range(points.shape[1]):
        # 1. the way from the source, its length along the beam's axis, and the inverse square
        x = px[p] - s0
        y = py[p] - s1
        z = pz[p] - s2
        near = source_axis_mm / (x * d0 + y * d1 + z * d2)
        square[p] = near * near
        # 2. place in the fan: rays across and along, steps away from the source
        far = x * c0 + y * c1 + z * c2
        ray_x[p] = min(max((x * a0 + y * a1 + z * a2) / far - start_x, zero), end_x)
        ray_y[p] = min(max((x * b0 + y * b1 + z * b2) / far - start_y, zero), end_y)
        step[p] = min(max(far - start_step, zero), end_step)


@njit(cache=True, fastmath=True, error_model="numpy")
def _fill_depth(depth, place, deep):  # type: ignore[no-untyped-def]
    """Fill the radiological depth in mm at places of a fan in nodes, (3, point), trilinear."""
    flat = depth.ravel()
    line, sheet = np.int32(depth.shape[2]), np.int32(depth.shape[1] * depth.shape[2])
    # Unsigned indices: signed ones would be checked for a wrap at every load.
    one, below, beside = np.uint32(1), np.uint32(line), np.uint32(sheet)
    ray_x, step, ray_y = place[0], place[1], place[2]
    for p in range(deep.shape[0]):
        # 1. the node before, and the shares of the way to the next ones
        ix = np.int32(ray_x[p])
        it = np.int32(step[p])
        iy = np.int32(ray_y[p])
        fx = ray_x[p] - np.float32(ix)
        ft = step[p] - np.float32(it)
        fy = ray_y[p] - np.float32(iy)
        # 2. four lines along rays, then two along steps, then one across
        k = np.uint32(ix * sheet + it * line + iy)
        a = flat[k]
        a += fy * (flat[k + one] - a)
        k += below
        b = flat[k]
        b += fy * (flat[k + one] - b)
        k += beside
        d = flat[k]
        d += fy * (flat[k + one] - d)
        k -= below
        c = flat[k]
        c += fy * (flat[k + one] - c)
        a += ft * (b - a)
        c += ft * (d - c)
        deep[p] = a + fx * (c - a)


@njit(cache=True, fastmath=True, error_model="numpy")
def locate(points, view, shape, node, share):  # type: ignore[no-untyped-def]
    """Fill where points (3, point) in mm lie on a map of a shape.

    The node before each as an index of the flat map, −1 out of reach, and its shares of the way across and down to the
    next ones, (2, point).
    """
    s0, s1, s2 = view[0]
    a0, a1, a2 = view[1]
    b0, b1, b2 = view[2]
    d0, d1, d2 = view[3]
    start_x, start_y, _ = view[4]
    zero = np.float32(0.0)
    last_x, last_y = np.float32(shape[1] - 1), np.float32(shape[0] - 1)
    width = np.int32(shape[1])
    px, py, pz = points[0], points[1], points[2]
    across, down = share[0], share[1]
    for p in range(points.shape[1]):
        # 1. column and line of the point on the map
        x = px[p] - s0
        y = py[p] - s1
        z = pz[p] - s2
        distance = x * d0 + y * d1 + z * d2
        column = (x * a0 + y * a1 + z * a2) / distance - start_x
        line = (x * b0 + y * b1 + z * b2) / distance - start_y
        seen = (column >= zero) & (column < last_x) & (line >= zero) & (line < last_y)
        # 2. the node before, as an index of the flat map, and the shares of the way to the next ones
        column = min(max(column, zero), last_x)
        line = min(max(line, zero), last_y)
        ix = np.int32(column)
        iy = np.int32(line)
        across[p] = column - np.float32(ix)
        down[p] = line - np.float32(iy)
        node[p] = (iy * width + ix) * np.int32(N_GAUSSIANS) if seen else np.int32(-1)


@njit(cache=True)
def interleave(single, together):  # type: ignore[no-untyped-def]
    """Fill maps whose Gaussians lie side by side, (…, gaussian), from those of one Gaussian each, (gaussian, …)."""
    a, b, c, d = single[0].ravel(), single[1].ravel(), single[2].ravel(), single[3].ravel()
    flat = together.ravel()
    for k in range(a.shape[0]):
        flat[4 * k] = a[k]
        flat[4 * k + 1] = b[k]
        flat[4 * k + 2] = c[k]
        flat[4 * k + 3] = d[k]


@njit(cache=True)
def part(together, single):  # type: ignore[no-untyped-def]
    """Fill maps of one Gaussian each from those whose Gaussians lie side by side: the inverse of `interleave`."""
    a, b, c, d = single[0].ravel(), single[1].ravel(), single[2].ravel(), single[3].ravel()
    flat = together.ravel()
    for k in range(a.shape[0]):
        a[k] = flat[4 * k]
        b[k] = flat[4 * k + 1]
        c[k] = flat[4 * k + 2]
        d[k] = flat[4 * k + 3]


@njit(cache=True, fastmath=True, error_model="numpy")
def gather(node, share, weight, maps, dose):  # type: ignore[no-untyped-def]
    """Add to each point its dose from the blurred maps of fields that see it from one direction."""
    flat, weights = maps.ravel(), weight.ravel()
    row = np.uint64(maps.shape[2] * N_GAUSSIANS)
    one_map = np.uint64(maps.shape[1]) * row
    for p in range(dose.shape[0]):
        total = np.float32(0.0)
        first = np.uint64(p * N_GAUSSIANS)
        for v in range(node.shape[0]):
            if node[v, p] >= 0:
                at = np.uint64(node[v, p]) + np.uint64(v) * one_map
                total += _blend(flat, (at, row, share[v, 0, p], share[v, 1, p]), weights, first)
        dose[p] += total


@njit(cache=True, fastmath=True, error_model="numpy")
def scatter(node, share, weight, slope, chosen, blurred):  # type: ignore[no-untyped-def]
    """Add to the maps of one field what the slopes at the chosen points give: the transpose of `gather`."""
    flat, weights = blurred.ravel(), weight.ravel()
    row = np.uint64(blurred.shape[1] * N_GAUSSIANS)
    across, down = share[0], share[1]
    for k in range(chosen.shape[0]):
        p = np.uint64(chosen[k])
        if node[p] >= 0:
            place = (np.uint64(node[p]), row, across[p], down[p])
            _spread(flat, place, weights, p * np.uint64(N_GAUSSIANS), slope[p])


@njit(cache=True, fastmath=True, error_model="numpy")
def gather_some(node, share, weight, chosen, blurred, dose):  # type: ignore[no-untyped-def]
    """Add to the chosen points their dose from the maps of one field; weights are those of the chosen ones alone."""
    flat, weights = blurred.ravel(), weight.ravel()
    row = np.uint64(blurred.shape[1] * N_GAUSSIANS)
    for k in range(chosen.shape[0]):
        p = chosen[k]
        if node[p] >= 0:
            place = (np.uint64(node[p]), row, share[0, p], share[1, p])
            dose[p] += _blend(flat, place, weights, np.uint64(k * N_GAUSSIANS))


@njit(cache=True, fastmath=True, error_model="numpy")
def scatter_some(node, share, weight, slope, chosen, blurred):  # type: ignore[no-untyped-def]
    """Add to the maps of one field what the slopes at the chosen points give: the transpose of `gather_some`."""
    flat, weights = blurred.ravel(), weight.ravel()
    row = np.uint64(blurred.shape[1] * N_GAUSSIANS)
    for k in range(chosen.shape[0]):
        p = chosen[k]
        if node[p] >= 0:
            place = (np.uint64(node[p]), row, share[0, p], share[1, p])
            _spread(flat, place, weights, np.uint64(k * N_GAUSSIANS), slope[p])


@njit(cache=True, fastmath=True, error_model="numpy")
def add_dose(points, views, depth, table, maps, dose):  # type: ignore[no-untyped-def]
    """Add to each of points (3, point) in mm its dose from the fields of one direction."""
    fields = views.shape[0]
    part = np.zeros((3, BLOCK), dtype=np.float32)
    weight = np.empty((BLOCK, N_GAUSSIANS), dtype=np.float32)
    node = np.empty((fields, BLOCK), dtype=np.int32)
    share = np.empty((fields, 2, BLOCK), dtype=np.float32)
    for start in range(0, points.shape[1], BLOCK):
        n = min(BLOCK, points.shape[1] - start)
        for a in range(3):
            part[a, :n] = points[a, start : start + n]
        # 1. weights: depth and distance are the same for all fields of one direction
        weigh(part, views[0], depth, table, weight)
        # 2. places on each field's map; 3. their doses, summed
        for v in range(fields):
            locate(part, views[v], maps[v].shape, node[v], share[v])
        gather(node, share, weight, maps, dose[start : start + n])


@njit(cache=True, fastmath=True, error_model="numpy")
def add_stretched_dose(points, views, fans, how, maps, dose):  # type: ignore[no-untyped-def]
    """Add to each of points (3, point) in mm its dose from the fields of one direction, with stretched Gaussians.

    Fans are those of depth and stretch; how is the depth table and the rule of `stretch.Ladder`; maps are those of the
    beam's own widths, (field, y, x, gaussian), and of the others, (group, field, y, x, gaussian).
    """
    depth, stretch = fans
    table, rule = how
    own_maps, wide_maps = maps
    fields, groups = views.shape[0], wide_maps.shape[0]
    part = np.zeros((3, BLOCK), dtype=np.float32)
    weight = np.empty((BLOCK, N_GAUSSIANS), dtype=np.float32)
    wide = np.empty((groups, BLOCK, N_GAUSSIANS), dtype=np.float32)
    node = np.empty((fields, BLOCK), dtype=np.int32)
    share = np.empty((fields, 2, BLOCK), dtype=np.float32)
    for start in range(0, points.shape[1], BLOCK):
        n = min(BLOCK, points.shape[1] - start)
        for a in range(3):
            part[a, :n] = points[a, start : start + n]
        # 1. weights, in their own widths and in wider ones; 2. places on each field's map; 3. their doses, summed
        weigh(part, views[0], depth, table, weight)
        wide[:] = np.float32(0.0)
        used = spread_out(part, views[0], stretch, rule, weight, wide)
        for v in range(fields):
            locate(part, views[v], own_maps[v].shape, node[v], share[v])
        gather(node, share, weight, own_maps, dose[start : start + n])
        if used:
            for g in range(groups):
                gather(node, share, wide[g], wide_maps[g], dose[start : start + n])
