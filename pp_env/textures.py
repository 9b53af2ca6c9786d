"""Grey patterns for randomized surfaces, computed rather than loaded."""

from collections.abc import Callable

import numpy as np

PLAIN = "plain"
WOOD = "wood"  # no pattern, but the table's own look (`pp_env.sim.surfaces`)
_SIZE = 64  # texels, each way
_DARKEST = 0.65  # bright enough that objects stay visible on a dark surface


def shade(name: str) -> np.ndarray:
    """Return the pattern of that name, (64, 64) in [0.65, 1], which repeats seamlessly.

    A surface's colour is multiplied by it.

    Raises:
        KeyError: There is none, as for "plain".
    """
    v, u = np.mgrid[0:_SIZE, 0:_SIZE] / _SIZE * 2 * np.pi
    return _DARKEST + (1 - _DARKEST) * _PATTERNS[name](u, v)


def _checker(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return ((u < np.pi) == (v < np.pi)).astype(float)


def _stripes(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (np.sin(4 * u) > 0).astype(float)


def _grain(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    bent = u + 0.15 * np.sin(v) + 0.1 * np.sin(2 * v + 1.0)
    return 0.5 + 0.3 * np.sin(3 * bent) + 0.2 * np.sin(7 * bent + 2.0)


def _clouds(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    waves = ((1, 2, 0.3), (2, -1, 1.1), (3, 1, 2.9), (-2, 3, 4.2), (4, -3, 0.7), (5, 2, 5.5))
    return 0.5 + np.mean([np.sin(a * u + b * v + c) for a, b, c in waves], axis=0) / 2


_PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "checker": _checker,
    "stripes": _stripes,
    "grain": _grain,
    "clouds": _clouds,
}

TEXTURES = (PLAIN, *_PATTERNS)
TABLE_TEXTURES = (WOOD, *TEXTURES)
