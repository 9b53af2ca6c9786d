"""Logs as JSON lines: one object per line, for machines to read."""

import logging
import sys
import time

_FORMAT = "{asctime}{level}{name}{message}"  # names the first keys of a line; nothing else counts
_KEYS = {"asctime": "time", "name": "logger", "exc_info": "traceback"}
_NOISY = ("aioice", "aiortc", "uvicorn.access")
_OURS = ("bridge", "pp_bridge")
_REPEATS, _WINDOW = 5, 10.0  # of a library's message, within s: strangers cause them


def set_up() -> None:
    """Send this process's logs to stderr.

    Raises:
        ImportError: The extra [bridge] is not installed.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(add_level)
    handler.addFilter(RepeatFilter())
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


class RepeatFilter(logging.Filter):
    """A filter of what libraries say again and again from the same line of their code.

    The next message that passes has the number of those before it in `left_out`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record passes: ours always does."""
        if record.name.partition(".")[0] in _OURS:
            return True
        place = (record.pathname, record.lineno)
        now = time.monotonic()
        since, count = self._seen.get(place, (now, 0))
        if now >= since + _WINDOW:
            if count > _REPEATS:
                record.left_out = count - _REPEATS
            since, count = now, 0
        self._seen[place] = since, count + 1
        return count < _REPEATS
