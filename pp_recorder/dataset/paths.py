"""Paths as FFmpeg and pyarrow take them for files, whatever characters they have.

Both take a relative path with a colon, such as `run:1/data.parquet`, for a URL of some protocol.
"""

from pathlib import Path


def media_url(path: Path) -> str:
    """Return what `av.open` takes for this file of the local file system."""
    return f"file:{path.absolute()}"


def table_path(path: Path) -> str:
    """Return what `pyarrow.parquet` takes for this file of the local file system."""
    return str(path.absolute())
