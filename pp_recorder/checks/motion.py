"""Checks of pictures against motion: what a camera shows must go with what the state says.

Two models are fitted to the episodes of a camera: how much the picture changes, from how much the
state does; and where it changes, from the state. Each episode is judged by models of the others.
Pictures that fit better when they are shifted in time, played backwards or turned over give
themselves away.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from pp_recorder.checks.findings import CheckResult, UnavailableError, named
from pp_recorder.checks.signals import moving, rotations, triples
from pp_recorder.checks.video_scan import STILL_MEAN, CameraScan, EpisodeScan
from pp_recorder.checks.view import DatasetView, feature_names, is_depth
from pp_recorder.dataset import keys

_COMPONENTS, _SQUARED = 6, 3  # of the state's principal components; of which products are used
_MOST_EPISODES = 100  # to which a model is fitted
_RIDGE = 3e-3
_ROUNDS = 4
_LONGEST_S = 0.7  # s, the longest shift in time that is tried
_SMALLEST = 64  # pixels of a side: in smaller pictures a codec leaves out what moves
_SHORTEST = 40  # frames of an episode that is judged
_FITS = 0.5  # least correlation from which anything is concluded
_LATE, _BACKWARDS, _TURNED = 0.06, 0.12, 0.6  # by which another reading must fit better
_ODD = 0.13  # share of blocks in which a picture differs from its neighbours
_ALONE, _LEAST_ODD = 4.0, 0.012  # times as large a share as in any other frame; and in none
_JUMP = 4.0  # times the usual change
_VISIBLE = 4 * STILL_MEAN  # 8-bit levels: a change that no codec leaves out
_ALL = 0.06  # by which all of them must fit better backwards
_USUAL, _ALIEN = 0.6, 0.3  # correlation in most episodes; and where something is wrong
_DARK, _BRIGHT = 0.22, 0.88  # of [0, 1]
_LOOKED_AT, _SAME = 10, 0.2  # pictures of an episode; distance of a repetition, if 1 is usual
_OFTEN = 0.4  # share of repeated pictures that no codec makes
_SPREAD = 0.5  # of the logarithm of contrast or brightness between kinds of episodes

_AXES = ("upside down", "mirrored")  # what changes the row, and the column


@dataclass
class Track:
    """What is compared of one episode.

    Attributes:
        effort: (frames - 1, size) how much the state changes, with a column of ones.
        change: (frames - 1,) how much the picture changes.
        place: (frames - 1, size) features of the state.
        where: (frames - 1, 2) where the picture changes.
        weight: (frames - 1,) how much that is to be trusted.
    """

    effort: np.ndarray
    change: np.ndarray
    place: np.ndarray
    where: np.ndarray
    weight: np.ndarray

    def backwards(self) -> "Track":
        """Return the track if the pictures are played backwards."""
        return Track(
            self.effort, self.change[::-1], self.place, self.where[::-1], self.weight[::-1]
        )

    def shifted(self, lag: int) -> "Track":
        """Return the track if the pictures are so many frames late."""
        if not lag:
            return self
        state = slice(None, -lag) if lag > 0 else slice(-lag, None)
        shown = slice(lag, None) if lag > 0 else slice(None, lag)
        return Track(
            self.effort[state], self.change[shown], self.place[state], self.where[shown],
            self.weight[shown],
        )  # fmt: skip


@dataclass
class Fit:
    """How well the pictures of an episode fit its states.

    Attributes:
        lags: Correlation of foretold and found change if the pictures are so many frames late.
        backwards: The same if they are played backwards.
        where: (2,) correlation of foretold and found place of the change: rows and columns.
        where_backwards: (2,) the same if they are played backwards.
    """

    lags: dict[int, float] = field(default_factory=dict)
    backwards: float = 0.0
    where: np.ndarray = field(default_factory=lambda: np.zeros(2))
    where_backwards: np.ndarray = field(default_factory=lambda: np.zeros(2))

    @property
    def best_lag(self) -> int:
        """The lag with which they fit best."""
        return max(self.lags, key=lambda k: self.lags[k])


class Camera:
    """The tracks of a camera's episodes, and models of how pictures follow from states."""

    def __init__(self, tracks: dict[int, Track], fps: float) -> None:
        self.tracks = tracks
        self._longest = max(3, round(_LONGEST_S * fps))
        chosen = np.linspace(0, len(tracks) - 1, min(len(tracks), _MOST_EPISODES)).astype(int)
        self._fitted = [list(tracks)[k] for k in np.unique(chosen)]

    def fits(self, lags: dict[int, int], backwards: set[int]) -> dict[int, Fit]:
        """Return the fit of every episode to models of the others.

        Args:
            lags: By which pictures are late, for the models.
            backwards: Episodes that are played backwards, for the models.
        """
        sums = {}
        for episode in self._fitted:
            track = self.tracks[episode].shifted(lags.get(episode, 0))
            track = track.backwards() if episode in backwards else track
            sums[episode] = _products(track)
        total = [np.sum(parts, axis=0) for parts in zip(*sums.values(), strict=True)]
        found = {}
        for episode, track in self.tracks.items():
            own = sums.get(episode) if len(sums) > 1 else None
            a, b, c, d = (
                [t - o for t, o in zip(total, own, strict=True)] if own is not None else total
            )
            found[episode] = self._fit(track, _solve(a, b), _solve(c, d))
        return found

    def _fit(self, track: Track, effort: np.ndarray, place: np.ndarray) -> Fit:
        change, where = track.effort @ effort, track.place @ place
        longest = min(self._longest, len(change) // 4)
        rows = np.arange(longest, len(change) - longest)
        lags = {
            k: _correlation(change[rows], track.change[rows + k])
            for k in range(-longest, longest + 1)
        }
        back = track.backwards()
        return Fit(
            lags,
            _correlation(change, back.change),
            _where_correlation(where, track),
            _where_correlation(where, back),
        )


def _products(track: Track) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    x, place = track.effort, track.place * track.weight[:, None]
    scale = max(float(track.weight.sum()), 1e-9)
    return (
        x.T @ x / len(x), x.T @ track.change / len(x),
        place.T @ track.place / scale, place.T @ track.where / scale,
    )  # fmt: skip


def _solve(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.solve(a + _RIDGE * np.trace(a) / len(a) * np.eye(len(a)), b)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    size = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / size) if size > 1e-9 else 0.0


def _where_correlation(foretold: np.ndarray, track: Track) -> np.ndarray:
    weight = track.weight / max(track.weight.sum(), 1e-9)
    first, second = foretold - weight @ foretold, track.where - weight @ track.where
    size = np.sqrt((weight @ first**2) * (weight @ second**2))
    return (weight @ (first * second)) / np.where(size > 1e-9, size, np.inf)


def _tracks(
    view: DatasetView, scans: dict[int, EpisodeScan], state: np.ndarray
) -> dict[int, Track]:
    """Return the tracks of the episodes that have a picture for every row, and move."""
    values, vectors = np.linalg.eigh(state.T @ state / len(state))
    order = np.argsort(values)[::-1][:_COMPONENTS]
    order = order[values[order] > 1e-3 * values.max()]
    parts = state @ vectors[:, order] / np.sqrt(values[order])
    squared = parts[:, :_SQUARED]
    i, j = np.triu_indices(squared.shape[1])
    place = np.concatenate([parts, squared[:, i] * squared[:, j], np.ones((len(state), 1))], axis=1)
    tracks = {}
    for episode, (begin, end) in enumerate(view.spans):
        scan = scans.get(episode)
        if scan is None or scan.frames != end - begin or scan.frames < _SHORTEST:
            continue
        steps = scan.steps[1:].astype(np.float64)
        if not (steps > 0).any():
            continue
        effort = np.sqrt(np.abs(np.diff(state[begin:end], axis=0)))
        change = np.sqrt(steps)
        typical = np.median(steps[steps > 0])
        tracks[episode] = Track(
            np.concatenate([effort, np.ones((len(effort), 1))], axis=1),
            change / np.sqrt((change**2).mean()),
            (place[begin : end - 1] + place[begin + 1 : end]) / 2,
            scan.where[1:].astype(np.float64),
            np.minimum(steps / typical, 2.0),
        )
    return tracks


def _motion(view: DatasetView) -> np.ndarray | None:
    """Return the numbers of the state that are no velocities and move, or None.

    Returns:
        (frames, size), each with mean 0 and standard deviation 1.
    """
    try:
        state = view.column(keys.STATE)[: view.spans[-1][1]].astype(np.float64)
    except UnavailableError:
        return None
    names = feature_names(view.features[keys.STATE])
    if len(names) == state.shape[1]:
        state = state[:, ["vel" not in name and "quat" not in name for name in names]]
    state = state[:, moving(state)]
    if not state.size or not np.isfinite(state).all():
        return None
    return (state - state.mean(axis=0)) / np.maximum(state.std(axis=0), 1e-9)


def check_motion(view: DatasetView, result: CheckResult, camera: str) -> str:
    """Check the pictures of a camera against the motion of the robot, and against each other.

    The thresholds are those of our scene, so that of datasets by others nothing is certain.
    """
    summary = _compare(view, result, camera)
    if not view.collection:
        result.findings[:] = [replace(f, severity="warning") for f in result.findings]
    return summary


def _compare(view: DatasetView, result: CheckResult, camera: str) -> str:
    if is_depth(view.features[camera]):
        raise UnavailableError("it shows depth, not colours")
    height, width = view.features[camera]["shape"][:2]
    if min(height, width) < _SMALLEST:
        raise UnavailableError(f"pictures of {width} x {height} pixels show too little")
    scans = view.scan(camera).episodes
    if not any(scan.frames for scan in scans.values()):
        raise UnavailableError("no picture could be decoded")
    state = _motion(view)
    _check_odd(view, scans, state, result)
    _check_looks(view, camera, scans, state, result)
    tracks = {} if state is None else _tracks(view, scans, state)
    if state is None or not tracks:
        return "no motion to compare with"
    _check_repeats(view, view.scan(camera), state, result)
    fits = _check_time(view, Camera(tracks, view.fps), result)
    _check_orientation(view, camera, tracks, fits, result)
    known = [fit.lags[0] for fit in fits.values()] or [0.0]
    return f"the picture moves with the state: correlation {np.median(known):.2f}"


# -------------------------------------------------------------------------------------------- time


def _check_time(view: DatasetView, camera: Camera, result: CheckResult) -> dict[int, Fit]:
    """Report pictures that are late, early or backwards; return how the others fit."""
    lags: dict[int, int] = {}
    backwards: set[int] = set()
    fits = camera.fits(lags, backwards)
    turned = camera.fits({}, set(camera.tracks))  # as if all of them were played backwards
    if len(fits) > 2 and _are_backwards(list(fits.values()), list(turned.values())):
        backwards = set(camera.tracks)
    for _ in range(_ROUNDS):
        fits = camera.fits(lags, backwards)
        axes = np.median([_as_is(fit, e in backwards).where for e, fit in fits.items()], axis=0)
        known = len(fits) > 2 and bool((axes > _FITS).all())
        found = {e for e, fit in fits.items() if _is_backwards(fit, known, e in backwards)}
        found = found if len(fits) > 2 else set()
        late = {e: _lag(view, fit) for e, fit in fits.items() if e not in found}
        late = {e: lag for e, lag in late.items() if lag}
        if (late, found) == (lags, backwards):
            break
        lags, backwards = late, found
    usual = np.median([max(fit.lags.values()) for fit in fits.values()])
    if len(fits) > 2 and usual > _USUAL:
        for episode, fit in fits.items():
            if max(fit.lags.values()) < _ALIEN and episode not in backwards:
                result.add_error(
                    f"episode {episode}: the pictures do not change as the state does: correlation "
                    f"{fit.lags[0]:.2f}, elsewhere {usual:.2f}",
                    episode,
                )
    if len(fits) / 2 < len(backwards) < len(fits):
        backwards = set()  # the models are at fault, not most of the episodes
    _report(
        result.add_warning, backwards, len(fits),
        "the pictures fit the motion better when played backwards",
    )  # fmt: skip
    for lag in sorted(set(lags.values())):
        episodes = {e for e, own in lags.items() if own == lag}
        what = "late" if lag > 0 else "early"
        _report(
            result.add_error, episodes, len(fits),
            f"the pictures are {abs(lag)} frame(s) {what}, compared with the motion of the state",
        )  # fmt: skip
    return {e: fit for e, fit in fits.items() if e not in backwards}


def _turned(fit: Fit) -> Fit:
    """Return the fit if the pictures are played backwards."""
    lags = {**fit.lags, 0: fit.backwards}
    return Fit(lags, fit.lags[0], fit.where_backwards, fit.where)


def _as_is(fit: Fit, backwards: bool) -> Fit:
    return _turned(fit) if backwards else fit


def _are_backwards(fits: list[Fit], turned: list[Fit]) -> bool:
    """Return True if all episodes fit better to models of their pictures played backwards."""
    effort = np.mean([fit.backwards for fit in turned]) - np.mean([fit.lags[0] for fit in fits])
    where = [np.median([fit.where for fit in fits], axis=0)]
    where.append(np.median([fit.where_backwards for fit in turned], axis=0))
    place = where[1].mean() - where[0].mean() if where[1].min() > _FITS else 0.0
    return bool(effort > _ALL or (place > 3 * _ALL and effort > -_ALL))


def _is_backwards(fit: Fit, with_place: bool, is_usual: bool) -> bool:
    """Return True if the pictures fit better when played backwards.

    Args:
        fit: Of the episode.
        with_place: Whether the place of the change follows from the state.
        is_usual: Whether they have been played backwards so far; it takes less to stay so.
    """
    gain = fit.backwards - max(fit.lags.values())
    if fit.backwards < _FITS or gain < (-_ALL if with_place else 0.0):
        return False
    if with_place:
        gain += float((fit.where_backwards - fit.where).mean())
    return gain > (0.0 if is_usual else _BACKWARDS)


def _lag(view: DatasetView, fit: Fit) -> int:
    """Return by how many frames the pictures are late, or 0 if that is not certain."""
    best = fit.best_lag
    least = max(2, round(0.05 * view.fps))
    gain = fit.lags[best] - fit.lags[0]
    if abs(best) < least or fit.lags[best] < _FITS:
        return 0
    return best if gain > _LATE else 0


def _report(add: Callable[..., None], episodes: set[int], total: int, text: str) -> None:
    if not episodes:
        return
    first = min(episodes)
    where = "all episodes" if len(episodes) == total > 1 else named(sorted(episodes))
    add(f"{where}: {text}", first)


# ------------------------------------------------------------------------------------- orientation


def _check_orientation(
    view: DatasetView,
    camera: str,
    tracks: dict[int, Track],
    fits: dict[int, Fit],
    result: CheckResult,
) -> None:
    """Report pictures whose changes are on the wrong side."""
    usual = np.median([fit.where for fit in fits.values()], axis=0) if fits else np.zeros(2)
    for axis, what in enumerate(_AXES):
        if usual[axis] < _FITS:
            continue
        wrong = {e for e, fit in fits.items() if fit.where[axis] < usual[axis] - 2 * _TURNED}
        for episode in sorted(wrong):
            result.add_error(
                f"episode {episode}: the pictures are {what}: they change on the side where the "
                "others do not",
                episode,
            )
    projected = _projection(view, camera)
    if projected is None:
        return
    found = []
    for episode, track in tracks.items():
        begin, end = view.spans[episode]
        middle = (projected[begin : end - 1] + projected[begin + 1 : end]) / 2
        if np.isfinite(middle).all():
            found.append(_where_correlation(middle, track))
    if not found:
        return
    for axis, what in enumerate(_AXES):
        if np.median([own[axis] for own in found]) < -_FITS:
            result.add_error(
                f"the pictures are {what}: they change on the side opposite to where "
                "collection.json says that the camera sees the hand"
            )


def _projection(view: DatasetView, camera: str) -> np.ndarray | None:
    """Return row and column of the hand, (frames, 2), from -1 to 1; None if that is not known."""
    name = camera.rsplit(".", 1)[-1]
    own = (view.collection.get("cameras") or {}).get(name) or {}
    hands = {stem: v for (key, stem), v in triples(view, "xyz").items() if key == keys.STATE}
    if own.get("parent") != "world" or "eef_pos" not in hands:
        return None
    try:
        rotation = rotations(np.array([own["quat_wxyz_in_parent"]], dtype=np.float64))[0]
        matrix = np.array(own["intrinsics_px"], dtype=np.float64)
        local = (hands["eef_pos"] - np.array(own["position_in_parent_m"])) @ rotation
    except (LookupError, TypeError, ValueError):
        return None
    depth = np.where(-local[:, 2] > 1e-3, -local[:, 2], np.nan)
    column = (matrix[0, 0] * local[:, 0] / depth) / max(matrix[0, 2], 1)
    row = (-matrix[1, 1] * local[:, 1] / depth) / max(matrix[1, 2], 1)
    return np.stack([row, column], axis=1)


# ------------------------------------------------------------------------------------ single frames


def _check_odd(
    view: DatasetView,
    scans: dict[int, EpisodeScan],
    state: np.ndarray | None,
    result: CheckResult,
) -> None:
    """Report pictures that are unlike those before and after, though the robot moves smoothly."""
    for episode, scan in sorted(scans.items()):
        if scan.frames < _SHORTEST:
            continue
        calm = _calm(view, episode, scan.frames, state)
        odd = _odd_frames(np.where(calm, scan.odd, scan.odd / 2))
        for frame in odd.tolist():
            result.add_error(
                f"episode {episode}, frame {frame}: {scan.odd[frame]:.0%} of the picture is unlike "
                "the pictures before and after it: a foreign or damaged frame",
                episode,
                frame,
            )
        pieces = [p for p in scan.pieces if calm[p[0] : p[0] + p[1]].all()]
        if pieces and not odd.size:
            begin, length, share = max(pieces, key=lambda piece: piece[2])
            result.add_error(
                f"episode {episode}, frames {begin}..{begin + length - 1}: {share:.0%} of the "
                "picture is unlike the pictures before and after: foreign or damaged frames",
                episode,
                begin,
            )
        if not odd.size and not pieces:
            usual = max(float(np.percentile(scan.steps[1:], 95)), _VISIBLE)
            for frame in np.flatnonzero(calm & (scan.steps > _JUMP * usual)).tolist():
                result.add_error(
                    f"episode {episode}, frame {frame}: the picture jumps, though the robot moves "
                    "smoothly: a cut, or a foreign or damaged frame",
                    episode,
                    frame,
                )


def _odd_frames(share: np.ndarray) -> np.ndarray:
    """Return the frames whose pictures are odd, or stand out from all others in being so.

    Args:
        share: (frames,) of the blocks that are unlike those before and after.
    """
    order = np.argsort(share)[::-1]
    first = int(order[0])
    others = order[np.abs(order - first) > 1]
    usual = max(share[others[0]] if others.size else np.inf, _LEAST_ODD)
    stands_out = share[first] > _ALONE * usual
    return np.union1d(np.flatnonzero(share > _ODD), [first] if stands_out else []).astype(int)


def _calm(view: DatasetView, episode: int, frames: int, state: np.ndarray | None) -> np.ndarray:
    """Return in which frames the robot does not jerk, (frames,); everywhere if that is unknown."""
    begin, end = (0, 0) if state is None else view.spans[episode]
    if state is None or end - begin != frames:
        return np.ones(frames, dtype=bool)
    speed = np.linalg.norm(np.diff(state[begin:end], axis=0), axis=1)
    jerk = np.append(0, np.abs(np.diff(speed, append=speed[-1])))
    rough = jerk > max(float(np.percentile(speed, 90)), 1e-9)
    return ~np.convolve(rough, np.ones(3), "same").astype(bool)


def _check_repeats(
    view: DatasetView, scan: CameraScan, state: np.ndarray, result: CheckResult
) -> None:
    """Report pictures that stand still while those before and after, and the state, move."""
    thrifty = {e for file in scan.files if file.codec != "h264" for e in file.episodes}
    for episode, own in sorted(scan.episodes.items()):
        begin, end = view.spans[episode]
        if own.frames != end - begin or own.frames < _SHORTEST:
            continue
        clear = (3 if episode in thrifty else 1) * _VISIBLE
        moves = np.convolve(own.steps, np.full(7, 1 / 7), "same") > clear
        share = float(own.still[moves].mean()) if moves.sum() >= 15 else 0.0
        if share > _OFTEN:
            result.add_error(
                f"episode {episode}: {share:.0%} of the pictures repeat the one before while the "
                "robot moves, such as every second one",
                episode,
            )
            continue
        speed = np.append(0, np.linalg.norm(np.diff(state[begin:end], axis=0), axis=1))
        for at, length in _stops(own, speed, clear, episode in thrifty):
            result.add_error(
                f"episode {episode}, frames {at}..{at + length - 1}: the picture stands "
                "still while the robot moves, and then jumps",
                episode,
                at,
            )


def _stops(
    scan: EpisodeScan, speed: np.ndarray, clear: float, thrifty: bool
) -> list[tuple[int, int]]:
    """Return begin and length of runs of repeated pictures in the midst of motion.

    Codecs newer than H.264 leave out small changes for some frames, so that only longer stops,
    after which the picture has to catch up, are judged.
    """
    steps, found = scan.steps, []
    edges = np.flatnonzero(np.diff(np.concatenate([[False], scan.still, [False]]).astype(np.int8)))
    for begin, end in edges.reshape(-1, 2):
        around = np.r_[max(1, begin - 4) : begin, end + 1 : min(len(steps), end + 5)]
        length, moving_on = int(end - begin), ~scan.still[around]
        around = around[moving_on]
        if (
            moving_on.sum() < 3
            or moving_on.mean() < 0.75
            or end >= len(steps)
            or length < (4 if thrifty else 2)
        ):
            continue
        usual = float(np.median(steps[around]))
        goes_on = speed[begin:end].mean() > 0.5 * np.median(speed[around])
        caught_up = steps[end] > usual * (1 + min(length, 6) * (0.5 if thrifty else 0.25))
        if usual > clear and goes_on and caught_up:
            found.append((int(begin), length))
    return found


# ------------------------------------------------------------------------------------------- looks


def _check_looks(
    view: DatasetView,
    camera: str,
    scans: dict[int, EpisodeScan],
    state: np.ndarray | None,
    result: CheckResult,
) -> None:
    """Compare the mean pictures of the episodes."""
    shown = {e: scan for e, scan in sorted(scans.items()) if scan.frames and scan.image_stats}
    if len(shown) < 2:
        return
    episodes, means = list(shown), [scan.mean for scan in shown.values()]
    if len({mean.shape for mean in means}) > 1:
        return
    _check_same(view, episodes, list(shown.values()), state, result)
    _check_turned(view, camera, episodes, list(shown.values()), result)
    if len(shown) < 4:
        return
    _check_range(shown, result)
    if len(set(view.randomization.get("light_intensity") or [])) > 1:
        return  # by intention
    numbers = {name: [] for name in ("contrast", "brightness", "range", "colour")}
    for scan in shown.values():
        own = scan.image_stats or {}
        numbers["contrast"].append(float(np.mean(own["std"])))
        numbers["brightness"].append(float(np.mean(own["mean"])))
        numbers["range"].append(float(np.mean(own["q99"] - own["q01"])))
        chroma = scan.mean - scan.mean.mean(axis=-1, keepdims=True)
        numbers["colour"].append(float(np.abs(chroma).mean() / 255 + 0.01))
    units = np.stack([_unit(mean) for mean in means])
    grey = np.stack([_unit(mean.mean(axis=-1)) for mean in means])
    alike = np.maximum(units @ units.T, grey @ grey.T)
    for name, values in numbers.items():
        rare = _rare(np.log(np.maximum(values, 1e-3)))
        usual_one = np.setdiff1d(np.arange(len(means)), rare)[0]
        if rare.size and np.median(alike[rare, usual_one]) > 0.8:  # the same scene
            odd, usual = np.array(values)[rare].mean(), np.median(np.delete(values, rare))
            result.add_warning(
                f"{named([episodes[k] for k in rare])}: the {name} of the pictures is {odd:.2f}, "
                f"elsewhere {usual:.2f}: washed out, or of another light?",
                episodes[rare[0]],
            )
            return


def _check_same(
    view: DatasetView,
    episodes: list[int],
    scans: list[EpisodeScan],
    state: np.ndarray | None,
    result: CheckResult,
) -> None:
    """Report episodes with the same pictures, though their states differ as others do."""
    rows = [row for row, scan in enumerate(scans) if len(scan.thumbs) >= _SHORTEST]
    if len(rows) < 2 or len({scans[row].thumbs.shape[1:] for row in rows}) > 1:
        return
    shortest = min(len(scans[row].thumbs) for row in rows)
    at = np.linspace(0, shortest - 1, _LOOKED_AT).astype(int)
    shown = [scans[row].thumbs[at].astype(np.float32) for row in rows]
    alike = _apart(np.stack([_unit(pictures) for pictures in shown]))
    moves = [np.ptp(pictures, axis=0).mean() > 1 for pictures in shown]
    differ = alike >= 0  # of states that cannot be compared nothing is asked
    begins = [] if state is None else [view.spans[episodes[row]][0] for row in rows]
    if state is not None and max(begins) + shortest <= len(state):
        differ = _apart(np.stack([state[begin + at].ravel() for begin in begins])) > 0.5
    for first, second in np.argwhere(np.triu(differ & (alike < _SAME), 1)).tolist():
        if moves[first]:
            one, other = episodes[rows[first]], episodes[rows[second]]
            result.add_error(f"episode {other}: it has the pictures of episode {one}", other)


def _apart(values: np.ndarray) -> np.ndarray:
    """Return the distances of rows (n, size) from each other, (n, n).

    A usual one is 1: below the median, as a row that is unlike all others has many large ones.
    """
    squares = (values**2).sum(axis=1)
    found = np.sqrt(np.maximum(squares[:, None] + squares - 2 * values @ values.T, 0))
    usual = np.quantile(found[np.triu_indices(len(values), 1)], 0.3)
    return found / max(float(usual), 1e-9)


def _check_range(shown: dict[int, EpisodeScan], result: CheckResult) -> None:
    """Warn of a camera that shows nothing dark and nothing bright."""
    own = [scan.image_stats or {} for scan in shown.values()]
    low = min(float(np.min(stats["min"])) for stats in own)
    high = max(float(np.max(stats["max"])) for stats in own)
    if low > _DARK and high < _BRIGHT:
        result.add_warning(
            f"all pictures are within {low:.2f} and {high:.2f}, expected some that are darker than "
            f"{_DARK} or brighter than {_BRIGHT}: washed out?"
        )


def _rare(values: np.ndarray) -> np.ndarray:
    """Return the smaller of two clearly separate groups of values; empty if they are one."""
    order = np.argsort(values)
    gaps = np.diff(values[order])
    at = int(gaps.argmax())
    low, high = order[: at + 1], order[at + 1 :]
    within = max(np.ptp(values[low]), np.ptp(values[high]))
    if gaps[at] < _SPREAD or gaps[at] < 2 * within:
        return np.zeros(0, dtype=int)
    return np.sort(low if len(low) <= len(high) else high)


_STILL, _SCENERY = 8.0, 7.0  # 8-bit levels: of what hardly changes, and of what can be seen
_ONE_SCENE = 0.85  # correlation of two episodes' mean pictures whose camera and scene are the same

_VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "upside down": lambda m: m[::-1],
    "mirrored": lambda m: m[:, ::-1],
    "turned by 180 degrees": lambda m: m[::-1, ::-1],
    "turned by 90 degrees": lambda m: np.rot90(m),
    "turned by 270 degrees": lambda m: np.rot90(m, 3),
    "negatives": lambda m: -m,
}


