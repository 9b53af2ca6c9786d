"""Video files with many episodes each, as LeRobot writes them, or with one; nothing is encoded.

At every moment the directory is a valid dataset: new files appear under names to which no episode
refers yet, or with the same images at the same times; then the rows of `meta/episodes` change, a
table at a time; then what is not needed any more goes (docs/decisions/019).

Example: pp-pack datasets/pick_place --video-files per-episode
"""

import json
import logging
import shutil
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import Doc

from pp_recorder.command_line import DatasetFolder, Options, parse
from pp_recorder.dataset import keys
from pp_recorder.dataset.commit import (
    UNFINISHED,
    Commit,
    RemoteTarget,
    lock,
    staging_path,
    unlock,
)
from pp_recorder.dataset.files import (
    fill_in,
    foreign_files,
    listed,
    locate,
    require_inside,
    table_files,
)
from pp_recorder.dataset.joining import Extent, Join, Joiner, Measure
from pp_recorder.dataset.keys import VideoFiles
from pp_recorder.dataset.paths import table_path
from pp_recorder.dataset.reader import Dataset, DatasetError
from pp_recorder.dataset.recovery import unreferenced_videos
from pp_recorder.dataset.remux import Clip, RemuxError, read_index, remux
from pp_recorder.interrupts import interrupted, raise_on_interrupt
from pp_recorder.output import describe_error
from pp_recorder.parallel.processes import Died, WorkerError, run_all

_LOG = logging.getLogger(__name__)
_CLIPS_PER_PROCESS = 200  # at least: to start one takes as long as to join a hundred
_CLIPS_PER_JOB = 50  # to be measured
_SPARE = 2  # written files that wait to be moved while every process writes another
_FIELDS = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")


