"""Where recorded episodes begin: HOME, any posture, or the middle of a task that goes wrong.

What happens before the recording is a prelude. It is unrecorded, but its origin, its actions and
its moves of the object are in the episode's metadata, so that a replay needs neither the expert nor
the policy that made it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from experts.reach import (
    GraspRequirements,
    UnreachableError,
    hand_orientation,
    hand_posture,
    reach_pick_and_place,
    tcp_position,
    vary_posture,
)
from experts.reactive import ReactiveExpert
from pp_env import PickPlaceEnv, panda, placement, rotation
from pp_env.config import PickPlaceConfig
from pp_env.layout import OBSERVATION
from pp_env.names import did_you_mean
from pp_env.objects import ObjectConfig
from pp_recorder.rollout import AnyPolicy, choose_action

START_KINDS = ("home", "random", "anywhere", "policy")
EVENTS = ("push", "nudge", "drop", "miss")

# Columns of `meta/episodes`.
KIND, EVENT, PRELUDE = "episode/start_kind", "episode/start_event", "episode/prelude"

_MAX_TRIES = 20  # of a prelude that leaves the task impossible
_TASK_TIME = 6.0  # s, until which something may go wrong
_POLICY_TIME = 13.0  # s that a policy has at most
_PUSH_TIME = (0.2, 0.45)  # s
_PUSH = (0.1, 0.35)  # rad, of the joint that moves most
_CLOSE_TIME = 0.4  # s for fingers to open or to close
_NUDGE = (0.03, 0.12)  # m
_MISS = (0.06, 0.18)  # m, so far that the fingers close beside the object
_HIGH_OBJECT = 0.06  # m, from which an object reaches up to the palm
_NUDGE_TURN = 0.5  # rad
_CARRY_TIME = 1.2  # s with the object in hand, before it is dropped
_MAX_TILT = np.radians(25)
_MAX_TURN = np.radians(60)  # of the hand's heading from the outward direction
_ELBOW_NOISE = 0.4  # rad of joint 7, with the hand where it is
_TCP_LOW, _TCP_HIGH = 0.03, 0.35  # m above all tops
_TCP_X, _TCP_Y = (0.3, 0.65), (-0.35, 0.35)  # m, world frame
_LEAST_TCP = 0.025  # m above the table, from which the fingertips are clear of it
_MOST_TILTED = 0.9  # cosine: an object that leans more has fallen over


def parse_start_mix(text: str) -> dict[str, float]:
    """Return the shares in a text like "home=0.4,random=0.6", or of one kind alone, "random".

    Raises:
        ValueError: A kind is unknown or given twice, a share is negative or no number, or they do
            not add up to 1.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        kind, has_share, value = (word.strip() for word in part.partition("="))
        if kind not in START_KINDS:
            nearest = did_you_mean([kind], START_KINDS)
            raise ValueError(
                f"start kinds are {list(START_KINDS)}, got {kind!r} in {text!r}{nearest}"
            )
        if kind in shares:
            raise ValueError(f"{kind} is given twice in {text!r}")
        try:
            shares[kind] = float(value) if has_share else 1.0
        except ValueError:
            raise ValueError(f"the share of {kind} must be a number, got {value!r}") from None
        if not 0.0 <= shares[kind] <= 1.0:
            raise ValueError(f"the share of {kind} must be from 0 to 1, got {value}")
    total = sum(shares.values())
    if abs(total - 1.0) > 1e-6:
        raise ValueError(f"shares must add up to 1, got {total:g} in {text!r}")
    return shares


