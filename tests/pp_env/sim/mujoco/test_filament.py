"""Images of MuJoCo's Filament renderer. All but the last tests need Vulkan, and say so."""

import gc
import itertools
import os
import subprocess
import sys
import threading

import mujoco
import numpy as np
import pytest

from experts.pick_place import PickPlaceExpert
from pp_env import PickPlaceConfig, PickPlaceEnv
from pp_env.config import NAMED_CAMERAS, RENDER_PRESETS, RenderConfig
from pp_env.randomization import RANDOMIZATION_PRESETS
from pp_env.sim import SIMULATORS, require_preset
from pp_env.sim.api import IMAGE_TYPES
from pp_env.sim.mujoco.simulator import MujocoSimulator
from pp_env.vector_env import PickPlaceVectorEnv
from tests.presets import skip_unless_rendered
from tests.sim_contract import SimulatorContract, start

TIMEOUT_S = 120


def config(resolution=64, preset="filament", **others):
    render = RenderConfig(resolution=resolution, preset=preset)
    return PickPlaceConfig(render=render, cameras=NAMED_CAMERAS, **others)


def images(simulator):
    return {camera.name: simulator.render(camera.name) for camera in NAMED_CAMERAS}


@pytest.fixture
def vulkan():
    skip_unless_rendered("filament")


@pytest.mark.usefixtures("vulkan")
class TestFilament(SimulatorContract):
    @pytest.fixture
    def simulator(self):
        simulator = MujocoSimulator(config())
        yield simulator
        simulator.close()


@pytest.mark.usefixtures("vulkan")
class TestImages:
    def test_they_depend_on_the_state_alone(self):
        """Bit for bit, in renderers of their own, and whatever one has rendered before."""
        others, fresh = MujocoSimulator(config()), MujocoSimulator(config())
        others.reset(start(pick=(0.5, 0.2)))
        images(others)
        for simulator in (others, fresh):
            simulator.reset(start(pick=(0.6, -0.1)))
        expected = images(others)
        np.testing.assert_equal(images(fresh), expected)
        np.testing.assert_equal(images(others), expected)
        others.close()
        np.testing.assert_equal(images(fresh), expected)
        fresh.close()
        np.testing.assert_equal(images(fresh), expected)  # it begins again
        fresh.close()

    @pytest.mark.parametrize("resolution", [(192, 128), (128, 192)])
    def test_everything_is_where_the_other_renderer_shows_it(self, resolution):
        """To the pixel: where the images are alike most is without a shift."""
        rendered = []
        for preset in ("pretty", "filament"):
            env = PickPlaceEnv(config=config(resolution, preset))
            expert = PickPlaceExpert()
            observation, info = env.reset(seed=1)
            expert.reset(observation, info, np.random.default_rng(0))
            for _ in range(60):
                observation = env.step(expert.act(observation))[0]
            rendered.append(images(env._simulator))
            env.close()
        for name, image in rendered[0].items():
            alike = {
                shift: np.corrcoef(
                    image[1:-1, 1:-1].ravel(),
                    np.roll(rendered[1][name], shift, axis=(0, 1))[1:-1, 1:-1].ravel(),
                )[0, 1]
                for shift in itertools.product((-1, 0, 1), repeat=2)
            }
            assert max(alike, key=alike.__getitem__) == (0, 0), name
            assert alike[0, 0] > 0.9

    def test_they_are_as_bright_as_those_of_the_other_renderer(self):
        means = []
        for preset in ("pretty", "filament"):
            simulator = MujocoSimulator(config(preset=preset))
            simulator.reset(start())
            means.append([image.mean(axis=(0, 1)) for image in images(simulator).values()])
            simulator.close()
        np.testing.assert_allclose(*means, rtol=0.1)

    def test_shadows_have_soft_edges(self):
        """On the table, at the border of the hand's shadow."""
        steps = {}
        for preset in ("pretty", "filament"):
            simulator = MujocoSimulator(config(256, preset))
            simulator.reset(start())
            row = simulator.render("cam_wrist")[105, :, 0].astype(int)
            assert row.max() > 1.5 * row.min(), "lit, and in the shadow"
            steps[preset] = np.abs(np.diff(row)).max()
            simulator.close()
        assert steps["filament"] < steps["pretty"] / 2

    def test_depth_and_segmentation_are_there_too(self):
        seen = []
        for preset in ("filament", "pretty"):
            scene = config(preset=preset)
            env = PickPlaceEnv(obs_type="pixels", image_types=IMAGE_TYPES, config=scene)
            seen.append(env.reset(seed=0)[0])
            assert env.observation_space.contains(seen[-1])
            env.close()
        for kind in ("depth", "segmentation"):
            np.testing.assert_equal(seen[0][kind], seen[1][kind])

    def test_environments_that_share_a_renderer_keep_their_looks(self):
        scene = config(48, randomization=RANDOMIZATION_PRESETS["full"])
        envs = PickPlaceVectorEnv(3, obs_type="pixels", config=scene)
        together = envs.reset(seed=0)[0]["pixels"]
        envs.close()
        for k in range(3):
            env = PickPlaceEnv(obs_type="pixels", config=scene)
            alone = env.reset(seed=k)[0]["pixels"]
            env.close()
            np.testing.assert_equal({name: each[k] for name, each in together.items()}, alone)


