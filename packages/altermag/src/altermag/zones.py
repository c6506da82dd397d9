"""Polygons of the plane: the Brillouin zone, and lines and half planes cut out of it."""

from __future__ import annotations

import numpy as np

from altermag.cells import reduced
from altermag.slabs import Floats

EDGE = 1e-9  # relative to the zone's size: what lies that near the edge is on it


def reciprocal(plane: Floats) -> Floats:
    """Return the reciprocal vectors (2, 2), rows in 1/Å with the factor 2π, of in-plane vectors (2, 2)."""
    return np.asarray(2 * np.pi * np.linalg.inv(plane).T)


def brillouin_zone(plane: Floats) -> Floats:
    """Return the corners (m, 2) of the first Brillouin zone in 1/Å, counterclockwise."""
    b = reduced(reciprocal(plane))
    size = 2 * np.linalg.norm(b, axis=1).max()
    polygon = size * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            if (i, j) != (0, 0):
                point = i * b[0] + j * b[1]
                polygon = clip(polygon, point, float(point @ point) / 2)
    return polygon


def clip(polygon: Floats, normal: Floats, offset: float) -> Floats:
    """Return the part of a convex polygon (m, 2) where normal · k <= offset."""
    beyond = polygon @ normal - offset
    edge = EDGE * np.abs(polygon @ normal).max()
    corners = []
    for i, here in enumerate(polygon):
        j = (i + 1) % len(polygon)
        if beyond[i] <= edge:
            corners.append(here)
        if (beyond[i] < -edge and beyond[j] > edge) or (beyond[i] > edge and beyond[j] < -edge):
            part = beyond[i] / (beyond[i] - beyond[j])
            corners.append(here + part * (polygon[j] - here))
    return np.array(corners).reshape(-1, 2)


def chord(polygon: Floats, normal: Floats, offset: float) -> Floats | None:
    """Return the two ends (2, 2) of the line normal · k = offset in a convex polygon, its edges included."""
    start = offset * normal / (normal @ normal)
    along = np.array([-normal[1], normal[0]]) / np.linalg.norm(normal)
    sides = np.roll(polygon, -1, axis=0) - polygon
    outward = np.stack([sides[:, 1], -sides[:, 0]], axis=1) / np.linalg.norm(sides, axis=1)[:, None]
    room = ((polygon - start) * outward).sum(1)
    speed = outward @ along
    size = float(np.abs(polygon).max())
    parallel = np.abs(speed) < EDGE
    if (room[parallel] < -EDGE * size).any():
        return None
    first = (room[speed < -EDGE] / speed[speed < -EDGE]).max()
    last = (room[speed > EDGE] / speed[speed > EDGE]).min()
    return None if last - first < EDGE * size else np.array([start + first * along, start + last * along])


def centroid(polygon: Floats) -> Floats:
    """Return the centre of area (2,) of a polygon (m, 2)."""
    after = np.roll(polygon, -1, axis=0)
    areas = polygon[:, 0] * after[:, 1] - polygon[:, 1] * after[:, 0]
    return np.asarray(((polygon + after) * areas[:, None]).sum(0) / (3 * areas.sum()))
