"""Areas of the surface elements of a voxel mask, by the configuration of eight neighbours.

The surface passes half-way between voxel centres inside and outside (marching cubes, Lorensen & Cline 1987,
doi:10.1145/37402.37422): within the cube spanned by eight voxel centres, closed polygons connect the midpoints of
the cube's edges. On a face filled crosswise, the polygons cut off the corners of the minority. Pentagons and
hexagons are not planar; they are split to maximise their area at equal spacings, as in DeepMind's surface-distance, so
that figures are comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

# A corner of the cube is (d, h, w) of 0 and 1; its bit in a code is 4 d + 2 h + w. Midpoints of edges use
# doubled coordinates.
Point = tuple[int, int, int]
_CORNERS: list[Point] = [(d, h, w) for d in (0, 1) for h in (0, 1) for w in (0, 1)]


@lru_cache(maxsize=64)
def surface_areas_mm2(spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return the area in mm² of the surface in a cube of eight voxel centres, for all 256 codes."""
    d, h, w = spacing_mm
    return np.array([np.linalg.norm(n * np.array([h * w, d * w, d * h]), axis=1).sum() for n in _normals()])


@lru_cache(maxsize=64)
def contour_lengths_mm(spacing_mm: tuple[float, float]) -> NDArray[np.float64]:
    """Return the length in mm of the contour in a square of four pixel centres, for all 16 codes of bit 2 h + w."""
    h, w = spacing_mm
    lengths = np.zeros(16)
    for code in range(1, 15):
        filled = [code >> bit & 1 for bit in range(4)]
        if filled[0] == filled[3] and filled[1] == filled[2]:  # crosswise: two corners are cut off
            lengths[code] = np.hypot(h, w)
        elif sum(filled) == 2:
            lengths[code] = h if filled[0] == filled[2] else w
        else:
            lengths[code] = np.hypot(h, w) / 2
    return lengths


@lru_cache(maxsize=1)
def _normals() -> list[NDArray[np.float64]]:
    """Return for every code the normals (T, 3) of its triangles at unit spacing, as long as their area."""
    table = []
    for code in range(256):
        triangles = [triangle for polygon in _polygons(code) for triangle in _split(polygon)]
        table.append(_cross(triangles) / 8)  # half the cross product, in doubled coordinates
    return table


def _polygons(code: int) -> list[list[Point]]:
    """Return the closed polygons that separate filled from empty corners."""
    filled = {corner for bit, corner in enumerate(_CORNERS) if code >> bit & 1}
    is_cut_off_filled = len(filled) <= 4
    links: dict[Point, list[Point]] = {}
    for face in _faces():
        for start, end in _face_links(face, filled, is_cut_off_filled=is_cut_off_filled):
            links.setdefault(start, []).append(end)
            links.setdefault(end, []).append(start)
    polygons = []
    while links:
        point = next(iter(links))
        polygon = []
        while point in links:
            polygon.append(point)
            nexts = links.pop(point)
            point = next((p for p in nexts if p in links), point)
        polygons.append(polygon)
    return polygons


def _faces() -> list[list[Point]]:
    """Return the four corners of each face in cyclic order."""
    faces = []
    for axis in range(3):
        for side in (0, 1):
            corners = [corner for corner in _CORNERS if corner[axis] == side]
            faces.append([corners[0], corners[1], corners[3], corners[2]])
    return faces


def _face_links(face: list[Point], filled: set[Point], *, is_cut_off_filled: bool) -> list[tuple[Point, Point]]:
    """Return the pieces of the polygons that lie in one face."""
    middles = [_middle(face[i], face[(i + 1) % 4]) for i in range(4)]
    crossed = [i for i in range(4) if (face[i] in filled) != (face[(i + 1) % 4] in filled)]
    if len(crossed) < 4:
        return [(middles[i], middles[j]) for i, j in combinations(crossed, 2)]
    return [(middles[i - 1], middles[i]) for i in range(4) if (face[i] in filled) == is_cut_off_filled]


def _middle(one: Point, other: Point) -> Point:
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2])


def _split(polygon: list[Point]) -> list[list[Point]]:
    """Split a polygon of three to six corners by cutting off every other one, starting for the largest area."""
    splits = []
    for start in range(len(polygon)):
        ring = polygon[start:] + polygon[:start]
        triangles = [[ring[i], ring[i + 1], ring[(i + 2) % len(ring)]] for i in range(0, len(ring) - 1, 2)]
        if len(ring) > 4:
            triangles.append(ring[0:5:2])
        splits.append(triangles)
    return max(splits, key=lambda triangles: float(np.linalg.norm(_cross(triangles), axis=1).sum().round(9)))


def _cross(triangles: Sequence[Sequence[Point]]) -> NDArray[np.float64]:
    """Return the cross products (T, 3) of two sides of each triangle."""
    corners = np.array(triangles, dtype=np.float64).reshape(-1, 3, 3)
    crosses: NDArray[np.float64] = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return crosses
