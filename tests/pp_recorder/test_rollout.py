import gymnasium as gym
import numpy as np
import pytest

from pp_recorder.rollout import Policy, episode_seed, iterate_episode, run_episode
from pp_recorder.sinks import SuccessOnly
from tests.fakes import Log, RandomPolicy


@pytest.fixture
def env():
    return gym.make("CartPole-v1")


def run(env, sinks, index=0, max_steps=1000):
    seed = episode_seed(7, index)
    return run_episode(env, RandomPolicy(env.action_space), sinks, seed, index, max_steps)


def test_any_environment_and_policy_will_do(env):
    log = Log()
    episode = run(env, [log])
    assert log.calls == ["begin", "end"]
    assert episode.length == len(log.steps) == len(episode.trace)
    assert [step.index for step in log.steps] == list(range(episode.length))
    assert [step.done for step in log.steps] == [False] * (episode.length - 1) + [True]


def test_a_step_pairs_an_observation_with_the_action_chosen_from_it(env):
    class Telltale(Policy):
        """Acts 1 where the pole leans right."""

        def act(self, observation):
            return int(observation[2] > 0)

    log = Log()
    run_episode(env, Telltale(), [log], 7, 0, 50)
    assert all(step.action == int(step.observation[2] > 0) for step in log.steps)
    assert {step.action for step in log.steps} == {0, 1}


def test_episodes_depend_on_seed_and_index_alone(env):
    first, again, other = Log(), Log(), Log()
    run(env, [first], index=3)
    run(env, [other], index=4)
    run(env, [again], index=3)
    np.testing.assert_array_equal(
        [s.observation for s in first.steps], [s.observation for s in again.steps]
    )
    assert not np.array_equal(first.steps[0].observation, other.steps[0].observation)


def test_max_steps_ends_an_episode(env):
    log = Log()
    assert run(env, [log], max_steps=3).length == 3
    assert log.steps[-1].done


def test_a_broken_episode_is_forgotten(env):
    class Broken(RandomPolicy):
        def act(self, observation):
            raise ArithmeticError

    log = Log()
    with pytest.raises(ArithmeticError):
        run_episode(env, Broken(env.action_space), [log], 7, 0, 10)
    assert log.calls == ["begin", "abort"]


def test_closing_the_iterator_forgets_the_episode(env):
    log = Log()
    steps = iterate_episode(env, RandomPolicy(env.action_space), [log], 7, 0, 10)
    next(steps)
    steps.close()
    assert log.calls == ["begin", "abort"]


def test_seeds_are_distinct_and_fit_a_signed_column():
    seeds = [episode_seed(s, k) for s in range(20) for k in range(200)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_success_only_forgets_failures(env):
    log = Log()
    episode = run(env, [SuccessOnly(log)])
    assert not episode.success
    assert log.calls == ["begin", "abort"]
