"""The self-test of the Isaac Sim backend and its report, with fakes of Isaac's Python modules."""

import html
import json
import os
import re
import socket
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from pp_collect import isaac_check, isaac_report
from pp_collect.isaac_check import SelfTest
from pp_collect.isaac_report import Report
from pp_env.sim.isaac.simulator import ATTACHMENTS
from tests.fake_isaac import VERSIONS
from tests.fake_isaac.models import ProcessEnded
from tests.pp_env.sim.isaac import test_simulator

assets, isaac = test_simulator.assets, test_simulator.isaac  # the fixtures
EVERY_QUESTION = SelfTest.questions
QUICK = ("versions", "startup_measurements", "gains")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Ask only a few questions, with short episodes."""
    monkeypatch.setattr(isaac_check, "_MEMORY_EPISODES", 4)
    monkeypatch.setattr(isaac_check, "_EPISODES", 1)
    monkeypatch.setattr(isaac_check, "_STEPS_PER_SEGMENT", 10)
    ask(monkeypatch, *QUICK)


def ask(monkeypatch, *questions):
    monkeypatch.setattr(SelfTest, "questions", questions)


def check(output, *options):
    """Run the self-test; return its exit status."""
    try:
        return isaac_check.main(["--output", str(output), "--resolution", "64", *options])
    except ProcessEnded as ended:  # where Isaac's application was started
        return ended.args[0]


def read(output):
    """Return the report and its answers by question, after comparing page and JSON."""
    report = json.loads((output / "report.json").read_text())
    page = (output / "report.html").read_text()
    shown = re.search(r'<pre id="report">(.*?)</pre>', page, re.DOTALL)
    assert json.loads(html.unescape(shown[1])) == report
    require_self_contained(page)
    return report, {r["question"]: r for r in report["results"]}


class Elements(HTMLParser):
    """Collects attributes, and requires that elements are closed in their order."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.names = [], [], []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "srcset", "poster", "data")]
        assert not [k for k, _ in attrs if k.startswith("on")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def require_self_contained(page):
    found = Elements()
    found.feed(page)
    assert found.open == []
    assert all(
        a.startswith(("data:image/jpeg;base64,", "data:video/mp4;")) for a in found.addresses
    )
    assert not {"script", "link", "iframe", "object", "base"} & set(found.names)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_every_question_passes_with_a_recording_of_two_episodes(
    isaac, tmp_path, monkeypatch, capsys
):
    ask(monkeypatch, *EVERY_QUESTION)
    (tmp_path / "out/dataset").mkdir(parents=True)  # of an earlier run
    with isaac():
        check(tmp_path / "out", "--episodes", "2")
    printed = capsys.readouterr().out
    report, results = read(tmp_path / "out")
    assert len(results) == len(EVERY_QUESTION), printed
    failed = {q: r["found"] for q, r in results.items() if r["passed"] is False}
    assert failed == {}, printed
    assert (report["state"], report["exit_status"], report["error"]) == ("complete", 0, None)
    recording = results["recording plays"]
    assert recording["needed"].startswith("2 episodes, 180 frames")
    assert "decoded [180, 180]" in recording["found"]
    assert recording["found"].endswith("in dataset_2"), "nothing is overwritten"
    page = (tmp_path / "out/report.html").read_text()
    assert page.count('src="data:image/jpeg') == len(list((tmp_path / "out").glob("*.jpg"))) > 6
    assert page.count('src="data:video/mp4') == 2
    for question in isaac_report.HUMAN_QUESTIONS:
        assert question in page


@pytest.mark.parametrize("version", VERSIONS[1:])
@pytest.mark.parametrize("attachment", ATTACHMENTS)
def test_each_attachment_alone(version, attachment, isaac, tmp_path, monkeypatch):
    ask(monkeypatch, *QUICK, "attachments")
    with isaac(version):
        check(tmp_path, "--attachment", attachment)
    report, results = read(tmp_path)
    assert report["simulator"]["attachment"] == attachment
    assert report["machine"]["Isaac Sim"].startswith(version)
    assert results["ways to hold the object"]["passed"] is None
    assert report["exit_status"] == 0


def test_the_acceptance_test_has_the_length_that_the_options_say():
    options = isaac_check._recording(isaac_check.CheckOptions(episodes=50), isaac_check.Path("x"))
    options = isaac_check.dataclasses.replace(options, steps_per_segment=None)
    expert = isaac_check.make_expert(options, isaac_check.make_config(options))
    assert options.num_episodes * expert.num_steps == 13_500


@pytest.mark.parametrize("error", [AttributeError("gone <b>"), OSError(5, "a")])
def test_a_question_that_raises_is_one_failed_line(error, isaac, tmp_path, monkeypatch, capsys):
    def raises(self):
        self._sim._world.stop()  # whatever it left
        raise error

    monkeypatch.setattr(SelfTest, "gains", raises)
    ask(monkeypatch, "gains", "hand_follows_kinematics", "images_are_exposed")
    with isaac("5.1.0"):
        assert check(tmp_path) == 1
    report, results = read(tmp_path)
    assert [r["passed"] for r in results.values()] == [False, True, True], results
    assert results["gains"]["found"] == f"{type(error).__name__}: {error}"
    assert report["exit_status"] == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_reset_that_fails_after_an_error_is_told(isaac, tmp_path, monkeypatch):
    monkeypatch.setattr(SelfTest, "gains", lambda self: 1 / 0)
    ask(monkeypatch, "gains", "versions")

    def broken(self):
        if hasattr(self, "_cameras"):  # not at the start
            raise AttributeError("no view")

    with isaac():
        from pp_env.sim.isaac.simulator import IsaacSimulator

        start = IsaacSimulator.restart
        monkeypatch.setattr(IsaacSimulator, "restart", lambda self: broken(self) or start(self))
        assert check(tmp_path) == 1
    found = read(tmp_path)[1]["gains"]["found"]
    assert found.startswith("ZeroDivisionError: division by zero; the hard reset after it failed")
    assert found.endswith("AttributeError: no view")


def test_what_is_known_is_on_disk_before_each_question(isaac, tmp_path, monkeypatch):
    seen = []

    def look(self):
        seen.append(read(tmp_path))
        raise SystemExit(0)  # as a library might, in the middle

    monkeypatch.setattr(SelfTest, "gains", look)
    with isaac():
        assert check(tmp_path) == 1
    (report, results), after = seen[0], read(tmp_path)[0]
    assert (report["state"], report["question"]) == ("running", "gains")
    assert list(results) == ["versions", "measured at start"]
    assert (after["state"], after["exit_status"]) == ("failed", 1)
    assert "SystemExit" in after["error"]
    assert len(after["results"]) == 2


def test_ctrl_c_leaves_a_report(isaac, tmp_path, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(SelfTest, "gains", interrupt)
    with isaac():
        assert check(tmp_path) == 130
    report = read(tmp_path)[0]
    assert (report["state"], report["exit_status"]) == ("interrupted", 130)
    assert report["question"] == "gains"


def test_a_question_that_hangs_ends_the_process(tmp_path):
    program = f"""
import time
from pathlib import Path
from pp_collect import isaac_check
from pp_collect.isaac_report import Report
isaac_check._HANGS_AFTER = 0.2
isaac_check.SelfTest.questions = ("gains",)
isaac_check.SelfTest.gains = lambda self: time.sleep(60)
class Env: config = None
options = isaac_check.CheckOptions()
isaac_check.SelfTest(None, Env, options, Report(Path({str(tmp_path)!r}))).run()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "in <lambda>" in done.stderr, "where it hangs"
    report = read(tmp_path)[0]
    assert report["question"] == "gains"
    page = (tmp_path / "report.html").read_text()
    assert "Unfinished: &#39;gains&#39; was being asked; 0 passed, 0 failed before" in page


def test_an_attachment_that_is_not_repeatable_is_told(isaac, tmp_path, monkeypatch):
    answers = iter([[ATTACHMENTS[0]], []])
    monkeypatch.setattr(
        "pp_env.sim.isaac.simulator.IsaacSimulator.working_attachments", lambda _: next(answers)
    )
    ask(monkeypatch, "attachments")
    with isaac():
        assert check(tmp_path) == 1
    found = read(tmp_path)[1]["ways to hold the object"]["found"]
    assert found == f"not repeatable: ['{ATTACHMENTS[0]}'], then []"


def test_a_fault_of_the_robot_is_told(isaac, assets, tmp_path):
    root = test_simulator.soft_robot(tmp_path / "assets", assets)
    with isaac(gains_ignored=True, root=root):
        assert check(tmp_path / "out") == 1
    results = read(tmp_path / "out")[1]
    assert [q for q, r in results.items() if not r["passed"]][-1] == "gains are those that were set"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_start_that_fails_leaves_a_report(version, isaac, tmp_path, capsys):
    with isaac(version, missing_extensions=("omni.replicator.core",)):
        assert check(tmp_path) == 1
    report, results = read(tmp_path)
    assert (report["state"], report["exit_status"], results) == ("failed", 1, {})
    assert "IsaacSimError" in report["error"]
    assert "has no extension 'omni.replicator.core'" in report["error"]
    assert "Failed: 0 passed, 0 failed" in (tmp_path / "report.html").read_text()


def test_without_isaac_sim_there_is_a_report(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("ISAAC_PATH", raising=False)
    assert check(tmp_path) == 1
    report = read(tmp_path)[0]
    assert report["state"] == "failed"
    assert report["error"] in capsys.readouterr().err.replace("error: ", "IsaacSimError: ")
    assert "unknown" in report["machine"]["Isaac Sim"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attachment", "glue"], "--attachment"),
        (["--episodes", "0"], "--episodes must be at least 1, got 0"),
        (["--streaming-port", "70000"], "--streaming-port must be from 1 to 65535, got 70000"),
        (["--resolution", "0"], "must be at least 1"),
        (["--json", "out.json"], "out.json"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        isaac_check.main(["--output", str(tmp_path / "out"), *options])
    assert end.value.code == 2
    assert message in "".join(capsys.readouterr())
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "out").touch()
    with pytest.raises(SystemExit) as end:
        check(tmp_path / "out")
    assert end.value.code == 2
    assert "--output cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("fails", [False, True])
def test_json_is_alone_on_stdout(fails, isaac, tmp_path, monkeypatch, capfd):
    def chatter(self):
        os.write(1, b"[Info] as Kit logs from C++\n")
        return isaac_check.Answer("gains", not fails, "found")

    monkeypatch.setattr(SelfTest, "gains", chatter)
    with isaac():
        check(tmp_path, "--json")
    out, err = capfd.readouterr()
    assert json.loads(out) == read(tmp_path)[0]
    assert json.loads(out)["exit_status"] == int(fails)
    assert "as Kit logs" in err
    assert f"{'FAIL' if fails else 'pass'}  gains" in err


def test_the_livestream_is_asked_whether_it_listens(isaac, tmp_path, monkeypatch):
    ask(monkeypatch, "livestream_listens")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with isaac():
            check(tmp_path, "--streaming", "--streaming-port", str(port))
    assert read(tmp_path)[1]["livestream listens"]["passed"]
    with isaac():
        assert check(tmp_path, "--streaming", "--streaming-port", str(port)) == 1
    found = read(tmp_path)[1]["livestream listens"]["found"]
    assert found.startswith(f"TCP port {port}: ConnectionRefusedError")


def test_the_sizes_of_nvidias_files_are_compared(isaac, assets, tmp_path, monkeypatch):
    obj = isaac_check.YCB_OBJECTS[0]
    root = tmp_path / "assets"
    test_simulator.shutil.copytree(assets, root)
    path = root / obj.asset
    path.parent.mkdir(parents=True)
    test_simulator.write_can(path, 1.1, physics=False, obj=obj)
    ask(monkeypatch, "ycb_sizes")
    with isaac(root=root):
        check(tmp_path / "out")
    found = json.loads(read(tmp_path / "out")[1]["YCB sizes"]["found"])
    assert found[obj.name].endswith("m, 10.0% off"), found
    assert len(found) == len(isaac_check.YCB_OBJECTS)


def test_the_page_escapes_what_it_shows(tmp_path):
    evil = "</pre><script>alert(1)</script><img src=http://evil/x onerror=alert(1)>\u2028&amp;"
    report = Report(tmp_path, machine={evil: evil}, options={"output": evil})
    report.add_picture("start_cam_high", b"jpeg")
    answer = {"question": evil, "passed": False, "found": evil, "needed": evil, "seconds": 0.0}
    report.update(error=evil, state="failed", results=[answer])
    assert read(tmp_path)[0]["error"] == evil


def test_the_report_says_nothing_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/srv/people/ada")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh12345678")
    monkeypatch.setenv("SHORT_TOKEN", "a")
    texts = [
        "/srv/people/ada/work", "/srv/people/adam", "/home/grace/x", "/media/grace/disk",
        "key hf_abcdefgh12345678.", "https://me:pass@host/assets?sig=12345 end", "plain a",
    ]  # fmt: skip
    Report(tmp_path, options={"all": texts}).write()
    assert read(tmp_path)[0]["options"]["all"] == [
        "~/work", "/srv/people/adam", "~/x", "~/disk",
        "key ....", "https://host/assets?... end", "plain a",
    ]  # fmt: skip
    content = "".join(p.read_text() for p in tmp_path.iterdir())
    assert not re.search("ada/|grace|hf_|pass@|12345", content)


def test_a_large_video_stays_beside_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(isaac_report, "_LARGEST_VIDEO", 3)
    report = Report(tmp_path)
    for name, content in (("small", b"123"), ("large", b"1234")):
        (tmp_path / f"{name}.mp4").write_bytes(content)
        report.add_video(name, tmp_path / f"{name}.mp4")
    report.write()
    assert read(tmp_path)[0]["left_out"] == ["large: large.mp4"]
    assert (tmp_path / "report.html").read_text().count("<video") == 1
    monkeypatch.setattr(isaac_report, "_LARGEST_ATTACHMENT", 10)
    assert "more than GitHub takes" in report.describe_files()


def test_a_full_disk_costs_the_report_only(tmp_path, capsys):
    report = Report(tmp_path / "gone")
    report.update(state="running")
    assert "warning: the report cannot be written" in capsys.readouterr().err
    assert "there is no report.html" in report.describe_files()