@dataclass
class Prelude:
    """What led to the start of a recording.

    Attributes:
        kind: One of `START_KINDS`.
        event: What went wrong last: one of `EVENTS`, "takeover" from a policy, or "".
        reset: What was given to `env.reset` beside the episode's own options.
        actions: The unrecorded actions, (action size,) each.
        moves: Before which of them the object was put where: number of actions so far, position
            (3,), m, and orientation (4,) w, x, y, z, as one list of eight numbers.
    """

    kind: str = "home"
    event: str = ""
    reset: dict[str, Any] = field(default_factory=dict)
    actions: list[np.ndarray] = field(default_factory=list)
    moves: list[list[float]] = field(default_factory=list)

    def to_entry(self) -> dict[str, Any]:
        """Return its columns of `meta/episodes`."""
        return {
            KIND: self.kind,
            EVENT: self.event,
            PRELUDE: json.dumps(
                {
                    "reset": self.reset,
                    "moves": self.moves,
                    # The shortest text of a float32 reads back as the same bits.
                    "actions": [[float(str(x)) for x in action] for action in self.actions],
                }
            ),
        }

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> "Prelude":
        """Return the prelude of a recorded episode; that of an older dataset is empty."""
        if KIND not in entry:
            return cls()
        stored = json.loads(entry[PRELUDE])
        actions = [np.array(action, dtype=np.float32) for action in stored["actions"]]
        return cls(entry[KIND], entry[EVENT], stored["reset"], actions, stored["moves"])


class RecordedStart:
    """Repeats a recorded prelude; a `pp_recorder.rollout.Start`.

    Args:
        prelude: The recorded one.
    """

    def __init__(self, prelude: Prelude) -> None:
        self._prelude = prelude

    def __call__(
        self, env: gym.Env, seed: int, options: dict[str, Any] | None
    ) -> tuple[Any, dict[str, Any]]:
        """Bring the environment to where the recording began."""
        prelude, unwrapped = self._prelude, _pick_place_env(env)
        first = env.reset(seed=seed, options={**(options or {}), **prelude.reset} or None)
        moves = {int(step): pose for step, *pose in prelude.moves}
        for step in range(len(prelude.actions) + 1):
            if step in moves:
                unwrapped.move_object(np.array(moves[step][:3]), np.array(moves[step][3:]))
            if step < len(prelude.actions):
                unwrapped.advance(prelude.actions[step])
        return _first_of(first, unwrapped, prelude)


class Starter(Protocol):
    """A policy and what it needs to see, for the start kind "policy"."""

    policy: AnyPolicy
    needs_images: bool

    def observation(self, observation: Any, info: dict[str, Any]) -> Any:
        """Return what the policy takes.

        Args:
            observation: With `needs_images` the environment's own, else the vector (23,).
            info: Of the same instant.
        """
        ...