@dataclass(frozen=True)
class Place:
    """Where the images of an episode are.

    Attributes:
        chunk: Number of the folder.
        file: Number of the file.
        begin: Number of the first image in the file.
    """

    chunk: int
    file: int
    begin: int = 0

    @classmethod
    def alone(cls, episode: int) -> "Place":
        """Return the place of an episode that has a file of its own."""
        return cls(episode // keys.CHUNK_SIZE, episode)


class CameraFiles:
    """The video files of one camera, and what `meta/episodes` says of them.

    Args:
        root: The dataset's directory.
        camera: The feature.
        remote: The object store that keeps the dataset, with the contents of the files; or None.

    Raises:
        DatasetError: The table of episodes lacks a column.
    """

    def __init__(self, root: Path, camera: str, remote: RemoteTarget | None = None) -> None:
        info = json.loads((root / keys.INFO_PATH).read_text())
        self._root, self._camera, self._remote = root, camera, remote
        self._template: str = info["video_path"]
        self._fps: int = info["fps"]
        self._limit = info.get("video_files_size_in_mb", keys.VIDEO_FILE_SIZE) * 2**20  # bytes
        self._tables: dict[Path, set[int]] = {}
        self._places: list[Place] = []
        self._lengths: list[int] = []
        self._read_rows(info["total_episodes"])
        self._joiner = Joiner(self._fps)

    @property
    def names(self) -> set[str]:
        """The files that hold episodes, relative to the dataset's directory."""
        return {self._name(place) for place in self._places}

    @property
    def fps(self) -> int:
        """Frames per second."""
        return self._fps

    @property
    def limit(self) -> int:
        """The most bytes of a file with several episodes."""
        return self._limit

    @property
    def loose(self) -> range:
        """The episodes that are to be joined, with those of the last file that has several.

        There are none if there is nothing to do: files before that one were full.
        """
        return range(self._begin()[0], len(self._places))

    def loose_clips(self) -> dict[int, Clip]:
        """Return where the images of the episodes in `loose` are now."""
        return {episode: self._clip(episode) for episode in self.loose}

    def pack(self) -> None:
        """Join the files up to the size that `info.json` names.

        The files are those of a dataset that never was packed before: which episodes share a file
        depends on their images alone, and so do its bytes.

        Raises:
            DatasetError: The files cannot be joined; those that are joined already stay so.
        """
        for places in self.new_places(map(self._measure, self.loose)):
            if not self.are_at(places):
                staged = staging_path(self._root, "packed.mp4")
                self._remux(places, staged)
                self.move(places, staged)
            for path in self._fetched():
                path.unlink()

    def new_places(self, extents: Iterable[Extent]) -> Iterator[dict[int, Place]]:
        """Yield the places that episodes shall have, by episode, for one file after the other.

        Args:
            extents: Of the episodes in `loose`.
        """
        first, number = self._begin()
        pending: dict[int, Place] = {}
        size, begin, codec = 0, 0, None
        for episode, own in enumerate(extents, first):
            if pending and (size + own.size > self._limit or own.codec != codec):
                yield pending
                pending, size, begin, number = {}, 0, 0, number + 1
            pending[episode] = Place(*divmod(number, keys.CHUNK_SIZE), begin)
            size, begin, codec = size + own.size, begin + self._lengths[episode], own.codec
        if pending:
            yield pending

    def are_at(self, places: dict[int, Place]) -> bool:
        """Return whether episodes have these places already."""
        return all(self._places[episode] == place for episode, place in places.items())

    def move(self, places: dict[int, Place], staged: Path) -> None:
        """Give episodes their places in a file that has just been written with their images.

        Raises:
            DatasetError: The file would replace one that others need.
        """
        name = self._name(next(iter(places.values())))
        self._move(places, [(staged, name)])

    def split(self) -> None:
        """Give every episode a file of its own, numbered like the episode.

        Raises:
            DatasetError: An episode cannot be cut out; those before it in the file stay there.
        """
        for group in reversed(self._groups()):  # the number of a file is not above its episodes'
            if len(group) == 1 and self._is_alone(group[0]):
                continue
            where = self._file_of(self._places[group[0]])
            # a file cannot be replaced while other episodes are in it
            first = [e for e in group if self._file_of(Place.alone(e)) == where]
            for members in filter(None, ([e for e in group if e not in first], first)):
                staged = {e: staging_path(self._root, f"{e}.mp4") for e in members}
                for episode, path in staged.items():
                    self._remux([episode], path)
                moved = {e: Place.alone(e) for e in members}
                self._move(moved, [(path, self._name(moved[e])) for e, path in staged.items()])

    def renamed(self, template: str) -> list[tuple[str, str]]:
        """Return each file's name, and its name by another template."""
        places = sorted({self._file_of(place) for place in self._places})
        return [
            (self._name(Place(*place)), self._name(Place(*place), template)) for place in places
        ]

    def _is_alone(self, episode: int) -> bool:
        """Return whether an episode has its own file; one whose splitting was killed has others."""
        if self._places[episode] != Place.alone(episode):
            return False
        path = self._clip(episode).path
        try:
            return len(read_index(path, self._fps).frames) == self._lengths[episode]
        except RemuxError as error:
            raise DatasetError(str(error)) from error

    def _read_rows(self, count: int) -> None:
        columns = [keys.video_column(self._camera, field) for field in _FIELDS[:3]]
        needed = [keys.EPISODE_INDEX, keys.LENGTH, *columns]
        for path in table_files(self._root, keys.EPISODES_FOLDER, keys.EPISODES_PATH):
            rows = pq.ParquetFile(table_path(path)).read(needed).select(needed).to_pylist()
            self._tables[path] = {row[keys.EPISODE_INDEX] for row in rows}
            for _, length, chunk, file, begin in (row.values() for row in rows):
                self._places.append(Place(chunk, file, round(begin * self._fps)))
                self._lengths.append(length)
        del self._places[count:], self._lengths[count:]

    def _begin(self) -> tuple[int, int]:
        """Return the first episode that may get another place, and the number of its file."""
        groups = self._groups()
        joined = [k for k, group in enumerate(groups) if len(group) > 1]
        last = joined[-1] if joined else 0  # what is before it was full
        if last >= len(groups) - 1:
            return len(self._places), 0
        first = groups[last][0]
        if not joined:
            return first, 0
        place = self._places[first]
        return first, place.chunk * keys.CHUNK_SIZE + place.file

    def _groups(self) -> list[list[int]]:
        """Return the episodes that follow each other in one file, for every file."""
        groups: list[list[int]] = []
        for episode, place in enumerate(self._places):
            last = self._places[groups[-1][-1]] if groups else None
            if last is not None and self._file_of(last) == self._file_of(place):
                groups[-1].append(episode)
            else:
                groups.append([episode])
        return groups

    def _move(self, moved: dict[int, Place], files: list[tuple[Path, str]]) -> None:
        """Put finished files in their places, and let episodes refer to them."""
        self._require_free(moved)
        before = {self._file_of(self._places[episode]) for episode in moved}
        commit = Commit(self._root, self._remote)
        for staged, name in files:
            commit.add_file(name, staged)
        commit.publish()
        for episode, place in moved.items():
            self._places[episode] = place
        commit = Commit(self._root, self._remote)
        for path, members in self._tables.items():
            if members & moved.keys():
                table = pq.ParquetFile(table_path(path)).read()
                commit.add_table(str(path.relative_to(self._root)), self._moved_rows(table, moved))
        after = {self._file_of(place) for place in self._places}
        for name in sorted(self._name(Place(*file)) for file in before - after):
            commit.remove(self._root / name)
        commit.publish()

    def _require_free(self, moved: dict[int, Place]) -> None:
        """Raise an error if a file would replace one that others need."""
        targets = {self._file_of(place) for place in moved.values()}
        for episode, place in enumerate(self._places):
            if self._file_of(place) in targets and moved.get(episode) != place:
                raise DatasetError(
                    f"{self._name(place)} has episode {episode}, which is not where the order of "
                    "the episodes puts it; LeRobot's own tools can write this dataset anew"
                )

    def _moved_rows(self, table: pa.Table, moved: dict[int, Place]) -> pa.Table:
        episodes = table.column(keys.EPISODE_INDEX).to_pylist()
        values = {
            e: (
                p.chunk, p.file, p.begin / self._fps, (p.begin + self._lengths[e]) / self._fps
            )
            for e, p in moved.items()
        }  # fmt: skip
        for k, field in enumerate(_FIELDS):
            at = table.schema.get_field_index(keys.video_column(self._camera, field))
            kind = table.schema.field(at)
            old = table.column(at).to_pylist()
            new = [values[e][k] if e in values else v for e, v in zip(episodes, old, strict=True)]
            table = table.set_column(at, kind, pa.array(new, kind.type))
        return table.combine_chunks()

    def _remux(self, episodes: Iterable[int], target: Path) -> None:
        try:
            remux([self._clip(episode) for episode in episodes], target, self._fps)
        except RemuxError as error:
            raise DatasetError(str(error)) from error

    def _measure(self, episode: int) -> Extent:
        try:
            return self._joiner.measure(self._clip(episode))
        except RemuxError as error:
            raise DatasetError(str(error)) from error

    def _clip(self, episode: int) -> Clip:
        place = self._places[episode]
        name = self._name(place)
        path = locate(self._root, name)
        if self._remote is not None:
            path = staging_path(self._root, f"fetched_{name.replace('/', '_')}")
            if not path.exists():
                self._remote.fetch(name, path)
        return Clip(path, place.begin, self._lengths[episode])

    def _fetched(self) -> list[Path]:
        return list((self._root / UNFINISHED).glob("fetched_*"))

    def _name(self, place: Place, template: str = "") -> str:
        return fill_in(
            template or self._template,
            video_key=self._camera,
            chunk_index=place.chunk,
            file_index=place.file,
        )

    @staticmethod
    def _file_of(place: Place) -> tuple[int, int]:
        return place.chunk, place.file


def pack_videos(
    root: Path, cameras: Iterable[str], remote: RemoteTarget | None = None, processes: int = 1
) -> None:
    """Join the video files of a dataset whose `video_path` is that of packed files.

    Args:
        root: The dataset's directory, which the caller has locked.
        cameras: The features that are videos.
        remote: The object store that keeps the dataset, if it is not the directory.
        processes: Number of processes at most; few videos, or those of a store, take this one.

    Raises:
        DatasetError: The files cannot be joined; the dataset is valid.
    """
    files = [CameraFiles(root, camera, remote) for camera in cameras]
    clips = sum(len(each.loose) for each in files)
    processes = min(processes, clips // _CLIPS_PER_PROCESS)
    if remote is None and processes > 1:
        loose = [each.loose_clips() for each in files]
        room = min(shutil.disk_usage(root).free // (each.limit or 1) for each in files) - _SPARE
        processes = int(min(processes, room, sum(map(_count_files, files, loose))))
        if processes > 1:
            _pack_in_processes(root, files, loose, processes)
            return
    for each in files:
        each.pack()


def _count_files(files: CameraFiles, clips: dict[int, Clip]) -> int:
    """Return in about how many files of a camera clips will be."""
    paths = {clip.path for clip in clips.values()}
    size = sum(path.stat().st_size for path in paths if path.exists())
    return -(-size // (files.limit or 1))


def _pack_in_processes(
    root: Path, files: Sequence[CameraFiles], loose: Sequence[dict[int, Clip]], processes: int
) -> None:
    """Join the files of all cameras; processes measure and write, and this one moves.

    Only a few files are written before they can be moved, so that they need little room.

    Args:
        root: The dataset's directory.
        files: Of each camera.
        loose: Of each camera, the clips to be joined, by episode.
        processes: Number of processes.
    """
    extents: deque[Extent] = deque()
    written: deque[tuple[CameraFiles, dict[int, Place], Path]] = deque()
    numbers = count()

    def jobs() -> Iterator[Measure | Join | None]:
        for clips in loose:
            each_clip = list(clips.values())
            for k in range(0, len(each_clip), _CLIPS_PER_JOB):
                yield Measure(each_clip[k : k + _CLIPS_PER_JOB])
        while len(extents) < sum(map(len, loose)):
            yield None
        for each, clips in zip(files, loose, strict=True):
            own = [extents.popleft() for _ in clips]
            for places in each.new_places(own):
                while len(written) >= processes + _SPARE:
                    yield None
                if not each.are_at(places):
                    staged = staging_path(root, f"packed_{next(numbers)}.mp4")
                    written.append((each, places, staged))
                    yield Join([clips[episode] for episode in places], staged)

    try:
        with closing(run_all(partial(Joiner, files[0].fps), jobs(), processes)) as results:
            for job, result in results:
                if isinstance(result, Died):
                    raise DatasetError(
                        f"{job} ended its process twice ({result.cause}); if memory is short, try "
                        "again when there is more"
                    )
                if isinstance(job, Measure):
                    extents += result
                else:
                    each, places, staged = written[0]
                    each.move(places, staged)
                    written.popleft()
    except (RemuxError, WorkerError) as error:
        raise DatasetError(str(error)) from error
    finally:
        for _, _, staged in written:
            staged.unlink(missing_ok=True)


def convert(root: Path, video_files: VideoFiles, processes: int = 1) -> int:
    """Change the layout of a dataset's videos; return the number of their files.

    Args:
        root: The dataset's directory.
        video_files: The layout.
        processes: Number of processes at most that join videos.

    Raises:
        DatasetError: It is no dataset, or its files cannot be joined or cut; it is still valid.
        FileExistsError: Another run is writing into it.
    """
    dataset = Dataset(root)
    if not dataset.cameras:
        raise DatasetError(f"{root} has no videos")
    require_inside(root)
    if foreign := foreign_files(root, dataset.info):
        _LOG.warning(f"{root} has files of others, left alone: {listed(foreign)}")
    handle = lock(root)
    try:
        if dataset.info["video_path"] not in keys.VIDEO_PATHS.values():
            raise DatasetError(
                f"{root / keys.INFO_PATH}: video_path must be one of "
                f"{[*keys.VIDEO_PATHS.values()]}, got {dataset.info['video_path']!r}"
            )
        if video_files == "packed":
            _rename(dataset, keys.VIDEO_PATHS["packed"])
            pack_videos(root, dataset.cameras, processes=processes)
        elif dataset.info["video_path"] != keys.VIDEO_PATHS[video_files]:
            for camera in dataset.cameras:
                CameraFiles(root, camera).split()
            _rename(dataset, keys.VIDEO_PATHS[video_files])
        names = set().union(*(CameraFiles(root, camera).names for camera in dataset.cameras))
        if dataset.collection is not None:  # in others' datasets, what we do not know stays
            commit = Commit(root)
            for path in unreferenced_videos(root, dataset.cameras, names):
                commit.remove(path)
            commit.publish()
    finally:
        shutil.rmtree(root / UNFINISHED, ignore_errors=True)
        unlock(root, handle)
    return len(names)


def copy_video(dataset: Dataset, episode: int, camera: str, target: Path) -> None:
    """Write a video file with the images of one episode, without encoding them again.

    Raises:
        DatasetError: They cannot be cut out of their file.
    """
    path = dataset.video_path(episode, camera)
    if dataset.is_alone(episode, camera):
        shutil.copyfile(path, target)
        return
    entry = dataset.episodes[episode]
    begin = round(entry[keys.video_column(camera, "from_timestamp")] * dataset.fps)
    try:
        remux([Clip(path, begin, entry[keys.LENGTH])], target, dataset.fps)
    except RemuxError as error:
        raise DatasetError(str(error)) from error


def layout_of(info: dict[str, Any]) -> VideoFiles:
    """Return the layout of the videos of a dataset with this `info.json`."""
    is_per_episode = info.get("video_path") == keys.VIDEO_PATHS["per-episode"]
    return "per-episode" if is_per_episode else "packed"


def _rename(dataset: Dataset, template: str) -> None:
    """Give the video files other names; `info.json` decides which ones count."""
    root = dataset.root
    if dataset.info["video_path"] == template:
        return
    commit = Commit(root)
    for camera in dataset.cameras:
        for old, new in CameraFiles(root, camera).renamed(template):
            commit.add_link(new, root / old)
            commit.remove(root / old)
    commit.add_json(keys.INFO_PATH, {**dataset.info, "video_path": template})
    commit.publish()


@dataclass(frozen=True, kw_only=True)
class PackOptions(Options):
    """The options of `pp-pack`."""

    dataset: Annotated[DatasetFolder, Doc("the dataset")]
    video_files: Annotated[VideoFiles, Doc("many episodes in one file, or one each")] = "packed"


def main(argv: list[str] | None = None, processes: int = 1) -> int:
    """Run the command line, with so many processes at most; return the exit status."""
    options = parse(
        PackOptions,
        argv,
        prog="pp-pack",
        description="Join a dataset's videos in few files, or give each episode its own.",
        example="pp-pack datasets/pick_place --video-files per-episode",
    )
    safe = f"{options.dataset} still has all its episodes"
    try:
        raise_on_interrupt()
        number = convert(options.dataset, options.video_files, processes)
    except (DatasetError, OSError) as error:
        text = describe_error(error, f"{safe}; once there is room, pack it again")
        print(f"error: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return interrupted(f"{safe}; the same command goes on")
    print(f"{options.dataset} has {number} video file(s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