def _check_turned(
    view: DatasetView, camera: str, episodes: list[int], scans: list[EpisodeScan],
    result: CheckResult,
) -> None:  # fmt: skip
    """Report episodes whose mean picture fits the others' only after it was turned."""
    means = [scan.mean for scan in scans]
    flat = np.stack([_unit(mean) for mean in means])
    alike = flat @ flat.T
    reference = int(np.median(alike, axis=1).argmax())
    square = means[0].shape[0] == means[0].shape[1]
    found: dict[str, list[int]] = {}
    for k, mean in enumerate(means):
        plain = alike[k, reference]
        scores = {
            name: float(_unit(turn(mean)) @ flat[reference])
            for name, turn in _VIEWS.items()
            if square or "90" not in name and "270" not in name
        }
        best = max(scores, key=lambda name: scores[name])
        if scores[best] > 0.7 and scores[best] > plain + 0.15:
            found.setdefault(best, []).append(k)
    suspects = {reference, *(k for members in found.values() for k in members)}
    rest = [k for k in range(len(means)) if k not in suspects]
    if not rest or np.median(alike[reference, rest]) < _ONE_SCENE or not _has_scenery(scans):
        found = {}  # a pendulum before a white wall looks turned, too
    for name, members in found.items():
        if len(members) > len(means) / 2:
            continue
        result.add_error(
            f"{named([episodes[k] for k in members])}: the pictures are {name}, compared with the "
            "other episodes",
            episodes[members[0]],
        )
    turned = {k for members in found.values() for k in members}
    _check_channels(episodes, means, turned, result)
    _check_camera(view, camera, episodes, means, turned, result)