class EpisodeStarts:
    """Brings each attempt to its start; a `pp_recorder.rollout.Start`.

    It depends on the episode's seed and its arguments alone.

    Args:
        shares: Share of each start kind, from `parse_start_mix`.
        config: Of the environment.
        make_expert: Makes the expert that does the task before something goes wrong.
        make_starter: Makes the policy of the kind "policy", in its first episode.
        to_action: Converts joint targets and gripper (8,) to the environment's action.
    """

    def __init__(
        self,
        shares: Mapping[str, float],
        config: PickPlaceConfig,
        make_expert: Callable[[], ReactiveExpert],
        make_starter: Callable[[gym.Env], Starter] | None = None,
        to_action: Callable[[np.ndarray], np.ndarray] = lambda action: action,
    ) -> None:
        self._kinds, self._config = list(shares), config
        self._shares = np.array(list(shares.values())) / sum(shares.values())
        self._make_expert, self._make_starter = make_expert, make_starter
        self._starter: Starter | None = None
        self._to_action = to_action

    def __call__(
        self, env: gym.Env, seed: int, options: dict[str, Any] | None
    ) -> tuple[Any, dict[str, Any]]:
        """Bring the environment to where the recording begins."""
        rng = np.random.default_rng([seed, 3])
        kind = str(rng.choice(self._kinds, p=self._shares))
        if kind == "home":
            first = env.reset(seed=seed, options=options)
            return _first_of(first, _pick_place_env(env), Prelude())
        reset = self._sample_reset(kind, rng)

        def begin() -> _Run:
            first = env.reset(seed=seed, options={**(options or {}), **reset} or None)
            return _Run(_pick_place_env(env), first, Prelude(kind, reset=reset), self._to_action)

        run = begin()
        for _ in range(_MAX_TRIES):
            if kind == "anywhere":
                self._let_go_wrong(run, rng)
            elif kind == "policy":
                run = self._let_drive(env, begin, run, rng)
            if self._can_be_done(run):
                break
            run = begin()  # where the recording begins if nothing ever can be put right
        return _first_of(run.first, run.env, run.prelude)

    def _sample_reset(self, kind: str, rng: np.random.Generator) -> dict[str, Any]:
        """Return a random posture for `env.reset`, or nothing for HOME."""
        if kind == "random" or (kind == "anywhere" and rng.random() < 0.5):
            return {"joint_pos": sample_posture(rng, self._config).tolist()}
        return {}

    def _let_go_wrong(self, run: "_Run", rng: np.random.Generator) -> None:
        """Do the task up to a random moment, and let something go wrong."""
        expert = self._make_expert()
        expert.reset(run.observation, run.info, np.random.default_rng(rng.integers(2**63)))
        event = str(rng.choice(EVENTS))
        steps = int(rng.integers(self._steps(_TASK_TIME)))
        carry = int(rng.integers(self._steps(_CARRY_TIME)))
        if event == "push":
            run.follow(expert, lambda: len(run.prelude.actions) >= steps)
            self._push(run, rng)
        elif event == "nudge":
            run.follow(
                expert,
                lambda: len(run.prelude.actions) >= steps or expert.phase == "CLOSE_GRIPPER",
            )
            if not self._nudge(run, rng, _NUDGE):
                self._push(run, rng)
        elif event == "drop":
            run.follow(expert, lambda: bool(run.info["is_grasped"]))
            begin = len(run.prelude.actions)
            run.follow(expert, lambda: len(run.prelude.actions) - begin >= carry)
            if run.info["is_grasped"]:
                run.prelude.event = event
                run.hold(panda.FINGER_OPEN, self._steps(_CLOSE_TIME))
        else:
            run.follow(expert, lambda: expert.phase == "CLOSE_GRIPPER")
            if self._nudge(run, rng, _MISS):
                run.prelude.event = event
                run.hold(panda.FINGER_CLOSED, self._steps(_CLOSE_TIME))

    def _push(self, run: "_Run", rng: np.random.Generator) -> None:
        """Push the arm off its way, by a drift of all joints that keeps clear of the table."""
        low, high = (self._steps(seconds) for seconds in _PUSH_TIME)
        count = int(rng.integers(low, high + 1))
        drift = rng.uniform(-1.0, 1.0, size=7)
        drift *= rng.uniform(*_PUSH) / np.abs(drift).max()
        arm, fingers = run.last[:7], float(run.last[7])
        least = self._config.table.top_z + _LEAST_TCP
        if run.info["is_grasped"]:
            least = max(least, run.info["goal_pos"][2] + run.info["object_size"][2] / 2)
            least += run.info["grasp_height"]
        shares = np.linspace(0.0, 1.0, count + 1)[1:, None]
        while True:
            way = np.clip(arm + shares * drift, panda.JOINT_LOWER, panda.JOINT_UPPER)
            heights = tcp_position(way)[:, 2]
            if heights.min() >= min(least, tcp_position(arm)[2]) or np.abs(drift).max() < 1e-3:
                break
            drift = drift / 2
        run.prelude.event = "push"
        for posture in way:
            run.do(np.append(posture, fingers))

    def _nudge(self, run: "_Run", rng: np.random.Generator, distances: tuple[float, float]) -> bool:
        """Put the object elsewhere near where it is; return False where there is no room."""
        target, others = self._objects(run)
        if run.info["is_grasped"]:
            return False
        position, ranges = run.info["object_pos"], self._config.task
        low, high = np.transpose([ranges.x_range, ranges.y_range])
        turn = rng.uniform(-_NUDGE_TURN, _NUDGE_TURN) if ranges.random_yaw else 0.0
        quat = rotation.multiply(rotation.about_z(turn), run.info["object_quat"])
        hand = panda.HAND_HALF_WIDTH if target.height > _HIGH_OBJECT else panda.OPEN_FINGER_REACH
        apart = [(run.info["goal_pos"][:2], ranges.min_distance)]
        apart += [(spot, placement.least_distance(o, target, self._config)) for o, spot in others]
        tcp = tcp_position(run.joints)
        if tcp[2] < position[2] + target.height + _HIGH_OBJECT:
            apart.append((tcp[:2], target.radius + hand))
        for _ in range(100):
            angle, distance = rng.uniform(-np.pi, np.pi), rng.uniform(*distances)
            xy = position[:2] + distance * np.array([np.cos(angle), np.sin(angle)])
            pose = np.append(xy, position[2]), quat
            if (
                (low <= xy).all()
                and (xy <= high).all()
                and all(np.hypot(*(xy - spot)) >= least for spot, least in apart)
                and self._reaches(*pose, run.info)
            ):
                run.prelude.event = "nudge"
                run.move(*pose)
                return True
        return False

    def _let_drive(
        self, env: gym.Env, begin: Callable[[], "_Run"], run: "_Run", rng: np.random.Generator
    ) -> "_Run":
        """Let the policy drive up to a random moment, at which it has not succeeded yet."""
        if self._make_starter is None:
            raise ValueError("the start kind 'policy' needs a policy")
        self._starter = self._starter or self._make_starter(env)
        starter, seed = self._starter, int(rng.integers(2**63))
        count = int(rng.integers(1, self._steps(_POLICY_TIME)))
        run.drive(starter, count, np.random.default_rng(seed))
        if run.info["is_success"]:  # once more, not as far
            count = int(rng.integers(len(run.prelude.actions)))
            run = begin()
            run.drive(starter, count, np.random.default_rng(seed))
        run.prelude.event = "takeover"
        return run

    def _can_be_done(self, run: "_Run") -> bool:
        """Return True if the object is upright, on the table or in hand, and within reach."""
        info = run.info
        if info["is_success"]:
            return False
        up = np.abs(rotation.to_matrix(info["object_quat"])[2])
        side = int(up.argmax())
        target, _ = self._objects(run)
        if side != 2 and len(set(target.size)) > 1:
            return False
        if info["is_grasped"]:
            return True
        off = abs(info["object_pos"][2] - info["goal_pos"][2] - target.size[side] / 2)
        moving = "object_moving" in info["unmet_conditions"]
        lies = up[side] > _MOST_TILTED and off < self._config.task.height_tolerance
        return (lies or moving) and self._reaches(info["object_pos"], info["object_quat"], info)

    def _reaches(self, position: np.ndarray, quat_wxyz: np.ndarray, info: dict[str, Any]) -> bool:
        try:
            reach_pick_and_place(
                position, quat_wxyz, info["goal_pos"], GraspRequirements.from_info(info)
            )
        except UnreachableError:
            return False
        return True

    def _objects(self, run: "_Run") -> tuple[ObjectConfig, list[tuple[ObjectConfig, np.ndarray]]]:
        """Return the target, and the others with where they stand, (2,), m, world frame."""
        pool = {obj.name: obj for obj in self._config.object_pool}
        return pool[run.info["object"]], [
            (self._config.object_pool[placed.pool_index], placed.pose.position[:2])
            for placed in run.env.others
        ]

    def _steps(self, seconds: float) -> int:
        return max(1, round(seconds * self._config.timing.control_hz))


