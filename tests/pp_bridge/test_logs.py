"""The form of the bridge's log lines."""

import json
import logging
from datetime import datetime, timedelta, timezone
from pathlib import Path

from pp_bridge import logs


def log_line(level: int, message: str, *args: object, error: Exception | None = None, **extra):
    """Return the text and the object of one log line."""
    exc_info = (type(error), error, error.__traceback__) if error else None
    record = logging.getLogger("bridge").makeRecord(
        "bridge", level, __file__, 1, message, args, exc_info, extra=extra
    )
    assert logs.add_level(record)
    text = logs.make_formatter().format(record)
    return text, json.loads(text)


def test_a_line_holds_time_level_logger_message_and_extras():
    text, line = log_line(logging.WARNING, "%d lost", 3, reason="disk", path=Path("/x"))
    assert "\n" not in text
    assert list(line) == ["time", "level", "logger", "message", "reason", "path"]
    assert line["level"] == "warning"
    assert line["logger"] == "bridge"
    assert line["message"] == "3 lost"
    assert line["reason"] == "disk"
    assert line["path"] == "/x"


def test_the_time_is_utc_in_iso_8601_with_milliseconds():
    _, line = log_line(logging.INFO, "ready")
    time = datetime.fromisoformat(line["time"])
    assert time.utcoffset() == timedelta(0)
    assert abs(datetime.now(timezone.utc) - time) < timedelta(seconds=10)
    assert line["time"] == time.isoformat("T", "milliseconds")


def test_an_error_has_its_traceback_in_the_same_line():
    try:
        raise ValueError("broken")
    except ValueError as error:
        text, line = log_line(logging.ERROR, "failed", error=error)
    assert "\n" not in text
    assert line["traceback"].startswith("Traceback (most recent call last):")
    assert line["traceback"].endswith("ValueError: broken")
    assert "exc_info" not in line


def test_what_uvicorn_says_again_in_colour_is_left_out():
    _, line = log_line(logging.INFO, "started", color_message="\x1b[1mstarted\x1b[0m")
    assert list(line) == ["time", "level", "logger", "message"]


def test_libraries_repeat_themselves_in_vain(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: clock[0])
    repeats = logs.RepeatFilter()

    def pass_(name, line):
        record = logging.getLogger(name).makeRecord(
            name, logging.ERROR, "x.py", line, "m", (), None
        )
        return repeats.filter(record) and getattr(record, "left_out", 0)

    assert sum(pass_("asyncio", 1) is not False for _ in range(1000)) == 5
    assert pass_("asyncio", 2) == 0, "another message"
    assert all(pass_("bridge", 1) == 0 for _ in range(100)), "ours are never left out"
    clock[0] = 11.0
    assert pass_("asyncio", 1) == 995
    assert pass_("asyncio", 1) == 0
