"""Paths as FFmpeg and pyarrow take them for files, whatever characters they have.

Both take a relative path with a colon, such as `run:1/data.parquet`, for a URL of some protocol.
"""

import re
import string
from pathlib import Path

_WIDTH = re.compile(r"(0?\d{1,2})?d?")  # of a number in a name, such as 03d


def media_url(path: Path) -> str:
    """Return what `av.open` takes for this file of the local file system."""
    return f"file:{path.absolute()}"


def table_path(path: Path) -> str:
    """Return what `pyarrow.parquet` takes for this file of the local file system."""
    return str(path.absolute())


def fill_in(template: str, **values: str | int) -> str:
    """Return the name of a file by a template of `info.json`, such as "file-{file_index:03d}.mp4".

    A template may come from a stranger, so it must neither look into objects nor pad to any width.

    Raises:
        ValueError: It has something else in braces than a value, perhaps with a width.
        TypeError: It is no text.
    """
    for _, name, width, conversion in string.Formatter().parse(template):
        if name is None:
            continue
        if name not in values or conversion or not _WIDTH.fullmatch(width or ""):
            found = name + (f"!{conversion}" if conversion else "") + (width and f":{width}" or "")
            raise ValueError(f"{{{found[:100]}}} is none of {sorted(values)} with a width")
    return template.format(**values)
