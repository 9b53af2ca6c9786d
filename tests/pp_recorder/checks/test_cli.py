"""The command line: what is no dataset, exit status, JSON."""

import errno
import json
import re
import shutil

import pytest

from pp_recorder.checks import cli
from pp_recorder.checks.cli import main
from tests.pp_recorder.checks.defects import DEFECTS, cut_file, edit_info, remove


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (shutil.rmtree, "is not a directory"),
        (remove("meta/info.json"), "is no LeRobot dataset: it has no meta/info.json"),
        (cut_file("meta/info.json", 0.5), "info.json is not JSON"),
        (lambda root: (root / "meta/info.json").write_text("[]"), "info.json"),
        (lambda root: (root / "meta/info.json").write_bytes(b"\xff\xfe"), "info.json"),
        (edit_info(codebase_version="v2.1"), "has format v2.1, expected v3.0; convert it with"),
        (edit_info(codebase_version="v4.0"), "has format v4.0, expected v3.0; a newer release"),
        (edit_info(features=[]), "info.json declares no features"),
    ],
)
def test_what_is_no_dataset_is_refused(dataset, capsys, plant, message):
    plant(dataset)
    assert main([str(dataset), "--json", "-"]) == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert message in printed.err
    report = json.loads(printed.out)
    assert report["exit_status"] == 2
    assert message in report["checks"][0]["findings"][0]["message"]


def test_usage(capsys):
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    assert "DATASET" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--html", "--json"])
def test_a_report_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys, option):
    (tmp_path / "no").write_text("a file, not a folder")
    for path, reason in (("no/page", "no: File exists"), (".", "which is a folder")):
        with pytest.raises(SystemExit) as stopped:
            main([str(tmp_path / "nothing"), option, str(tmp_path / path)])
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert f"{option} must be a file that can be written, got {tmp_path}" in error
        assert reason.rpartition(": ")[2] in error


def test_a_dataset_nearby_is_named(healthy, tmp_path, monkeypatch, capsys):
    shutil.copytree(healthy, tmp_path / "sets" / "demo")
    monkeypatch.chdir(tmp_path)
    for wrong in ("sets/dmeo", "sets", "sets/demo/meta", "sets/demo/meta/info.json"):
        assert main([wrong]) == 2
        assert capsys.readouterr().err.endswith("; try sets/demo\n")
    assert main(["elsewhere"]) == 2
    assert capsys.readouterr().err == "error: elsewhere is not a directory\n"


def test_a_folder_that_may_not_be_read_is_no_traceback(healthy, monkeypatch, capsys):
    def refuse(root):
        raise PermissionError(errno.EACCES, "Permission denied", str(root / "meta"))

    monkeypatch.setattr(cli, "inspect_dataset", refuse)
    assert main([str(healthy)]) == 2
    assert capsys.readouterr().err == f"error: {healthy}/meta: Permission denied\n"


def test_ctrl_c_is_answered_in_a_sentence(healthy, monkeypatch, capsys):
    def interrupt(root):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "inspect_dataset", interrupt)
    assert main([str(healthy)]) == 130
    assert capsys.readouterr().err == f"interrupted: {healthy} was only read\n"


@pytest.mark.parametrize(("name", "status"), [("NaN", 1), ("unfinished", 0)])
def test_exit_status(dataset, capsys, name, status):
    DEFECTS[name][0](dataset)
    assert main([str(dataset)]) == status
    assert re.search(DEFECTS[name][3], capsys.readouterr().out)


def test_json(dataset, tmp_path):
    DEFECTS["timestamp off"][0](dataset)
    assert main([str(dataset), "--json", str(tmp_path / "report.json")]) == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["exit_status"] == 1
    assert report["total_episodes"] == 2
    check = next(c for c in report["checks"] if c["name"] == "timestamps")
    assert check["status"] == "FAIL"
    assert check["findings"][0]["episode"] == 1
    assert check["findings"][0]["frame"] == 10
