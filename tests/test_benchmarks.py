"""The benchmarks measure what they say, and their report goes where it belongs."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import benchmarks
from benchmarks import expert_success, peers, report
from benchmarks.expert_success import Setting

ROOT = Path(__file__).parent.parent


@pytest.fixture
def results(tmp_path, monkeypatch):
    """An empty folder for results."""
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def success(setting, failures=()):
    return {
        **asdict(setting), "episodes": 10, "successes": 10 - len(failures),
        "distance_median_mm": 0.5, "distance_p99_mm": 2.0,
        "failures": [{"failure": failure} for failure in failures],
    }  # fmt: skip


def test_every_section_has_its_place():
    for name, section in report.SECTIONS.items():
        text = (ROOT / "docs" / section.page).read_text()
        assert f"<!-- results: {name} -->" in text


def test_a_section_is_rewritten_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_DOCS", tmp_path)
    page = tmp_path / "objects.md"
    page.write_text("before\n<!-- results: objects -->\nold\n<!-- end -->\nafter\n")
    for text in ("new", "newer"):
        report.write("objects", text)
        assert page.read_text() == (
            f"before\n<!-- results: objects -->\n{text}\n<!-- end -->\nafter\n"
        )
    page.write_text("nothing\n")
    with pytest.raises(ValueError, match="needs '<!-- results: objects -->'"):
        report.write("objects", "text")


def test_what_was_not_measured_has_no_text(results):
    assert [report.text_of(name) for name in report.SECTIONS] == [None] * len(report.SECTIONS)
    assert report.charts() == {}


def test_a_setting_takes_the_place_of_its_earlier_result(results):
    first, second = Setting(), Setting(grasp="friction")
    for setting in (first, second, first):
        expert_success.keep(success(setting))
    found = json.loads((results / "success.json").read_text())["settings"]
    assert [entry["grasp"] for entry in found] == ["friction", "fixed_joint"]


def test_successes_and_how_the_others_failed(results):
    expert_success.keep(success(Setting(randomize="light")))
    expert_success.keep(success(Setting(randomize="full"), ["still_held in LIFT"] * 2))
    text = report.text_of("randomization")
    assert "| `fixed_joint` | 10 of 10; 0.50 / 2.0 | 8 of 10; 0.50 / 2.0 |" in text
    assert "- 2 x `fixed_joint`, `full`: still_held in LIFT" in text


def test_many_environments_beside_fetch(results):
    speeds = [{"wall": 0.0005, "cpu": 0.00025}, {"wall": 0.0001, "cpu": 0.0002}]
    benchmarks.save("vector", {
        "num_envs": [1, 16], "period_s": 1 / 30, "native": speeds, "sync": speeds[::-1],
        "single": speeds[0], "make_cpu_s": 1.25, "fetch": {"sim_s_per_cpu_s": 50.0},
    })  # fmt: skip
    text = report.text_of("vector")
    assert "| native, per CPU s | 4,000 | 5,000 |" in text
    assert "| native, simulated s per CPU s | 133 | 167 |" in text
    assert "| beside one Fetch, times | 2.7 | 3.3 |" in text


def test_a_grid_is_tried_point_by_point():
    options = Setting(grid="2x1").options(seeds=0)
    assert [option["pick"] for option in options] == [(0.3, -0.3), (0.7, -0.3)]
    outcomes = expert_success.run(Setting(grid="2x1"), seeds=0, processes=1)
    assert outcomes["successes"] == outcomes["episodes"] == 2


def test_peer_measures_ours():
    command = [sys.executable, "-m", "benchmarks.peer", "ours", "state", "--seconds", "0.05"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert figures["period_s"] == pytest.approx(1 / 30)
    assert figures["sim_s_per_cpu_s"] > 1
    assert figures["peak_memory_mb"] > 30


def test_a_rival_that_fails_is_listed_with_its_error(tmp_path, monkeypatch, results):
    monkeypatch.setattr(peers, "_VENVS", tmp_path)
    monkeypatch.setitem(peers.PEERS, "nobody", peers.Peer("Nobody", ("nobody",)))
    python = tmp_path / "nobody" / "bin" / "python"
    python.parent.mkdir(parents=True)
    (tmp_path / "nobody" / ".ready").write_text("nobody")
    python.write_text("#!/bin/sh\necho no such robot >&2\nexit 3\n")
    python.chmod(0o755)
    benchmarks.save("peers", {"environments": peers.environments(["nobody"], 1, 0.05)})
    assert "- Nobody, state: not measured, exit status 3: no such robot" in report.text_of("peers")


def test_the_plot_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    report.draw({"images per second": {"ours": 60.0, "theirs": 30.0}}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
