"""Ways to spoil a training that leave a dataset loadable: its statistics are made to fit again.

Each function takes a `Copy` of a small healthy dataset of ours and spoils it; `PLANTED` has them by
name, with the checks that may find them.
"""

# ruff: noqa: E501  a corruption a line

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pp_recorder.dataset import stats
from pp_recorder.dataset.video import VideoEncoder

OPTIONS = [
    "--num-episodes", "4", "--steps-per-segment", "20", "--resolution", "64", "--preset", "fast",
    "--seed", "5", "--workers", "1", "--video-files", "per-episode",
]  # fmt: skip
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
HIGH, WRIST = "observation.images.cam_high", "observation.images.cam_wrist"
STATE, TRUTH = "observation.state", "environment_state"
JOINTS, SPEEDS, FINGERS = slice(0, 7), slice(7, 14), slice(14, 16)
PLACE, TURN = slice(16, 19), slice(19, 23)


class Copy:
    """A copy of a dataset, whose numbers and pictures can be changed.

    Attributes:
        root: The directory.
        rows: The columns of the data, each (frames, size).
        spans: First row and row after the last, by episode.
    """

    def __init__(self, healthy: Path, root: Path) -> None:
        self.root = shutil.copytree(healthy, root)
        self.info = json.loads((root / "meta/info.json").read_text())
        self._data = pq.read_table(root / DATA)
        self._entries = pq.read_table(root / EPISODES)
        self.rows = {}
        for name in self._data.column_names:
            values = self._data[name].combine_chunks()
            size = self.info["features"][name]["shape"][0]
            flat = values.flatten() if pa.types.is_fixed_size_list(values.type) else values
            if pa.types.is_list(values.type):
                flat = values.flatten()
            self.rows[name] = flat.to_numpy(zero_copy_only=False).reshape(-1, size).copy()
        ends = np.cumsum(self._entries["length"].to_pylist())
        self.spans = [(int(b), int(e)) for b, e in zip([0, *ends[:-1]], ends, strict=True)]
        self._image_stats: dict[tuple[str, int], stats.Stats] = {}

    def of(self, episode: int, key: str = STATE) -> np.ndarray:
        """Return a column of an episode, (frames, size), as a view to be changed."""
        begin, end = self.spans[episode]
        return self.rows[key][begin:end]

    def path(self, camera: str, episode: int) -> Path:
        """Return an episode's video."""
        return self.root / f"videos/{camera}/chunk-000/episode_{episode:05d}.mp4"

    def images(self, camera: str, episode: int) -> list[np.ndarray]:
        """Return the images of an episode, (h, w, 3) uint8."""
        with av.open(str(self.path(camera, episode))) as container:
            return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]

    def show(
        self, camera: str, episode: int, images: list[np.ndarray], codec: str = "h264"
    ) -> None:
        """Replace the images of an episode, and their statistics."""
        path = self.path(camera, episode)
        path.unlink()
        encoder = VideoEncoder(path, codec, self.info["fps"])
        for image in images:
            encoder.add(np.ascontiguousarray(image))
        self._image_stats[camera, episode] = encoder.finish(len(images))

    def change_info(self, change: Callable[[dict], None]) -> None:
        """Change info.json."""
        change(self.info)

    def change_json(self, name: str, change: Callable[[dict], None]) -> None:
        """Change a file of meta/."""
        content = json.loads((self.root / name).read_text())
        change(content)
        (self.root / name).write_text(json.dumps(content))

    def change_entries(self, column: str, change: Callable[[list], list]) -> None:
        """Change a column of meta/episodes."""
        old = self._entries[column]
        new = pa.array(change(old.to_pylist()), old.type)
        at = self._entries.schema.get_field_index(column)
        self._entries = self._entries.set_column(at, column, new)

    def save(self) -> None:
        """Write everything, with the statistics of what is there now."""
        arrays = []
        for name in self._data.column_names:
            kind = self._data.schema.field(name).type
            listed = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
            values = self.rows[name]
            arrays.append(pa.array(values.tolist() if listed else values[:, 0], kind))
        table = pa.table(arrays, schema=self._data.schema)
        pq.write_table(table, self.root / DATA)
        totals = json.loads((self.root / "meta/stats.json").read_text())
        entries = self._entries
        for name, values in self.rows.items():
            parts = [stats.of_rows(values[begin:end]) for begin, end in self.spans]
            totals[name] = _plain(stats.of_rows(values))
            entries = _put_stats(entries, name, parts)
        for camera in {camera for camera, _ in self._image_stats}:
            total, parts = None, []
            for episode in range(len(self.spans)):
                own = self._image_stats.get((camera, episode))
                if own is None:
                    own = _image_stats(self.images(camera, episode))
                parts.append(own)
                total = stats.fold(total, own)
            totals[camera] = _plain(total)
            entries = _put_stats(entries, camera, parts)
        pq.write_table(entries, self.root / EPISODES)
        (self.root / "meta/stats.json").write_text(json.dumps(totals))
        (self.root / "meta/info.json").write_text(json.dumps(self.info))


