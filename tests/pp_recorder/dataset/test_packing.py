import json
import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pp_recorder.checks import DatasetView, run_checks
from pp_recorder.dataset import keys, packing
from pp_recorder.dataset.commit import lock
from pp_recorder.dataset.merge import merge
from pp_recorder.dataset.reader import Dataset, DatasetError, decode
from pp_recorder.dataset.writer import LeRobotWriter
from tests.pp_recorder.checks.foreign import write_foreign_dataset
from tests.pp_recorder.dataset.tiny import EYES, files, record, schema


def videos(root):
    return sorted(str(p.relative_to(root / "videos")) for p in root.rglob("*.mp4"))


def images(root):
    dataset = Dataset(root)
    return [
        [np.stack(list(dataset.frames(k, eye))) for eye in dataset.cameras]
        for k in range(dataset.num_episodes)
    ]


def same_images(one, other):
    return len(one) == len(other) and all(
        a.shape == b.shape and (a == b).all()
        for eyes in zip(one, other, strict=True)
        for a, b in zip(*eyes, strict=True)
    )


def require_sound(root):
    findings = [f for result in run_checks(DatasetView(root)) for f in result.findings]
    texts = [finding.message for finding in findings]
    assert not [t for t in texts if "video" in t or "timestamp" in t or "mp4" in t], texts


def test_a_complete_dataset_has_few_files(tmp_path):
    root = record(tmp_path / "set", 7)
    assert videos(root) == [f"{eye}/chunk-000/file-000.mp4" for eye in EYES]
    require_sound(root)


def test_files_are_filled_up_to_their_size_in_order(whole, tmp_path):
    for eye in EYES:
        places = [(e[f"videos/{eye}/file_index"], e) for e in Dataset(whole).episodes]
        names = [name for name, _ in places]
        assert names == sorted(names)
        assert set(names) == set(range(max(names) + 1))
        for (a, before), (b, entry) in pairwise(places):
            begin = entry[f"videos/{eye}/from_timestamp"]
            assert begin == (before[f"videos/{eye}/to_timestamp"] if a == b else 0.0)
    assert len(videos(whole)) < 2 * 7
    assert len({name.count("left") for name in videos(whole)}) == 2
    sizes = [path.stat().st_size for path in whole.rglob("*.mp4")]
    assert 5_000 < max(sizes) < 10_000
    require_sound(whole)


def test_packing_changes_no_image(whole, loose):
    assert len(videos(loose)) == 2 * 7
    assert same_images(images(whole), images(loose))


@pytest.mark.parametrize(
    ("codec", "stops"),
    [("h264", [3]), ("h264", [1, 2, 3, 4, 5, 6]), ("av1", [1, 2, 6])],
)
def test_going_on_after_packed_files_equals_never_having_stopped(
    tmp_path, small, recorded, codec, stops
):
    whole = recorded(tmp_path / "whole", codec=codec)
    for stop in (*stops, 7):
        record(tmp_path / "part", stop, codec=codec)
    assert files(tmp_path / "part") == files(whole)


def test_a_stopped_collection_is_packed_when_it_is_complete(whole, tmp_path):
    record(tmp_path / "part", 2, finalize=False)
    record(tmp_path / "part", 5)
    record(tmp_path / "part", 6, finalize=False)
    assert files(record(tmp_path / "part", 7)) == files(whole)


