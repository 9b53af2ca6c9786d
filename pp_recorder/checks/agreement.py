"""Checks of columns against each other: what one says must not contradict what another says."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from pp_recorder.checks.findings import CheckResult, UnavailableError, named, text_of
from pp_recorder.checks.robot_model import RobotModel, has_model, robot_model
from pp_recorder.checks.signals import (
    Signal,
    all_signals,
    episodes_of,
    lag_errors,
    moving,
    positions_and_velocities,
    quaternions,
    rotations,
    signals,
    stack,
    targets,
    triples,
)
from pp_recorder.checks.view import DatasetView, by_episode
from pp_recorder.dataset import keys

# What a number is multiplied with if it is in another unit than it should be.
UNITS = {
    180 / np.pi: "degrees in place of radians?",
    np.pi / 180: "radians in place of degrees?",
    100.0: "centimetres in place of metres?",
    0.01: "metres in place of centimetres?",
    1000.0: "millimetres in place of metres?",
    0.001: "metres in place of millimetres?",
    -1.0: "the sign is wrong?",
}
POSITION_TOLERANCE = 0.002  # m, between stored and computed pose of the hand
ANGLE_TOLERANCE = 0.01  # rad
USUAL_NOISE = 0.002  # rad, of the joints in the strongest randomization
NOISE_REACH = 6.0  # so many standard deviations of the joints' noise move the hand at most
SLIP = 0.03  # m, that an object moves in a gripper that holds it
SLIP_ANGLE = 0.5  # rad
RELATED = 0.3  # the largest difference, as a share of the motion, of two columns that agree
# A joint whose velocity is larger than its motion says swings at the end of every step.
RINGING = 1.2
FEWEST_FPS = 20  # below, velocities say little of the next position
LAGS_S = (0.5, 1.0)  # s, that an action is searched before and after its place
SLOWEST_S = 0.5  # s, that a robot may take to follow
RESPONSE_S = 0.03  # s, that our robot takes
SHARP = 1.5  # so many times larger is the error at a wrong lag
REPEATED = 0.5  # share of the rows that another episode has, too
MARGIN = {"distance": 0.003, "home": 0.02, "open": 0.001}  # m, rad, m


def unit_text(factor: float) -> str:
    """Return what a factor between two columns means, or ""."""
    for known, text in UNITS.items():
        if abs(factor / known - 1) < 0.1:
            return text
    return ""


# -------------------------------------------------------------------------------------- velocities


def check_velocities(view: DatasetView, result: CheckResult) -> str:
    """Check velocities against the differences of positions."""
    groups = positions_and_velocities(view)
    if not groups:
        raise UnavailableError("no velocities are named like positions")
    for name, (positions, velocities) in groups.items():
        differences, found = _central(view, stack(positions)), stack(velocities)
        judged = _judge_velocities(view, result, name, velocities, differences, found)
        if judged:
            _judge_episodes(view, result, velocities, differences, found)
    return ", ".join(groups) + ("" if result.findings else " fit their velocities")


def _central(view: DatasetView, values: np.ndarray) -> np.ndarray:
    """Return central differences per second, one-sided at the ends of episodes."""
    parts = [
        np.gradient(part, axis=0) if len(part) > 1 else np.zeros_like(part)
        for _, part in episodes_of(view, values)
    ]
    return np.concatenate(parts) * view.fps


def _judge_velocities(
    view: DatasetView,
    result: CheckResult,
    name: str,
    velocities: list[Signal],
    differences: np.ndarray,
    found: np.ndarray,
) -> bool:
    """Judge all episodes together; return True if the velocities fit."""
    moves = _rms(differences)
    large = moves > 0.3 * max(moves.max(), 1e-9)  # the others follow those, by inertia
    ratio = _rms(found) / moves.max() if moves.max() > 1e-9 else np.zeros(len(moves))
    good = True
    for k, velocity in enumerate(velocities):
        if large[k] and not np.ptp(found[:, k]):
            result.add_error(f"{velocity.name} never changes though the position does")
            good = False
        elif ratio[k] > 5:
            factor = _rms(found)[k] / moves[k]
            text = UNITS[180 / np.pi] if factor > 10 else "another unit?"
            result.add_error(
                f"{velocity.name} is {ratio[k]:.3g} times as large as the differences of "
                f"positions say: {text}"
            )
            good = False
    if not good or view.fps < FEWEST_FPS or len(found) < 20:
        return good
    matrix, steady = _correlations(found, differences), ratio <= RINGING * moves / moves.max()
    for k, velocity in enumerate(velocities):
        own, best = matrix[k, k], int(matrix[k].argmax())
        what = ""
        if own < 0.6 and matrix[k, best] > 0.9:
            what = f"holds what belongs to {velocities[best].name}"
        elif large[k] and steady[k] and own < -0.6:
            what = "has the sign opposite to the motion"
        elif large[k] and ratio[k] < 0.02 and own > 0.6:
            what = f"is far too small: {UNITS[np.pi / 180]}"
        if what:
            result.add_error(f"{velocity.name} {what}")
            good = False
    return good and _judge_velocity_lag(view, result, name, differences[:, large], found[:, large])


def _judge_velocity_lag(
    view: DatasetView, result: CheckResult, name: str, differences: np.ndarray, found: np.ndarray
) -> bool:
    lags = range(-20, 21)
    scores = np.zeros(len(lags))
    pairs = zip(episodes_of(view, differences), episodes_of(view, found), strict=True)
    for (_, d), (_, v) in pairs:
        if len(d) > 60:
            scores += _lagged(d, v, lags)
    best = lags[int(scores.argmax())]
    own = scores[lags.index(0)]
    if scores.max() > 0 and abs(best) > 2 and own < 0.75 * scores.max():
        result.add_error(
            f"the velocities of {name} are {abs(best)} frames "
            f"{'later' if best > 0 else 'earlier'} than the differences of positions"
        )
        return False
    return True


def _lagged(first: np.ndarray, second: np.ndarray, lags: range) -> np.ndarray:
    """Return the correlation, summed over columns, of `first` with `second` so much later."""
    rows = np.arange(-lags[0], len(first) - lags[-1])
    a = _standard(first[rows])
    return np.array([(a * _standard(second[rows + k])).mean(axis=0).sum() for k in lags])


def _standard(values: np.ndarray) -> np.ndarray:
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(spread > 1e-9, spread, np.inf)


def _correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the correlations (n, m) of columns."""
    return _standard(first).T @ _standard(second) / len(first)


