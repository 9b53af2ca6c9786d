"""The videos: their files, what they show, whether they were swapped."""

import numpy as np

from pp_recorder.checks.findings import Result, UnavailableError, text_of
from pp_recorder.checks.video_scan import REPEAT_FRAMES, EpisodeScan, FileScan
from pp_recorder.checks.view import DatasetView, count, is_depth, video_name

# An episode is frozen if so large a share of its pictures repeats the one before and no block
# changes by more than FROZEN_CHANGE, in 8-bit levels, but for short moments.
FROZEN_SHARE, FROZEN_CHANGE = 0.9, 16.0
MOVED = 0.1  # share of its range that a state covers, on average over its numbers, when it moves
SWAP_NOISE = 0.001  # of [0, 1]; smaller differences are the codec's
SWAP_DIFFERENCE = 0.003  # the least that one of some swapped videos must differ by
SWAP_SHIFT = 0.05


def check_video(evidence: DatasetView, log: Result, camera: str) -> str:
    """The files of a camera: present, decodable, one frame per row, on the grid, as declared."""
    scan = evidence.scan(camera)
    for file in scan.files:
        _check_video_file(evidence, camera, file, log)
        if not file.error.startswith("is missing"):
            for i in file.episodes:
                _check_video_episode(evidence, file, i, scan.episodes[i], log)
    sizes = sorted({f"{f.width} x {f.height}" for f in scan.files if f.width})
    frames = sum(f.frames for f in scan.files)
    return f"{frames} frames in {len(scan.files)} file(s), {', '.join(sizes)}"


def _check_video_file(evidence: DatasetView, camera: str, file: FileScan, log: Result) -> None:
    where = _episodes_text(file.episodes)
    if file.error:
        frames = sum(count(evidence.episodes[i].get("length")) for i in file.episodes)
        reached = f" after {file.frames} of {frames} frames" if file.frames else ""
        log.error(f"{file.name} ({where}) {file.error}{reached}", file.episodes[0])
    if not file.width:
        return
    height, width = evidence.features[camera]["shape"][:2]
    if (file.width, file.height) != (width, height):
        found = f"{file.width} x {file.height}"
        log.error(f"{file.name} ({where}) is {found}, expected {width} x {height} (w x h)")
    if abs(file.fps - evidence.fps) > 0.005 * evidence.fps and file.frames > 1:
        log.error(f"{file.name} ({where}) has {file.fps:g} fps, expected {evidence.fps:g}")
    if file.strays:
        log.error(
            f"{file.name} ({where}): {len(file.strays)} frame(s) from {file.strays[0]:.4f} s on "
            f"belong to no episode, expected none"
        )


def _check_video_episode(
    evidence: DatasetView, file: FileScan, i: int, scan: EpisodeScan, log: Result
) -> None:
    length = count(evidence.episodes[i].get("length"))
    if scan.frames != length and not file.error:
        log.error(f"{file.name}: episode {i} has {scan.frames} frames for {length} rows", i)
    if scan.off_grid:
        frame, found, expected = scan.off_grid
        text = f"is at {found:.4f} s, expected {expected:.4f} s"
        log.error(f"{file.name}: frame {frame} of episode {i} {text}", i, frame)
    if scan.damaged:
        text = f"{text_of(scan.damaged)} of episode {i} cannot be decoded without damage"
        log.error(f"{file.name}: {text}", i, scan.damaged[0])


def _episodes_text(episodes: list[int]) -> str:
    if len(episodes) == 1:
        return f"episode {episodes[0]}"
    return f"episodes {min(episodes)}..{max(episodes)}"


def check_pictures(evidence: DatasetView, log: Result, camera: str) -> str:
    """What a camera shows: no black, flat or frozen pictures."""
    scan = evidence.scan(camera)
    if is_depth(evidence.features[camera]):
        raise UnavailableError("it shows depth, not colours")
    seen = 0
    for i, episode in sorted(scan.episodes.items()):
        seen += episode.frames
        for kind, frames in (("black", episode.black), ("one flat colour", episode.flat)):
            if frames:
                text = f"episode {i}, {text_of(frames)}: the picture is {kind}"
                log.error(text, i, frames[0])
        if not episode.black and not episode.flat and episode.frames > REPEAT_FRAMES:
            _check_motion(evidence, i, episode, log)
    if not seen:
        raise UnavailableError("no picture could be decoded")
    return f"{seen} pictures looked at"


