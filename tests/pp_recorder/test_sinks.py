import io
import logging
import threading
import time

import pytest

from pp_recorder.sinks import ProgressBar, setup_logging


@pytest.fixture
def recorder_log(monkeypatch):
    """Give the recorder's logger no handlers, and restore its own afterwards."""
    log = logging.getLogger("pp_recorder")
    monkeypatch.setattr(log, "handlers", [])
    monkeypatch.setattr(log, "propagate", True)
    return log


def test_messages_stand_alone_on_stderr(recorder_log, capsys):
    setup_logging()
    setup_logging()
    logging.getLogger("pp_recorder.parallel.processes").warning("a process died")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "a process died\n"


def test_messages_are_lines_above_the_progress_bar(recorder_log, capsys):
    setup_logging()
    progress = ProgressBar(num_episodes=2, frames_per_episode=10)
    recorder_log.warning("a process died")
    progress.close()
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert "a process died" in lines


def test_a_bar_that_is_watched_moves_while_no_frame_comes(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    progress = ProgressBar(num_episodes=2, frames_per_episode=10)
    deadline = time.monotonic() + 60
    while terminal.getvalue().count("\r") < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    progress.close()
    assert terminal.getvalue().count("\r") >= 4


def test_a_bar_ends_its_line_and_is_not_drawn_again(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    progress = ProgressBar(num_episodes=2, frames_per_episode=10)
    progress.close()
    progress.close()
    assert terminal.getvalue().endswith("\n")
    assert "progress" not in [thread.name for thread in threading.enumerate()]


def test_a_bar_that_was_there_early_goes_on_where_a_dataset_does(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    progress = ProgressBar(num_episodes=4, frames_per_episode=10)
    assert "0/40" in stream.getvalue()
    progress.start_from(kept=3)
    progress.show(kept=3, successes=3, attempts=3)
    progress.close()
    assert "episode 4/4:  75%" in stream.getvalue()
    assert "30/40" in stream.getvalue()


def test_a_bar_says_what_comes_after_the_last_episode(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    progress = ProgressBar(num_episodes=2, frames_per_episode=3)
    progress.show(kept=1, successes=1, attempts=1)
    assert "joining" not in stream.getvalue()
    progress.show(kept=2, successes=2, attempts=2)
    assert "episode 2/2, joining files: 100%" in stream.getvalue()
    progress.close()
    assert "episode 2/2: 100%" in stream.getvalue().splitlines()[-1].rpartition("\r")[2]


def test_a_bar_counts_the_frames_of_each_episode_that_it_sees(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    progress = ProgressBar(num_episodes=2, frames_per_episode=3)
    progress.start_from(kept=0)
    progress.begin(seed=2**62)
    for _ in range(3):
        progress.add(None)
    progress.close()
    assert "3/6" in stream.getvalue()
    assert "-" not in stream.getvalue()
