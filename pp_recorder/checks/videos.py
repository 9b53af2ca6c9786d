"""Checks of the videos: files, images, swapped files."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from pp_recorder.checks.findings import CheckResult, UnavailableError, text_of
from pp_recorder.checks.video_scan import REPEAT_FRAMES, EpisodeScan, FileScan
from pp_recorder.checks.view import (
    DatasetView,
    array,
    count,
    is_depth,
    is_number,
    video_name,
    video_span,
)
from pp_recorder.dataset import keys
from pp_recorder.dataset.schema import canonical_feature

# An episode is frozen if so large a share of its images repeats the one before and no block
# changes by more than FROZEN_CHANGE, in 8-bit levels, except for short moments.
FROZEN_SHARE, FROZEN_CHANGE = 0.9, 16.0
MOVED = 0.1  # the least share of its range that a moving state covers, averaged over its numbers
SWAP_NOISE = 0.001  # of [0, 1]; smaller differences are the codec's
SWAP_DIFFERENCE = 0.003  # the least difference that one of the swapped videos must have
SWAP_SHIFT = 0.05


def check_video(view: DatasetView, result: CheckResult, camera: str) -> str:
    """Check that a camera's files exist, can be decoded and fit the rows and the declaration."""
    scan = view.scan(camera)
    for file in scan.files:
        _check_video_file(view, camera, file, result)
        if not file.error.startswith("is missing"):
            for i in file.episodes:
                _check_video_episode(view, file, i, scan.episodes[i], result)
    sizes = sorted({f"{f.width} x {f.height}" for f in scan.files if f.width})
    frames = sum(f.frames for f in scan.files)
    return f"{frames} frames in {len(scan.files)} file(s), {', '.join(sizes)}"


def _check_video_file(view: DatasetView, camera: str, file: FileScan, result: CheckResult) -> None:
    where = _episodes_text(file.episodes)
    if file.error:
        frames = sum(count(view.episodes[i].get(keys.LENGTH)) for i in file.episodes)
        reached = f" after {file.frames} of {frames} frames" if file.frames else ""
        result.add_error(f"{file.name} ({where}) {file.error}{reached}", file.episodes[0])
    if not file.width:
        return
    height, width = view.features[camera]["shape"][:2]
    if (file.width, file.height) != (width, height):
        found = f"{file.width} x {file.height}"
        result.add_error(f"{file.name} ({where}) is {found}, expected {width} x {height} (w x h)")
    if abs(file.fps - view.fps) > 0.005 * view.fps and file.frames > 1:
        result.add_error(f"{file.name} ({where}) has {file.fps:g} fps, expected {view.fps:g}")
    _check_declared(view, camera, file, result)
    if file.unassigned_times:
        text = (
            f"{file.name} ({where}): {len(file.unassigned_times)} frame(s) from "
            f"{file.unassigned_times[0]:.4f} s on belong to no episode, expected none"
        )
        if _are_neighbours(view, camera, file):
            result.add_warning(f"{text}; they are of episodes whose own files are still there")
        else:
            result.add_error(text)


def _are_neighbours(view: DatasetView, camera: str, file: FileScan) -> bool:
    """Return True if as many frames lack an episode as the episodes in between and beside have.

    So a file looks whose videos are being joined or taken apart.
    """
    half = 0.5 / view.fps
    begins = [video_span(view, camera, episode)[0] for episode in file.episodes]
    lengths = [count(row.get(keys.LENGTH)) for row in view.episodes]
    places = np.searchsorted(begins, np.add(file.unassigned_times, half), side="right")
    for place, frames in zip(*np.unique(places, return_counts=True), strict=True):
        before = file.episodes[place - 1] + 1 if place else 0
        after = file.episodes[place] if place < len(begins) else len(lengths)
        missing = np.cumsum(lengths[before:after] if place else lengths[before:after][::-1])
        is_between = 0 < place < len(begins)
        if frames not in (missing[-1:] if is_between else missing):
            return False
    return True


def _check_declared(view: DatasetView, camera: str, file: FileScan, result: CheckResult) -> None:
    """Check what `info.json` says of a camera's videos."""
    details = canonical_feature(view.features[camera]).get("info")
    if not isinstance(details, dict):
        return
    found = {
        "video.codec": file.codec, "video.pix_fmt": file.pix_fmt, "video.fps": file.fps,
        "video.height": file.height, "video.width": file.width,
    }  # fmt: skip
    for key, value in found.items():
        declared = details.get(key)
        if declared is None or not value:
            continue
        if isinstance(value, str):
            same = declared == value
        else:
            same = is_number(declared) and abs(declared - value) <= 0.005 * value
        text = f"info.json says that {key} of {view.short(camera)} is {declared}, expected {value}"
        if not same and key == "video.codec" and value == "av1" and not view.collection:
            result.add_warning(f"{text}; lerobot 0.4's own tools encode again and leave this stale")
        elif not same:
            result.add_error(f"{text} as in {file.name}")