def _plain(values: stats.Stats) -> dict[str, list]:
    return {name: value.tolist() for name, value in values.items()}


def _image_stats(images: list[np.ndarray]) -> stats.Stats:
    result = stats.ImageStats()
    for image in images:
        result.add(image)
    return result.result()


def _put_stats(entries: pa.Table, name: str, parts: list[stats.Stats]) -> pa.Table:
    for statistic in parts[0]:
        column = f"stats/{name}/{statistic}"
        if column in entries.column_names:
            at = entries.schema.get_field_index(column)
            kind = entries.schema.field(column).type
            values = pa.array([part[statistic].tolist() for part in parts], kind)
            entries = entries.set_column(at, column, values)
    return entries


@dataclass(frozen=True)
class Planted:
    """A corruption.

    Attributes:
        kind: What sort it is: a heading of the table.
        plant: Spoils a copy.
        checks: Beginnings of the names of the checks that may find it.
    """

    kind: str
    plant: Callable[[Copy], None]
    checks: tuple[str, ...]


PLANTED: dict[str, Planted] = {}


def _planted(kind: str, name: str, *checks: str):
    def register(plant: Callable[[Copy], None]) -> Callable[[Copy], None]:
        assert name not in PLANTED, name
        PLANTED[name] = Planted(kind, plant, checks)
        return plant

    return register


def spoil(healthy: Path, root: Path, name: str) -> None:
    """Copy a healthy dataset and plant a corruption."""
    copy = Copy(healthy, root)
    PLANTED[name].plant(copy)
    copy.save()


def _scale(
    kind: str, name: str, checks: tuple[str, ...], where: slice | int, factor: float,
    episodes: tuple[int, ...] = (0, 1, 2, 3), key: str = STATE,
) -> None:  # fmt: skip
    @_planted(kind, name, *checks)
    def plant(copy: Copy) -> None:
        for episode in episodes:
            copy.of(episode, key)[:, where] *= factor


# ------------------------------------------------------------------------- stated bounds and units

_BOUNDS, _DEGREES = "stated bounds and units", 180 / np.pi
_JOINT_CHECKS = ("joint limits", "hand pose", "lag", "bounds")