def _rms(values: np.ndarray) -> np.ndarray:
    return np.sqrt((values**2).mean(axis=0))


def _judge_episodes(
    view: DatasetView,
    result: CheckResult,
    velocities: list[Signal],
    differences: np.ndarray,
    found: np.ndarray,
) -> None:
    """Judge every episode by what fits in most of them."""
    parts = list(zip(episodes_of(view, differences), episodes_of(view, found), strict=True))
    if len(parts) < 2:
        return
    gains = np.array([_gains(d, v) for (_, d), (_, v) in parts])  # (episodes, columns, 2)
    usual = np.median(gains, axis=0)
    for (episode, d), (_, v) in ((a, b) for a, b in parts):
        moves = _rms(d)
        for k, velocity in enumerate(velocities):
            if moves[k] < 0.3 * max(moves.max(), 1e-9) or usual[k, 1] < 0.8:
                continue
            gain, correlation = gains[episode, k]
            what = ""
            if not np.ptp(v[:, k]):
                what = "never changes though the position does"
            elif correlation < -0.6:
                what = "has the sign opposite to the motion"
            elif (
                abs(gain) > 8 * usual[k, 0] > 0 or abs(gain) < usual[k, 0] / 8 and correlation > 0.6
            ):
                what = f"is {gain / usual[k, 0]:.3g} times as large as usual: another unit?"
            elif correlation < 0.2 and view.fps >= FEWEST_FPS and len(d) > 40:
                what = "does not fit the differences of positions"
            if what:
                result.add_error(f"episode {episode}: {velocity.name} {what}", episode)
                break