@pytest.mark.usefixtures("vulkan")
@pytest.mark.parametrize("ending", ["close", "forget"])
def test_nothing_stays_of_an_environment(ending):
    def others():
        return [thread for thread in threading.enumerate() if thread.name == "filament"]

    gc.collect()
    assert not others()
    env = PickPlaceEnv(obs_type="pixels", config=config())
    env.reset(seed=0)
    (thread,) = others()
    if ending == "close":
        env.close()
    del env
    gc.collect()
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()


def test_no_other_simulator_takes_the_preset():
    for name, row in SIMULATORS.items():
        if not row.has_filament:
            with pytest.raises(ValueError, match=f"mujoco alone, got {name}; try preset 'pretty'"):
                require_preset(name, "filament")
    for preset in RENDER_PRESETS.keys() - {"filament"}:
        require_preset("warp", preset)
    with pytest.raises(ValueError, match="mujoco alone, got isaacsim"):
        PickPlaceEnv("isaacsim", config=config())


def test_without_vulkan_an_error_says_what_is_needed():
    code = (
        "from pp_env import PickPlaceConfig, PickPlaceEnv\n"
        "from pp_env.config import RenderConfig\n"
        "config = PickPlaceConfig(render=RenderConfig(64, 'filament'))\n"
        "PickPlaceEnv(obs_type='pixels', config=config).reset(seed=0)\n"
    )
    no_driver = dict.fromkeys(("VK_ICD_FILENAMES", "VK_DRIVER_FILES"), "/nowhere")
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | no_driver, capture_output=True,
        text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    *_, last = done.stderr.splitlines()
    needed = "Vulkan" if mujoco.__version__ >= "4" else "MuJoCo 4"
    assert done.returncode == 1
    assert f"RuntimeError: the preset 'filament' needs {needed}" in last
    assert last.endswith("or the preset 'pretty', which needs OpenGL alone")


@pytest.mark.parametrize("missing", ["mujoco.mjrf", "mujoco.studio.window"])
def test_without_its_packages_an_error_names_them(monkeypatch, missing):
    pytest.importorskip("mujoco.mjrf")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(RuntimeError, match=f"mujoco-studio, but: .*{missing}.*; try 'pip install"):
        MujocoSimulator(config()).render("cam_high")


def test_an_older_mujoco_is_named(monkeypatch):
    monkeypatch.setattr(mujoco, "__version__", "3.5.0")
    with pytest.raises(RuntimeError, match="needs MuJoCo 4 .*, but: this is mujoco 3.5.0; try"):
        MujocoSimulator(config()).render("cam_high")