_scale(_BOUNDS, "joint positions in degrees", _JOINT_CHECKS, JOINTS, _DEGREES)
_scale(
    _BOUNDS,
    "joint positions in degrees, half the episodes",
    _JOINT_CHECKS,
    JOINTS,
    _DEGREES,
    (2, 3),
)
_scale(_BOUNDS, "one joint in degrees, one episode", _JOINT_CHECKS, 2, _DEGREES, (1,))
_scale(_BOUNDS, "joint targets in degrees", _JOINT_CHECKS, JOINTS, _DEGREES, key="action")
_scale(
    _BOUNDS, "one joint target in degrees, one episode", _JOINT_CHECKS, 0, _DEGREES, (2,), "action"
)
_scale(_BOUNDS, "hand position in cm", ("bounds", "hand pose"), PLACE, 100)
_scale(_BOUNDS, "hand position in mm, one episode", ("bounds", "hand pose"), PLACE, 1000, (3,))
_scale(_BOUNDS, "hand height in cm", ("bounds", "hand pose"), 18, 100)
_scale(_BOUNDS, "gripper in mm", ("bounds",), FINGERS, 1000)
_scale(_BOUNDS, "gripper in cm, one episode", ("bounds",), FINGERS, 100, (1,))
_scale(_BOUNDS, "gripper target in mm", ("bounds",), 7, 1000, key="action")
_scale(_BOUNDS, "gripper target 0..1, half the episodes", ("bounds",), 7, 25, (0, 1), "action")
_scale(_BOUNDS, "object position in mm", ("bounds", "hand pose"), slice(0, 3), 1000, key=TRUTH)
_scale(
    _BOUNDS,
    "object position in cm, one episode",
    ("bounds", "hand pose"),
    slice(0, 3),
    100,
    (2,),
    TRUTH,
)
_scale(_BOUNDS, "goal in cm", ("bounds",), slice(7, 10), 100, key=TRUTH)
_scale(_BOUNDS, "joint velocities in degrees/s", ("velocities", "bounds"), SPEEDS, _DEGREES)
_scale(
    _BOUNDS,
    "joint velocities in degrees/s, one episode",
    ("velocities", "bounds"),
    SPEEDS,
    _DEGREES,
    (1,),
)
_scale(_BOUNDS, "quaternion of length 0.5", ("quaternions",), TURN, 0.5)
_scale(_BOUNDS, "quaternion of length 1.01, one episode", ("quaternions",), TURN, 1.01, (2,))
_scale(_BOUNDS, "object quaternion of length 2", ("quaternions",), slice(3, 7), 2, key=TRUTH)
_scale(
    _BOUNDS,
    "quaternion with the other sign, one episode",
    ("quaternions", "bounds"),
    TURN,
    -1,
    (2,),
)
_scale(
    _BOUNDS,
    "object quaternion with the other sign, half the episodes",
    ("quaternions",),
    slice(3, 7),
    -1,
    (2, 3),
    TRUTH,
)


@_planted(_BOUNDS, "quaternion flips its sign at random", "quaternions")
def _(copy):
    rng = np.random.default_rng(0)
    copy.rows[STATE][:, TURN] *= rng.choice([-1, 1], len(copy.rows[STATE]))[:, None]


@_planted(_BOUNDS, "quaternion as x, y, z, w", "hand pose")
def _(copy):
    copy.rows[STATE][:, TURN] = copy.rows[STATE][:, [20, 21, 22, 19]]


@_planted(_BOUNDS, "quaternion as x, y, z, w, one episode", "hand pose", "quaternions")
def _(copy):
    copy.of(1)[:, TURN] = copy.of(1)[:, [20, 21, 22, 19]]


@_planted(_BOUNDS, "inverse quaternion", "hand pose")
def _(copy):
    copy.rows[STATE][:, 20:23] *= -1


@_planted(_BOUNDS, "object quaternion as x, y, z, w", "hand pose", "quaternions")
def _(copy):
    copy.rows[TRUTH][:, 3:7] = copy.rows[TRUTH][:, [4, 5, 6, 3]]


@_planted(_BOUNDS, "object quaternion as x, y, z, w, one episode", "hand pose", "quaternions")
def _(copy):
    copy.of(2, TRUTH)[:, 3:7] = copy.of(2, TRUTH)[:, [4, 5, 6, 3]]


@_planted(_BOUNDS, "joint position beyond its limit, a few frames", "joint limits", "bounds")
def _(copy):
    copy.of(1)[60:64, 1] = 1.9


@_planted(_BOUNDS, "joint target beyond its limit, one frame", "joint limits", "bounds")
def _(copy):
    copy.of(2, "action")[50, 3] = 0.2


@_planted(_BOUNDS, "finger position below 0", "bounds")
def _(copy):
    copy.of(0)[40:50, 14] = -0.02


# ------------------------------------------------------------------- contradictions between columns

_COLUMNS = "contradictions between columns"


