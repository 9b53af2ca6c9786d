"""Distances between colours as seen, and colours that keep them."""

import itertools

import numpy as np

MIN_DISTANCE = 0.2  # in Oklab, where black and white are 1 apart

# Oklab: https://bottosson.github.io/posts/oklab
_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_ORDERS = np.array(list(itertools.permutations(range(3))))
_CORNERS = np.array(list(itertools.product((0.0, 1.0), repeat=3)))


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Return the Oklab coordinates (..., 3) of sRGB colours (..., 3) in [0, 1]."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T


def distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return how different colours (..., 3) look: their Euclidean distances (...) in Oklab."""
    return np.linalg.norm(oklab(first) - oklab(second), axis=-1)


def first_apart(candidates: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the first of the candidates (n, 3) that is `MIN_DISTANCE` from all others (m, 3).

    If there is none, that with the greatest distance to the nearest.
    """
    nearest = distance(candidates[:, None], others).min(axis=1)
    return candidates[np.argmax(np.minimum(nearest, MIN_DISTANCE))]


def variants(shares: np.ndarray) -> np.ndarray:
    """Return other colours for sampled ones, (m, 3): first these, then those made from them.

    A range has at least its corners far from any few colours, so the search does not fail.

    Args:
        shares: (n, 3) in [0, 1], where in each channel's range the colour lies.
    """
    permuted = shares[:, _ORDERS].reshape(-1, 3)
    return np.concatenate([shares, permuted, 1.0 - permuted, _CORNERS])
