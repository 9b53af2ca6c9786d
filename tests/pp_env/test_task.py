import dataclasses

import numpy as np
import pytest

from pp_env import task
from pp_env.config import HOME_JOINT_POS, PickPlaceConfig
from pp_env.sim.api import Pose, SimState

CONFIG = PickPlaceConfig()
REST_Z = CONFIG.rest_z_of(CONFIG.object)
GOAL = np.array([0.5, 0.1, CONFIG.table.top_z])
UPRIGHT = np.array([1.0, 0.0, 0.0, 0.0])
DONE = SimState(
    joint_pos=np.array(HOME_JOINT_POS),
    joint_vel=np.zeros(7),
    gripper_pos=np.full(2, 0.04),
    gripper_vel=np.zeros(2),
    eef=Pose(np.array([0.3, 0.0, 0.6]), UPRIGHT),
    object=Pose(np.array([0.5, 0.1, REST_Z]), UPRIGHT),
    object_vel=np.zeros(3),
    is_grasped=False,
)


def test_success():
    assert task.is_success(DONE, GOAL, CONFIG)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"object": Pose(np.array([0.551, 0.1, REST_Z]), UPRIGHT)},
            "away_from_target",
        ),
        (
            {"object": Pose(np.array([0.5, 0.1, REST_Z + 0.02]), UPRIGHT)},
            "not_on_table",
        ),
        ({"object_vel": np.array([0.0, 0.0, 0.03])}, "object_moving"),
        ({"is_grasped": True}, "still_held"),
        ({"gripper_pos": np.array([0.04, 0.03])}, "gripper_not_open"),
        ({"joint_pos": np.array(HOME_JOINT_POS) + 0.06}, "arm_not_home"),
    ],
)
def test_every_condition_is_needed(change, reason):
    assert task.unmet_conditions(DONE._replace(**change), GOAL, CONFIG) == [reason]


def test_starts_keep_to_the_ranges():
    rng = np.random.default_rng(0)
    starts = [task.sample_start(rng, CONFIG) for _ in range(500)]
    points = np.array([[s.pick, s.place] for s in starts])
    assert (points[..., 0] > 0.3).all()
    assert (points[..., 0] < 0.7).all()
    assert (np.abs(points[..., 1]) < 0.3).all()
    assert (np.linalg.norm(points[:, 0] - points[:, 1], axis=1) >= 0.1).all()
    colors = np.array([s.object_rgb for s in starts])
    assert ((colors >= 0.1) & (colors <= 0.9)).all()
    assert points.std(axis=0).min() > 0.1


def test_equal_generators_give_equal_starts():
    a, b = (task.sample_start(np.random.default_rng(7), CONFIG) for _ in range(2))
    np.testing.assert_array_equal(a.pick, b.pick)
    np.testing.assert_array_equal(a.place, b.place)
    np.testing.assert_array_equal(a.object_rgb, b.object_rgb)


def test_options_fix_their_part_and_leave_the_rest():
    free = task.sample_start(np.random.default_rng(7), CONFIG)
    options = {"place": free.place + [0.01, 0.0], "color": (1, 0, 0), "object": "cube"}
    fixed = task.sample_start(np.random.default_rng(7), CONFIG, options)
    np.testing.assert_array_equal(fixed.pick, free.pick)
    np.testing.assert_array_equal(fixed.place, options["place"])
    np.testing.assert_array_equal(fixed.object_rgb, [1, 0, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pick": (0.9, 0.0)}, r"pick must lie on the table, x in 0.20..0.80 m .* got \(0.900"),
        ({"place": (0.5, -0.5)}, "place must lie on the table"),
        ({"pick": (0.5, np.nan)}, "pick must be two finite numbers"),
        ({"pick": (0.5, 0.1, 0.4)}, "pick must be two finite numbers"),
        ({"pick": (0.5, 0.1), "place": (0.5, 0.15)}, "at least 0.1 m apart"),
        ({"color": (2, 0, 0)}, "three numbers from 0 to 1"),
        ({"object": "mug"}, r"object must be one of \['cube'\], got 'mug'"),
        ({"colour": (1, 0, 0)}, r"unknown reset options \['colour'\]; these exist: .*'color'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        task.sample_start(np.random.default_rng(0), CONFIG, options)


def test_ranges_that_leave_no_room_end_with_an_error():
    tight = dataclasses.replace(CONFIG.task, x_range=(0.5, 0.51), y_range=(0.0, 0.01))
    with pytest.raises(ValueError, match="at least 0.1 m apart"):
        task.sample_start(np.random.default_rng(0), dataclasses.replace(CONFIG, task=tight))
