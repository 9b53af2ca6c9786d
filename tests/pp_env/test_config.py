import dataclasses
import json
import re

import numpy as np
import pytest

from pp_env.config import (
    CAMERAS,
    NAMED_CAMERAS,
    PickPlaceConfig,
    RenderConfig,
    TimingConfig,
    choose_cameras,
    from_dict,
)


def test_control_rate_must_divide_the_physics_rate():
    assert TimingConfig(control_hz=30).substeps * 30 == TimingConfig().physics_hz
    with pytest.raises(ValueError, match=r"must divide .* got 7; these do: .*30"):
        TimingConfig(control_hz=7)


@pytest.mark.parametrize("resolution", [33, 0, -2, 30, 4096, (640, 481), (16, 64)])
def test_resolution_must_be_even_and_sensible(resolution):
    text = re.escape(str(resolution))
    with pytest.raises(ValueError, match=f"even number of pixels from 32 to 2048.*{text}"):
        RenderConfig(resolution=resolution)


@pytest.mark.parametrize(("resolution", "size"), [(96, (96, 96)), ((640, 480), (640, 480))])
def test_the_size_of_images_survives_json(resolution, size):
    config = PickPlaceConfig(render=RenderConfig(resolution=resolution))
    assert config.render.size == size
    assert from_dict(PickPlaceConfig, json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_preset_must_exist():
    with pytest.raises(ValueError, match="preset must be one of .*'pretty'.*'ugly'"):
        RenderConfig(preset="ugly")


def test_cameras_are_chosen_in_order_and_each_once():
    assert choose_cameras(["cam_wrist", "cam_front"]) == (NAMED_CAMERAS[1], NAMED_CAMERAS[2])
    with pytest.raises(ValueError, match="some of cam_high, .*cam_side, each once, got cam_low"):
        choose_cameras(["cam_low"])
    with pytest.raises(ValueError, match="each once"):
        choose_cameras(["cam_high", "cam_high"])
    with pytest.raises(ValueError, match="different names, got"):
        PickPlaceConfig(cameras=(*CAMERAS, CAMERAS[0]))


def test_camera_by_name():
    assert PickPlaceConfig().camera("cam_wrist").parent == "panda_hand"
    with pytest.raises(ValueError, match=r"one of \['cam_high', 'cam_wrist'\], got 'cam_low'"):
        PickPlaceConfig().camera("cam_low")


def test_the_high_camera_has_the_field_of_view_of_its_lens():
    assert CAMERAS[0].fov_deg == pytest.approx(73.6, abs=0.05)


def test_the_high_camera_is_tilted_by_25_degrees_towards_the_table():
    forward = -CAMERAS[0].rotation()[:, 2]
    assert np.degrees(np.arccos(-forward[2])) == pytest.approx(25.0)
    to_center = np.array(PickPlaceConfig().table.center) - CAMERAS[0].position
    cross = forward[0] * to_center[1] - forward[1] * to_center[0]
    assert cross == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("camera", CAMERAS)
def test_camera_axes_are_a_rotation(camera):
    axes = camera.rotation()
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1.0)


@pytest.mark.parametrize("camera", CAMERAS)
def test_intrinsics_agree_with_the_field_of_view(camera):
    focal = camera.intrinsics((512, 512))[0, 0]
    assert 2 * np.degrees(np.arctan(256 / focal)) == pytest.approx(camera.fov_deg)
    wide = camera.intrinsics((512, 384))
    assert wide[0, 0] == wide[1, 1] == focal
    half = np.radians(camera.vertical_fov_deg((512, 384))) / 2
    assert focal * np.tan(half) == pytest.approx(wide[1, 2]) == 192