def _has_scenery(scans: list[EpisodeScan]) -> bool:
    """Return True if something can be seen that moves neither in an episode nor between them."""
    means = np.stack([scan.thumbs.mean(axis=0, dtype=np.float32) for scan in scans])
    moves = np.stack([scan.thumbs.std(axis=0, dtype=np.float32) for scan in scans])
    usual = np.median(means, axis=0)
    still = (np.median(moves, axis=0) < _STILL) & (np.median(abs(means - usual), axis=0) < _STILL)
    return bool(still.any() and usual[still].std() > _SCENERY)


def _check_channels(
    episodes: list[int], means: list[np.ndarray], turned: set[int], result: CheckResult
) -> None:
    """Report episodes whose red and blue are swapped, where the others have one colour."""
    chroma = np.stack([(mean - mean.mean(axis=-1, keepdims=True)).ravel() for mean in means])
    swapped = np.stack([
        (mean[..., ::-1] - mean.mean(axis=-1, keepdims=True)).ravel() for mean in means
    ])  # fmt: skip
    sizes = np.maximum(np.linalg.norm(chroma, axis=1), 1e-9)
    if np.median(sizes) < 30:
        return  # hardly any colour
    plain = chroma @ chroma.T / np.outer(sizes, sizes)
    other = swapped @ chroma.T / np.outer(sizes, sizes)
    first = int(np.median(plain, axis=1).argmax())
    rare = [
        k for k in range(len(means))
        if other[k, first] > 0.9 and plain[k, first] < 0.5 and k not in turned
    ]  # fmt: skip
    rest = [k for k in range(len(means)) if k not in rare and k != first]
    if rare and (not rest or np.min(plain[rest, first]) > 0.9):
        result.add_error(
            f"{named([episodes[k] for k in rare])}: red and blue are swapped, compared with the "
            "other episodes",
            episodes[rare[0]],
        )


