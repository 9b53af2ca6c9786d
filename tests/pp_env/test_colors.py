import numpy as np
import pytest

from pp_env.colors import MIN_DISTANCE, distance, first_apart, oklab, variants


def test_black_and_white_are_one_apart_and_greys_have_no_hue():
    black, white = np.zeros(3), np.ones(3)
    assert distance(black, white) == pytest.approx(1.0, abs=1e-4)
    greys = oklab(np.linspace(0, 1, 5)[:, None] * white)
    np.testing.assert_allclose(greys[:, 1:], 0.0, atol=1e-4)
    assert (np.diff(greys[:, 0]) > 0).all()


def test_red_has_its_published_coordinates():
    np.testing.assert_allclose(oklab(np.array([1.0, 0, 0])), (0.628, 0.2249, 0.1258), atol=1e-3)


def test_the_first_that_is_far_enough_is_taken():
    others = np.array([[0.5, 0.5, 0.5], [0.1, 0.4, 0.9]])
    candidates = np.array([[0.5, 0.5, 0.52], [0.9, 0.1, 0.1], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(first_apart(candidates, others), candidates[1])
    np.testing.assert_array_equal(first_apart(candidates[:1], others), candidates[0])


def test_variants_begin_with_the_samples_and_stay_in_range():
    samples = np.random.default_rng(0).random((8, 3))
    found = variants(samples)
    np.testing.assert_array_equal(found[:8], samples)
    assert ((found >= 0) & (found <= 1)).all()
    others = np.random.default_rng(1).random((100, 3, 3))
    reached = [distance(first_apart(found, o), o).min() for o in others]
    assert min(reached) >= MIN_DISTANCE
