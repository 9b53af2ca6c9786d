import numpy as np
import pytest

from pp_env.layout import ACTION, ENVIRONMENT_STATE, HAND_POSE_ACTION, OBSERVATION
from tests import ROOT

XYZ = ["x", "y", "z"]


def test_the_observation_has_the_documented_order():
    expected = (
        [f"joint_pos_{i}" for i in range(7)]
        + [f"joint_vel_{i}" for i in range(7)]
        + ["gripper_pos_0", "gripper_pos_1"]
        + [f"eef_pos_{a}" for a in XYZ]
        + [f"eef_quat_{a}" for a in ["w", *XYZ]]
    )
    assert OBSERVATION.names == expected
    assert OBSERVATION.size == 23


def test_the_action_has_the_documented_order():
    assert ACTION.names == [f"action_joint_{i}" for i in range(7)] + ["action_gripper"]
    assert ACTION.size == 8


def test_a_hand_pose_has_the_documented_order():
    axes = [f"action_eef_rot_{a}_{i}" for a in "xy" for i in XYZ]
    position = [f"action_eef_pos_{i}" for i in XYZ]
    assert HAND_POSE_ACTION.names == [*position, *axes, "action_gripper"]


@pytest.mark.parametrize("layout", [OBSERVATION, ACTION, HAND_POSE_ACTION, ENVIRONMENT_STATE])
def test_bounds_are_finite_and_ordered(layout):
    assert np.isfinite(layout.low).all()
    assert np.isfinite(layout.high).all()
    assert (layout.low < layout.high).all()
    assert layout.space().shape == (layout.size,)


@pytest.mark.parametrize("layout", [OBSERVATION, ACTION, ENVIRONMENT_STATE])
def test_pack_and_unpack_are_inverse(layout):
    vector = layout.space().sample()
    np.testing.assert_array_equal(layout.pack(layout.unpack(vector)), vector)


def test_pack_clips_to_the_bounds():
    fields = ACTION.unpack(ACTION.high)
    packed = ACTION.pack({**fields, "action_gripper": 1.0})
    assert packed[7] == ACTION.high[7]


def test_unpack_takes_leading_axes():
    assert OBSERVATION.unpack(np.zeros((5, 23)))["eef_quat"].shape == (5, 4)


@pytest.mark.parametrize("layout", [OBSERVATION, ACTION])
def test_the_environments_page_has_the_generated_table(layout):
    page = (ROOT / "docs" / "environment.md").read_text()
    assert layout.table() in page, f"put this into it:\n{layout.table()}"


def test_the_dataset_page_has_the_generated_tables():
    page = (ROOT / "docs" / "dataset.md").read_text()
    for layout in (ENVIRONMENT_STATE, HAND_POSE_ACTION):
        assert layout.table() in page, f"put this into it:\n{layout.table()}"
