import json
import logging
import os
import stat
import subprocess
from pathlib import Path

import pytest

from pp_recorder.status import StatusFile


@pytest.fixture
def warned(caplog, monkeypatch):
    """Return a function for the warnings so far."""
    monkeypatch.setattr(logging.getLogger("pp_recorder"), "propagate", True)
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_missing_folder_is_a_warning(tmp_path, warned):
    file = StatusFile(tmp_path / "missing" / "status.json", output="here")
    for _ in range(3):
        file.update(state="running")
    assert len(warned()) == 1
    assert "missing/status.json cannot be kept up to date" in warned()[0]
    (tmp_path / "missing").mkdir()
    file.update(state="complete")
    content = json.loads((tmp_path / "missing/status.json").read_text())
    assert (content["state"], content["output"]) == ("complete", "here")


def test_a_device_is_not_replaced(warned):
    StatusFile(Path("/dev/full")).update(state="running")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    assert "it is no regular file" in warned()[0]


def test_a_folder_is_a_warning(tmp_path, warned):
    StatusFile(tmp_path).update(state="running")
    assert "it is no regular file" in warned()[0]


def test_a_full_disk_is_a_warning(tmp_path, warned):
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        file = StatusFile(tmp_path / "status.json")
        file.update(state="running")
        file.update(state="running", text="x" * 10_000)
        assert "No space left on device" in warned()[0]
        assert json.loads((tmp_path / "status.json").read_text())["state"] == "running"
        assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_who_needs_the_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        StatusFile(tmp_path / "missing" / "status.json").write(state="running")