def _roll(values: np.ndarray, steps: int) -> np.ndarray:
    """Return rows so many steps later; what is missing repeats the nearest row."""
    return values[np.clip(np.arange(len(values)) - steps, 0, len(values) - 1)]


def _shift(name: str, checks: tuple[str, ...], key: str, where: slice | int, steps: int,
           episodes: tuple[int, ...] = (0, 1, 2, 3)) -> None:  # fmt: skip
    @_planted(_COLUMNS, name, *checks)
    def plant(copy: Copy) -> None:
        for episode in episodes:
            copy.of(episode, key)[:, where] = _roll(copy.of(episode, key)[:, where], steps)


_ALL = slice(None)
_shift("actions one step late", ("lag",), "action", _ALL, 1)
_shift("actions one step early", ("lag",), "action", _ALL, -1)
_shift("actions 15 steps late", ("lag", "tracking"), "action", _ALL, 15)
_shift("actions 5 steps early", ("lag", "tracking"), "action", _ALL, -5)
_shift("actions two steps late, one episode", ("lag",), "action", _ALL, 2, (2,))
_shift("actions one step late, half the episodes", ("lag",), "action", _ALL, 1, (0, 1))
_shift("states 15 steps late, one episode", ("lag", "tracking"), STATE, _ALL, 15, (1,))
_shift("one joint's targets 10 steps late", ("lag", "tracking"), "action", 3, 10)
_shift("one joint 8 steps late", ("lag", "hand pose"), STATE, 5, 8)
_shift("hand pose one step late", ("hand pose",), STATE, slice(16, 23), 1)
_shift("hand pose 15 steps late, one episode", ("hand pose",), STATE, slice(16, 23), 15, (3,))
_shift("joint velocities 15 steps late", ("velocities",), STATE, SPEEDS, 15)
_shift("joint velocities 15 steps early, one episode", ("velocities",), STATE, SPEEDS, -15, (1,))
_shift("the object 15 steps late", ("hand pose",), TRUTH, slice(0, 7), 15)


@_planted(_COLUMNS, "hand position mirrored", "hand pose")
def _(copy):
    copy.rows[STATE][:, 17] *= -1


@_planted(_COLUMNS, "hand position with x and y swapped, one episode", "hand pose")
def _(copy):
    copy.of(1)[:, 16:18] = copy.of(1)[:, [17, 16]]


@_planted(_COLUMNS, "hand position of the fingertips", "hand pose")
def _(copy):
    copy.rows[STATE][:, 18] -= 0.1034


@_planted(_COLUMNS, "two joints swapped, in state and action", "hand pose", "joint limits")
def _(copy):
    for key in (STATE, "action"):
        copy.rows[key][:, [0, 2]] = copy.rows[key][:, [2, 0]]


@_planted(_COLUMNS, "one joint with an offset of 0.05 rad", "hand pose", "lag")
def _(copy):
    copy.rows[STATE][:, 3] += 0.05


@_planted(_COLUMNS, "one joint's sign flipped, one episode", "hand pose", "lag")
def _(copy):
    copy.of(2)[:, 4] *= -1


@_planted(_COLUMNS, "joint targets of another joint", "lag", "tracking")
def _(copy):
    copy.rows["action"][:, [4, 6]] = copy.rows["action"][:, [6, 4]]


@_planted(_COLUMNS, "actions of another episode", "lag", "tracking")
def _(copy):
    length = min(len(copy.of(0, "action")), len(copy.of(1, "action")))
    copy.of(0, "action")[:length] = copy.of(1, "action")[:length].copy()


@_planted(_COLUMNS, "actions shuffled in one episode", "lag", "tracking")
def _(copy):
    np.random.default_rng(0).shuffle(copy.of(3, "action"))


@_planted(_COLUMNS, "actions all zero in one episode", "lag", "tracking", "joint limits")
def _(copy):
    copy.of(1, "action")[:] = 0


@_planted(_COLUMNS, "gripper open and closed swapped", "lag")
def _(copy):
    copy.rows["action"][:, 7] = 0.04 - copy.rows["action"][:, 7]


