import dataclasses
import json
import pickle

import gymnasium as gym
import numpy as np
import pytest

from pp_env import PickPlaceConfig, PickPlaceEnv, task
from pp_env.colors import MIN_DISTANCE, distance
from pp_env.config import HOME_JOINT_POS, from_dict
from pp_env.disturbances import ActionDelay, SensorNoise
from pp_env.layout import OBSERVATION
from pp_env.randomization import (
    RANDOMIZATION_PRESETS,
    RandomizationConfig,
    Variation,
    preset_table,
    sample,
)
from pp_env.sim.api import Command
from pp_env.textures import PLAIN, TEXTURES, WOOD, shade
from tests import ROOT
from tests.fakes import SIMULATOR, FakeSimulator

CAMERAS = {"cam_high": False, "cam_wrist": True}
UNLIKE = np.array([PickPlaceConfig().table.rgb, *PickPlaceConfig().marker.colors])
HOLD = np.append(HOME_JOINT_POS, 0.04).astype(np.float32)
FULL = RANDOMIZATION_PRESETS["full"]


def sample_variation(seed=0, config=FULL, object_rgb=(0.8, 0.2, 0.2)):
    return sample(np.random.default_rng(seed), config, np.array([object_rgb]), CAMERAS)


def make(randomization, simulator=FakeSimulator, **options):
    return PickPlaceEnv(simulator, config=PickPlaceConfig(randomization=randomization), **options)


@pytest.mark.parametrize(
    ("seed", "points", "rgb"),
    [
        (0, (0.30661105, 0.18796214, 0.66510223, 0.06398146), (0.60956935, 0.31582937, 0.13277882)),
        (1, (0.67945978, -0.11290113, 0.46933058, 0.19662156), (0.5094573, 0.86037096, 0.21532769)),
        (
            2,
            (0.33676638, 0.06006032, 0.59142421, -0.18725936),
            (0.30928971, 0.33879291, 0.75138059),
        ),
    ],
)
def test_none_leaves_every_seed_as_it_was_before_there_was_randomization(seed, points, rgb):
    rng = np.random.default_rng(seed)
    start = task.sample_start(rng, PickPlaceConfig())
    np.testing.assert_allclose(np.concatenate([start.pick, start.place]), points, atol=1e-8)
    if distance(np.array(rgb), UNLIKE).min() >= MIN_DISTANCE:
        np.testing.assert_allclose(start.object_rgb, rgb, atol=1e-8)
    before = rng.bit_generator.state
    assert task.sample_variation(rng, PickPlaceConfig(), start) is None
    assert rng.bit_generator.state == before, "no random number was used"


def test_none_is_the_default_and_nothing():
    assert PickPlaceConfig().randomization == RANDOMIZATION_PRESETS["none"]
    assert RANDOMIZATION_PRESETS["none"].active == []
    _, info = make(RandomizationConfig()).reset(seed=0)
    assert "variation" not in info


@pytest.mark.parametrize("preset", ["light", "full"])
def test_pick_place_and_colour_are_those_without_randomization(preset):
    for seed in range(5):
        _, plain = make(RandomizationConfig()).reset(seed=seed)
        _, varied = make(RANDOMIZATION_PRESETS[preset]).reset(seed=seed)
        for key in ("object_pos", "goal_pos", "object_rgb"):
            np.testing.assert_array_equal(varied[key], plain[key])


def test_a_seed_gives_one_variation():
    assert sample_variation(3) == sample_variation(3)
    assert len({sample_variation(seed) for seed in range(20)}) == 20


