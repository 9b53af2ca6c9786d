import dataclasses
import itertools
import json

import mujoco
import numpy as np
import pytest

import collect
from pp_collect import replay
from pp_collect.schema import stored_config
from pp_env import PickPlaceConfig, PickPlaceEnv, rotation
from pp_env.config import NAMED_CAMERAS, RenderConfig, from_dict
from pp_env.objects import ObjectConfig
from pp_env.randomization import RANDOMIZATION_PRESETS, CameraShift, Variation
from pp_env.sim.api import Command
from pp_env.sim.mujoco.model import build_model
from pp_env.sim.mujoco.simulator import MujocoSimulator
from pp_env.textures import TEXTURES
from pp_recorder.dataset.reader import Dataset
from tests import crash
from tests.presets import skip_unless_rendered
from tests.sim_contract import HOME, start

SMALL = PickPlaceConfig(render=RenderConfig(resolution=128))
FULL = RANDOMIZATION_PRESETS["full"]
EVERYTHING = Variation(
    light_position=(0.3, -0.3, 0.2),
    light_intensity=0.8,
    table_rgb=(0.2, 0.5, 0.3),
    table_texture="checker",
    object_texture="stripes",
    cameras=(
        CameraShift("cam_high", (0.03, -0.02, 0.01), (0.03, -0.02, 0.04)),
        CameraShift("cam_wrist", (0.003, 0.002, -0.001), (0.01, 0.02, -0.03)),
    ),
    friction=0.7,
    mass=2.0,
)


def varied(variation, **place):
    return dataclasses.replace(start(**place), variation=variation)


@pytest.fixture(scope="module", params=["default", "filament"])
def simulator(request):
    skip_unless_rendered(request.param)
    simulator = MujocoSimulator(PickPlaceConfig(render=RenderConfig(128, request.param)))
    yield simulator
    simulator.close()


def model_of(simulator):
    """Return every array of the model that a variation could change, and the headlight."""
    model = simulator._model
    arrays = {}
    for name in dir(model):
        if name.startswith(("body_", "cam_", "dof_", "eq_data", "geom_", "light_", "mat_", "tex_")):
            value = getattr(model, name)
            if isinstance(value, np.ndarray):
                arrays[name] = value.copy()
    head = model.vis.headlight
    return arrays | {"headlight": np.array([head.ambient, head.diffuse, head.specular])}


def episode(simulator, initial, steps=10):
    """Return the states and an image of each camera, as one list of arrays."""
    state, found = simulator.reset(initial), []
    for k in range(steps):
        found += [state.joint_pos, state.joint_vel, *state.object, state.object_vel]
        state = simulator.step(Command(HOME + 0.02 * k, 0.04))
    return [*found, *(simulator.render(camera.name) for camera in SMALL.cameras)]


