"""Checks of the robot: limits, tracking, saturation, success."""

from collections.abc import Callable

import numpy as np

from pp_recorder.checks.findings import CheckResult, UnavailableError, text_of
from pp_recorder.checks.robot_model import robot_model
from pp_recorder.checks.signals import all_signals, quaternions
from pp_recorder.checks.view import DatasetView, array, by_episode, feature_names
from pp_recorder.dataset import keys

LIMIT_TOLERANCE = 0.005  # rad; limits in simulators are slightly soft
TRACKING_LIMIT = 0.1  # rad
UNIT_TOLERANCE = 1e-3
NEAR_ROTATION = 0.9  # least |cosine| of half the angle to the mean rotation
SATURATED = 0.5  # share of the frames


def check_joint_limits(view: DatasetView, result: CheckResult) -> str:
    """Check joint positions and their targets against the limits in `collection.json`."""
    low, high = _limit(view, "joint_low"), _limit(view, "joint_high")
    checked = []
    for key, prefix in ((keys.STATE, "joint_pos_"), (keys.ACTION, "action_joint_")):
        try:
            values = view.named(key, prefix)
        except UnavailableError:
            continue
        if values.shape[1] != low.size:
            raise UnavailableError(f"{low.size} limits do not fit {values.shape[1]} {prefix}*")
        checked.append(prefix + "*")
        beyond = np.maximum(low - values, values - high)
        _report_beyond(
            view, result.add_error, prefix, values, beyond - LIMIT_TOLERANCE, (low, high)
        )
    if not checked:
        raise UnavailableError("no numbers are called joint_pos_* or action_joint_*")
    text = ", ".join(checked)
    return text if result.findings else f"{text} within the limits"


def check_bounds(view: DatasetView, result: CheckResult) -> str:
    """Check every named number against the bounds that its robot's layout states."""
    bounds, checked = robot_model(view).bounds, 0
    for signal in all_signals(view):
        if signal.name not in bounds:
            continue
        checked += 1
        low, high = bounds[signal.name]
        room = LIMIT_TOLERANCE * (high - low)
        beyond = np.maximum(low - signal.values, signal.values - high)
        for episode, frames in by_episode(view, np.flatnonzero(beyond > room)):
            rows = view.spans[episode][0] + frames
            worst = int(beyond[rows].argmax())
            result.add_error(
                f"episode {episode}, {text_of(frames)}: {signal.name} is "
                f"{signal.values[rows[worst]]:.4g} at frame {frames[worst]}, expected {low:.4g} "
                f"to {high:.4g}{_unit_hint(signal.name)}",
                episode,
                int(frames[0]),
            )
    return f"{checked} numbers within their bounds" if not result.findings else ""


def _unit_hint(name: str) -> str:
    if "joint" in name:
        return " (radians)"
    return " (metres)" if "_pos_" in name or "gripper" in name else ""


def _report_beyond(
    view: DatasetView,
    report: Callable[[str, int | None, int | None], None],
    prefix: str,
    values: np.ndarray,
    beyond: np.ndarray,
    limits: tuple[np.ndarray, np.ndarray],
) -> None:
    """Report one finding per episode, at its worst frame."""
    for episode, frames in by_episode(view, np.flatnonzero((beyond > 0).any(axis=1))):
        rows = view.spans[episode][0] + frames
        worst, joint = np.unravel_index(beyond[rows].argmax(), beyond[rows].shape)
        low, high = limits[0][joint], limits[1][joint]
        report(
            f"episode {episode}, {text_of(frames)}: {prefix}{joint} is "
            f"{values[rows[worst], joint]:.4f} at frame {frames[worst]}, expected {low:.4f} to "
            f"{high:.4f}",
            episode,
            int(frames[worst]),
        )


def _limit(view: DatasetView, name: str) -> np.ndarray:
    limits = view.collection.get("limits")
    value = array(limits.get(name)) if isinstance(limits, dict) and name in limits else None
    if value is None or value.ndim != 1:
        raise UnavailableError(f"collection.json has no limits of {name}")
    return value


def check_joint_speed(view: DatasetView, result: CheckResult) -> str:
    """Check joint velocities against the limits in `collection.json`."""
    top = _limit(view, "joint_velocity")
    speed = view.named(keys.STATE, "joint_vel_")
    if speed.shape[1] != top.size:
        raise UnavailableError(f"{top.size} limits do not fit {speed.shape[1]} joint_vel_*")
    _report_beyond(view, result.add_warning, "joint_vel_", speed, np.abs(speed) - top, (-top, top))
    return f"at most {(np.abs(speed) / top).max():.0%} of the limit"


def tracking_error(view: DatasetView) -> np.ndarray:
    """Return |joint positions one step later - targets| in rad, (frames, joints); NaN at ends.

    Raises:
        UnavailableError: State or action have no joints, or not equally many.
    """
    state = view.named(keys.STATE, "joint_pos_").astype(np.float64)
    target = view.named(keys.ACTION, "action_joint_").astype(np.float64)
    if state.shape != target.shape:
        raise UnavailableError("there are not as many joints in the action as in the state")
    error = np.full(state.shape, np.nan)
    error[:-1] = np.abs(state[1:] - target[:-1])
    error[[end - 1 for _, end in view.spans]] = np.nan
    return error


