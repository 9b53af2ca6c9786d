"""Ways to spoil a training that leave a dataset loadable: its statistics are made to fit again.

Each function takes a `Copy` of a small healthy dataset of ours and spoils it; `PLANTED` has them by
name, with the checks that may find them.
"""

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
from pp_recorder.dataset.tables import to_plain
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
_scale(_BOUNDS, "joint positions in degrees, half the episodes", _JOINT_CHECKS, JOINTS, _DEGREES, (2, 3))
_scale(_BOUNDS, "one joint in degrees, one episode", _JOINT_CHECKS, 2, _DEGREES, (1,))
_scale(_BOUNDS, "joint targets in degrees", _JOINT_CHECKS, JOINTS, _DEGREES, key="action")
_scale(_BOUNDS, "one joint target in degrees, one episode", _JOINT_CHECKS, 0, _DEGREES, (2,), "action")
_scale(_BOUNDS, "hand position in cm", ("bounds", "hand pose"), PLACE, 100)
_scale(_BOUNDS, "hand position in mm, one episode", ("bounds", "hand pose"), PLACE, 1000, (3,))
_scale(_BOUNDS, "hand height in cm", ("bounds", "hand pose"), 18, 100)
_scale(_BOUNDS, "gripper in mm", ("bounds",), FINGERS, 1000)
_scale(_BOUNDS, "gripper in cm, one episode", ("bounds",), FINGERS, 100, (1,))
_scale(_BOUNDS, "gripper target in mm", ("bounds",), 7, 1000, key="action")
_scale(_BOUNDS, "gripper target 0..1, half the episodes", ("bounds",), 7, 25, (0, 1), "action")
_scale(_BOUNDS, "object position in mm", ("bounds", "hand pose"), slice(0, 3), 1000, key=TRUTH)
_scale(_BOUNDS, "object position in cm, one episode", ("bounds", "hand pose"), slice(0, 3), 100, (2,), TRUTH)
_scale(_BOUNDS, "goal in cm", ("bounds",), slice(7, 10), 100, key=TRUTH)
_scale(_BOUNDS, "joint velocities in degrees/s", ("velocities", "bounds"), SPEEDS, _DEGREES)
_scale(_BOUNDS, "joint velocities in degrees/s, one episode", ("velocities", "bounds"), SPEEDS, _DEGREES, (1,))
_scale(_BOUNDS, "quaternion of length 0.5", ("quaternions",), TURN, 0.5)
_scale(_BOUNDS, "quaternion of length 1.01, one episode", ("quaternions",), TURN, 1.01, (2,))
_scale(_BOUNDS, "object quaternion of length 2", ("quaternions",), slice(3, 7), 2, key=TRUTH)
_scale(_BOUNDS, "quaternion with the other sign, one episode", ("quaternions", "bounds"), TURN, -1, (2,))
_scale(_BOUNDS, "object quaternion with the other sign, half the episodes", ("quaternions",), slice(3, 7), -1, (2, 3), TRUTH)


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