@_planted(_COLUMNS, "gripper open and closed swapped, one episode", "lag")
def _(copy):
    copy.of(2, "action")[:, 7] = 0.04 - copy.of(2, "action")[:, 7]


@_planted(_COLUMNS, "joint velocities with the sign flipped", "velocities")
def _(copy):
    copy.rows[STATE][:, SPEEDS] *= -1


@_planted(_COLUMNS, "joint velocities with the sign flipped, one episode", "velocities")
def _(copy):
    copy.of(1)[:, SPEEDS] *= -1


@_planted(_COLUMNS, "one joint's velocity with the sign flipped", "velocities")
def _(copy):
    copy.rows[STATE][:, 7 + 3] *= -1


@_planted(_COLUMNS, "joint velocities all zero", "velocities")
def _(copy):
    copy.rows[STATE][:, SPEEDS] = 0


@_planted(_COLUMNS, "joint velocities all zero, one episode", "velocities")
def _(copy):
    copy.of(3)[:, SPEEDS] = 0


@_planted(_COLUMNS, "joint velocities of other joints", "velocities")
def _(copy):
    copy.rows[STATE][:, SPEEDS] = copy.rows[STATE][:, [8, 7, 10, 9, 12, 11, 13]]


@_planted(_COLUMNS, "joint velocities in rad per frame", "velocities")
def _(copy):
    copy.rows[STATE][:, SPEEDS] /= 30


@_planted(_COLUMNS, "reward 0 in a success", "outcome")
def _(copy):
    copy.of(1, "next.reward")[:] = 0


@_planted(_COLUMNS, "reward 0 everywhere", "outcome")
def _(copy):
    copy.rows["next.reward"][:] = 0


@_planted(_COLUMNS, "reward 1 from the middle on", "outcome")
def _(copy):
    copy.of(2, "next.reward")[90:] = 1


@_planted(_COLUMNS, "success ten frames early, one episode", "outcome", "success")
def _(copy):
    for key in ("next.success", "next.reward"):
        copy.of(0, key)[-10:] = 1


@_planted(_COLUMNS, "success from the middle on", "outcome")
def _(copy):
    for key in ("next.success", "next.reward"):
        copy.of(2, key)[90:] = 1


@_planted(_COLUMNS, "success lost: no frame has it", "success", "outcome")
def _(copy):
    for key in ("next.success", "next.reward"):
        copy.of(1, key)[:] = 0


@_planted(_COLUMNS, "success lost, and in meta/episodes", "success", "outcome")
def _(copy):
    for key in ("next.success", "next.reward"):
        copy.of(1, key)[:] = 0
    copy.change_entries("episode/success", lambda v: [v[0], False, *v[2:]])


@_planted(_COLUMNS, "success of a dropped object", "outcome")
def _(copy):
    copy.of(3, TRUTH)[-40:, 0:2] += 0.15


@_planted(_COLUMNS, "success though the goal is elsewhere", "outcome")
def _(copy):
    copy.of(0, TRUTH)[:, 7:9] += 0.1


@_planted(_COLUMNS, "success cut out of the end of the episode", "outcome", "success", "rows")
def _(copy):
    for key in ("next.success", "next.reward", "next.done"):
        copy.rows[key][:] = 0


@_planted(_COLUMNS, "next.done one frame early", "rows")
def _(copy):
    copy.of(1, "next.done")[-2:] = [[1], [0]]


@_planted(_COLUMNS, "is_grasped all the time", "hand pose", "outcome")
def _(copy):
    copy.of(2, TRUTH)[:, 10] = 1


@_planted(_COLUMNS, "an empty task text", "tasks")
def _(copy):
    _rename_task(copy, "")


@_planted(_COLUMNS, "a task text of spaces", "tasks")
def _(copy):
    _rename_task(copy, "   ")


