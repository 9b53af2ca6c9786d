"""Ask a policy without running it: does its plan follow the pictures, or the arm's own state?

A policy that copies the arm's motion has a low loss on demonstrations, in which the arm is where it
belongs, and fails in closed loop. So the pictures of one scene are put beside the state of another.
The plan that follows lies somewhere on the way between the plans of the two scenes: at the one
whose pictures it got, or at the one whose state it got.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from traceback import format_exc
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np

from experts.reactive import ReactiveExpert
from pp_collect.actions import set_control_mode
from pp_env import PickPlaceEnv, kinematics
from pp_env.layout import OBSERVATION
from pp_recorder.evaluation.lerobot_policy import CheckpointError
from pp_recorder.evaluation.runner import EvaluationError

_LEAST_DIFFERENCE = 0.2  # of the demonstrations', below which plans do not tell scenes apart
_FOLLOWS = 0.5  # share from which the verdict says that the plan follows


class Planner(Protocol):
    """A policy that can say what it is going to do."""

    def reset(self, observation: Any, info: dict[str, Any], rng: np.random.Generator) -> None:
        """Forget everything; `rng` is the only source of randomness."""
        ...

    def plan(self, observation: Any) -> np.ndarray:
        """Return the next actions (steps, action size), as if an episode began here."""
        ...


@dataclass(frozen=True)
class Instant:
    """A moment of a demonstration.

    Attributes:
        name: What the arm does then.
        phase: Of the expert, from `experts.waypoints.PHASES`; "" is whichever comes first.
        target: Name in `info` of where the hand goes in this phase.
        left: Share of the hand's way over the table that is left in this phase.
        is_reach: True if the hand is not at the object yet, so that only pictures say where it is.
    """

    name: str
    phase: str
    target: str
    left: float = 1.0
    is_reach: bool = False


INSTANTS = (
    Instant("at the start", "", "object_pos", is_reach=True),
    Instant("halfway to the object", "APPROACH_PICK", "object_pos", left=0.5, is_reach=True),
    Instant("above the object", "DOWN_PICK", "object_pos"),
    Instant("with the object in hand", "LIFT", "goal_pos"),
    Instant("halfway to the marker", "MOVE_TO_PLACE", "goal_pos", left=0.5),
)


class Moment(NamedTuple):
    """What there is at an instant of a scene.

    Attributes:
        observation: Of `obs_type="pixels_agent_pos"`.
        info: Of the same time.
        hand: (n, 3) where the demonstration brings the hand from now on, step by step; m, world
            frame.
    """

    observation: dict[str, Any]
    info: dict[str, Any]
    hand: np.ndarray


@dataclass(frozen=True)
class Finding:
    """What the plan follows at an instant.

    A distance is the greatest between two planned paths of the hand, m, the median over the pairs
    of scenes.

    Attributes:
        instant: When.
        pictures_share: How far the pictures of another scene, beside the same state, bring the plan
            towards the other scene's; 1 is all the way. None if plans do not tell scenes apart.
        moved_by_pictures: Distance that other pictures move the hand's path.
        moved_by_state: Distance that another state moves it.
        apart: Distance between the plans of two scenes.
        demonstrations_apart: Distance between the demonstrations there, in as many steps.
    """

    instant: Instant
    pictures_share: float | None
    moved_by_pictures: float
    moved_by_state: float
    apart: float
    demonstrations_apart: float

    @property
    def state_share(self) -> float | None:
        """The rest of the way: how far another state, beside the same pictures, brings the plan."""
        return None if self.pictures_share is None else 1.0 - self.pictures_share

    @property
    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        moves = (self.moved_by_pictures, self.moved_by_state, self.apart, self.demonstrations_apart)
        return (
            self.instant.name,
            _percent(self.pictures_share),
            _percent(self.state_share),
            *(f"{_cm(metres)} cm" for metres in moves),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the numbers by name; shares, and m."""
        return {
            "instant": self.instant.name,
            "phase": self.instant.phase,
            "pictures_share": self.pictures_share,
            "state_share": self.state_share,
            "moved_by_pictures": self.moved_by_pictures,
            "moved_by_state": self.moved_by_state,
            "apart": self.apart,
            "demonstrations_apart": self.demonstrations_apart,
        }


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found.

    Attributes:
        scenes: Number of scenes, each paired with the next.
        steps: Length of a plan.
        findings: One per instant.
    """

    scenes: int
    steps: int
    findings: tuple[Finding, ...]

    @property
    def reach(self) -> list[Finding]:
        """The findings on the way to the object, that with the least share of the pictures first.

        Where plans do not tell scenes apart, the pictures have none.
        """
        findings = [finding for finding in self.findings if finding.instant.is_reach]
        return sorted(findings, key=lambda finding: finding.pictures_share or 0.0)

    @property
    def verdict(self) -> str:
        """Return in a sentence what the plan follows on the way to the object."""
        for finding in self.reach:
            share = finding.pictures_share
            if share is not None and share < _FOLLOWS:
                return (
                    f"The plan follows the arm's own state: {finding.instant.name}, the pictures "
                    f"bring it {share:.0%} of the way to that of another scene."
                )
        weakest = self.reach[0]
        if weakest.pictures_share is None:
            return (
                f"The plan does not tell scenes apart: {weakest.instant.name}, those of two scenes "
                f"are {_cm(weakest.apart)} cm apart, the demonstrations "
                f"{_cm(weakest.demonstrations_apart)} cm."
            )
        return (
            f"The plan follows the pictures: they bring it at least {weakest.pictures_share:.0%} "
            "of the way to that of another scene."
        )

    def to_text(self) -> str:
        """Return the table and the verdict for the terminal."""
        rows = [_HEAD, *(finding.cells for finding in self.findings)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(_pad, row, widths)) for row in rows]
        return "\n".join([*map(str.rstrip, lines), "", self.verdict])

    def to_json(self) -> dict[str, Any]:
        """Return the result by name; shares, and m."""
        return {
            "scenes": self.scenes,
            "plan_steps": self.steps,
            "verdict": self.verdict,
            "instants": [finding.to_json() for finding in self.findings],
        }


_HEAD = (
    "instant",
    "follows the pictures",
    "follows the state",
    "moved by pictures",
    "by state",
    "by both",
    "demonstrated",
)


def _pad(cell: str, width: int) -> str:
    return f"{cell:<{width}}"


def require_planner(policy: Any, name: str) -> Planner:
    """Return a policy that has a plan.

    Args:
        policy: Any.
        name: Its name on the command line, for the error.

    Raises:
        EvaluationError: It has none.
    """
    if not callable(getattr(policy, "plan", None)):
        raise EvaluationError(
            f"--probe asks --policy {name} for its plan, but it has no plan(observation), which "
            "returns the next actions as an array (steps, action size); add one, or evaluate it "
            "without --probe"
        )
    return policy


def probe(
    env: gym.Env,
    planner: Planner,
    seeds: Sequence[int],
    options: dict[str, Any] | None = None,
    progress: Callable[[], object] = lambda: None,
) -> ProbeResult:
    """Ask a planner in pairs of scenes, each scene with the next, what its plan follows.

    Args:
        env: Of `obs_type="pixels_agent_pos"`, in the planner's control mode. The demonstrations
            leave it in another.
        planner: All its plans are made with the same randomness.
        seeds: Of the scenes.
        options: For `env.reset`.
        progress: Called after every scene.

    Raises:
        EvaluationError: A plan is none, or fewer than two scenes can be demonstrated.
    """
    unwrapped: Any = env.unwrapped
    make_plan = _PlanMaker(planner, unwrapped.control_mode, env.action_space.shape or ())
    set_control_mode(env, "joint_pos")
    scenes: list[list[_Plan]] = []
    mixed: list[list[_Plan]] = []
    first: list[Moment] = []
    previous: list[Moment] = []
    for seed in seeds:
        moments = demonstrate(unwrapped, seed, options)
        progress()
        if moments is None:
            continue
        if previous:
            mixed.append([make_plan(*pair) for pair in zip(moments, previous, strict=True)])
        scenes.append([make_plan(moment, moment) for moment in moments])
        first, previous = first or moments, moments
    if len(scenes) < 2:
        raise EvaluationError(
            f"a probe compares scenes, but the expert did the task in {len(scenes)} of "
            f"{len(seeds)}; try a larger --num-episodes, or another scene"
        )
    mixed.append([make_plan(*pair) for pair in zip(first, previous, strict=True)])
    return _summarize(scenes, mixed)


def demonstrate(
    env: PickPlaceEnv, seed: int, options: dict[str, Any] | None
) -> list[Moment] | None:
    """Do the task in the scene of a seed and return its moments, or None if one does not come.

    Args:
        env: Of `obs_type="pixels_agent_pos"` and `control_mode="joint_pos"`.
        seed: For `env.reset`.
        options: For `env.reset`.
    """
    expert = ReactiveExpert(control_hz=env.config.timing.control_hz)
    observation: Any
    observation, info = env.reset(seed=seed, options=options)
    vector = observation["agent_pos"]
    expert.reset(vector, info, np.random.default_rng([seed, 1]))
    seen: list[tuple[int, Any, dict[str, Any]]] = []
    actions, ways = [], {}
    while not expert.done and len(actions) < expert.num_steps:
        action = expert.act(vector, info)
        if len(seen) < len(INSTANTS) and _has_come(
            INSTANTS[len(seen)], expert.phase, vector, info, ways
        ):
            seen.append((len(actions), env.observe()[0], info))
        actions.append(action)
        vector, info = env.advance(action)
    if len(seen) < len(INSTANTS):
        return None
    hand = _PATHS["joint_pos"](np.array(actions, dtype=np.float64), vector)
    return [Moment(observation, info, hand[step:]) for step, observation, info in seen]


def swap(pictures_of: Moment, state_of: Moment) -> dict[str, Any]:
    """Return the observation with the pictures of one moment and all else of another."""
    return {**state_of.observation, "pixels": pictures_of.observation["pixels"]}


class _Plan(NamedTuple):
    """A plan, and what is compared with it.

    Attributes:
        actions: (steps, action size).
        hand: (steps, 3) where it brings the hand, m, world frame.
        demonstrated: (steps, 3) where the demonstration with these pictures brings it.
    """

    actions: np.ndarray
    hand: np.ndarray
    demonstrated: np.ndarray


class _PlanMaker:
    """Makes plans from the pictures of one moment and the state of another.

    Args:
        planner: Whose plans.
        control_mode: What its actions mean.
        shape: Of an action.
    """

    def __init__(self, planner: Planner, control_mode: str, shape: tuple[int, ...]) -> None:
        self._planner, self._path, self._shape = planner, _PATHS[control_mode], shape
        self._steps: int | None = None

    def __call__(self, pictures_of: Moment, state_of: Moment) -> _Plan:
        observation = swap(pictures_of, state_of)
        try:
            # The text of the task names what the pictures show.
            self._planner.reset(observation, pictures_of.info, np.random.default_rng(0))
            actions = np.asarray(self._planner.plan(observation))
        except CheckpointError:
            raise
        except Exception as error:
            raise EvaluationError(f"the policy has no plan\n{format_exc().rstrip()}") from error
        self._require_plan(actions)
        actions = actions.astype(np.float64)
        hand = self._path(actions, state_of.observation["agent_pos"])
        ahead = np.minimum(np.arange(len(actions)), len(pictures_of.hand) - 1)
        return _Plan(actions, hand, pictures_of.hand[ahead])

    def _require_plan(self, actions: np.ndarray) -> None:
        """Check what `plan` returned.

        Raises:
            EvaluationError: It is no plan, or one of another length than the first.
        """
        steps = self._steps
        if steps is None and actions.ndim == 1 + len(self._shape):
            steps = len(actions)
        is_number = np.can_cast(actions.dtype, np.float64, "same_kind")
        if not steps or actions.shape != (steps, *self._shape) or not is_number:
            raise EvaluationError(
                "plan must return an array of numbers of shape "
                f"{(steps or 'steps', *self._shape)}, got {actions.dtype} {actions.shape}"
            )
        if not np.isfinite(actions).all():
            raise EvaluationError("plan must return finite numbers, got NaN or infinity")
        self._steps = steps


def _has_come(
    instant: Instant, phase: str, vector: np.ndarray, info: dict[str, Any], ways: dict[str, float]
) -> bool:
    """Return True if it is that instant or later; `ways` remembers how long each way was, m."""
    if instant.phase not in ("", phase):
        return False
    hand = OBSERVATION.unpack(vector)["eef_pos"]
    left = float(np.hypot(*(hand - info[instant.target])[:2]))
    return left <= instant.left * ways.setdefault(phase, left)


def _joint_path(actions: np.ndarray, _vector: np.ndarray) -> np.ndarray:
    return kinematics.forward(actions[:, :7])[0]


def _joint_delta_path(actions: np.ndarray, vector: np.ndarray) -> np.ndarray:
    start = OBSERVATION.unpack(vector)["joint_pos"]
    return kinematics.forward(start + np.cumsum(actions[:, :7], axis=0))[0]


def _hand_delta_path(actions: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return OBSERVATION.unpack(vector)["eef_pos"] + np.cumsum(actions[:, :3], axis=0)


def _hand_path(actions: np.ndarray, _vector: np.ndarray) -> np.ndarray:
    return actions[:, :3]


# By control mode: where actions (n, size) bring the hand, (n, 3), m, from an observed state (23,).
_PATHS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "joint_pos": _joint_path,
    "joint_delta": _joint_delta_path,
    "ee_delta": _hand_delta_path,
    "ee_pose": _hand_path,
}


def _summarize(scenes: list[list[_Plan]], mixed: list[list[_Plan]]) -> ProbeResult:
    """Return the result.

    Args:
        scenes: By scene and instant, the plan there.
        mixed: By scene and instant, the plan from its state and the pictures of the next scene.
    """
    # Over all instants: a number that hardly varies at one of them is noise there, and stays small.
    actions = np.array([[plan.actions for plan in plans] for plans in scenes])
    spread = actions.std(axis=(0, 1, 2))
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0.0)
    findings = tuple(
        _find(instant, [plans[k] for plans in scenes], [plans[k] for plans in mixed], scale)
        for k, instant in enumerate(INSTANTS)
    )
    return ProbeResult(len(scenes), actions.shape[2], findings)


def _find(
    instant: Instant, own: Sequence[_Plan], mixed: Sequence[_Plan], scale: np.ndarray
) -> Finding:
    """Return what the plans of an instant say; `scale` weighs the numbers of an action."""
    following = [*own[1:], own[0]]
    covered = between = 0.0
    for plan, other, mix in zip(own, following, mixed, strict=True):
        way = (other.actions - plan.actions) * scale
        covered += float(np.sum((mix.actions - plan.actions) * scale * way))
        between += float(np.sum(way * way))
    apart = _distance([plan.hand for plan in own], [plan.hand for plan in following])
    demonstrated = [plan.demonstrated for plan in own]
    demonstrations_apart = _distance(demonstrated, [*demonstrated[1:], demonstrated[0]])
    is_telling = between > 0.0 and apart >= _LEAST_DIFFERENCE * demonstrations_apart
    return Finding(
        instant=instant,
        pictures_share=covered / between if is_telling else None,
        moved_by_pictures=_distance([p.hand for p in own], [p.hand for p in mixed]),
        moved_by_state=_distance([p.hand for p in following], [p.hand for p in mixed]),
        apart=apart,
        demonstrations_apart=demonstrations_apart,
    )


def _distance(paths: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    """Return the median over pairs of the greatest distance between two paths (n, 3), m."""
    off = np.linalg.norm(np.array(paths) - np.array(others), axis=-1)
    return float(np.median(off.max(axis=-1)))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _cm(metres: float) -> str:
    return f"{100 * metres:.1f}"