def test_a_packed_dataset_is_left_as_it_is(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.mp4")}
    content = files(whole)
    record(whole, 7)
    assert packing.main([str(whole)]) == 0
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*.mp4")} == before
    assert files(whole) == content


def test_chunks_of_many_episodes(tmp_path, small, monkeypatch):
    monkeypatch.setattr(keys, "CHUNK_SIZE", 2)
    whole = record(tmp_path / "whole", 7)
    record(tmp_path / "part", 3)
    assert files(record(tmp_path / "part", 7)) == files(whole)
    assert any("chunk-001" in name for name in videos(whole))
    loose = record(tmp_path / "loose", 7, finalize=False)
    assert same_images(images(whole), images(loose))
    require_sound(whole)


def as_by_an_older_version(root):
    """Give every video its second name, as versions before packing did."""
    for k in range(Dataset(root).num_episodes):
        for eye in EYES:
            folder = root / "videos" / eye / "chunk-000"
            os.link(folder / f"file-{k:03d}.mp4", folder / f"episode_{k:05d}.mp4")
    return root


def test_a_dataset_of_an_older_version_goes_on(whole, tmp_path):
    old = as_by_an_older_version(record(tmp_path / "old", 4, finalize=False))
    require_sound(old)
    assert files(record(old, 7)) == files(whole)


@pytest.mark.parametrize("layout", ["packed", "per-episode"])
def test_a_dataset_of_an_older_version_is_converted(small, loose, recorded, tmp_path, layout):
    old = as_by_an_older_version(loose)
    assert packing.main([str(old), "--video-files", layout]) == 0
    assert files(old) == files(recorded(tmp_path / layout, video_files=layout))


def test_one_file_per_episode(tmp_path, recorded, whole):
    root = record(tmp_path / "set", 3, video_files="per-episode")
    record(root, 7, video_files="per-episode")
    names = [f"{eye}/chunk-000/episode_{k:05d}.mp4" for eye in EYES for k in range(7)]
    assert videos(root) == names
    assert same_images(images(root), images(whole))
    require_sound(root)
    assert files(root) == files(recorded(tmp_path / "at once", video_files="per-episode"))


def test_conversion_there_and_back(whole, recorded, tmp_path, capsys):
    content = files(whole)
    apart = recorded(tmp_path / "apart", video_files="per-episode")
    assert packing.main([str(whole), "--video-files", "per-episode"]) == 0
    assert "has 14 video file(s)" in capsys.readouterr().out
    assert files(whole) == files(apart)
    assert packing.main([str(whole)]) == 0
    assert files(whole) == content


def test_another_layout_is_not_continued(whole, tmp_path):
    content = files(whole)
    with pytest.raises(DatasetError, match=r"packed video files, not per-episode.*pp-pack"):
        record(whole, 7, video_files="per-episode")
    assert files(whole) == content
    packing.convert(whole, "per-episode")
    with pytest.raises(DatasetError, match="Go on with --video-files per-episode"):
        record(whole, 7)


@pytest.mark.parametrize("layout", ["packed", "per-episode"])
def test_a_broken_info_does_not_hide_the_layout(whole, layout):
    packing.convert(whole, layout)
    content = files(whole)
    (whole / "meta/info.json").write_text('{"fps": ')
    other = {"packed": "per-episode", "per-episode": "packed"}[layout]
    with pytest.raises(DatasetError, match=f"{layout} video files, not {other}"):
        record(whole, 7, video_files=other)
    assert files(record(whole, 7, video_files=layout)) == content


class Killed(BaseException):
    pass


def kill_at(patch, moment):
    """Let the process die before the n-th change of a name."""
    done = []
    for name in ("replace", "unlink"):
        real = getattr(os, name)

        def dying(*args, real=real, **more):
            if len(done) == moment:
                raise Killed
            done.append(args)
            return real(*args, **more)

        patch.setattr(os, name, dying)

    def unlink(path, missing_ok=False):
        if path.exists() or not missing_ok:
            os.unlink(path)

    patch.setattr(Path, "unlink", unlink)


def moments(action, tmp_path, monkeypatch, every=1):
    """Yield a copy of what `action` leaves if it is killed at one moment after the other."""
    for moment in range(0, 1000, every):
        root = tmp_path / f"killed-{moment}"
        with monkeypatch.context() as patch:
            kill_at(patch, moment)
            try:
                action(root)
                return
            except Killed:
                pass
        (root / ".lock").unlink(missing_ok=True)
        yield moment, root


def test_killed_at_any_moment_of_packing(whole, loose, tmp_path, monkeypatch):
    expected, content = images(loose), files(whole)

    def pack(root):
        shutil.copytree(loose, root)
        packing.pack_videos(root, EYES)

    for moment, root in moments(pack, tmp_path, monkeypatch, every=3):
        assert same_images(images(root), expected), moment
        record(root, 7) if moment % 2 else packing.convert(root, "packed")
        assert files(root) == content, moment
    assert moment > 10


@pytest.mark.parametrize("layout", ["packed", "per-episode"])
def test_killed_at_any_moment_of_a_conversion(whole, tmp_path, monkeypatch, layout):
    wanted = shutil.copytree(whole, tmp_path / "wanted")
    source = shutil.copytree(whole, tmp_path / "source")
    packing.convert(wanted if layout == "per-episode" else source, "per-episode")
    expected, content = images(whole), files(wanted)

    def convert(root):
        shutil.copytree(source, root)
        packing.convert(root, layout)

    for moment, root in moments(convert, tmp_path, monkeypatch, every=9):
        assert same_images(images(root), expected), moment
        packing.convert(root, layout)
        assert files(root) == content, moment
    assert moment > 20


def test_a_collection_goes_on_after_a_conversion_that_was_killed(whole, tmp_path, monkeypatch):
    part = record(tmp_path / "part", 5)

    def convert(root):
        shutil.copytree(part, root)
        packing.convert(root, "per-episode")

    for moment, root in moments(convert, tmp_path, monkeypatch, every=15):
        layout = packing.layout_of(Dataset(root).info)
        record(root, 7, video_files=layout)
        packing.convert(root, "packed")
        assert files(root) == files(whole), moment


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"no video")])
def test_damage_to_a_packed_file_is_cut_back(whole, damage):
    content = files(whole)
    entries = Dataset(whole).episodes
    damage(whole / f"videos/{EYES[0]}/chunk-000/file-001.mp4")
    kept = sum(entry[f"videos/{EYES[0]}/file_index"] == 0 for entry in entries)
    writer = LeRobotWriter(whole, schema(), resume=True)
    assert (writer.num_episodes, len(writer.dropped)) == (kept, 1)
    writer.release()
    assert files(record(whole, 7)) == content