def check_intrinsics(view: DatasetView, result: CheckResult) -> str:
    """Check the intrinsics in `collection.json` against fields of view and sizes of pictures."""
    cameras = view.collection.get("cameras")
    if not isinstance(cameras, dict) or not cameras:
        raise UnavailableError("collection.json describes no cameras")
    lenses = {c.get("name"): c for c in view.config.get("cameras") or ()}
    checked = 0
    for feature in view.cameras:
        name = feature.rsplit(".", 1)[-1]
        own = cameras.get(name)
        if not isinstance(own, dict):
            result.add_warning(f"collection.json does not describe {name}")
            continue
        checked += 1
        for fault in _camera_faults(own, lenses.get(name) or {}, view.features[feature]["shape"]):
            result.add_error(f"collection.json, {name}: {fault}")
    return f"{checked} cameras" + ("" if result.findings else " fit their pictures")


def _camera_faults(own: dict[str, Any], lens: dict[str, Any], shape: list[int]) -> Iterator[str]:
    matrix, height, width = array(own.get("intrinsics_px")), shape[0], shape[1]
    if matrix is None or matrix.shape != (3, 3):
        yield f"intrinsics_px is {own.get('intrinsics_px')}, expected a matrix of 3 x 3"
        return
    (fx, _, cx), (_, fy, cy), last = matrix.tolist()
    if abs(cx - width / 2) > 0.02 * width or abs(cy - height / 2) > 0.02 * height:
        yield f"the middle is at {cx:.1f}, {cy:.1f}, expected that of {width} x {height} pixels"
    if min(fx, fy) <= 0 or abs(fx / fy - 1) > 0.01 or last != [0, 0, 1]:
        yield f"focal lengths are {fx:.1f} and {fy:.1f}, expected square pixels"
        return
    fov = np.degrees(2 * np.arctan(width / 2 / fx))
    declared = own.get("fov_deg")
    if is_number(declared) and abs(fov - declared) > 0.5:
        yield f"fx is {fx:.1f}, a view of {fov:.1f} degrees, but fov_deg is {declared:.1f}"
    if is_number(lens.get("focal_length_mm")) and is_number(lens.get("aperture_mm")):
        expected = lens["focal_length_mm"] / lens["aperture_mm"] * width
        if abs(fx / expected - 1) > 0.01:
            yield f"fx is {fx:.1f}, expected {expected:.1f} from focal length and aperture"
    if lens and lens.get("position") != own.get("position_in_parent_m"):
        yield f"it is at {own.get('position_in_parent_m')}, in the config at {lens.get('position')}"
    quat = array(own.get("quat_wxyz_in_parent"))
    if quat is None or quat.shape != (4,) or abs(np.linalg.norm(quat) - 1) > 1e-3:
        yield f"quat_wxyz_in_parent is {own.get('quat_wxyz_in_parent')}, expected a unit quaternion"


def _check_video_episode(
    view: DatasetView, file: FileScan, i: int, scan: EpisodeScan, result: CheckResult
) -> None:
    length = count(view.episodes[i].get(keys.LENGTH))
    if scan.frames != length and not file.error:
        result.add_error(f"{file.name}: episode {i} has {scan.frames} frames for {length} rows", i)
    if scan.off_grid:
        frame, found, expected = scan.off_grid
        text = f"is at {found:.4f} s, expected {expected:.4f} s"
        result.add_error(f"{file.name}: frame {frame} of episode {i} {text}", i, frame)
    if scan.damaged:
        text = f"{text_of(scan.damaged)} of episode {i} cannot be decoded without damage"
        result.add_error(f"{file.name}: {text}", i, scan.damaged[0])


def _episodes_text(episodes: list[int]) -> str:
    if len(episodes) == 1:
        return f"episode {episodes[0]}"
    return f"episodes {min(episodes)}..{max(episodes)}"


def check_images(view: DatasetView, result: CheckResult, camera: str) -> str:
    """Check that a camera shows no black, flat or frozen images."""
    scan = view.scan(camera)
    if is_depth(view.features[camera]):
        raise UnavailableError("it shows depth, not colours")
    checked = 0
    for i, episode in sorted(scan.episodes.items()):
        checked += episode.frames
        for kind, frames in (("black", episode.black), ("one flat colour", episode.flat)):
            if frames:
                text = f"episode {i}, {text_of(frames)}: the picture is {kind}"
                result.add_error(text, i, frames[0])
        if not episode.black and not episode.flat and episode.frames > REPEAT_FRAMES:
            _check_motion(view, i, episode, result)
    if not checked:
        raise UnavailableError("no picture could be decoded")
    return f"{checked} pictures looked at"


