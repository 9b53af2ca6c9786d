"""The pool of objects: how each is grasped, where it can stand, and that the expert moves it."""

import hashlib

import numpy as np
import pytest

from experts.pick_place import PickPlaceExpert, plan
from experts.reach import GraspRequirements
from pp_env import PickPlaceConfig, PickPlaceEnv, kinematics, panda, placement, rotation, task
from pp_env.config import HOME_JOINT_POS, HOME_TCP, GraspConfig, TaskConfig
from pp_env.objects import MAX_GRASPS, YCB_OBJECTS, Band, ObjectConfig
from pp_recorder.rollout import run_episode
from tests import ROOT
from tests.fakes import SIMULATOR, FakeSimulator

TURNED = TaskConfig(random_yaw=True)
CONFIG = PickPlaceConfig(objects=YCB_OBJECTS, task=TURNED)
CROWD = PickPlaceConfig(objects=YCB_OBJECTS, num_objects=6, task=TURNED)
GRASPABLE = [obj for obj in YCB_OBJECTS if obj.fits_gripper]
CUBE, SUGAR, SOUP, TUNA = ObjectConfig(), YCB_OBJECTS[0], YCB_OBJECTS[1], YCB_OBJECTS[3]
# Hash of the starts of seeds 0 to 49, from before there were other objects than the cube.
STARTS = "8652609189ec7a941750fc3a1aeef797e2aab5b3d69527cb427ff681b821a956"


def sample_start(seed, config=CROWD, **options):
    return task.sample_start(np.random.default_rng(seed), config, options)


def test_bands_are_one_above_the_other():
    band = Band(0.2, 0.5, (1.0, 1.0, 1.0))
    middle, size = ObjectConfig(size=(0.04, 0.05, 0.1)).band_box(band)
    assert middle == pytest.approx(-0.015)
    assert size == pytest.approx((0.0404, 0.0504, 0.03))
    with pytest.raises(ValueError, match="bands must be from 0 to 1 and in order"):
        ObjectConfig(bands=(band, band))
    with pytest.raises(ValueError, match="bands must be from 0 to 1 and in order"):
        ObjectConfig(bands=(Band(0.5, 1.1, band.rgb),))


def test_default_starts_are_unchanged():
    rows = []
    for seed in range(50):
        start = task.initial_state(sample_start(seed, PickPlaceConfig()), PickPlaceConfig())
        rows.append([*start.object.position, *start.object.quat_wxyz, *start.goal_pos])
    assert hashlib.sha256(np.array(rows).tobytes()).hexdigest() == STARTS


def test_all_of_the_pool_but_the_tuna_can_be_grasped():
    assert [obj.label for obj in GRASPABLE] == [
        "sugar box", "tomato soup can", "mustard bottle", "pudding box", "potted meat can",
    ]  # fmt: skip
    assert not TUNA.fits_gripper


@pytest.mark.parametrize("obj", [CUBE, *GRASPABLE], ids=lambda obj: obj.label)
def test_the_hand_grasps_between_palm_and_table(obj):
    top = obj.height / 2 - obj.grasp_height
    assert 0 < top <= panda.TCP_OFFSET - panda.PALM_OFFSET, "the palm stays above the top"
    assert top > 0.0085 + 0.0005, "the pads are whole on the object"
    pads = panda.FINGERTIP_OFFSET - panda.TCP_OFFSET
    assert obj.height / 2 + obj.grasp_height > pads, "the fingertips stay above the table"


@pytest.mark.parametrize(
    ("size", "shape", "degrees"),
    [
        ((0.04, 0.04, 0.04), "box", [0, 90, 180, 270]),
        ((0.1, 0.04, 0.1), "box", [0, 180]),
        ((0.04, 0.1, 0.1), "box", [90, 270]),
        ((0.06, 0.06, 0.1), "cylinder", np.arange(16) * 22.5),
    ],
)
def test_a_hand_closes_across_the_narrow_side(size, shape, degrees):
    obj = ObjectConfig(size=size, shape=shape)
    np.testing.assert_allclose(np.degrees(obj.grasp_yaws), degrees)
    assert obj.grasp_width == min(size[:2])


def test_home_is_where_the_configuration_says():
    hand, orientation = kinematics.forward(np.array(HOME_JOINT_POS))
    np.testing.assert_allclose(hand + panda.TCP_OFFSET * orientation[:, 2], HOME_TCP, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_objects": 2}, r"from 1 to 1, .* object pool is \['cube'\], got 2; --use-ycb"),
        ({"objects": YCB_OBJECTS, "num_objects": 7}, "from 1 to 6, .*got 7"),
        ({"objects": YCB_OBJECTS, "num_objects": 0}, "from 1 to 6, .*got 0"),
        ({"objects": (CUBE, CUBE)}, r"different names, got \['cube', 'cube'\]"),
        ({"object": TUNA}, r"at most 0.070 m wide, but none is of \['007_tuna_fish_can'\]"),
    ],
)
def test_bad_pools(arguments, message):
    with pytest.raises(ValueError, match=message):
        PickPlaceConfig(**arguments)


