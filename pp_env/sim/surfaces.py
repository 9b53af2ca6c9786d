"""The look of table and floor, as flat meshes that every simulator shows.

Without a GPU they cost little, while an image as texture adds half to the time of a picture
(docs/cameras.md).
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from pp_env.config import TableConfig, Vec3

LEG_RGB: Vec3 = (0.24, 0.25, 0.27)

_LAYER = 1e-4  # m between meshes that lie on another: enough for a depth buffer
_PLANK_WIDTH = 0.1  # m
_GRAIN_WIDTHS = (0.003, 0.004, 0.005, 0.008, 0.014)  # m, of one plank
_JOINT = 0.002  # m
_LEG_WIDTH = 0.05  # m
_TONES = (1.0, 0.92)  # of planks, as factors on the colour
_FLOOR_TONES = (1.0, 0.95)  # of tiles
_FLOOR_EDGES = (-10.0, -6.5, *(0.9 * i for i in range(-4, 5)), 6.5, 10.0)  # m; far tiles are large

_Strip = tuple[np.ndarray, np.ndarray]  # vertices (n, 2), m, and faces (m, 3)


@dataclass(frozen=True)
class Surface:
    """A visible mesh without thickness that never moves.

    Attributes:
        name: Unique name, which begins with that of the thing it belongs to.
        shade: Factor on that thing's colour.
        vertices: (n, 3) m, world frame.
        faces: (m, 3) indices of vertices, counter-clockwise where they are seen from.
    """

    name: str
    shade: float
    vertices: np.ndarray
    faces: np.ndarray


@cache
def table_top(table: TableConfig) -> tuple[Surface, ...]:
    """Return the table as planks of two tones along y, with grain, and joints between them."""
    rng = np.random.default_rng(5)
    low, high = (np.array(table.center) + sign * np.array(table.size) / 2 for sign in (-1, 1))
    edges = np.linspace(low[0], high[0], round((high[0] - low[0]) / _PLANK_WIDTH) + 1)
    planks, y = list(itertools.pairwise(edges.tolist())), np.linspace(low[1], high[1], 7)
    tones = rng.permutation(np.arange(len(planks)) % len(_TONES)).tolist()

    def layer(number: int, strips: Sequence[_Strip]) -> tuple[np.ndarray, np.ndarray]:
        return _flat(strips, table.top_z + number * _LAYER)

    light, dark = ([p for p, t in zip(planks, tones, strict=True) if t == k] for k in (0, 1))
    grain = [s for p in planks for s in _grain(rng, p, y)]
    joints = [_strip(x - _JOINT / 2, x + _JOINT / 2, y) for x in edges[1:-1].tolist()]
    sides = _box(low - _LAYER, (*(high[:2] + _LAYER), high[2]), top=False)
    return (
        Surface(
            "table_light", _TONES[0], *_joined(layer(1, [_strip(*p, y) for p in light]), sides)
        ),
        Surface("table_dark", _TONES[1], *layer(1, [_strip(*p, y) for p in dark])),
        Surface("table_grain", 0.86, *layer(2, grain + joints)),
    )


@cache
def table_legs(table: TableConfig) -> Surface:
    """Return the four legs, whose colour is `LEG_RGB`. Nothing collides with them."""
    half, height = np.array(table.size[:2]) / 2, table.center[2] - table.size[2] / 2
    boxes = []
    for sign in itertools.product((-1, 1), repeat=2):
        middle = table.center[:2] + np.array(sign) * (half - _LEG_WIDTH / 2)
        low, high = middle - _LEG_WIDTH / 2, middle + _LEG_WIDTH / 2
        boxes.append(_box((*low, 0.0), (*high, height)))
    return Surface("table_legs", 1.0, *_joined(*boxes))


@cache
def floor() -> tuple[Surface, ...]:
    """Return the floor as tiles of two tones."""
    rng, cells = np.random.default_rng(3), list(itertools.pairwise(_FLOOR_EDGES))
    tone = rng.integers(0, len(_FLOOR_TONES), (len(cells), len(cells)))
    return tuple(
        Surface(
            f"floor_{name}",
            _FLOOR_TONES[k],
            *_flat(
                [_strip(*cells[i], np.array(cells[j])) for i, j in np.argwhere(tone == k).tolist()],
                _LAYER,
            ),
        )
        for k, name in enumerate(("light", "dark"))
    )


def shade_image(surfaces: Sequence[Surface], size: np.ndarray, texel: float) -> np.ndarray:
    """Return what is seen of surfaces from above, as shades: an image whose rows go towards -y.

    Args:
        surfaces: Flat ones, each above those before it.
        size: (2,) extents of the image along x and y, m, about the middle of the first surfaces.
        texel: Edge of a texel, m.

    Returns:
        (height, width) uint8, 255 for a shade of 1.
    """
    every = np.concatenate([surface.vertices[:, :2] for surface in surfaces])
    middle = (every.min(axis=0) + every.max(axis=0)) / 2
    width, height = np.round(size / texel).astype(int).tolist()
    x = middle[0] - size[0] / 2 + (np.arange(width) + 0.5) * texel
    y = middle[1] + size[1] / 2 - (np.arange(height) + 0.5) * texel
    image = np.zeros((height, width))
    for surface in surfaces:
        for corners in surface.vertices[surface.faces][:, :, :2]:
            columns = slice(*np.searchsorted(x, [corners[:, 0].min(), corners[:, 0].max()]))
            rows = slice(*np.searchsorted(-y, [-corners[:, 1].max(), -corners[:, 1].min()]))
            ahead = np.roll(corners, -1, axis=0) - corners
            dx = x[columns][None, :, None] - corners[:, 0]
            dy = y[rows][:, None, None] - corners[:, 1]
            turns = ahead[:, 0] * dy - ahead[:, 1] * dx
            inside = (turns >= 0).all(axis=-1) | (turns <= 0).all(axis=-1)
            image[rows, columns][inside] = surface.shade
    return np.round(255 * image).astype(np.uint8)


def _grain(rng: np.random.Generator, plank: tuple[float, float], y: np.ndarray) -> Iterator[_Strip]:
    """Return strips along one plank, which bend alike and end in points.

    Args:
        rng: Source of all randomness.
        plank: Its edges in x, m.
        y: (n,) where strips have vertices, m.
    """
    left, right = plank
    bend = 0.008 * np.sin(rng.uniform(3, 6) * y + rng.uniform(0, 6))
    for k, width in enumerate(rng.permutation(_GRAIN_WIDTHS)):
        x = left + (right - left) * (k + rng.uniform(0.35, 0.65)) / len(_GRAIN_WIDTHS)
        first, last = rng.integers(0, 3), len(y) - rng.integers(0, 2)
        taper = np.sin(np.linspace(0.0, np.pi, last - first)) ** 0.7
        half = taper * width * rng.uniform(0.35, 0.5, last - first)
        middle = x + bend[first:last]
        yield _strip(
            np.clip(middle - half, left + _JOINT, right - _JOINT),
            np.clip(middle + half, left + _JOINT, right - _JOINT),
            y[first:last],
        )


def _strip(left: float | np.ndarray, right: float | np.ndarray, y: np.ndarray) -> _Strip:
    """Return a strip along y (n,) between two edges, each one x or (n,), m."""
    edges = [np.stack([np.broadcast_to(x, y.shape), y], axis=1) for x in (left, right)]
    first = 2 * np.arange(len(y) - 1)[:, None]
    faces = np.concatenate([first + [0, 1, 3], first + [0, 3, 2]])
    return np.stack(edges, axis=1).reshape(-1, 2), faces


def _flat(strips: Sequence[_Strip], height: float) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices and faces of strips at a height, m."""
    return _joined(*((np.c_[v, np.full(len(v), height)], faces) for v, faces in strips))


def _box(
    low: Sequence[float] | np.ndarray, high: Sequence[float] | np.ndarray, top: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices and faces of a box between two corners (3,), m, with or without its top."""
    corners = np.array(list(itertools.product(*zip(low, high, strict=True))))
    quads = np.array(
        [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    )[: 6 if top else 5]
    return corners, np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def _joined(*parts: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return several meshes as one."""
    offsets = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
    faces = [faces + offset for (_, faces), offset in zip(parts, offsets[:-1], strict=True)]
    return np.concatenate([vertices for vertices, _ in parts]), np.concatenate(faces)
