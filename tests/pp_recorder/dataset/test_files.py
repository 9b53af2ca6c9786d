import json
import logging
import os
import shutil
import time
from contextlib import closing
from fnmatch import fnmatch

import pytest

from pp_bridge.catalog import DatasetCatalog
from pp_recorder.checks import cli
from pp_recorder.dataset import hub, keys, merge, packing
from pp_recorder.dataset.files import fill_in, locate
from pp_recorder.dataset.reader import Dataset, DatasetError
from pp_recorder.dataset.writer import LeRobotWriter
from tests.pp_recorder.dataset.tiny import EYES, files, record, schema

VALUES = {"video_key": "eye", "chunk_index": 1, "file_index": 2}
HOSTILE = [
    *("../../etc/passwd", "/etc/passwd", "videos/../../{file_index}.mp4", "a/..", ".."),
    *(
        "{file_index:0999999999d}",
        "{file_index:999}",
        "{chunk_index:{file_index}}",
        "{video_key:9}",
    ),
    *("{file_index.real}", "{video_key[0]}", "{file_index!r}", "{0}", "{}", "{other}", "{file"),
    *("{chunk_index}" * 9, "{video_key}/{video_key}"),
    *("", "a\0b", "{video_key}" * 200, "x" * 300, None, 3, ["a"]),
]


def test_a_pattern_is_filled_in():
    assert fill_in(keys.VIDEO_PATHS["packed"], **VALUES) == "videos/eye/chunk-001/file-002.mp4"
    assert fill_in("{{{file_index:2d}}}/{chunk_index:03}", **VALUES) == "{ 2}/001"


@pytest.mark.parametrize("pattern", HOSTILE)
def test_a_pattern_that_leads_elsewhere_is_refused_at_once(pattern):
    begin = time.perf_counter()
    with pytest.raises(DatasetError):
        fill_in(pattern, **VALUES)
    assert time.perf_counter() - begin < 5  # a huge width used to take a minute


@pytest.mark.parametrize(
    "values",
    [
        {"video_key": "/etc"},
        {"video_key": "../.."},
        {"video_key": 3},
        {"file_index": -1},
        {"file_index": "../2"},
        {"chunk_index": None},
        {"chunk_index": 1.0},
        {"chunk_index": True},
    ],
)
def test_values_that_lead_elsewhere_are_refused(values):
    with pytest.raises(DatasetError):
        fill_in("{video_key}/{chunk_index}/{file_index}", **{**VALUES, **values})


def test_links_may_not_leave_the_dataset(tmp_path):
    root = tmp_path / "set"
    (root / "data").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "set-2").mkdir()
    (root / "inside").symlink_to(root / "data")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "sibling").symlink_to(tmp_path / "set-2")
    (root / "chain").symlink_to("out")
    (root / "circle").symlink_to("circle")
    (root / "dangling").symlink_to("/nowhere")
    (tmp_path / "link").symlink_to(root)
    for name in ("data", "inside/x", "missing/y", "circle"):
        assert locate(root, name) == root / name
        assert locate(tmp_path / "link", name) == tmp_path / "link" / name
    for name in ("out", "chain", "sibling/x", "dangling", "../secret", "data/../../secret", "/etc"):
        with pytest.raises(DatasetError, match="leads outside the dataset"):
            locate(root, name)


def test_a_snapshot_in_the_hubs_cache_is_a_dataset(tmp_path, capsys):
    """Its files are links to a folder beside it."""
    real = record(tmp_path / "real", 2)
    root, blobs = tmp_path / "datasets--me--x/snapshots/abc", tmp_path / "datasets--me--x/blobs"
    blobs.mkdir(parents=True)
    for k, name in enumerate(files(real)):
        os.rename(real / name, blobs / str(k))
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(blobs / str(k))
    assert Dataset(root).num_episodes == 2
    cli.main([str(root)])
    assert "outside" not in capsys.readouterr().out
    assert merge.merge([root], tmp_path / "merged") == 2


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return record(tmp_path_factory.mktemp("sets") / "recorded", 2)


@pytest.fixture
def stranger(recorded, tmp_path):
    """Return a dataset beside a file that is nobody's business."""
    root = shutil.copytree(recorded, tmp_path / "set")
    shutil.copy(next(root.rglob("*.mp4")), tmp_path / "private.mp4")
    shutil.copy(root / "data/chunk-000/file-000.parquet", tmp_path / "private.parquet")
    (tmp_path / "private.json").write_text('{"secret": 1}')
    return root


def edit_info(root, **changes):
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps({**info, **changes}))


def link(root, name, target):
    (root / name).unlink()
    (root / name).symlink_to(root.parent / target)


def link_folder(root, name):
    shutil.move(root / name, root.parent / "elsewhere")
    (root / name).symlink_to(root.parent / "elsewhere")