def test_bad_shapes():
    with pytest.raises(ValueError, match="shape must be 'box' or 'cylinder', got 'cone'"):
        ObjectConfig(shape="cone")
    with pytest.raises(ValueError, match="must begin with its diameter twice"):
        ObjectConfig(shape="cylinder", size=(0.04, 0.05, 0.1))


@pytest.mark.parametrize("name", ["005_tomato_soup_can", "tomato soup can", "tomato_soup_can"])
def test_an_object_can_be_chosen_by_name_or_label(name):
    starts = [sample_start(seed, CONFIG, object=name) for seed in range(20)]
    assert {CONFIG.object_pool[start.target] for start in starts} == {SOUP}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"object": "tuna fish can"}, "85 mm wide, more than the gripper can take; it may stand"),
        ({"object": "mug"}, r"object must be one of \['004_sugar_box', .*\], got 'mug'"),
        ({"yaw": np.nan}, "yaw must be a finite angle"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        sample_start(0, CONFIG, **options)


def test_every_graspable_object_becomes_the_target_and_no_other():
    sampled = {CONFIG.object_pool[sample_start(seed).target].name for seed in range(100)}
    assert sampled == {obj.name for obj in GRASPABLE}


def test_nothing_overlaps_and_nothing_is_there_twice():
    for seed in range(500):
        config = PickPlaceConfig(
            objects=YCB_OBJECTS, num_objects=1 + seed % 6, task=TaskConfig(random_yaw=seed % 2 > 0)
        )
        start = sample_start(seed, config)
        initial = task.initial_state(start, config)
        assert len({placed.pool_index for placed in initial.placed}) == config.num_objects
        target = config.object_pool[start.target]
        circles = [
            (placed.pose.position[:2], config.object_pool[placed.pool_index])
            for placed in initial.placed
        ]
        for i, (spot, obj) in enumerate(circles):
            assert placement.is_clear_of_home(spot, obj, config)
            for other_spot, other in circles[:i]:
                assert np.hypot(*(spot - other_spot)) > obj.radius + other.radius
            if i:
                assert config.table.holds(spot)
                gap = np.hypot(*(spot - start.place)) - obj.radius
                assert gap > max(target.radius, panda.OPEN_FINGER_REACH * (obj.height > 0.05))


def test_a_crowded_table_is_an_error():
    wide = tuple(
        ObjectConfig(f"{i}_board", (0.4, 0.05, 0.1), rgb=(0.5, 0.5, 0.5)) for i in range(6)
    )
    config = PickPlaceConfig(objects=wide, num_objects=6)
    with pytest.raises(ValueError, match="6 objects find no room .* try fewer of them"):
        sample_start(0, config)


def test_objects_are_turned_only_with_random_yaw():
    config = PickPlaceConfig(objects=YCB_OBJECTS, num_objects=3)
    assert {sample_start(seed, config).yaw for seed in range(20)} == {0.0}
    yaws = [sample_start(seed, PickPlaceConfig(task=TURNED)).yaw for seed in range(50)]
    assert min(yaws) < -2
    assert max(yaws) > 2
    assert sample_start(0, PickPlaceConfig(), yaw=0.3).yaw == 0.3


def test_all_sampled_starts_can_be_planned():
    for seed in range(60):
        config = PickPlaceConfig(objects=YCB_OBJECTS, num_objects=1 + 5 * (seed % 2), task=TURNED)
        initial = task.initial_state(sample_start(seed, config), config)
        requirements = GraspRequirements.from_info(task.grasp_requirements(initial, config))
        targets = plan(*initial.object, initial.goal_pos, requirements)
        hand, turn = kinematics.forward(targets[1, :7])
        obj = config.object_pool[initial.target]
        tcp = hand + panda.TCP_OFFSET * turn[:, 2]
        np.testing.assert_allclose(tcp[:2], initial.object.position[:2], atol=1e-6)
        assert tcp[2] - config.table.top_z == pytest.approx(placement.tcp_height(obj), abs=1e-6)
        closing = rotation.unrotate(initial.object.quat_wxyz, turn[:, 1])
        across = np.abs(closing[:2]).argmax()
        assert obj.size[across] == obj.grasp_width
        assert obj.shape == "cylinder" or abs(closing[across]) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("grasp", ["fixed_joint", "friction"])
@pytest.mark.parametrize("obj", GRASPABLE, ids=lambda obj: obj.label)
def test_the_expert_moves_every_object(obj, grasp):
    if grasp == "friction" and SIMULATOR is FakeSimulator:
        pytest.skip("the fake has no friction")
    config = PickPlaceConfig(
        grasp=GraspConfig(mode=grasp), objects=YCB_OBJECTS, num_objects=4, task=TURNED
    )
    env, expert = PickPlaceEnv(SIMULATOR, config=config, terminate_on_success=False), None
    for seed in range(2):
        expert = PickPlaceExpert()
        options = {"object": obj.name}
        episode = run_episode(env, expert, [], seed, seed, expert.num_steps, options)
        assert episode.success, episode.trace[-1][1]["unmet_conditions"]
        assert episode.start_info["object"] == obj.name
        assert len(list(episode.start_info["distractors"])) == 3
    env.close()


def test_the_expert_passes_over_tall_objects_at_a_moderate_speed():
    env, expert = PickPlaceEnv(FakeSimulator, config=CROWD), PickPlaceExpert()
    seen = 0
    for seed in range(10):
        observation, info = env.reset(seed=seed)
        expert.reset(observation, info, np.random.default_rng(seed))
        arm = np.array([expert.act(observation)[:7] for _ in range(expert.num_steps)])
        speed = np.abs(np.diff(arm, axis=0)) * 30 / panda.JOINT_VELOCITY_LIMIT
        assert speed.max() < 1.1
        hand, turn = kinematics.forward(arm.astype(float))
        tips = (hand + panda.FINGERTIP_OFFSET * turn[..., 2])[:, 2] - 0.41
        travelling = np.hypot(*(hand - hand[0])[:, :2].T) > 0.05
        near = [
            np.hypot(*(hand[:, :2] - spot[:2]).T) < 0.15
            for spot in (info["object_pos"], info["goal_pos"])
        ]
        between = tips[travelling & ~near[0] & ~near[1]]  # none if the two are close together
        assert (between > info["scene_height"] + 0.01).all()
        seen += len(between)
    assert seen > 50


def test_the_arm_comes_down_in_the_posture_that_it_came_in():
    """The two postures nearest to HOME are far apart here: the object would swing between them."""
    requirements = GraspRequirements(0.075, (0.0, np.pi), travel_height=0.12, scene_height=0.19)
    quat_wxyz = np.array([0.387, 0.0, 0.0, -0.922])
    pick, goal = np.array([0.37, -0.275, 0.505]), np.array([0.514, -0.28, 0.41])
    targets = plan(pick, quat_wxyz, goal, requirements)[:, :7]
    for up, down in ((0, 1), (4, 5)):
        assert np.abs(targets[up] - targets[down]).max() < 1.0  # rad


def test_the_task_names_the_object():
    env = PickPlaceEnv(FakeSimulator, config=CROWD)
    _, info = env.reset(seed=0, options={"object": "mustard bottle"})
    assert info["task"] == "pick the mustard bottle and place it on the marker"
    assert env.task_description == info["task"]
    assert info["object"] == "006_mustard_bottle"
    assert len(set(info["distractors"]) | {info["object"]}) == 6
    _, info = PickPlaceEnv(FakeSimulator).reset(seed=0)
    assert (info["task"], info["object"], info["distractors"]) == ("pick and place", "cube", "")


def test_a_fallen_object_is_no_success():
    fallen = SUGAR.size[1] / 2 - SUGAR.size[2] / 2
    for obj in GRASPABLE:
        lying = sorted(obj.size)[:2]
        heights = [(extent - obj.height) / 2 for extent in lying if extent != obj.height]
        assert max(heights) < -CONFIG.task.height_tolerance, obj.label
    assert fallen < -CONFIG.task.height_tolerance


def test_the_page_about_objects_has_the_pools_table():
    page = (ROOT / "docs" / "objects.md").read_text()
    rows = []
    for obj in YCB_OBJECTS:
        size = " x ".join(f"{1e3 * extent:.0f}" for extent in obj.size)
        width, tcp = f"{1e3 * obj.grasp_width:.0f}", f"{1e3 * placement.tcp_height(obj):.0f}"
        if not obj.fits_gripper:
            tcp = "never"
        rows.append(
            f"| `{obj.name}` | {obj.shape} | {size} | {1e3 * obj.mass:.0f} | {width} | {tcp} |"
        )
    assert "\n".join(rows) in page, "put this into it:\n" + "\n".join(rows)


@pytest.mark.parametrize("obj", [ObjectConfig(), *GRASPABLE], ids=lambda obj: obj.name)
def test_info_has_the_same_number_of_grasps_for_every_object(obj):
    config = PickPlaceConfig(objects=(obj,))
    start = task.sample_start(np.random.default_rng(0), config)
    info = task.grasp_requirements(task.initial_state(start, config), config)
    assert info["grasp_yaws"].shape == (MAX_GRASPS,)
    assert GraspRequirements.from_info(info).grasp_yaws == tuple(obj.grasp_yaws)
