import numpy as np
import pytest

from pp_recorder.dataset import stats

RNG = np.random.default_rng(0)


def fold_all(parts):
    total = None
    for part in parts:
        total = stats.fold(total, part)
    return total


def test_rows():
    rows = RNG.normal(size=(50, 3))
    result = stats.of_rows(rows)
    np.testing.assert_allclose(result["std"], rows.std(axis=0))
    np.testing.assert_allclose(result["q90"], np.quantile(rows, 0.9, axis=0))
    assert result["count"].tolist() == [50]
    assert {len(v) for k, v in result.items() if k != "count"} == {3}


def test_folding_episodes_is_exact():
    rows = 1e4 + RNG.normal(size=(100, 2))
    total = fold_all(stats.of_rows(part) for part in np.split(rows, [10, 11, 70]))
    whole = stats.of_rows(rows)
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(total[name], whole[name], rtol=1e-9)


def test_folded_quantiles_are_weighted_by_count():
    parts = [stats.of_rows(np.full((n, 1), float(value))) for n, value in ((30, 1), (10, 5))]
    assert fold_all(parts)["q50"] == pytest.approx(2.0)


def test_images():
    images = RNG.integers(0, 256, size=(20, 32, 32, 3), dtype=np.uint8)
    images[..., 2] //= 4
    counter = stats.ImageStats()
    for image in images:
        counter.add(image)
    result = counter.result()
    sample = images[:, 2::4, 2::4].reshape(-1, 3) / 255.0
    for name, expected in {
        "min": sample.min(0), "max": sample.max(0), "mean": sample.mean(0), "std": sample.std(0),
        "q50": np.quantile(sample, 0.5, axis=0, method="inverted_cdf"),
        "q99": np.quantile(sample, 0.99, axis=0, method="inverted_cdf"),
    }.items():  # fmt: skip
        assert result[name].shape == (3, 1, 1)
        np.testing.assert_allclose(result[name].ravel(), expected, atol=1e-9, err_msg=name)
    assert result["count"].tolist() == [20]


def test_black_images_have_no_spread():
    counter = stats.ImageStats()
    counter.add(np.zeros((8, 8, 3), dtype=np.uint8))
    result = counter.result()
    assert all(float(abs(v).max()) == 0.0 for k, v in result.items() if k != "count")
