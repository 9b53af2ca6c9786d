import dataclasses

import av
import numpy as np
import pytest

pytest.importorskip("mujoco_warp")
import warp as wp

from pp_env import PickPlaceConfig
from pp_env.config import RenderConfig
from pp_env.randomization import RANDOMIZATION_PRESETS, CameraShift, Variation
from pp_env.sim.api import Command
from pp_env.sim.mujoco.simulator import MujocoSimulator
from pp_env.sim.warp.renderer import EpisodeRenderer, _to_planes
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


def encoders_view(image):
    """Return an image (H, W, 3) as FFmpeg converts it for the encoder."""
    return av.VideoFrame.from_ndarray(image).reformat(format="yuv420p").to_ndarray()


def as_rgb(planes):
    return av.VideoFrame.from_ndarray(planes, format="yuv420p").to_ndarray(format="rgb24")


def test_planes_are_those_of_ffmpeg(warp_device):
    """Each channel at its ends, and a wide image, in which rows of U and V are not those of Y."""
    rng = np.random.default_rng(0)
    colors = np.array(np.meshgrid(*[[0, 255]] * 3)).reshape(3, -1).T
    coarse = np.concatenate([colors, rng.integers(0, 256, (16, 3))]).reshape(4, 6, 3)
    image = coarse.repeat(8, 0).repeat(8, 1).astype(np.uint8)  # (32, 48, 3)
    packed = (image.astype(np.uint32) << [16, 8, 0]).sum(2, dtype=np.uint32).reshape(1, -1)
    planes = wp.zeros((1, 48, 48), dtype=wp.uint8, device=warp_device)
    samples = wp.zeros((1, 8, 12, 3), dtype=wp.uint8, device=warp_device)
    given = wp.array(packed, dtype=wp.uint32, device=warp_device)
    wp.launch(_to_planes, (1, 16 * 24), [given, 0, 48, 4, planes, samples], device=warp_device)
    expected = encoders_view(image).astype(int)
    off = np.abs(planes.numpy()[0].astype(int) - expected)
    assert np.median(off) <= 1
    assert off[:32].max() <= 2, "luma"  # chroma differs at edges, where FFmpeg's filter is wider
    inside = np.abs(planes.numpy()[0, 32:].reshape(2, 4, 4, 6, 4)[:, :, 1:3, :, 1:3].astype(int)
                    - expected[32:].reshape(2, 4, 4, 6, 4)[:, :, 1:3, :, 1:3])  # fmt: skip
    assert inside.max() <= 2
    np.testing.assert_array_equal(samples.numpy()[0], image[2::4, 2::4])


def difference(image, other):
    return np.abs(image.astype(float) - other).mean()


@pytest.mark.parametrize("preset", ["fast", "default"])
def test_images_are_those_of_one_world_and_near_mujocos(preset):
    config = PickPlaceConfig(
        render=RenderConfig(resolution=64, preset=preset),
        randomization=RANDOMIZATION_PRESETS["light"],
    )
    one, theirs = WarpSimulator(config), MujocoSimulator(config)
    batch = EpisodeRenderer(config, 2, stride=4)
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
        out = {
            name: (np.zeros((3, 96, 64), np.uint8), np.zeros((3, 16, 16, 3), np.uint8))
            for name in ("cam_high", "cam_wrist")
        }
        batch.render(initial, poses, out)
        assert (out["cam_wrist"][1].mean((1, 2, 3)) > 5).all()
        for planes, sample, (alone, mujoco) in zip(*out["cam_high"], expected, strict=True):
            np.testing.assert_array_equal(sample, alone[2::4, 2::4])
            assert difference(planes, encoders_view(alone)) < 0.5
            assert difference(as_rgb(planes), mujoco) < DIFFERENCE
        assert difference(out["cam_high"][0][0], out["cam_high"][0][2]) > 0.5
    for each in (one, theirs, batch):
        each.close()