@pytest.mark.parametrize("preset", ["light", "full"])
def test_samples_keep_to_their_ranges(preset):
    config = RANDOMIZATION_PRESETS[preset]
    sampled = [sample_variation(seed, config) for seed in range(300)]
    for name in ("light_intensity", "friction", "mass", "joint_pos_noise", "joint_vel_noise"):
        low, high = getattr(config, name)
        values = np.array([getattr(v, name) for v in sampled])
        assert (values >= low).all()
        assert (values <= high).all()
        assert np.ptp(values) >= 0.9 * (high - low)
    delays = {v.action_delay for v in sampled}
    assert delays == set(range(config.action_delay[0], config.action_delay[1] + 1))
    lights = np.array([v.light_position for v in sampled])
    assert np.abs(lights).max() <= config.light_position
    low, high = np.transpose(config.table_rgb)
    table = np.array([v.table_rgb for v in sampled])
    assert ((table >= low) & (table <= high)).all()
    assert {v.table_texture for v in sampled} == set(config.table_textures or (WOOD,))
    assert {v.object_texture for v in sampled} == set(config.object_textures or (PLAIN,))
    fixed, carried = (np.array([v.cameras[i].position for v in sampled]) for i in (0, 1))
    assert 0.9 * config.camera_position < np.abs(fixed).max() <= config.camera_position
    assert np.abs(carried).max() <= config.hand_camera_position
    turns = np.array([v.cameras[1].rotation for v in sampled])
    assert np.abs(turns).max() <= config.hand_camera_rotation


def test_switching_one_range_off_leaves_the_others_as_they_were():
    one, other = (
        sample_variation(5),
        sample_variation(5, dataclasses.replace(FULL, mass=(1.0, 1.0), table_rgb=())),
    )
    assert dataclasses.replace(one, mass=1.0, table_rgb=()) == other


@pytest.mark.parametrize("preset", RANDOMIZATION_PRESETS)
def test_object_table_and_marker_look_different(preset):
    config = PickPlaceConfig(randomization=RANDOMIZATION_PRESETS[preset])
    marker = np.array(config.marker.colors)
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        start = task.sample_start(rng, config)
        variation = task.sample_variation(rng, config, start)
        table = np.array(config.table.rgb if variation is None else variation.table_rgb)
        assert distance(start.object_rgb, np.array([table, *marker])).min() >= MIN_DISTANCE - 1e-9
        assert distance(table, marker).min() >= MIN_DISTANCE - 1e-9
        low, high = config.task.color_range
        assert (start.object_rgb >= low - 1e-9).all()
        assert (start.object_rgb <= high + 1e-9).all()


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"light_position": -0.1}, "light_position must be a number from 0 up, got -0.1"),
        ({"camera_rotation": float("nan")}, "camera_rotation must be a number from 0 up"),
        ({"mass": (0.0, 1.0)}, r"mass must be two factors, 0 < low <= high, as \(0.8, 1.2\)"),
        ({"friction": (2.0, 1.0)}, r"friction must be two factors.*got \(2.0, 1.0\)"),
        ({"light_intensity": (1.0,)}, "light_intensity must be two finite numbers"),
        ({"joint_pos_noise": (-1.0, 0.0)}, "joint_pos_noise must be two numbers, 0 <= low"),
        ({"action_delay": (0, 1.5)}, "action_delay must be two whole numbers of control periods"),
        ({"action_delay": (0, 31)}, "action_delay must be .*0 <= low <= high <= 30"),
        ({"table_rgb": ((0.0, 0.5),)}, "table_rgb must be empty, or three intervals"),
        ({"table_rgb": ((0.0, 2.0),) * 3}, "table_rgb must be .* within 0..1"),
        ({"object_textures": ("silk",)}, r"object_textures must be some of \['plain', .*'silk'"),
    ],
)
def test_bad_ranges(ranges, message):
    with pytest.raises(ValueError, match=rf"randomization\.{message}.*leave it out"):
        RandomizationConfig(**ranges)