def test_nothing_of_a_variation_is_left_after_the_next_reset(simulator):
    plain = episode(simulator, start())
    before = model_of(simulator)
    episode(simulator, varied(EVERYTHING, pick=(0.6, -0.2)))
    again = episode(simulator, start())
    assert before.keys() == (after := model_of(simulator)).keys()
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values, name)
    for a, b in zip(plain, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_variation_is_the_same_whatever_was_before(simulator):
    first = episode(simulator, varied(EVERYTHING))
    episode(simulator, varied(Variation(mass=0.5, table_texture="grain", light_intensity=0.5)))
    for a, b in zip(first, episode(simulator, varied(EVERYTHING)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_variation_that_changes_nothing_changes_nothing(simulator):
    plain = episode(simulator, start())
    for a, b in zip(plain, episode(simulator, varied(Variation())), strict=True):
        np.testing.assert_array_equal(a, b)


def test_mass_and_friction_are_those_of_a_model_built_with_them(simulator):
    simulator.reset(varied(Variation(mass=2.0, friction=0.7)))
    obj = SMALL.object
    other = ObjectConfig(mass=2.0 * obj.mass, static_friction=0.7 * obj.static_friction)
    wanted = build_model(dataclasses.replace(SMALL, object=other))
    found = simulator._model
    for name in (
        "body_mass", "body_inertia", "body_subtreemass", "body_invweight0", "dof_invweight0",
        "geom_friction",
    ):  # fmt: skip
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-6)


@pytest.mark.parametrize(
    "variation",
    [
        Variation(light_position=(0.3, 0.0, 0.0)),
        Variation(light_intensity=0.8),
        Variation(table_rgb=(0.2, 0.5, 0.3)),
        *(Variation(table_texture=name) for name in TEXTURES[1:]),
        Variation(cameras=(CameraShift("cam_high", (0.02, 0.0, 0.0), (0.0, 0.0, 0.0)),)),
        Variation(cameras=(CameraShift("cam_high", (0.0, 0.0, 0.0), (0.0, 0.0, 0.03)),)),
    ],
)
def test_each_visible_range_is_seen(simulator, variation):
    simulator.reset(start())
    plain = simulator.render("cam_high").astype(int)
    simulator.reset(varied(variation))
    changed = np.abs(simulator.render("cam_high") - plain).max(axis=2) > 5
    assert changed.mean() > 0.01


def test_the_pattern_of_the_object_is_seen(simulator):
    images = []
    for name in TEXTURES:
        simulator.reset(varied(Variation(object_texture=name), pick=(0.34, 0.06)))
        images.append(simulator.render("cam_wrist").tobytes())
    assert len(set(images)) == len(TEXTURES)


def test_a_camera_turns_about_its_own_axes(simulator):
    shift = CameraShift("cam_high", (0.01, 0.02, 0.03), (0.1, 0.0, 0.0))
    camera = SMALL.camera("cam_high")
    simulator.reset(varied(Variation(cameras=(shift,))))
    data = simulator._data.camera("cam_high")
    np.testing.assert_allclose(data.xpos, np.add(camera.position, shift.position))
    axes, cosine, sine = camera.rotation(), np.cos(0.1), np.sin(0.1)
    right, up, backward = axes.T
    wanted = [right, cosine * up + sine * backward, cosine * backward - sine * up]
    np.testing.assert_allclose(data.xmat.reshape(3, 3).T, wanted, atol=1e-9)


@pytest.mark.parametrize("camera", [c for c in NAMED_CAMERAS if c.parent == "world"])
@pytest.mark.parametrize("preset", ["light", "full"])
def test_the_workspace_stays_in_view_however_a_fixed_camera_is_shifted(preset, camera):
    config = RANDOMIZATION_PRESETS[preset]
    task, reach = SMALL.task, SMALL.task.place_tolerance
    points = np.array(
        [
            (x + dx, y + dy, SMALL.table.top_z)
            for x, y in itertools.product(task.x_range, task.y_range)
            for dx, dy in itertools.product((-reach, reach), repeat=2)
        ]
    )
    for signs in itertools.product((-1, 1), repeat=6):
        position = np.add(camera.position, np.multiply(signs[:3], config.camera_position))
        vector = np.multiply(signs[3:], config.camera_rotation)
        axes = camera.rotation() @ rotation.to_matrix(rotation.from_vector(vector))
        seen = (points - position) @ axes
        assert (np.abs(seen[:, :2] / seen[:, 2:]) < np.tan(np.radians(camera.fov_deg / 2))).all()


@pytest.mark.parametrize("images", ["default", "filament"])
@pytest.mark.parametrize("preset", ["light", "full"])
def test_images_show_marker_and_object_and_are_well_lit(preset, images):
    skip_unless_rendered(images)
    config = PickPlaceConfig(
        render=RenderConfig(128, images), randomization=RANDOMIZATION_PRESETS[preset]
    )
    env = PickPlaceEnv(config=config)
    simulator = env._simulator
    data, model = simulator._data, simulator._model
    for seed in range(12):
        env.reset(seed=seed, options={"pick": (0.6, 0.2), "place": (0.6, -0.2)})
        whole = simulator.render("cam_high").astype(int)
        for image in (whole, simulator.render("cam_wrist")):
            assert (image == 255).mean() < 0.001
            assert 25 < image.mean() < 180
        for hide, at_least in ((data.mocap_pos[0], 40), (data.joint("object_free").qpos, 5)):
            place = hide[2]
            hide[2] = -5.0
            mujoco.mj_kinematics(model, data)
            without = simulator.render("cam_high")
            hide[2] = place
            assert (np.abs(whole - without).max(axis=2) > 40).sum() >= at_least
    env.close()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets") / "randomized"
    arguments = ["--num-episodes", "2", "--randomize", "full", "--output", str(root)]
    assert collect.main([*crash.OPTIONS, *arguments]) == 0
    return Dataset(root)


def test_a_dataset_stores_the_configuration_and_what_was_drawn(dataset):
    assert stored_config(dataset.collection).randomization == FULL
    stored = [
        from_dict(Variation, json.loads(entry["episode/variation"])) for entry in dataset.episodes
    ]
    assert stored[0] != stored[1]
    env = PickPlaceEnv(config=stored_config(dataset.collection))
    for entry, variation in zip(dataset.episodes, stored, strict=True):
        assert env.reset(seed=entry["episode/seed"])[1]["variation"] == variation


def test_episodes_last_long_enough_for_the_longest_delay(dataset):
    lengths = {entry["length"] for entry in dataset.episodes}
    assert lengths == {crash.LENGTH + FULL.action_delay[1]}
    assert all(entry["episode/success"] for entry in dataset.episodes)


def test_randomized_episodes_replay_and_reproduce(dataset, capsys):
    assert replay.replay_main([str(dataset.root)]) == 0
    assert replay.reproduce_main([str(dataset.root)]) == 0
    assert capsys.readouterr().out.count("2 of 2 episodes are equal") == 2


def test_without_randomization_there_is_no_column(tmp_path):
    arguments = ["--num-episodes", "1", "--no-cameras", "--output", str(tmp_path / "set")]
    assert collect.main([*crash.OPTIONS, *arguments]) == 0
    assert "episode/variation" not in Dataset(tmp_path / "set").episodes[0]