def check_tracking(view: DatasetView, result: CheckResult) -> str:
    """Check how closely the arm follows its targets."""
    error = tracking_error(view)
    known = error[np.isfinite(error)]
    if not known.size:
        raise UnavailableError("no episode has two frames")
    delay = max(view.randomization.get("action_delay") or [0])  # steps
    limit = TRACKING_LIMIT * (1 + delay)
    for i, (begin, end) in enumerate(view.spans):
        part = np.nan_to_num(error[begin:end])
        frame, joint = np.unravel_index(part.argmax(), part.shape)
        if part[frame, joint] > limit:
            result.add_warning(
                f"episode {i}, frame {frame}: joint {joint} is {part[frame, joint]:.3f} rad away "
                f"from its target one step later, expected at most {limit:g}",
                i,
                int(frame),
            )
    return f"max {known.max():.4f} rad, 99th percentile {np.percentile(known, 99):.4f} rad"


def check_saturation(view: DatasetView, result: CheckResult) -> str:
    """Check how often the action is at a bound: the joints' if known, else its own extremes."""
    action = view.column(keys.ACTION)
    names = feature_names(view.features.get(keys.ACTION, {}))
    names = names if len(names) == action.shape[1] else [f"action[{k}]" for k in range(len(names))]
    names = names or [f"action[{k}]" for k in range(action.shape[1])]
    low, high = _action_bounds(view, names, action)
    highest = 0.0
    for k, name in enumerate(names):
        if "gripper" in name or len(np.unique(action[:1000, k])) < 5:
            continue  # a gripper, a switch or a constant is at a bound by nature
        near = 1e-4 * (high[k] - low[k])
        share = float(((action[:, k] <= low[k] + near) | (action[:, k] >= high[k] - near)).mean())
        highest = max(highest, share)
        if share > SATURATED:
            text = f"expected at most {SATURATED:.0%}"
            result.add_warning(f"{name} is at a bound in {share:.0%} of the frames, {text}")
    return f"at most {highest:.1%} of the frames"


def _action_bounds(
    view: DatasetView, names: list[str], action: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    low, high = action.min(0).astype(np.float64), action.max(0).astype(np.float64)
    joints = [k for k, name in enumerate(names) if name.startswith("action_joint_")]
    try:
        known = _limit(view, "joint_low"), _limit(view, "joint_high")
    except UnavailableError:
        return low, high
    if joints and len(joints) == known[0].size == known[1].size:
        low[joints], high[joints] = known
    return low, high


def check_quaternions(view: DatasetView, result: CheckResult) -> str:
    """Check that quaternions have length 1 and do not change their sign."""
    groups = quaternions(view)
    if not groups:
        raise UnavailableError("no four numbers are called *_w, *_x, *_y and *_z")
    ends = np.zeros(view.spans[-1][1], dtype=bool)
    ends[[end - 1 for _, end in view.spans]] = True
    for (_, name), values in groups.items():
        length = np.linalg.norm(values, axis=1)
        for episode, frames in by_episode(
            view, np.flatnonzero(~(np.abs(length - 1) <= UNIT_TOLERANCE))
        ):
            result.add_error(
                f"episode {episode}, {text_of(frames)}: {name} is not a unit quaternion",
                episode,
                int(frames[0]),
            )
        flips = (values[:-1] * values[1:]).sum(1) < 0
        flips &= ~ends[:-1]
        for episode, frames in by_episode(view, np.flatnonzero(flips) + 1):
            result.add_warning(
                f"episode {episode}, {text_of(frames)}: {name} changes its sign though the "
                "rotation does not jump, which is noise to whoever learns from it",
                episode,
                int(frames[0]),
            )
        _check_first_signs(view, result, name, values)
    names = ", ".join(name for _, name in groups)
    return names + ("" if result.findings else ": unit length, no sign flips")


def _check_first_signs(
    view: DatasetView, result: CheckResult, name: str, values: np.ndarray
) -> None:
    """Warn of episodes that begin with the other sign, though near the others' rotation."""
    first = values[[begin for begin, _ in view.spans]]
    axis = np.linalg.eigh(first.T @ first)[1][:, -1]  # the mean rotation, of either sign
    along = first @ axis
    if len(first) < 2 or np.abs(along).min() < NEAR_ROTATION:
        return
    rare = np.sign(along) != np.sign(np.median(along) or 1.0)
    if rare.any():
        episodes = np.flatnonzero(rare)
        result.add_warning(
            f"{name} begins with the other sign in {len(episodes)} of {len(first)} episodes, "
            f"such as episode {episodes[0]}, though with nearly the same rotation",
            int(episodes[0]),
        )


def check_success(view: DatasetView, result: CheckResult) -> str:
    """Check the success of an episode against the success of its last frame."""
    labels = [row.get(keys.EPISODE_SUCCESS) for row in view.episodes]
    if all(label is None for label in labels):
        raise UnavailableError("there is no episode/success")
    # What others have appended has none of our columns.
    ours = [i for i, row in enumerate(view.episodes) if row.get(keys.EPISODE_SEED) is not None]
    if missing := [i for i in ours if labels[i] is None]:
        result.add_error(f"episode {missing[0]}: episode/success is empty", missing[0])
        raise UnavailableError("there is no episode/success")
    if keys.SUCCESS not in view.features:
        raise UnavailableError("there is no next.success")
    frames = view.column(keys.SUCCESS)[:, 0].astype(bool)
    for i, (_, end) in enumerate(view.spans):
        if labels[i] is not None and bool(labels[i]) != bool(frames[end - 1]):
            result.add_error(
                f"episode {i}: next.success of its last frame is {bool(frames[end - 1])}, "
                f"expected {labels[i]} as in episode/success",
                i,
            )
    return f"{sum(map(bool, labels))} of {len(labels)} episodes succeeded"