def _gains(differences: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return gain and correlation of each column, (columns, 2)."""
    scale = np.maximum((differences**2).sum(axis=0), 1e-12)
    gain = (differences * found).sum(axis=0) / scale
    correlation = (_standard(differences) * _standard(found)).mean(axis=0)
    return np.stack([gain, correlation], axis=1)


# --------------------------------------------------------------------------------------- hand pose


def check_hand_pose(view: DatasetView, result: CheckResult) -> str:
    """Check the hand's pose against the joints, and the object that the hand holds."""
    model = robot_model(view)
    state = {signal.name: signal.values for signal in signals(view, keys.STATE)}
    if not state:
        raise UnavailableError("the state cannot be read")
    joints = np.stack([v for n, v in state.items() if n.startswith("joint_pos_")], axis=1)
    stored = {key: values for key, values in triples(view, "xyz").items() if key[0] == keys.STATE}
    position = stored[keys.STATE, "eef_pos"]
    quaternion = triples(view, "wxyz")[keys.STATE, "eef_quat"]
    expected, rotation = model.forward(joints)
    noise = _joint_noise(view)
    far = np.linalg.norm(position - expected, axis=1)
    turned = _angle(rotations(quaternion), rotation)
    _report_pose(view, result, "eef_pos", far, POSITION_TOLERANCE + noise, "m", position, expected)
    right = _quaternion(rotation)
    _report_pose(
        view, result, "eef_quat", turned, ANGLE_TOLERANCE + 3 * noise, "rad", quaternion, right
    )
    _check_held(view, result, position, rotations(quaternion))
    _check_upright(view, result)
    return f"within {np.median(far) * 1000:.2f} mm and {np.median(turned):.4f} rad of the joints'"


def _joint_noise(view: DatasetView) -> float:
    """Return how far noise on the joints may move the hand, m."""
    if not view.collection:
        return NOISE_REACH * USUAL_NOISE  # others' tools drop what would say so
    limits = view.randomization.get("joint_pos_noise") or [0.0]
    return NOISE_REACH * float(max(limits))


def _report_pose(
    view: DatasetView,
    result: CheckResult,
    name: str,
    error: np.ndarray,
    tolerance: float,
    unit: str,
    found: np.ndarray,
    expected: np.ndarray,
) -> None:
    for episode, frames in by_episode(view, np.flatnonzero(~(error <= tolerance))):
        begin, end = view.spans[episode]
        worst = int(np.nan_to_num(error[begin + frames], nan=np.inf).argmax())
        hint = _explanation(found[begin:end], expected[begin:end])
        result.add_error(
            f"episode {episode}, {text_of(frames)}: {name} is {error[begin + frames[worst]]:.3g} "
            f"{unit} off what the joints say at frame {frames[worst]}, expected at most "
            f"{tolerance:.3g}{hint}",
            episode,
            int(frames[worst]),
        )


def _explanation(found: np.ndarray, expected: np.ndarray) -> str:
    """Return what would explain that vectors (frames, n) are not as expected, or ""."""
    size = found.shape[1]
    attempts: dict[str, np.ndarray] = {text: found / factor for factor, text in UNITS.items()}
    if size == 4:
        attempts["stored as x, y, z, w?"] = found[:, [3, 0, 1, 2]]
        attempts["the inverse rotation?"] = found * [1, -1, -1, -1]
    else:
        attempts |= {
            f"{'xyz'[a]} and {'xyz'[b]} swapped?": found[:, _swapped(a, b)]
            for a, b in ((0, 1), (0, 2), (1, 2))
        }
        attempts |= {
            f"the sign of {'xyz'[a]} is wrong?": found * np.where(np.arange(3) == a, -1, 1)
            for a in range(3)
        }
        attempts["another frame of reference?"] = found - (found - expected).mean(axis=0)
    attempts |= {
        f"{abs(k)} frame(s) {'late' if k > 0 else 'early'}?": np.roll(found, -k, axis=0)
        for k in (*range(-20, 0), *range(1, 21))
    }
    before = _distance(found, expected)
    after = {text: _distance(values, expected) for text, values in attempts.items()}
    best = min(after, key=lambda text: after[text])
    return f": {best}" if after[best] < 0.1 * before else ""


def _swapped(a: int, b: int) -> list[int]:
    order = [0, 1, 2]
    order[a], order[b] = b, a
    return order


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the median distance; quaternions of either sign are one rotation."""
    apart = np.linalg.norm(found - expected, axis=1)
    if found.shape[1] == 4:
        apart = np.minimum(apart, np.linalg.norm(found + expected, axis=1))
    return float(np.median(apart))


def _quaternion(matrix: np.ndarray) -> np.ndarray:
    """Return unit quaternions (n, 4), w first, of rotation matrices: the largest eigenvector."""
    m = matrix
    k = np.empty((len(m), 4, 4))
    k[:, 0, 0] = np.trace(m, axis1=1, axis2=2)
    for i in range(3):
        a, b = (i + 1) % 3, (i + 2) % 3
        k[:, 0, i + 1] = k[:, i + 1, 0] = m[:, b, a] - m[:, a, b]
        for j in range(3):
            k[:, i + 1, j + 1] = m[:, i, j] + m[:, j, i] - (i == j) * k[:, 0, 0]
    return np.linalg.eigh(k)[1][:, :, -1]


def _angle(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the angles between rotations (n, 3, 3), rad."""
    cosine = (np.einsum("nij,nij->n", first, second) - 1) / 2
    return np.arccos(np.clip(cosine, -1, 1))


def _check_held(view: DatasetView, result: CheckResult, hand: np.ndarray, turn: np.ndarray) -> None:
    """Check that an object that the gripper holds moves with the hand."""
    by_name = {signal.name: signal.values for signal in all_signals(view)}
    positions, turns = triples(view, "xyz"), quaternions(view)
    place = next((v for (_, stem), v in positions.items() if stem == "object_pos"), None)
    pose = next((v for (_, stem), v in turns.items() if stem == "object_quat"), None)
    if place is None or pose is None or "is_grasped" not in by_name:
        return
    held = by_name["is_grasped"] > 0.5
    local = np.einsum("nji,nj->ni", turn, place - hand)
    relative = np.einsum("nji,njk->nik", turn, rotations(pose))
    for episode, (begin, end) in enumerate(view.spans):
        rows = begin + np.flatnonzero(held[begin:end])
        if len(rows) < 5:
            continue
        middle = len(rows) // 2
        slip = np.linalg.norm(local[rows] - np.median(local[rows], axis=0), axis=1)
        twist = _angle(relative[rows], np.broadcast_to(relative[rows[middle]], (len(rows), 3, 3)))
        distance = np.linalg.norm(place[rows] - hand[rows], axis=1)
        for name, values, limit, unit in (
            ("object_pos", slip, SLIP, "m"), ("object_quat", twist, SLIP_ANGLE, "rad"),
            ("object_pos", distance, 0.3, "m"),
        ):  # fmt: skip
            worst = int(values.argmax())
            if values[worst] > limit:
                frame = int(rows[worst] - begin)
                result.add_error(
                    f"episode {episode}, frame {frame}: {name} is {values[worst]:.3g} {unit} off "
                    f"the hand that holds the object, expected at most {limit}",
                    episode,
                    frame,
                )
                break


def _check_upright(view: DatasetView, result: CheckResult) -> None:
    """Check that the object stands upright at the start, and is turned only where that varies."""
    pose = next((v for (_, stem), v in quaternions(view).items() if stem == "object_quat"), None)
    task = view.config.get("task") or {}
    if pose is None or "random_yaw" not in task:
        return
    for episode, (begin, _) in enumerate(view.spans):
        w, x, y, z = pose[begin]
        if view.episodes[episode].get("episode/start_kind", "home") != "home":
            continue  # it may lie where an earlier attempt has left it
        what = ""
        if np.hypot(x, y) > 0.2:
            what = "is tilted"
        elif not task["random_yaw"] and abs(z) > 0.2:
            what = "is turned, though objects are not turned at random"
        if what:
            hint = ": stored as x, y, z, w?" if abs(w) < 0.2 else ""
            result.add_error(f"episode {episode}, frame 0: object_quat {what}{hint}", episode, 0)


# -------------------------------------------------------------------------------- action and state


def check_lag(view: DatasetView, result: CheckResult) -> str:
    """Check that the states follow the actions, after the time that the robot needs."""
    pairs = targets(view)
    chosen = [pair for pair in pairs if "gripper" not in pair[0].name]
    if not chosen or not view.fps:
        raise UnavailableError("no number of the action is named like one of the state")
    action, state = (stack([pair[side] for pair in chosen]) for side in (0, 1))
    lags = range(-max(3, round(LAGS_S[0] * view.fps)), max(6, round(LAGS_S[1] * view.fps)) + 1)
    errors = [
        lag_errors(action[begin:end], state[begin:end], _fitting(lags, end - begin))
        / np.maximum(state[begin:end].var(axis=0), 1e-12)
        for begin, end in view.spans
    ]
    used = [
        moving(state[begin:end]) & (state[begin:end].std(axis=0) > 0.05 * state.std(axis=0))
        for begin, end in view.spans
    ]
    report = result.add_error if has_model(view) else result.add_warning
    found = _episode_lags(view, lags, errors, used)
    if not found:
        raise UnavailableError("no episode moves long enough")
    if min(error for _, error, _ in found.values()) > RELATED and not has_model(view):
        raise UnavailableError("the numbers of the action are no targets for the state")
    _report_lags(view, report, found)
    _report_joint_lags(view, report, chosen, lags, errors, used, found)
    _report_mismatches(view, report, chosen, action, state, found)
    _check_gripper(view, report, pairs)
    typical = int(np.median([lag for lag, _, _ in found.values()]))
    return f"the state follows {typical} frame(s) later"


def _fitting(lags: range, length: int) -> range:
    """Return the lags that leave at least half of an episode to compare."""
    room = max(3, length // 4)
    return range(max(lags[0], -room), min(lags[-1], room) + 1)


def _episode_lags(
    view: DatasetView, lags: range, errors: list[np.ndarray], used: list[np.ndarray]
) -> dict[int, tuple[int, float, Callable[[int], float]]]:
    """Return lag, relative error there, and how much larger the error is at another lag."""
    found = {}
    for episode, (begin, end) in enumerate(view.spans):
        own = _fitting(lags, end - begin)
        if not used[episode].any() or not np.isfinite(errors[episode]).all():
            continue
        total = errors[episode][:, used[episode]].mean(axis=1)
        best = int(total.argmin())
        found[episode] = (own[best], float(np.sqrt(total[best])), _sharpness(total, best, own))
    return found


def _sharpness(total: np.ndarray, best: int, lags: range) -> Callable[[int], float]:
    def ratio(lag: int) -> float:
        at = lags.index(min(max(lag, lags[0]), lags[-1]))
        return float(np.sqrt(total[at] / max(total[best], 1e-12)))

    return ratio


def _expected_lags(view: DatasetView, episode: int) -> tuple[int, int] | None:
    """Return the least and the greatest lag of our robot; None for another robot."""
    if not has_model(view):
        return None
    natural = max(1, round(RESPONSE_S * view.fps))
    slack = int(view.fps > 30)
    low, high = natural - slack, natural + slack
    text = view.episodes[episode].get("episode/variation")
    try:
        delay = int(json.loads(text)["action_delay"]) if text else None
    except (ValueError, LookupError, TypeError):
        delay = None
    if delay is not None:
        return low + delay, high + delay
    delays = view.randomization.get("action_delay") or [0]
    if not view.collection:
        delays = [0, 3]
    return low + int(min(delays)), high + int(max(delays))


def _report_lags(
    view: DatasetView,
    report: Callable[..., None],
    found: dict[int, tuple[int, float, Callable[[int], float]]],
) -> None:
    usual = int(np.median([lag for lag, _, _ in found.values()]))
    wrong: dict[int, list[int]] = {}
    for episode, (lag, error, sharpness) in found.items():
        expected = _expected_lags(view, episode)
        if expected is None:
            slack = max(2, round(0.1 * view.fps))
            expected = (max(0, usual - slack), min(usual + slack, round(SLOWEST_S * view.fps)))
        nearest = min(max(lag, expected[0]), expected[1])
        if lag != nearest and sharpness(nearest) > SHARP and error < RELATED:
            wrong.setdefault(lag - nearest, []).append(episode)
    for shift, episodes in wrong.items():
        lag = found[episodes[0]][0]
        where = "all episodes" if len(episodes) == len(found) > 1 else named(episodes)
        report(
            f"{where}: the state follows the action {lag} frame(s) later, {abs(shift)} "
            f"{'more' if shift > 0 else 'fewer'} than expected: the "
            f"{'action is recorded too early' if shift > 0 else 'action is recorded too late'}, or "
            "the state is",
            episodes[0],
        )


def _report_joint_lags(
    view: DatasetView,
    report: Callable[..., None],
    pairs: list[tuple[Signal, Signal]],
    lags: range,
    errors: list[np.ndarray],
    used: list[np.ndarray],
    found: dict[int, tuple[int, float, Callable[[int], float]]],
) -> None:
    """Report single numbers that follow later or earlier than the others."""
    for k, (action, _) in enumerate(pairs):
        shifts = []
        for episode, (lag, _, _) in found.items():
            begin, end = view.spans[episode]
            own, error = _fitting(lags, end - begin), errors[episode][:, k]
            best = int(error.argmin())
            if used[episode][k] and error[best] < RELATED**2 / 4 and abs(own[best] - lag) > 2:
                ratio = np.sqrt(error[own.index(lag)] / max(error[best], 1e-12))
                if ratio > 3:
                    shifts.append((episode, own[best], lag))
        if shifts:
            episode, best, lag = shifts[0]
            report(
                f"{named([e for e, _, _ in shifts])}: the state follows {action.name} {best} "
                f"frame(s) later, the other numbers {lag}",
                episode,
            )


def _report_mismatches(
    view: DatasetView,
    report: Callable[..., None],
    pairs: list[tuple[Signal, Signal]],
    action: np.ndarray,
    state: np.ndarray,
    found: dict[int, tuple[int, float, Callable[[int], float]]],
) -> None:
    """Report numbers of the action that their state does not follow, though others do."""
    ratios = np.full((len(view.spans), len(pairs)), np.nan)
    for episode, (lag, _, _) in found.items():
        begin, end = view.spans[episode]
        a, s = _shifted(action[begin:end], state[begin:end], lag)
        both = np.maximum(a.std(axis=0), s.std(axis=0))
        ratios[episode] = np.where(both > 0.02, _rms(s - a) / np.maximum(both, 1e-9), np.nan)
    known = ratios[np.isfinite(ratios)]
    if not known.size or np.median(known) > RELATED:
        return
    for k, (signal, own) in enumerate(pairs):
        bad = np.flatnonzero(np.nan_to_num(ratios[:, k]) > 0.8)
        if not bad.size:
            continue
        episode = int(bad[0])
        begin, end = view.spans[episode]
        a, s = _shifted(action[begin:end], state[begin:end], found[episode][0])
        scale = float(a[:, k].std() / max(s[:, k].std(), 1e-9))
        matrix = _correlations(a[:, [k]], s)[0]
        text = ""
        if matrix[k] < -0.9:
            text = ": the sign is wrong?"
        elif matrix[k] > 0.9:
            text = f": {unit_text(scale) or f'it is {scale:.3g} times as large'}"
        elif matrix.max() > 0.95:
            text = f": it fits {pairs[int(matrix.argmax())][1].name}"
        elif scale > 3 or scale < 1 / 3 or matrix[k] > 0.5:
            continue  # it moves while the state stands still, or hits something
        report(f"{named(bad.tolist())}: {own.name} does not follow {signal.name}{text}", episode)


def _shifted(action: np.ndarray, state: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    if lag > 0:
        return action[:-lag], state[lag:]
    return (action[-lag:], state[:lag]) if lag else (action, state)


def _check_gripper(
    view: DatasetView, report: Callable[..., None], pairs: list[tuple[Signal, Signal]]
) -> None:
    """Check that the gripper closes when it is told to, not when it is told to open."""
    for action, state in pairs:
        if "gripper" not in action.name:
            continue
        bad = []
        for episode, (begin, end) in enumerate(view.spans):
            a, s = action.values[begin:end], state.values[begin:end]
            if end - begin < 30 or not np.ptp(a) or np.ptp(s) < 1e-6:
                continue
            delays = range(min(15, (end - begin) // 3))
            scores = [_correlations(a[: len(a) - d, None], s[d:, None])[0, 0] for d in delays]
            if min(scores) < -0.6 and max(scores) < 0.3:
                bad.append(episode)
        if bad:
            report(
                f"{named(bad)}: {state.name} moves against {action.name}: open and closed are "
                "swapped?",
                bad[0],
            )


# ----------------------------------------------------------------------------------------- outcome


def check_outcome(view: DatasetView, result: CheckResult) -> str:
    """Check rewards and success against each other and against where the object ends."""
    reward, success = _optional(view, keys.REWARD), _optional(view, keys.SUCCESS)
    if success is None:
        raise UnavailableError("there is no next.success")
    success = success > 0.5
    if reward is not None:
        _check_reward(view, result, reward, success)
    _check_reasons(view, result)
    notes = ["next.success"]
    try:
        _check_conditions(view, result, robot_model(view), success)
        notes.append("where the object is")
    except (UnavailableError, LookupError, TypeError):
        pass
    return "compared: " + ", ".join(notes + ["next.reward"] * (reward is not None))


def _optional(view: DatasetView, key: str) -> np.ndarray | None:
    try:
        return view.column(key)[: view.spans[-1][1], 0].astype(np.float64)
    except (UnavailableError, IndexError):
        return None


def _check_reward(
    view: DatasetView, result: CheckResult, reward: np.ndarray, success: np.ndarray
) -> None:
    ours = has_model(view)
    if ours and np.isin(reward, (0.0, 1.0)).all():
        for episode, frames in by_episode(view, np.flatnonzero((reward > 0.5) != success)):
            row = view.spans[episode][0] + frames[0]
            result.add_error(
                f"episode {episode}, {text_of(frames)}: next.reward is {reward[row]:g} where "
                f"next.success is {success[row]}",
                episode,
                int(frames[0]),
            )
        return
    if ours:
        for episode, frames in by_episode(view, np.flatnonzero((reward < 0) | (reward > 1))):
            row = view.spans[episode][0] + frames[0]
            result.add_error(
                f"episode {episode}, {text_of(frames)}: next.reward is {reward[row]:g}, expected "
                "0 to 1",
                episode,
                int(frames[0]),
            )
        for episode, frames in by_episode(view, np.flatnonzero(success & (reward < 1))):
            result.add_error(
                f"episode {episode}, {text_of(frames)}: next.reward is below 1 in a success",
                episode,
                int(frames[0]),
            )
        return
    best = np.array([part.max() for _, part in episodes_of(view, reward)])
    won = np.array([part.any() for _, part in episodes_of(view, success)])
    if not won.any() or np.isin(best, (best[0],)).all() and won.all():
        return
    agree = (best > 0) == won
    if agree.mean() >= 0.8:
        for episode in np.flatnonzero(~agree).tolist():
            result.add_warning(
                f"episode {episode}: next.reward is at most {best[episode]:g}, though next.success "
                f"is {'sometimes' if won[episode] else 'never'} true",
                episode,
            )


def _check_reasons(view: DatasetView, result: CheckResult) -> None:
    for i, row in enumerate(view.episodes):
        label, reason = row.get(keys.EPISODE_SUCCESS), row.get(keys.EPISODE_FAILURE_REASON)
        if label is not None and reason is not None and bool(label) == bool(reason):
            result.add_error(
                f"episode {i}: episode/success is {label}, episode/failure_reason {reason!r}",
                i,
            )


def _check_conditions(
    view: DatasetView, result: CheckResult, model: RobotModel, success: np.ndarray
) -> None:
    """Judge success by the conditions of the task, where the next row clearly decides them."""
    task: dict[str, Any] = view.collection["config"]["task"]
    values = {signal.name: signal.values for signal in all_signals(view)}
    places = {stem: v for (_, stem), v in triples(view, "xyz").items()}
    place, goal = places["object_pos"], places["goal_pos"]
    joints = np.stack([values[f"joint_pos_{k}"] for k in range(len(model.home))], axis=1)
    fingers = np.minimum(values["gripper_pos_0"], values["gripper_pos_1"])
    needs = {"the object is away from its goal": (
        np.linalg.norm((place - goal)[:, :2], axis=1) - task["place_tolerance"],
        MARGIN["distance"],
    )}  # fmt: skip
    needs["the gripper holds the object"] = (values["is_grasped"] - 0.5, 0.25)
    if task["require_home"]:
        away = np.abs(joints - model.home).max(axis=1) - task["home_tolerance"]
        needs["the arm is not at HOME"] = (away, MARGIN["home"])
        closed = model.finger_open - task["open_tolerance"] - fingers
        needs["the gripper is not open"] = (closed, MARGIN["open"])
    lasts = np.array([end - 1 for _, end in view.spans])
    at = np.arange(len(success)) + 1
    at[lasts] = lasts  # nothing is known of the state after the last row
    claimed = np.flatnonzero(success)
    for text, (excess, margin) in needs.items():
        room = np.where(np.isin(claimed, lasts) & ("arm" in text or "open" in text), 0.2, margin)
        for episode, frames in by_episode(view, claimed[excess[at[claimed]] > room]):
            result.add_error(
                f"episode {episode}, {text_of(frames)}: next.success is true, but {text}",
                episode,
                int(frames[0]),
            )
    _check_missed(view, result, success, needs, place, at)


def _check_missed(
    view: DatasetView,
    result: CheckResult,
    success: np.ndarray,
    needs: dict[str, tuple[np.ndarray, float]],
    place: np.ndarray,
    at: np.ndarray,
) -> None:
    """Report frames without success in which every condition holds, and holds for a while."""
    held = np.all([excess < -margin for excess, margin in needs.values()], axis=0)
    moved = np.linalg.norm(np.diff(place, axis=0, prepend=place[:1]), axis=1)
    lifted = np.zeros(len(place))
    for begin, end in view.spans:
        lifted[begin:end] = np.abs(place[begin:end, 2] - place[begin, 2])
    held &= (moved < 1e-4) & (lifted < 0.005)
    lasts = [end - 1 for _, end in view.spans]
    steady = held & np.roll(held, 1)
    steady[[begin for begin, _ in view.spans]] = False
    ends = np.isin(np.arange(len(success)), lasts)
    missed = ~success & ~ends & steady[np.minimum(at, len(success) - 1)]
    for episode, frames in by_episode(view, np.flatnonzero(missed)):
        result.add_error(
            f"episode {episode}, {text_of(frames)}: next.success is false, but the object lies on "
            "its goal, let go, and the arm is at HOME",
            episode,
            int(frames[0]),
        )


# --------------------------------------------------------------------------------------- repetition


def check_repetition(view: DatasetView, result: CheckResult) -> str:
    """Check that no episode repeats another one: states and actions, bit for bit."""
    parts = [view.column(key) for key in (keys.STATE, keys.ACTION) if key in view.features]
    if not parts:
        raise UnavailableError("there are neither states nor actions")
    rows = np.concatenate([p[: view.spans[-1][1]].astype(np.float32) for p in parts], axis=1)
    rows = np.ascontiguousarray(rows + 0.0)
    packed = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, number = np.unique(packed, return_inverse=True)
    owners = np.repeat(np.arange(len(view.spans)), [end - begin for begin, end in view.spans])
    pairs = np.unique(np.stack([number.ravel(), owners]), axis=1)  # each row once per episode
    kinds = np.bincount(pairs[1], minlength=len(view.spans))
    order = np.argsort(pairs[0], kind="stable")
    shared: dict[tuple[int, int], int] = {}
    groups = np.split(pairs[1][order], np.flatnonzero(np.diff(pairs[0][order])) + 1)
    for group in groups:
        for other in group[1:][:50]:
            key = (int(group[0]), int(other))
            shared[key] = shared.get(key, 0) + 1
    for (first, second), count in sorted(shared.items()):
        share = count / max(1, min(kinds[first], kinds[second]))
        if count >= 10 and share > REPEATED:
            result.add_warning(
                f"episode {second} repeats episode {first}: {share:.0%} of their rows have the "
                "same state and action, so that they count twice",
                second,
            )
    return f"{len(view.spans)} episodes, none repeated" if not result.findings else "repeated"
