"""Tests of the benchmarks and of their report."""

import json
import re
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest

import benchmarks
from benchmarks import baselines, expert_success, policies, presets, report, trials
from benchmarks.expert_success import Setting
from benchmarks.prepared import prepared
from tests import ROOT

TRIALS = benchmarks.load("trials")


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Return an empty folder for results."""
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
        expert_success.save_result(success(setting))
    found = json.loads((results / "success.json").read_text())["settings"]
    assert [entry["grasp"] for entry in found] == ["friction", "fixed_joint"]


def test_successes_and_how_the_others_failed(results):
    expert_success.save_result(success(Setting(randomize="light")))
    expert_success.save_result(success(Setting(randomize="full"), ["still_held in LIFT"] * 2))
    text = report.text_of("randomization")
    assert "| `fixed_joint` | 10 of 10; 0.50 / 2.0 | 8 of 10; 0.50 / 2.0 |" in text
    assert "- 2 x `fixed_joint`, `full`: still_held in LIFT" in text


def trial(name, **values):
    """Return a row of trials, with values in place of its usual ones."""
    row = dict.fromkeys(TRIALS[0], None)
    row |= {
        "trial": name, "dataset": "collect.py", "episodes": 1000, "policy": "act",
        "cameras": ["cam_front"], "start": "", "samples": 768_000, "minutes": 3.6,
        "card": "NVIDIA H200", "starts": 200, "successes": 150, "release": "unreleased", "note": "",
    }  # fmt: skip
    return row | values


def test_a_finished_trial_has_the_published_rows_keys(tmp_path):
    run = policies.Run(tmp_path, ["act"], 0.0, 200, 1, at_once=2)
    record = dict.fromkeys(("episodes", "frames", "samples", "card"), 1) | {"seconds": 90.0}
    run.checkpoint("act").mkdir(parents=True)
    (run.checkpoint("act") / "train_in_memory.json").write_text(json.dumps(record))
    scores = {"episodes": 200, "successes": 190, "failures_by_stage": {"grasp": 10}}
    row = run.row("act", 36, {"scores": scores})
    assert (row["minutes"], row["release"]) == (1.5, "unreleased")
    assert all(row.keys() == published.keys() for published in TRIALS)


def test_published_trials_fit_together():
    names = {row["trial"] for row in TRIALS} | policies.TRIALS.keys()
    for row in TRIALS:
        assert row["start"] in names | {""}
        assert (row["successes"] is None) == (row["starts"] is None)
        failures = row["failures_by_stage"] or {}
        assert failures.keys() <= set(trials.STAGES)
        assert (row["successes"] or 0) + sum(failures.values()) <= (row["starts"] or 0)
        # Only the rows of benchmarks.policies have a number of frames.
        assert row["frames"] is None or row["trial"] in policies.TRIALS


def test_the_page_has_all_trials():
    assert report.text_of("trials") in (ROOT / "docs" / "training.md").read_text()


def test_what_the_readme_says_of_trainings_is_among_the_trials():
    published = {f"{row['successes']} of {row['starts']}" for row in TRIALS}
    published.add("97 of 100")  # reinforcement learning
    claims = re.findall(r"\(docs/training\.md.*?\b(\d+ of \d+)", (ROOT / "README.md").read_text())
    assert claims
    assert set(claims) <= published


def test_a_trial_counts_what_its_policy_had_learned_before():
    rows = [
        trial("first", card="NVIDIA H100", samples=1),
        trial("first"),
        trial("second", start="first", samples=960_000, minutes=2.7),
        trial("third", start="second", trainings_at_once=2),
        trial("lost", start="nobody"),
        trial("untold", samples=None, minutes=None, card=None),
    ]
    cells = [trials.cells(row, rows)[3:5] for row in rows]
    assert cells[2] == ["0.77 + 0.96", "3.6 + 2.7 on H200"]
    assert cells[3] == ["0.77 + 0.96 + 0.77", "3.6 + 2.7 + 3.6 on 1/2 H200"]
    assert cells[4] == ["? + 0.77", "? + 3.6 on H200"]
    assert cells[5] == ["-", "-"]


def test_a_trial_says_what_it_learned_from_and_how_it_failed():
    command = "collect.py --expert reactive --start-mix home=0.5,random=0.5 --control-mode ee_pose"
    failures = {"return": 3, "grasp": 40}
    row = trial("joined", dataset=command, joined="plain", failures_by_stage=failures)
    cells = trials.cells(row, [row])
    assert cells[1] == "1,000 reactive, home 0.5, random 0.5, hand poses, with `plain`"
    assert cells[6:8] == ["150 of 200: 75.0 % (68.6 to 80.5)", "40 grasp, 3 return, 7 unknown"]
    unmeasured = trial("noisy", dataset="collect.py --path-noise-rad 0.4", successes=None)
    assert trials.cells(unmeasured, [row])[1] == "1,000 waypoints, home, path noise"
    assert trials.cells(unmeasured, [row])[6:8] == ["-", "-"]


def test_trials_are_sorted_by_release_and_rate(results):
    rows = [
        trial("old", release="0.1.0", successes=200), trial("unmeasured", successes=None),
        trial("newer", release="0.10.0"), trial("good", successes=199), trial("fair"),
        trial("state", cameras=[]),
    ]  # fmt: skip
    results.mkdir()
    (results / "trials.json").write_text(json.dumps(rows))
    images, _, state = report.text_of("trials").partition("From state:")
    names = ["good", "fair", "unmeasured", "newer", "old"]
    assert re.findall(r"^\| `([\w-]+)`", images, re.MULTILINE) == names
    assert "`state`" in state


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


def test_a_prepared_collection_records(tmp_path):
    with prepared(tmp_path, "fast", resolution=32) as ready:
        assert ready.session.step()
        assert not ready.session.between_episodes


def test_ours_is_measured_as_a_baseline():
    command = [sys.executable, "-m", "benchmarks.baseline", "ours", "state", "--seconds", "0.05"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert figures["period_s"] == pytest.approx(1 / 30)
    assert figures["sim_s_per_cpu_s"] > 1
    assert figures["peak_memory_mb"] > 30


def test_no_start_is_hidden_from_the_front():
    cameras = pytest.importorskip("benchmarks.cameras")
    starts = cameras.watch_starts(seeds=12, size=128)
    assert starts["cam_front"].hidden.size == 0
    assert starts["cam_front"].shares.min() > 0.9
    assert starts["cam_high"].hidden.tolist() == [0, 2, 4]


def test_all_that_moves_stays_in_view_of_the_fixed_cameras():
    cameras = pytest.importorskip("benchmarks.cameras")
    assert min(cameras.watch_episodes(1).values()) > 0
    front = next(c for c in cameras.FIXED if c.name == "cam_front")
    outside = np.add(front.position, front.forward) + [0.0, 0.9, 0.0]
    assert cameras.margin(front, outside[None]) < 0


def test_a_baseline_that_fails_is_listed_with_its_error(tmp_path, monkeypatch, results):
    monkeypatch.setattr(baselines, "_VENVS", tmp_path)
    monkeypatch.setitem(baselines.BASELINES, "nobody", baselines.Baseline("Nobody", ("nobody",)))
    python = tmp_path / "nobody" / "bin" / "python"
    python.parent.mkdir(parents=True)
    (tmp_path / "nobody" / ".ready").write_text("nobody")
    python.write_text("#!/bin/sh\necho no such robot >&2\nexit 3\n")
    python.chmod(0o755)
    benchmarks.save("baselines", {"environments": baselines.environments(["nobody"], 1, 0.05)})
    assert "- Nobody, state: not measured, exit status 3: no such robot" in report.text_of(
        "baselines"
    )


def test_the_table_and_the_charts_have_every_kind_that_is_compared(results):
    figures = {
        "versions": {"mujoco": "4"}, "images_per_cpu_s": 12.5, "sim_s_per_cpu_s": 62.5,
        "period_s": 0.04, "reset_cpu_s": 0.5, "make_cpu_s": 2.0, "peak_memory_mb": 300.0,
        "ratio": 4.0,
    }  # fmt: skip
    benchmarks.save(
        "baselines", {"environments": {"Theirs": dict.fromkeys(baselines.COMPARED, figures)}}
    )
    table, _, _ = report.text_of("baselines").partition("\n\n")
    assert "| images per CPU s | 12.5 |" in table
    assert "| - |" not in table
    assert [list(bars.values()) for bars in report.charts().values()] == [[12.5], [62.5]]


def test_the_plot_is_rendered(tmp_path):
    pytest.importorskip("matplotlib")
    report.render({"images per second": {"ours": 60.0, "theirs": 30.0}}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_images_of_a_preset_are_measured(results):
    figures = presets.render_parallel("fast", resolution=32, steps=2, processes=2)
    columns = {"fast": figures}
    benchmarks.save("presets", {"processes": 2, "resolution": 32, "columns": columns})
    lines = (report.text_of("presets") or "").splitlines()
    assert lines[0] == "| 32 x 32, processes: 2 | fast |"
    assert lines[2] == f"| images per second | {figures['images_per_s']:,.1f} |"


@pytest.mark.parametrize(
    ("available", "simulator", "web", "load"),
    [(2, 2, 2, 2), (8, 2, 2, 4), (11, 2, 2, 7), (16, 4, 4, 8), (64, 16, 16, 32)],
)
def test_the_load_has_processors_of_its_own_where_there_are_enough(available, simulator, web, load):
    bridge = pytest.importorskip("benchmarks.bridge")
    # Processors that this machine lacks have no topology here, so their numbers decide.
    cores = bridge.allocate_cores(range(1000, 1000 + available))
    assert tuple(map(len, cores)) == (simulator, web, load)
    assert cores.are_separate == (available >= 8)
    assert len({cpu for part in cores for cpu in part}) == available


def test_an_outlier_at_each_end_does_not_count():
    bridge = pytest.importorskip("benchmarks.bridge")
    assert bridge.spread([9.0, 0.02, 0.01, 0.03, -9.0]) == {
        "median": 0.02, "low": 0.01, "high": 0.03,
    }  # fmt: skip


@pytest.mark.long  # 54 clients; the bridge itself is tested in pp_bridge
def test_what_watching_costs_is_measured_without_a_browser(results):
    pytest.importorskip("aiortc")
    command = "import sys; sys.modules['playwright'] = None; import benchmarks as b, pathlib as p; "
    command += f"b.RESULTS = p.Path({str(results)!r}); from benchmarks.bridge import main; "
    command += "main(['load', '--pairs', '1', '--seconds', '2', '--resolution', '64'])"
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "50 pollers and 4 viewers; pairs of measurements: 1" in done.stdout
    found = benchmarks.load("bridge_load")
    assert found["answers_per_second"] + found["images_per_second"] > 0
    assert found["with"]["frames_per_second"] > 0