def _check_camera(
    view: DatasetView, camera: str, episodes: list[int], means: list[np.ndarray],
    turned: set[int], result: CheckResult,
) -> None:  # fmt: skip
    """Report episodes whose pictures look like those of another camera."""
    own = np.stack([_unit(mean) for mean in means])
    for other in view.cameras:
        if other == camera or is_depth(view.features[other]):
            continue
        theirs = [s.mean for s in view.scan(other).episodes.values() if s.frames]
        theirs = [mean for mean in theirs if mean.shape == means[0].shape]
        if len(theirs) < 2:
            continue
        far = np.stack([_unit(mean) for mean in theirs])
        here = np.array([np.median(np.delete(row, k)) for k, row in enumerate(own @ own.T)])
        there = np.median(own @ far.T, axis=1)
        for k in np.flatnonzero((there > 0.7) & (there > here + 0.3)).tolist():
            if k not in turned:
                result.add_error(
                    f"episode {episodes[k]}: the pictures look like those of {view.short(other)}",
                    episodes[k],
                )


def _unit(mean: np.ndarray) -> np.ndarray:
    """Return a picture as a vector of length 1, without its mean level."""
    flat = (mean - mean.mean()).ravel()
    return flat / max(float(np.linalg.norm(flat)), 1e-9)
