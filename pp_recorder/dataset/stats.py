"""Statistics of a feature, as LeRobot stores them: per episode, and folded into the dataset's.

std is the population's. A dataset's min, max, mean and std are exact; its quantiles are the mean
of the episodes' quantiles weighted by their counts, which is what LeRobot itself does.
"""

import numpy as np

BASIC = ("min", "max", "mean", "std", "count")
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}

Stats = dict[str, np.ndarray]


def of_rows(values: np.ndarray) -> Stats:
    """Return the statistics of a column of numbers (n, size); each has shape (size,)."""
    rows = values.astype(np.float64)
    quantiles = np.quantile(rows, list(QUANTILES.values()), axis=0)
    return {
        "min": rows.min(0),
        "max": rows.max(0),
        "mean": rows.mean(0),
        "std": rows.std(0),
        "count": np.array([len(rows)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


class ImageStats:
    """Statistics of images: a histogram per channel of every fourth pixel in each direction."""

    STRIDE = 4

    def __init__(self) -> None:
        self._histogram = np.zeros((3, 256), dtype=np.int64)
        self._frames = 0

    @classmethod
    def sample(cls, image: np.ndarray) -> np.ndarray:
        """Return the pixels of an image (H, W, 3) that count, (h, w, 3)."""
        middle = cls.STRIDE // 2  # of each square of pixels, so that no edge is favoured
        return image[middle :: cls.STRIDE, middle :: cls.STRIDE]

    def add(self, image: np.ndarray) -> None:
        """Count an image (H, W, 3) uint8."""
        self.add_sample(self.sample(image))

    def add_sample(self, sample: np.ndarray) -> None:
        """Count an image of which only the `sample` is there, (h, w, 3) uint8."""
        pixels = sample.reshape(-1, 3)
        for channel in range(3):
            self._histogram[channel] += np.bincount(pixels[:, channel], minlength=256)
        self._frames += 1

    def result(self) -> Stats:
        """Return statistics of shape (3, 1, 1) in [0, 1]; `count` is the number of images."""
        levels = np.arange(256) / 255.0
        share = self._histogram / self._histogram.sum(axis=1, keepdims=True)
        mean = share @ levels
        variance = (share * (levels - mean[:, None]) ** 2).sum(axis=1)
        cumulative = self._histogram.cumsum(axis=1)
        total = cumulative[:, -1:]
        seen = self._histogram > 0
        stats = {
            "min": levels[seen.argmax(axis=1)],
            "max": levels[255 - seen[:, ::-1].argmax(axis=1)],
            "mean": mean,
            "std": np.sqrt(variance),
        }
        for name, q in QUANTILES.items():
            stats[name] = levels[(cumulative < q * total).sum(axis=1)]
        per_channel = {name: value.reshape(3, 1, 1) for name, value in stats.items()}
        return {**per_channel, "count": np.array([self._frames])}


def fold(total: Stats | None, episode: Stats) -> Stats:
    """Return the statistics of everything in `total` and one more episode."""
    if total is None:
        return episode
    n, m = int(total["count"][0]), int(episode["count"][0])
    share = m / (n + m)
    shift = episode["mean"] - total["mean"]
    spread = total["std"] ** 2 * (1 - share) + episode["std"] ** 2 * share
    folded = {
        "min": np.minimum(total["min"], episode["min"]),
        "max": np.maximum(total["max"], episode["max"]),
        "mean": total["mean"] + shift * share,
        "std": np.sqrt(spread + shift**2 * share * (1 - share)),
        "count": np.array([n + m]),
    }
    for name in QUANTILES:
        if name in total and name in episode:  # others may leave them out
            folded[name] = total[name] + (episode[name] - total[name]) * share
    return folded
