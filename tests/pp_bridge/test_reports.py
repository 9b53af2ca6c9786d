"""Reports: made once, given up in time, and away from the working folder."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from pp_bridge import reports
from pp_bridge.reports import Reports
from pp_recorder.dataset.reader import DatasetError
from tests.hostile import make_sound

# In place of pp-inspect: adds a line to the file "runs" of the dataset, and then ...
_STUB = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
with open(folder / "runs", "a") as runs: runs.write("begun\\n")
"""
_ANSWER = _STUB + 'time.sleep(0.2); print(\'{{"verdict": "SOUND", "fps": Infinity}}\')'
_NO_END = _STUB + "time.sleep(600)"


@pytest.fixture
def program(monkeypatch):
    return lambda text: monkeypatch.setattr(reports, "_PROGRAM", text)


def runs(root: Path) -> int:
    path = root / "runs"
    return len(path.read_text().splitlines()) if path.exists() else 0


async def until_begun(root: Path) -> None:
    while not runs(root):
        await asyncio.sleep(0.01)


def processes() -> set[str]:
    """Return the children of this process that are not zombies."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = path.parent.name, path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(rest[1]) == os.getpid() and rest[0] != "Z":
            found.add(pid)
    return found


def test_a_report_is_made_once_for_all_who_ask(tmp_path, program):
    async def ask():
        made = Reports(str)
        found = await asyncio.gather(*(made.get(tmp_path, "1") for _ in range(44)))
        assert all(report == found[0] for report in found)
        report = {"verdict": "SOUND", "fps": None, "dataset": tmp_path.name}
        assert json.loads(found[0]) == report
        await made.get(tmp_path, "1")
        assert runs(tmp_path) == 1, "it was kept"
        await made.get(tmp_path, "2")
        assert runs(tmp_path) == 2, "the dataset has changed"

    program(_ANSWER)
    asyncio.run(ask())


def test_a_report_that_takes_too_long_is_ended(tmp_path, program):
    async def ask():
        with pytest.raises(DatasetError, match="was not inspected within 0 s; run pp-inspect"):
            await Reports(str, time_limit=0.3).get(tmp_path, "1")

    program(_NO_END)
    before = processes()
    asyncio.run(ask())
    assert processes() <= before


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_report_that_nobody_waits_for_is_given_up(tmp_path, program, monkeypatch, comes_back):
    async def ask():
        made = Reports(str)
        clients = [asyncio.ensure_future(made.get(tmp_path, "1")) for _ in range(44)]
        await until_begun(tmp_path)
        for client in clients:
            client.cancel()
        if comes_back:
            back = asyncio.ensure_future(made.get(tmp_path, "1"))
            await asyncio.sleep(0.5)
            assert not back.done()
            assert processes() > before, "it goes on for who came back"
            back.cancel()
        while made._jobs:
            await asyncio.sleep(0.01)

    program(_NO_END)
    monkeypatch.setattr(reports, "_GRACE", 0.2)
    before = processes()
    asyncio.run(ask())
    assert processes() <= before
    assert runs(tmp_path) == 1


def test_reports_end_with_the_service(tmp_path, program):
    async def ask():
        made = Reports(str)
        client = asyncio.ensure_future(made.get(tmp_path, "1"))
        await until_begun(tmp_path)
        await made.close()
        with pytest.raises(asyncio.CancelledError):
            await client

    program(_NO_END)
    before = processes()
    asyncio.run(ask())
    assert processes() <= before


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("sys.exit('error: it is broken')", "set can't be inspected: error: it is broken"),
        ("print('no JSON')", "set can't be inspected: it gave no report"),
        ("import os; os.kill(os.getpid(), 9)", "set can't be inspected: it gave no report"),
    ],
)
def test_a_report_that_fails_says_why(tmp_path, program, ending, message):
    program(_STUB + ending)
    root = tmp_path / "set"
    root.mkdir()
    with pytest.raises(DatasetError, match=message):
        asyncio.run(Reports(str).get(root, "1"))


@pytest.mark.parametrize("work", ["b = bytearray(64 * 2**30)", "print('x' * 64 * 2**20)"])
def test_a_report_takes_no_more_than_its_share(tmp_path, program, work):
    program(reports._PROGRAM.replace("from pp_recorder.checks.cli import main", work))
    with pytest.raises(DatasetError, match="can't be inspected"):
        asyncio.run(Reports(str).get(tmp_path, "1"))


@pytest.mark.parametrize("in_path", [False, True])
def test_a_report_imports_nothing_from_the_working_folder(tmp_path, monkeypatch, in_path):
    make_sound(tmp_path / "set")
    for name in ("json", "av", "resource", "pp_recorder", "numpy", "multiprocessing"):
        (tmp_path / f"{name}.py").write_text("open('imported', 'w'); raise SystemExit('caught')")
    monkeypatch.chdir(tmp_path)
    if in_path:  # as python -m has it
        monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])
    report = json.loads(asyncio.run(Reports(str).get(tmp_path / "set", "1")))
    assert report["dataset"] == "set"
    assert report["total_episodes"] == 2
    assert not (tmp_path / "imported").exists()