def _check_motion(evidence: DatasetView, i: int, scan: EpisodeScan, log: Result) -> None:
    if scan.repeated >= FROZEN_SHARE and scan.change <= FROZEN_CHANGE:
        if _moves(evidence, i, 0, scan.frames):
            log.error(
                f"episode {i}: the picture is frozen, {scan.repeated:.0%} of its {scan.frames} "
                f"frames repeat the one before while the state moves",
                i,
            )
        return
    for begin, length in scan.runs:
        if _moves(evidence, i, begin, length):
            text = f"frames {begin}..{begin + length - 1} ({length} of them)"
            log.warning(
                f"episode {i}, {text}: the same picture is repeated while the state moves", i, begin
            )


def _moves(evidence: DatasetView, episode: int, frame: int, length: int) -> bool:
    """Whether the state moves during some frames; unknown counts as yes for whole episodes."""
    try:
        try:
            state = evidence.named("observation.state", "joint_pos_")
        except UnavailableError:
            state = evidence.column("observation.state")
        begin, end = evidence.spans[episode]
    except UnavailableError:
        return frame == 0 and length == count(evidence.episodes[episode].get("length"))
    rows = state[begin:end].astype(np.float64)
    spread = np.ptp(rows, axis=0)
    part = np.ptp(rows[frame : frame + length], axis=0)
    moving = spread > 1e-6
    return bool(moving.any() and (part[moving] / spread[moving]).mean() > MOVED)


def check_video_order(evidence: DatasetView, log: Result) -> str:
    """Whether videos were swapped: each must fit its own stored statistics best."""
    labels, stored, found = _fingerprints(evidence)
    if len(labels) < 2:
        raise UnavailableError("there are not two videos with statistics of their own")
    swapped = {**_swapped(stored, found), **_swapped(stored, found - _shift(labels, stored, found))}
    for k, match in sorted(swapped.items()):
        (camera, i), (other, j) = labels[k], labels[match]
        name = video_name(evidence, camera, i)
        log.error(
            f"{name} (episode {i}, {evidence.short(camera)}) seems to be swapped: what should "
            f"be in it is in the video of episode {j}, {evidence.short(other)}",
            i,
        )
    return f"{len(labels)} videos compared with their statistics"


def _swapped(stored: np.ndarray, found: np.ndarray) -> dict[int, int]:
    """Video and the one that fits it, where they go round in a circle.

    Only then is it a swap: a difference common to all videos, such as the codec's, never makes
    each of them fit the next one's statistics all the way round.
    """
    own = np.abs(stored - found).max(axis=1)
    best = np.empty(len(own), dtype=int)
    nearest = np.empty(len(own))
    for k in range(len(own)):
        distance = np.abs(stored[k] - found).max(axis=1)
        best[k] = distance.argmin()
        nearest[k] = distance[best[k]]
    suspects = (own > SWAP_NOISE) & (nearest < 0.5 * own)
    circles = [_circle(k, best, suspects) for k in range(len(own))]
    return {c[0]: int(best[c[0]]) for c in circles if c and own[c].max() > SWAP_DIFFERENCE}


def _shift(labels: list[tuple[str, int]], stored: np.ndarray, found: np.ndarray) -> np.ndarray:
    """What is common to a camera's differences; swaps within the camera do not change it."""
    cameras = np.array([camera for camera, _ in labels])
    shift = np.zeros_like(found)
    for camera in set(cameras):
        rows = cameras == camera
        mean = (found[rows] - stored[rows]).mean(axis=0)
        if np.abs(mean).max() <= SWAP_SHIFT:  # more is no codec's doing
            shift[rows] = mean
    return shift


def _circle(start: int, best: np.ndarray, suspects: np.ndarray) -> list[int]:
    """The suspects from `start` on, each the best match of the one before; [] if no circle."""
    members, at = [], start
    while suspects[at] and at not in members:
        members.append(at)
        at = int(best[at])
    return members if members and at == start else []


def _fingerprints(evidence: DatasetView) -> tuple[list[tuple[str, int]], np.ndarray, np.ndarray]:
    """Label, stored and recomputed statistics (n, k) of every video that has both."""
    labels, stored, found = [], [], []
    for camera in evidence.cameras:
        try:
            columns = {n: evidence.episode_column(f"stats/{camera}/{n}") for n in ("mean", "std")}
            episodes = evidence.scan(camera).episodes
        except UnavailableError:
            continue
        if columns["mean"].shape[1] != 3:
            continue
        with_std = columns["std"].any()  # not in datasets by lerobot 0.5 and older
        for i, episode in sorted(episodes.items()):
            if episode.image_stats is None:
                continue
            own = [columns["mean"][i], columns["std"][i] * with_std]
            seen = [episode.image_stats["mean"].ravel(), episode.image_stats["std"].ravel()]
            labels.append((camera, i))
            stored.append(np.concatenate(own))
            found.append(np.concatenate([seen[0], seen[1] * with_std]))
    return labels, np.array(stored), np.array(found)