ATTACKS = {
    "video_path": lambda r: edit_info(r, video_path="../private.mp4"),
    "a camera's name": lambda r: edit_info(r, video_path="{video_key}/../../private.mp4"),
    "width": lambda r: edit_info(r, video_path="{file_index:0999999999d}.mp4"),
    "attribute": lambda r: edit_info(r, video_path="{video_key.__class__}{file_index}.mp4"),
    "a linked video": lambda r: link(r, f"videos/{EYES[0]}/chunk-000/file-000.mp4", "private.mp4"),
    "linked data": lambda r: link(r, "data/chunk-000/file-000.parquet", "private.parquet"),
    "a linked info": lambda r: link(r, "meta/info.json", "private.json"),
    "linked statistics": lambda r: link(r, "meta/stats.json", "private.json"),
    "linked tasks": lambda r: link(r, "meta/tasks.parquet", "private.parquet"),
    "linked folders": lambda r: link_folder(r, "videos"),
    "a linked folder": lambda r: link_folder(r, "meta/episodes/chunk-000"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_command_leaves_a_strangers_dataset(stranger, tmp_path, monkeypatch, capsys, attack):
    ATTACKS[attack](stranger)
    monkeypatch.setattr(hub, "_make_api", lambda: pytest.fail("uploaded"))
    before = files(tmp_path)
    assert cli.main([str(stranger)]) in (1, 2)
    with pytest.raises(DatasetError):
        LeRobotWriter(stranger, schema(), resume=True)
    if attack != "linked statistics":  # they are computed anew
        assert merge.main([str(stranger), "--output", str(tmp_path / "merged")]) == 2
    if "linked" in attack:
        assert hub.main([str(stranger), "me/set"]) == 2
    if "video" in attack:
        with closing(DatasetCatalog(tmp_path)) as catalog, pytest.raises(DatasetError):
            catalog.video("set", 0, "left")
    assert packing.main([str(stranger), "--video-files", "per-episode"]) == 2
    printed = capsys.readouterr()
    assert "secret" not in printed.out + printed.err
    assert files(tmp_path) == before


def test_nothing_is_written_through_a_link(stranger, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (stranger / ".unfinished").symlink_to(tmp_path / "elsewhere")
    with pytest.raises((DatasetError, OSError)):
        record(stranger, 3)
    assert list((tmp_path / "elsewhere").iterdir()) == []


FOREIGN = [
    *("data/chunk-000/.DS_Store", "data/chunk-000/zz.parquet", "data/old/file-000.parquet"),
    *("data/notes.txt", "meta/.DS_Store", "meta/notes.json", "meta/episodes/chunk-000/z.parquet"),
    *(f"videos/{EYES[0]}/chunk-000/copy.mp4", f"videos/{EYES[0]}/chunk-old/file-000.mp4"),
    *("videos/backup/chunk-000/file-000.mp4", "videos/.DS_Store", f"videos/{EYES[1]}/\udcff.mp4"),
]


@pytest.fixture
def cluttered(recorded, tmp_path):
    """Return a dataset into which somebody has put files."""
    root = shutil.copytree(recorded, tmp_path / "set")
    for name in FOREIGN:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"mine")
    (root / "data/chunk-000/file-007.parquet").mkdir()
    return root


def test_files_of_others_are_left_alone_and_named(cluttered, tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setattr(logging.getLogger("pp_recorder"), "propagate", True)
    expected = files(record(tmp_path / "undisturbed", 3))
    cli.main([str(cluttered), "--json", str(tmp_path / "report.json")])
    checks = json.loads((tmp_path / "report.json").read_text())["checks"]
    (found,) = [check["findings"] for check in checks if check["name"] == "leftovers"]
    assert len(found) == len(FOREIGN)
    for name in FOREIGN:
        assert any(name.replace("\udcff", "\\xff") in finding["message"] for finding in found)
    record(cluttered, 3)
    assert "has files of others, left alone: data/chunk-000/.DS_Store, " in caplog.text
    packing.convert(cluttered, "per-episode")
    packing.convert(cluttered, "packed")
    assert files(cluttered) == {**expected, **dict.fromkeys(FOREIGN, b"mine")}
    merge.merge([cluttered], tmp_path / "merged")
    assert "left out: data/chunk-000/.DS_Store" in caplog.text
    assert files(tmp_path / "merged").keys() == expected.keys()
    assert "Traceback" not in capsys.readouterr().err


def test_files_of_others_are_not_uploaded(cluttered, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("pp_recorder"), "propagate", True)
    ignored = hub._ignored(Dataset(cluttered))
    left_out = [name for name in FOREIGN if any(fnmatch(name, pattern) for pattern in ignored)]
    assert set(FOREIGN) - set(left_out) == {"meta/notes.json"}
    assert "not uploaded, as no part of the dataset: data/chunk-000/.DS_Store" in caplog.text
    assert not any(fnmatch("data/chunk-000/file-000.parquet", pattern) for pattern in ignored)


def test_a_table_that_lerobot_would_read_first_is_an_error(recorded, tmp_path, capsys):
    root = shutil.copytree(recorded, tmp_path / "set")
    table = root / "data/chunk-000/file-000.parquet"
    shutil.copy(table, table.with_name("backup.parquet"))
    assert cli.main([str(root)]) == 1
    assert "backup.parquet is not part of the dataset and is left alone; LeRobot reads every" in (
        capsys.readouterr().out
    )
