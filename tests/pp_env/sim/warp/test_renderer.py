import dataclasses

import numpy as np
import pytest

pytest.importorskip("mujoco_warp")

from pp_env import PickPlaceConfig
from pp_env.config import RenderConfig
from pp_env.randomization import RANDOMIZATION_PRESETS, CameraShift, Variation
from pp_env.sim.api import Command
from pp_env.sim.mujoco.simulator import MujocoSimulator
from pp_env.sim.warp.renderer import EpisodeRenderer
from pp_env.sim.warp.simulator import WarpSimulator
from tests.sim_contract import HOME, start

pytestmark = pytest.mark.usefixtures("warp_device")

DIFFERENCE = 8.0  # of 255, on average: rays replace rasterized triangles
VARIED = Variation(
    light_position=(0.2, -0.2, 0.1),
    light_intensity=0.8,
    table_rgb=(0.2, 0.5, 0.3),
    cameras=(CameraShift("cam_high", (0.03, -0.02, 0.01), (0.03, -0.02, 0.04)),),
)


def difference(image, other):
    return np.abs(image.astype(float) - other).mean()


@pytest.mark.parametrize("preset", ["fast", "default"])
def test_images_are_those_of_one_world_and_near_mujocos(preset):
    config = PickPlaceConfig(
        render=RenderConfig(resolution=64, preset=preset),
        randomization=RANDOMIZATION_PRESETS["light"],
    )
    one, theirs, batch = WarpSimulator(config), MujocoSimulator(config), EpisodeRenderer(config, 2)
    plain, varied = start(), dataclasses.replace(start(), variation=VARIED)
    for initial in (plain, varied):
        one.reset(initial)
        theirs.reset(initial)
        poses, expected = [], []
        for k in range(3):  # more states than worlds, and not a multiple
            command = Command(HOME + 0.1 * k, 0.04)
            one.step(command)
            theirs.step(command)
            poses.append(one._worlds.data.qpos.numpy()[0].copy())
            expected.append([each.render("cam_high") for each in (one, theirs)])
        out = {name: np.zeros((3, 64, 64, 3), np.uint8) for name in ("cam_high", "cam_wrist")}
        batch.render(initial, poses, out)
        assert (out["cam_wrist"].mean((1, 2, 3)) > 5).all()
        for image, (alone, mujoco) in zip(out["cam_high"], expected, strict=True):
            np.testing.assert_array_equal(image, alone)
            assert difference(image, mujoco) < DIFFERENCE
        assert difference(out["cam_high"][0], out["cam_high"][2]) > 0.5
    for each in (one, theirs, batch):
        each.close()