def test_a_packed_file_that_was_cut_short_keeps_what_is_whole(whole):
    content = files(whole)
    path = whole / f"videos/{EYES[1]}/chunk-000/file-000.mp4"
    os.truncate(path, path.stat().st_size * 2 // 3)
    writer = LeRobotWriter(whole, schema(), resume=True)
    assert 0 < writer.num_episodes < 7
    writer.release()
    assert files(record(whole, 7)) == content


def test_parts_that_are_packed_are_merged(whole, tmp_path):
    parts = [record(tmp_path / "a", 3), record(tmp_path / "b", 7, first=3)]
    assert merge(parts, tmp_path / "merged") == 7
    assert same_images(images(tmp_path / "merged"), images(whole))
    assert (
        files(tmp_path / "merged").items()
        >= {
            name: content for name, content in files(whole).items() if name.endswith(".mp4")
        }.items()
    )


def test_an_episode_is_cut_out(whole, tmp_path):
    dataset = Dataset(whole)
    for k in range(7):
        packing.copy_video(dataset, k, EYES[1], tmp_path / "one.mp4")
        found = np.stack([f.to_ndarray(format="rgb24") for _, f in decode(tmp_path / "one.mp4")])
        np.testing.assert_array_equal(found, images(whole)[k][1])


def test_videos_of_other_encoders_do_not_share_a_file(tmp_path):
    """Decoders take the settings of the first for all."""
    parts = [record(tmp_path / codec, 2, codec=codec) for codec in ("h264", "av1")]
    for name in videos(parts[1]):  # as if it had the codec of the first
        assert (parts[0] / "videos" / name).exists()
    collection = json.loads((parts[0] / "meta/collection.json").read_text())
    (parts[1] / "meta/collection.json").write_text(json.dumps(collection))
    info = json.loads((parts[1] / "meta/info.json").read_text())
    info["features"] = Dataset(parts[0]).features
    (parts[1] / "meta/info.json").write_text(json.dumps(info))
    merge(parts, tmp_path / "merged")
    assert len(videos(tmp_path / "merged")) == 2 * 2
    assert same_images(images(tmp_path / "merged"), images(parts[0]) + images(parts[1]))


def test_one_run_at_a_time(whole, capsys):
    handle = lock(whole)
    assert packing.main([str(whole), "--video-files", "per-episode"]) == 2
    assert "another run is writing into" in capsys.readouterr().err
    os.close(handle)


def test_ctrl_c_is_answered_in_a_sentence(whole, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(packing.CameraFiles, "split", interrupt)
    assert packing.main([str(whole), "--video-files", "per-episode"]) == 130
    safe = f"{whole} still has all its episodes; the same command goes on"
    assert capsys.readouterr().err == f"interrupted: {safe}\n"
    monkeypatch.undo()
    assert packing.main([str(whole), "--video-files", "per-episode"]) == 0


def test_what_cannot_be_packed_is_refused(whole, tmp_path, capsys):
    assert packing.main([str(tmp_path / "nothing")]) == 2
    assert "is not a directory" in capsys.readouterr().err
    info = json.loads((whole / "meta/info.json").read_text())
    info["video_path"] = "{video_key}-{chunk_index}-{file_index}.mp4"
    (whole / "meta/info.json").write_text(json.dumps(info))
    content = files(whole)
    assert packing.main([str(whole)]) == 2
    assert "meta/info.json: video_path must be one of" in capsys.readouterr().err
    assert files(whole) == content


def test_the_order_of_another_program_is_left_alone(small, loose, capsys):
    """A file that would be replaced, although an episode behind needs it."""
    folder = loose / f"videos/{EYES[0]}/chunk-000"
    os.rename(folder / "file-000.mp4", folder / "x")
    os.rename(folder / "file-006.mp4", folder / "file-000.mp4")
    os.rename(folder / "x", folder / "file-006.mp4")
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = loose / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.ParquetFile(path).read()
    name = f"videos/{EYES[0]}/file_index"
    column = pa.array([6, 1, 2, 3, 4, 5, 0])
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, column), path)
    expected, content = images(loose), files(loose)
    assert packing.main([str(loose)]) == 2
    assert "has episode 6, which is not where the order" in capsys.readouterr().err
    assert same_images(images(loose), expected)
    assert files(loose) == content


def test_what_cannot_be_cut_without_encoding_is_refused(tmp_path, capsys):
    write_foreign_dataset(tmp_path)
    content = files(tmp_path)
    assert packing.convert(tmp_path, "packed") == 1
    assert packing.main([str(tmp_path), "--video-files", "per-episode"]) == 2
    assert "file-000.mp4 must have a key frame at 2.2500 s" in capsys.readouterr().err
    assert files(tmp_path) == content
