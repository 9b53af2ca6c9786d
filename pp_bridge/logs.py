"""Logs as JSON lines: one object per line, for machines to read."""

import logging
import sys
import time

_FORMAT = "{asctime}{level}{name}{message}"  # names the first keys of a line; nothing else counts
_KEYS = {"asctime": "time", "name": "logger", "exc_info": "traceback"}
_NOISY = ("aioice", "aiortc", "uvicorn.access")


def set_up() -> None:
    """Send this process's logs to stderr.

    Raises:
        ImportError: The extra [bridge] is not installed.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(add_level)
    handler.setFormatter(make_formatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def make_formatter() -> logging.Formatter:
    """Return a formatter of time, level, logger, message, all extras, and a traceback if any.

    It expects records that went through `add_level`.
    """
    # Not at the top: a missing extra is reported by `require_library`, in words.
    from pythonjsonlogger.core import RESERVED_ATTRS
    from pythonjsonlogger.json import JsonFormatter

    formatter = JsonFormatter(
        _FORMAT,
        style="{",
        rename_fields=_KEYS,
        reserved_attrs=[*RESERVED_ATTRS, "color_message"],  # uvicorn's, the message once more
        json_default=str,
    )
    formatter.converter = time.gmtime
    formatter.default_time_format = "%Y-%m-%dT%H:%M:%S"
    formatter.default_msec_format = "%s.%03d+00:00"
    return formatter


def add_level(record: logging.LogRecord) -> bool:
    """Add the level's name in lower case to a record; as a filter, let every record pass."""
    record.level = record.levelname.lower()
    return True