class _Run:
    """A prelude that is under way: the environment, what is seen, and what is remembered."""

    def __init__(
        self,
        env: PickPlaceEnv,
        first: tuple[Any, dict[str, Any]],
        prelude: Prelude,
        to_action: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self.env, self.first, self.prelude, self._to_action = env, first, prelude, to_action
        observation, self.info = first
        self.observation = (
            observation["agent_pos"] if isinstance(observation, dict) else observation
        )
        self.last = np.append(self.joints, panda.FINGER_OPEN)

    @property
    def joints(self) -> np.ndarray:
        """The arm's joints (7,), rad."""
        return OBSERVATION.unpack(np.asarray(self.observation, np.float64))["joint_pos"]

    def do(self, targets: np.ndarray) -> None:
        """Command joints, rad, and fingers, m, (8,) for one control period."""
        self.last = targets
        self._advance(self._to_action(targets.astype(np.float32)))

    def hold(self, fingers: float, count: int) -> None:
        """Command the fingers for some control periods, with the arm where it is."""
        for _ in range(count):
            self.do(np.append(self.last[:7], fingers))

    def move(self, position: np.ndarray, quat_wxyz: np.ndarray) -> None:
        """Put the object elsewhere."""
        self.prelude.moves.append([len(self.prelude.actions), *position, *quat_wxyz])
        self.observation, self.info = self.env.move_object(position, quat_wxyz)

    def follow(self, expert: ReactiveExpert, until: Callable[[], bool]) -> None:
        """Let the expert act until something is the case, the task is done or time is up."""
        for _ in range(expert.num_steps):
            if until() or self.info["is_success"]:
                return
            self.do(expert.act(self.observation, self.info).astype(np.float64))

    def drive(self, starter: Starter, count: int, rng: np.random.Generator) -> None:
        """Let a policy act for some control periods, or until it has succeeded."""
        starter.policy.reset(self._seen(starter), self.info, rng)
        for _ in range(count):
            if self.info["is_success"]:
                return
            action = choose_action(starter.policy, self._seen(starter), self.info)
            self._advance(np.asarray(action, dtype=np.float32))

    def _seen(self, starter: Starter) -> Any:
        own = self.env.observe()[0] if starter.needs_images else self.observation
        return starter.observation(own, self.info)

    def _advance(self, action: np.ndarray) -> None:
        self.observation, self.info = self.env.advance(action)
        self.prelude.actions.append(self.info["action"])


def sample_posture(rng: np.random.Generator, config: PickPlaceConfig) -> np.ndarray:
    """Return a random posture (7,), rad, whose hand is above the table and looks down at it."""
    top = config.table.top_z + max(obj.height for obj in config.object_pool)
    while True:
        tcp = np.array(
            [
                rng.uniform(*_TCP_X),
                rng.uniform(*_TCP_Y),
                top + rng.uniform(_TCP_LOW, _TCP_HIGH),
            ]
        )
        yaw = np.arctan2(tcp[1], tcp[0]) + rng.uniform(-_MAX_TURN, _MAX_TURN)
        lean = rotation.from_vector(rng.uniform(-_MAX_TILT, _MAX_TILT) * _horizontal(rng))
        posture = hand_posture(tcp, rotation.to_matrix(lean) @ hand_orientation(yaw, 0.0))
        elbow = rng.uniform(-_ELBOW_NOISE, _ELBOW_NOISE)
        if posture is not None:
            return vary_posture(posture, elbow)


def _horizontal(rng: np.random.Generator) -> np.ndarray:
    """Return a horizontal unit vector (3,)."""
    angle = rng.uniform(-np.pi, np.pi)
    return np.array([np.cos(angle), np.sin(angle), 0.0])


def _first_of(
    first: tuple[Any, dict[str, Any]], env: PickPlaceEnv, prelude: Prelude
) -> tuple[Any, dict[str, Any]]:
    """Return the first recorded observation and its `info`, which tells of the prelude."""
    observation, info = env.observe() if prelude.actions or prelude.moves else first
    return observation, {**info, "prelude": prelude}


def _pick_place_env(env: gym.Env) -> PickPlaceEnv:
    unwrapped: Any = env.unwrapped
    return unwrapped