def _check_motion(view: DatasetView, i: int, scan: EpisodeScan, result: CheckResult) -> None:
    if scan.repeated >= FROZEN_SHARE and scan.change <= FROZEN_CHANGE:
        if _moves(view, i, 0, scan.frames):
            result.add_error(
                f"episode {i}: the picture is frozen, {scan.repeated:.0%} of its {scan.frames} "
                f"frames repeat the one before while the state moves",
                i,
            )
        return
    for begin, length in scan.runs:
        if _moves(view, i, begin, length):
            text = f"frames {begin}..{begin + length - 1} ({length} of them)"
            result.add_warning(
                f"episode {i}, {text}: the same picture is repeated while the state moves", i, begin
            )


def _moves(view: DatasetView, episode: int, frame: int, length: int) -> bool:
    """Return True if the state moves during some frames; if unknown, True for whole episodes."""
    try:
        try:
            state = view.named(keys.STATE, "joint_pos_")
        except UnavailableError:
            state = view.column(keys.STATE)
        begin, end = view.spans[episode]
    except UnavailableError:
        return frame == 0 and length == count(view.episodes[episode].get(keys.LENGTH))
    rows = state[begin:end].astype(np.float64)
    spread = np.ptp(rows, axis=0)
    part = np.ptp(rows[frame : frame + length], axis=0)
    moving = spread > 1e-6
    return bool(moving.any() and (part[moving] / spread[moving]).mean() > MOVED)


def check_video_order(view: DatasetView, result: CheckResult) -> str:
    """Check that no videos were swapped: each must fit its own stored statistics best."""
    labels, stored, found = _video_statistics(view)
    if len(labels) < 2:
        raise UnavailableError("there are not two videos with statistics of their own")
    swapped = {**_swapped(stored, found), **_swapped(stored, found - _shift(labels, stored, found))}
    for k, match in sorted(swapped.items()):
        (camera, i), (other, j) = labels[k], labels[match]
        name = video_name(view, camera, i)
        result.add_error(
            f"{name} (episode {i}, {view.short(camera)}) seems to be swapped: what should "
            f"be in it is in the video of episode {j}, {view.short(other)}",
            i,
        )
    return f"{len(labels)} videos compared with their statistics"


def _swapped(stored: np.ndarray, found: np.ndarray) -> dict[int, int]:
    """Return each swapped video and the video that fits its statistics, if they form a cycle.

    Only a cycle is a swap: a difference common to all videos, such as the codec's, never makes
    each of them fit the statistics of the next one all the way round.
    """
    own = np.abs(stored - found).max(axis=1)
    best = np.empty(len(own), dtype=int)
    nearest = np.empty(len(own))
    for k in range(len(own)):
        distance = np.abs(stored[k] - found).max(axis=1)
        best[k] = distance.argmin()
        nearest[k] = distance[best[k]]
    suspects = (own > SWAP_NOISE) & (nearest < 0.5 * own)
    cycles = [_cycle(k, best, suspects) for k in range(len(own))]
    return {c[0]: int(best[c[0]]) for c in cycles if c and own[c].max() > SWAP_DIFFERENCE}


def _shift(labels: list[tuple[str, int]], stored: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the mean difference of each camera, which swaps within the camera do not change."""
    cameras = np.array([camera for camera, _ in labels])
    shift = np.zeros_like(found)
    for camera in set(cameras):
        rows = cameras == camera
        mean = (found[rows] - stored[rows]).mean(axis=0)
        if np.abs(mean).max() <= SWAP_SHIFT:  # a codec does not cause more
            shift[rows] = mean
    return shift


def _cycle(start: int, best: np.ndarray, suspects: np.ndarray) -> list[int]:
    """Return the suspects from `start` on, each the best match of the one before, if a cycle."""
    members, at = [], start
    while suspects[at] and at not in members:
        members.append(at)
        at = int(best[at])
    return members if members and at == start else []


def _video_statistics(view: DatasetView) -> tuple[list[tuple[str, int]], np.ndarray, np.ndarray]:
    """Return label, stored and recomputed statistics (n, k) of every video that has both."""
    labels, stored, found = [], [], []
    for camera in view.cameras:
        try:
            columns = {
                n: view.episode_column(keys.stats_column(camera, n)) for n in ("mean", "std")
            }
            episodes = view.scan(camera).episodes
        except UnavailableError:
            continue
        if columns["mean"].shape[1] != 3:
            continue
        with_std = columns["std"].any()  # not in datasets by lerobot 0.5 and older
        for i, episode in sorted(episodes.items()):
            if episode.image_stats is None:
                continue
            own = [columns["mean"][i], columns["std"][i] * with_std]
            recomputed = [episode.image_stats[n].ravel() for n in ("mean", "std")]
            labels.append((camera, i))
            stored.append(np.concatenate(own))
            found.append(np.concatenate([recomputed[0], recomputed[1] * with_std]))
    return labels, np.array(stored), np.array(found)
