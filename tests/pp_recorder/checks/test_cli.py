"""The command line: what is no dataset, exit status, JSON."""

import json
import re
import shutil

import pytest

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


def test_a_report_that_cannot_be_written(healthy, tmp_path, capsys):
    (tmp_path / "no").write_text("a file, not a folder")
    assert main([str(healthy), "--html", str(tmp_path / "no" / "page.html")]) == 2
    assert "cannot be written" in capsys.readouterr().err


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