def test_json_and_back():
    variation = sample_variation(2)
    assert from_dict(Variation, json.loads(json.dumps(variation.to_dict()))) == variation
    config = PickPlaceConfig(randomization=FULL)
    assert from_dict(PickPlaceConfig, json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize("name", [name for name in TEXTURES if name != PLAIN])
def test_textures_are_seamless_and_neither_black_nor_flat(name):
    texels = shade(name)
    assert texels.shape == (64, 64)
    assert texels.min() >= 0.65
    assert texels.max() <= 1.0
    assert texels.std() > 0.02
    if name in ("grain", "clouds"):
        inside = np.abs(np.diff(texels, axis=0)).max()
        assert np.abs(texels[0] - texels[-1]).max() <= 1.5 * inside


def test_sensor_noise_is_in_the_observation_alone():
    noisy = RandomizationConfig(joint_pos_noise=(0.01, 0.01), joint_vel_noise=(0.1, 0.1))
    env, plain = make(noisy, SIMULATOR), make(RandomizationConfig(), SIMULATOR)
    differences = []
    for e in (env, plain):
        e.reset(seed=0)
    for _ in range(200):
        (observed, *_, info), (true, *_, true_info) = env.step(HOLD), plain.step(HOLD)
        differences.append(OBSERVATION.unpack(observed - true))
        assert set(info) == set(true_info) | {"variation"}
        for key in true_info:
            np.testing.assert_array_equal(info[key], true_info[key])
    assert np.std([d["joint_pos"] for d in differences]) == pytest.approx(0.01, rel=0.1)
    assert np.std([d["joint_vel"] for d in differences]) == pytest.approx(0.1, rel=0.1)
    assert abs(np.mean([d["joint_pos"] for d in differences])) < 0.001
    for name in ("gripper_pos", "eef_pos", "eef_quat"):
        assert not np.any([d[name] for d in differences])


def test_sensor_noise_repeats_with_the_seed():
    env = make(RandomizationConfig(joint_pos_noise=(0.0, 0.01)), SIMULATOR)

    def observations(seed):
        first, _ = env.reset(seed=seed)
        return np.array([first, *(env.step(HOLD)[0] for _ in range(5))])

    first = observations(1)
    assert (observations(2) != first).any()
    np.testing.assert_array_equal(observations(1), first)
    assert (np.diff(first[:, :7], axis=0) != 0).all(), "new noise at every step"


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_an_action_has_its_effect_after_the_delay(delay):
    env = make(RandomizationConfig(mass=(1.0, 1.1), action_delay=(delay, delay)))
    observation, info = env.reset(seed=0)
    assert info["variation"].action_delay == delay
    home, moved = observation[0], []
    for k in range(6):
        action = HOLD + np.eye(8, dtype=np.float32)[0] * 0.1 * (k + 1)
        observation, *_, info = env.step(action)
        np.testing.assert_array_equal(info["action"], action), "the action as commanded"
        moved.append(observation[0] - home)
    wanted = [0.0] * delay + [0.1 * (k + 1) for k in range(6 - delay)]
    np.testing.assert_allclose(moved, wanted, atol=1e-6)


def test_a_delay_ends_with_its_episode():
    env = make(RandomizationConfig(action_delay=(2, 2)))
    for _ in range(2):
        env.reset(seed=0)
        observation, *_ = env.step(HOLD + np.float32(0.05))
        np.testing.assert_allclose(observation[:7], HOME_JOINT_POS, atol=1e-6)


def test_without_a_variation_commands_and_states_are_unchanged():
    command = Command(np.zeros(7), 0.0)
    assert ActionDelay(None, Command(np.ones(7), 0.04))(command) is command
    state = FakeSimulator(PickPlaceConfig()).reset(
        task.initial_state(
            task.sample_start(np.random.default_rng(0), PickPlaceConfig()), PickPlaceConfig()
        )
    )
    assert SensorNoise(None)(state) is state


def test_environments_side_by_side():
    envs = gym.vector.SyncVectorEnv([lambda: make(FULL) for _ in range(2)])
    _, infos = envs.reset(seed=[1, 2])
    first, second = infos["variation"]
    assert isinstance(first, Variation)
    assert first != second
    assert pickle.loads(pickle.dumps(first)) == first
    envs.close()


def test_the_page_has_the_generated_table():
    page = (ROOT / "docs" / "randomization.md").read_text()
    assert preset_table() in page, f"put this into it:\n{preset_table()}"
