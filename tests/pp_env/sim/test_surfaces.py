import numpy as np
import pytest

from pp_env.config import TableConfig
from pp_env.sim.surfaces import floor, table_legs, table_top

TABLE = TableConfig()
ALL = (*table_top(TABLE), table_legs(TABLE), *floor())


def areas(surface):
    """Return the area vectors of a surface's triangles, (n, 3), m^2."""
    a, b, c = np.moveaxis(surface.vertices[surface.faces], 1, 0)
    return np.cross(b - a, c - a) / 2


@pytest.mark.parametrize("surface", ALL, ids=lambda surface: surface.name)
def test_meshes_are_whole_and_few(surface):
    assert set(surface.faces.ravel().tolist()) == set(range(len(surface.vertices)))
    assert np.isfinite(surface.vertices).all()
    assert len(surface.faces) < 500


def test_the_table_is_covered_once_by_its_planks():
    light, dark, grain = table_top(TABLE)
    top = sum(np.clip(areas(s)[:, 2], 0, None).sum() for s in (light, dark))
    assert top == pytest.approx(TABLE.size[0] * TABLE.size[1])
    assert (areas(grain)[:, 2] >= 0).all()
    for surface in (light, dark, grain):
        over = np.abs(surface.vertices - TABLE.center) - np.array(TABLE.size) / 2
        assert over.max() < 0.0005  # m


def test_no_two_triangles_of_the_grain_overlap():
    """Where they did, the light of the second pass would count twice."""
    grain = table_top(TABLE)[2]
    corners = grain.vertices[grain.faces][..., :2]
    for y in np.linspace(-0.39, 0.39, 101):
        spans = []
        for triangle in corners:
            crossed = [
                p[0] + (y - p[1]) * (q[0] - p[0]) / (q[1] - p[1])
                for p, q in zip(triangle, np.roll(triangle, -1, axis=0), strict=True)
                if (p[1] - y) * (q[1] - y) < 0
            ]
            spans += [sorted(crossed)] if crossed else []
        spans.sort()
        for (_, end), (begin, _) in zip(spans, spans[1:], strict=False):
            assert begin >= end - 1e-9


def test_the_floor_is_covered_once_and_the_legs_stand_on_it():
    assert sum(areas(s)[:, 2].sum() for s in floor()) == pytest.approx(400.0)
    legs = table_legs(TABLE)
    assert legs.vertices[:, 2].min() == 0.0
    assert legs.vertices[:, 2].max() == pytest.approx(TABLE.center[2] - TABLE.size[2] / 2)
    np.testing.assert_allclose(areas(legs).sum(axis=0), 0.0, atol=1e-12)  # closed


def test_surfaces_are_the_same_every_time():
    table_top.cache_clear()
    for one, other in zip(table_top(TABLE), ALL, strict=False):
        np.testing.assert_array_equal(one.vertices, other.vertices)
        np.testing.assert_array_equal(one.faces, other.faces)
