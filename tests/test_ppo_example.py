"""Tests of the example that trains PPO on worlds of Warp; docs/training.md has its results."""

import csv
import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from tests import ROOT

PROGRAM = ROOT / "examples" / "train_ppo.py"


def test_help_needs_no_optional_package():
    code = (
        f"import sys; sys.modules['torch'] = None; sys.argv = ['x', '--help']; "
        f"import runpy; runpy.run_path({str(PROGRAM)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "--minutes" in done.stdout


@pytest.fixture(scope="module")
def torch():
    pytest.importorskip("rsl_rl", reason="the example needs rsl_rl")
    return pytest.importorskip("torch", reason="the example needs PyTorch")


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("train_ppo", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_ppo"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["train_ppo"]


@pytest.fixture(scope="module")
def example(program, torch):
    return program


def test_features_have_the_tcp_and_what_is_relative_to_it(example, torch):
    import gymnasium as gym

    from pp_env import rotation
    from pp_env.layout import ENVIRONMENT_STATE, OBSERVATION

    env = gym.make(example.pp_env.ENV_ID, obs_type=example.OBS_TYPE)
    observation, info = env.reset(
        seed=0, options={"joint_pos": [0.3, -0.6, 0.2, -2.2, 0.4, 1.7, 0.5]}
    )
    parts = ENVIRONMENT_STATE.unpack(observation["environment_state"]) | OBSERVATION.unpack(
        observation["agent_pos"]
    )
    values = {name: torch.from_numpy(part[None].copy()) for name, part in parts.items()}
    found = example.features(values)[0].numpy()
    offset = np.array([0.0, 0.0, example.panda.TCP_OFFSET])
    tcp = parts["eef_pos"] + rotation.rotate(parts["eef_quat"], offset)
    assert found.shape == (34,)
    np.testing.assert_allclose(found[20:23], tcp, atol=1e-5)
    np.testing.assert_allclose(found[23:26], info["object_pos"] - tcp, atol=1e-5)
    env.close()


def test_commands_move_joints_from_where_they_are_within_limits(example, torch):
    joint_pos = torch.tensor([[0.0, 0.0, 0.0, -0.1, 0.0, 1.0, 0.0]])
    actions = torch.tensor([[0.5, -9.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.2]])
    commands = example.to_commands(actions, joint_pos, example.Settings(joint_step=0.1))[0].numpy()
    upper = example.panda.JOINT_UPPER[3]
    np.testing.assert_allclose(commands[:4], [0.05, -0.1, 0.0, upper], atol=1e-6)
    assert commands[7] == pytest.approx(example.panda.FINGER_OPEN)
    closing = example.to_commands(-actions, joint_pos, example.Settings())[0, 7]
    assert closing == example.panda.FINGER_CLOSED


def test_starts_near_the_end_have_the_open_hand_at_an_object_near_the_target(program):
    pytest.importorskip("mujoco", reason="the starts are made on MuJoCo")
    import gymnasium as gym
    import numpy as np

    from experts.reach import tcp_position

    rng = np.random.default_rng(0)
    config = program.Settings().config("mujoco", 15, min_distance=0.0)
    env = gym.make(program.pp_env.ENV_ID, config=config, reward_type="dense")
    rewards = []
    for _ in range(20):
        options = program.start_near_the_end(rng)
        if options is None:
            continue
        _, info = env.reset(seed=0, options=options)
        offset = tcp_position(options["joint_pos"]) - info["object_pos"]
        np.testing.assert_allclose(offset[:2], 0.0, atol=2e-3)
        assert -2e-3 <= offset[2] <= program.ABOVE_OBJECT + 2e-3
        assert (np.abs(options["pick"] - options["place"]) <= program.NEAR_TARGET).all()
        hold = np.append(options["joint_pos"], program.panda.FINGER_OPEN).astype(np.float32)
        rewards.append(env.step(hold)[1])
    assert len(rewards) > 10
    assert any(reward > program.CARRIED for reward in rewards), "some lie on the target"
    env.close()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of three other libraries' own code
def test_a_short_run_goes_on_and_is_evaluated(example, tmp_path, capsys, monkeypatch):
    pytest.importorskip("mujoco_warp", reason="the worlds need mujoco-warp")
    monkeypatch.setenv("WARP_GPU", "cpu")
    options = ["--num-envs", "4", "--num-starts", "4", "--horizon", "4", "--iterations", "1"]
    output = ["--output", str(tmp_path)]
    example.main([*options, *output])
    with pytest.raises(SystemExit, match="--resume"):
        example.main([*options, *output])
    model = str(tmp_path / "model.pt")
    example.main([*options, *output, "--resume", model])
    with (tmp_path / "progress.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["iteration"]) for row in rows] == [1, 2]
    assert [int(row["decisions"]) for row in rows] == [16, 32]
    assert all(0 <= float(row["reward"]) <= 1 for row in rows)
    with pytest.raises(SystemExit, match="joint-step"):
        example.main([*options, *output, "--resume", model, "--joint-step", "0.2"])
    example.main(["--evaluate", model, "--episodes", "2"])
    assert "2 unseen starts: grasped" in capsys.readouterr().out
