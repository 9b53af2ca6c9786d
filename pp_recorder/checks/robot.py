"""The robot: its limits, how it follows its targets, whether it succeeded."""

from collections.abc import Callable

import numpy as np

from pp_recorder.checks.findings import Result, UnavailableError, text_of
from pp_recorder.checks.view import DatasetView, array, by_episode, feature_names

LIMIT_TOLERANCE = 0.005  # rad; limits in simulators are slightly soft
TRACKING_LIMIT = 0.1  # rad
SATURATED = 0.5  # share of the frames


def check_joint_limits(evidence: DatasetView, log: Result) -> str:
    """Joint positions, and their targets, within the limits in `collection.json`."""
    low, high = _limit(evidence, "joint_low"), _limit(evidence, "joint_high")
    looked = []
    for key, prefix in (("observation.state", "joint_pos_"), ("action", "action_joint_")):
        try:
            values = evidence.named(key, prefix)
        except UnavailableError:
            continue
        if values.shape[1] != low.size:
            raise UnavailableError(f"{low.size} limits do not fit {values.shape[1]} {prefix}*")
        looked.append(prefix + "*")
        beyond = np.maximum(low - values, values - high)
        _report_beyond(evidence, log.error, prefix, values, beyond - LIMIT_TOLERANCE, (low, high))
    if not looked:
        raise UnavailableError("no numbers are called joint_pos_* or action_joint_*")
    return f"{', '.join(looked)} within the limits" if not log.findings else ", ".join(looked)


def _report_beyond(
    evidence: DatasetView,
    report: Callable[[str, int | None, int | None], None],
    prefix: str,
    values: np.ndarray,
    beyond: np.ndarray,
    limits: tuple[np.ndarray, np.ndarray],
) -> None:
    """One finding per episode, at its worst frame."""
    for episode, frames in by_episode(evidence, np.flatnonzero((beyond > 0).any(axis=1))):
        rows = evidence.spans[episode][0] + frames
        worst, joint = np.unravel_index(beyond[rows].argmax(), beyond[rows].shape)
        low, high = limits[0][joint], limits[1][joint]
        report(
            f"episode {episode}, {text_of(frames)}: {prefix}{joint} is "
            f"{values[rows[worst], joint]:.4f} at frame {frames[worst]}, expected {low:.4f} to "
            f"{high:.4f}",
            episode,
            int(frames[worst]),
        )


def _limit(evidence: DatasetView, name: str) -> np.ndarray:
    limits = evidence.collection.get("limits")
    value = array(limits.get(name)) if isinstance(limits, dict) and name in limits else None
    if value is None or value.ndim != 1:
        raise UnavailableError(f"collection.json has no limits of {name}")
    return value


def check_joint_speed(evidence: DatasetView, log: Result) -> str:
    """Joint velocities within the limits in `collection.json`."""
    top = _limit(evidence, "joint_velocity")
    speed = evidence.named("observation.state", "joint_vel_")
    if speed.shape[1] != top.size:
        raise UnavailableError(f"{top.size} limits do not fit {speed.shape[1]} joint_vel_*")
    _report_beyond(evidence, log.warning, "joint_vel_", speed, np.abs(speed) - top, (-top, top))
    return f"at most {(np.abs(speed) / top).max():.0%} of the limit"


def tracking_error(evidence: DatasetView) -> np.ndarray:
    """|joint positions one step later - their targets| in rad, (frames, joints); NaN at ends.

    Raises:
        UnavailableError: State or action have no such names.
    """
    state = evidence.named("observation.state", "joint_pos_").astype(np.float64)
    target = evidence.named("action", "action_joint_").astype(np.float64)
    if state.shape != target.shape:
        raise UnavailableError("there are not as many joints in the action as in the state")
    error = np.full(state.shape, np.nan)
    error[:-1] = np.abs(state[1:] - target[:-1])
    error[[end - 1 for _, end in evidence.spans]] = np.nan
    return error


def check_tracking(evidence: DatasetView, log: Result) -> str:
    """How well the arm follows its targets."""
    error = tracking_error(evidence)
    known = error[np.isfinite(error)]
    if not known.size:
        raise UnavailableError("no episode has two frames")
    for i, (begin, end) in enumerate(evidence.spans):
        part = np.nan_to_num(error[begin:end])
        frame, joint = np.unravel_index(part.argmax(), part.shape)
        if part[frame, joint] > TRACKING_LIMIT:
            log.warning(
                f"episode {i}, frame {frame}: joint {joint} is {part[frame, joint]:.3f} rad away "
                f"from its target one step later, expected at most {TRACKING_LIMIT}",
                i,
                int(frame),
            )
    return f"max {known.max():.4f} rad, 99th percentile {np.percentile(known, 99):.4f} rad"


def check_saturation(evidence: DatasetView, log: Result) -> str:
    """How often the action is at a bound: of the joints if known, else its own extremes."""
    action = evidence.column("action")
    names = feature_names(evidence.features.get("action", {}))
    names = names if len(names) == action.shape[1] else [f"action[{k}]" for k in range(len(names))]
    names = names or [f"action[{k}]" for k in range(action.shape[1])]
    low, high = _action_bounds(evidence, names, action)
    highest = 0.0
    for k, name in enumerate(names):
        if "gripper" in name or len(np.unique(action[:1000, k])) < 5:
            continue  # a gripper, a switch or a constant is at a bound by nature
        near = 1e-4 * (high[k] - low[k])
        share = float(((action[:, k] <= low[k] + near) | (action[:, k] >= high[k] - near)).mean())
        highest = max(highest, share)
        if share > SATURATED:
            text = f"expected at most {SATURATED:.0%}"
            log.warning(f"{name} is at a bound in {share:.0%} of the frames, {text}")
    return f"at most {highest:.1%} of the frames"


def _action_bounds(
    evidence: DatasetView, names: list[str], action: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    low, high = action.min(0).astype(np.float64), action.max(0).astype(np.float64)
    joints = [k for k, name in enumerate(names) if name.startswith("action_joint_")]
    try:
        known = _limit(evidence, "joint_low"), _limit(evidence, "joint_high")
    except UnavailableError:
        return low, high
    if joints and len(joints) == known[0].size == known[1].size:
        low[joints], high[joints] = known
    return low, high


def check_success(evidence: DatasetView, log: Result) -> str:
    """The success of an episode against the success of its last frame."""
    labels = [row.get("episode/success") for row in evidence.episodes]
    if missing := [i for i, label in enumerate(labels) if label is None]:
        if len(missing) < len(labels):
            log.error(f"episode {missing[0]}: episode/success is empty", missing[0])
        raise UnavailableError("there is no episode/success")
    if "next.success" not in evidence.features:
        raise UnavailableError("there is no next.success")
    frames = evidence.column("next.success")[:, 0].astype(bool)
    for i, (_, end) in enumerate(evidence.spans):
        if bool(labels[i]) != bool(frames[end - 1]):
            log.error(
                f"episode {i}: next.success of its last frame is {bool(frames[end - 1])}, "
                f"expected {labels[i]} as in episode/success",
                i,
            )
    return f"{sum(map(bool, labels))} of {len(labels)} episodes succeeded"