def _rename_task(copy: Copy, text: str) -> None:
    path = copy.root / "meta/tasks.parquet"
    table = pq.read_table(path)
    at = next(k for k, n in enumerate(table.column_names) if n != "task_index")
    new = pa.array([text] * len(table), table.schema.field(at).type)
    table = table.set_column(at, table.schema.field(at), new)
    pq.write_table(table, path)
    copy.change_entries("tasks", lambda v: [[text]] * len(v))
    (copy.root / "meta/tasks.jsonl").unlink()


@_planted(_COLUMNS, "an episode twice", "repetition")
def _(copy):
    _repeat(copy, 0, 1)
    copy.path(HIGH, 1).write_bytes(copy.path(HIGH, 0).read_bytes())


@_planted(_COLUMNS, "an episode twice, without its pictures", "repetition")
def _(copy):
    _repeat(copy, 2, 3)


@_planted(_COLUMNS, "most of an episode again in another one", "repetition")
def _(copy):
    length = min(len(copy.of(0)), len(copy.of(2)))
    for key in (STATE, "action"):
        copy.of(2, key)[: length * 7 // 10] = copy.of(0, key)[: length * 7 // 10].copy()


def _repeat(copy: Copy, first: int, second: int) -> None:
    length = min(len(copy.of(first)), len(copy.of(second)))
    for key in (STATE, "action", TRUTH):
        copy.of(second, key)[-length:] = copy.of(first, key)[-length:].copy()


@_planted(_COLUMNS, "overlapping splits", "info")
def _(copy):
    copy.change_info(lambda info: info.update(splits={"train": "0:3", "test": "2:4"}))


@_planted(_COLUMNS, "a split within another one", "info")
def _(copy):
    copy.change_info(lambda info: info.update(splits={"train": "0:4", "val": "1:2"}))


# ------------------------------------------------------------------------------- declared but false

_DECLARED = "declared but false"


def _declare(
    name: str, checks: tuple[str, ...], key: str, value: object, camera: str = HIGH
) -> None:
    @_planted(_DECLARED, name, *checks)
    def plant(copy: Copy) -> None:
        copy.change_info(lambda info: info["features"][camera]["info"].update({key: value}))


_declare("another codec is declared", ("video",), "video.codec", "av1")
_declare("another pixel format is declared", ("video",), "video.pix_fmt", "yuv444p")
_declare("another frame rate of a camera is declared", ("video",), "video.fps", 60, WRIST)
_declare("another width is declared", ("video",), "video.width", 128)
_declare("another height is declared", ("video",), "video.height", 480, WRIST)


@_planted(_DECLARED, "one video is AV1, not H.264", "video")
def _(copy):
    copy.show(WRIST, 2, copy.images(WRIST, 2), "av1")


@_planted(_DECLARED, "shape of the pictures is another", "video")
def _(copy):
    copy.change_info(lambda info: info["features"][HIGH].update(shape=[128, 128, 3]))


@_planted(_DECLARED, "fps of the dataset is another", "timestamps", "video")
def _(copy):
    copy.change_info(lambda info: info.update(fps=25))


def _camera_entry(name: str, change: Callable[[dict], None]) -> None:
    @_planted(_DECLARED, name, "intrinsics")
    def plant(copy: Copy) -> None:
        copy.change_json("meta/collection.json", lambda c: change(c["cameras"]["cam_high"]))


def _scale_matrix(entry: dict, factor: float) -> None:
    matrix = np.array(entry["intrinsics_px"]) * factor
    matrix[2, 2] = 1
    entry["intrinsics_px"] = matrix.tolist()


def _focal(entry: dict) -> None:
    entry["intrinsics_px"][0][0] *= 1.2
    entry["intrinsics_px"][1][1] *= 1.2


_camera_entry("intrinsics of another resolution", lambda e: _scale_matrix(e, 8))
_camera_entry("focal length 20 % too long", _focal)
_camera_entry(
    "the middle of the picture at 0, 0",
    lambda e: [r.__setitem__(2, 0) for r in e["intrinsics_px"][:2]],
)
_camera_entry("field of view of another camera", lambda e: e.update(fov_deg=92.67))
_camera_entry(
    "intrinsics transposed",
    lambda e: e.update(intrinsics_px=np.transpose(e["intrinsics_px"]).tolist()),
)


# -------------------------------------------------------------------------- pictures against motion

_PICTURES = "pictures against motion"
_EVERY = (0, 1, 2, 3)
_LOOKS = ("motion", "pictures", "video order")


def _film(
    name: str, change: Callable[[list], list], camera: str = HIGH,
    episodes: tuple[int, ...] = _EVERY, checks: tuple[str, ...] = _LOOKS,
) -> None:  # fmt: skip
    @_planted(_PICTURES, name, *checks)
    def plant(copy: Copy) -> None:
        for episode in episodes:
            copy.show(camera, episode, change(copy.images(camera, episode)))


def _late(steps: int) -> Callable[[list], list]:
    return lambda images: [
        images[min(max(k - steps, 0), len(images) - 1)] for k in range(len(images))
    ]


def _freeze(begin: int, length: int) -> Callable[[list], list]:
    return lambda images: [
        images[begin] if begin <= k < begin + length + 1 else image
        for k, image in enumerate(images)
    ]


def _every(number: int) -> Callable[[list], list]:
    return lambda images: [images[k // number * number] for k in range(len(images))]


def _each(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[list], list]:
    return lambda images: [change(image) for image in images]


def _at(
    frames: tuple[int, ...], change: Callable[[list, int], np.ndarray]
) -> Callable[[list], list]:
    def plant(images: list) -> list:
        return [change(images, k) if k in frames else image for k, image in enumerate(images)]

    return plant


def _grey_below(images: list, k: int) -> np.ndarray:
    image = images[k].copy()
    image[len(image) // 2 :] = 128
    return image


def _stale_below(images: list, k: int) -> np.ndarray:
    image = images[k].copy()
    image[len(image) // 2 :] = np.roll(images[max(k - 40, 0)], 17, axis=1)[len(image) // 2 :]
    return image


def _noise(images: list, k: int) -> np.ndarray:
    return np.random.default_rng(k).integers(0, 256, images[k].shape, dtype=np.uint8)


def _washed(image: np.ndarray) -> np.ndarray:
    return (image * 0.5 + 80).astype(np.uint8)


_film("reversed, all", lambda images: images[::-1])
_film("reversed, one episode", lambda images: images[::-1], HIGH, (1,))
_film("reversed, half the episodes", lambda images: images[::-1], HIGH, (2, 3))
_film("reversed, wrist camera, one episode", lambda images: images[::-1], WRIST, (0,))
_film("reversed, wrist camera, all", lambda images: images[::-1], WRIST)
_film("upside down, all", _each(lambda i: i[::-1]))
_film("upside down, one episode", _each(lambda i: i[::-1]), HIGH, (2,))
_film("upside down, wrist camera, one episode", _each(lambda i: i[::-1]), WRIST, (1,))
_film("upside down, half the episodes", _each(lambda i: i[::-1]), HIGH, (0, 1))
_film("mirrored, all", _each(lambda i: i[:, ::-1]))
_film("mirrored, one episode", _each(lambda i: i[:, ::-1]), HIGH, (3,))
_film("turned by 180 degrees, one episode", _each(lambda i: i[::-1, ::-1]), HIGH, (1,))
_film("turned by 90 degrees, one episode", _each(lambda i: np.rot90(i)), WRIST, (1,))
_film("15 frames late, all", _late(15))
_film("15 frames late, one episode", _late(15), HIGH, (1,))
_film("15 frames late, half the episodes", _late(15), WRIST, (0, 1))
_film("5 frames late, all", _late(5))
_film("5 frames late, wrist camera, one episode", _late(5), WRIST, (2,))
_film("3 frames late, wrist camera, all", _late(3), WRIST)
_film("3 frames early, all", _late(-3))
_film("8 frames early, one episode", _late(-8), HIGH, (0,))
_film("frozen for 4 moving frames, one episode", _freeze(10, 4), WRIST, (1,))
_film("frozen for 8 moving frames, one episode", _freeze(86, 8), HIGH, (1,))
_film("frozen for 6 moving frames, all", _freeze(86, 6), WRIST)
_film("every second frame repeated, all", _every(2))
_film("every second frame repeated, one episode", _every(2), WRIST, (3,))
_film("every frame shown three times, one episode", _every(3), WRIST, (0,))
_film("every second frame repeated, high camera, one episode", _every(2), HIGH, (1,))
_film("a frame of noise", _at((77,), _noise), HIGH, (1,))
_film("a frame from the start", _at((90,), lambda images, k: images[0]), HIGH, (2,))
_film("a frame from the end, wrist camera", _at((60,), lambda images, k: images[-1]), WRIST, (0,))
_film(
    "three frames from elsewhere", _at((50, 51, 52), lambda images, k: images[k + 60]), WRIST, (1,)
)
_film("the last frame is foreign", _at((179,), _noise), HIGH, (2,))
_film("the first frame is foreign", _at((0,), _noise), HIGH, (0,))
_film("a half-decoded frame: grey below", _at((100,), _grey_below), HIGH, (1,))
_film("a half-decoded frame: stale below", _at((64,), _stale_below), WRIST, (2,))
_film("five half-decoded frames", _at((20, 40, 60, 80, 100), _grey_below), WRIST, (3,))
_film("half-decoded from the middle on", _at(tuple(range(90, 180)), _grey_below), HIGH, (1,))
_film("washed out, one episode", _each(_washed), HIGH, (1,))
_film("washed out, half the episodes", _each(_washed), WRIST, (2, 3))
_film("washed out, all", _each(_washed))
_film("darkened to a third, one episode", _each(lambda i: (i / 3).astype(np.uint8)), HIGH, (0,))
_film("red and blue swapped, one episode", _each(lambda i: i[..., ::-1]), HIGH, (2,))
_film("negatives, one episode", _each(lambda i: 255 - i), WRIST, (2,))
_film(
    "only grey, one episode",
    _each(lambda i: np.repeat(i.mean(axis=2, keepdims=True), 3, 2).astype(np.uint8)),
    HIGH,
    (3,),
)


@_planted(_PICTURES, "a frame of another camera", *_LOOKS)
def _(copy):
    images = copy.images(HIGH, 1)
    images[70] = copy.images(WRIST, 1)[70]
    copy.show(HIGH, 1, images)


@_planted(_PICTURES, "cameras swapped in one episode", *_LOOKS)
def _(copy):
    high, wrist = copy.images(HIGH, 2), copy.images(WRIST, 2)
    copy.show(HIGH, 2, wrist)
    copy.show(WRIST, 2, high)


@_planted(_PICTURES, "pictures of another episode, statistics fit", *_LOOKS)
def _(copy):
    first, second = copy.images(HIGH, 0), copy.images(HIGH, 1)
    copy.show(HIGH, 0, second)
    copy.show(HIGH, 1, first)


@_planted(_PICTURES, "the same pictures in two episodes", *_LOOKS)
def _(copy):
    copy.show(WRIST, 1, copy.images(WRIST, 0))


@_planted(_PICTURES, "a frame dropped in the middle", *_LOOKS)
def _(copy):
    images = copy.images(HIGH, 1)
    copy.show(HIGH, 1, [*images[:60], *images[68:], *[images[-1]] * 8])


@_planted(_PICTURES, "played at double speed, then still", *_LOOKS)
def _(copy):
    images = copy.images(WRIST, 2)
    copy.show(WRIST, 2, [*images[::2], *[images[-1]] * 90])


@_planted(_PICTURES, "frames in random order", *_LOOKS)
def _(copy):
    images = copy.images(WRIST, 3)
    np.random.default_rng(0).shuffle(images)
    copy.show(WRIST, 3, images)


@_planted(_PICTURES, "one picture all the time, with noise", *_LOOKS)
def _(copy):
    rng = np.random.default_rng(0)
    image = copy.images(HIGH, 1)[0].astype(np.int16)
    noisy = [
        (image + rng.integers(-6, 7, image.shape)).clip(0, 255).astype(np.uint8) for _ in range(180)
    ]
    copy.show(HIGH, 1, noisy)
