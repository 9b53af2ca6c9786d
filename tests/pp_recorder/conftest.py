"""What tests of datasets share."""

import hashlib
from pathlib import Path

import pytest

from pp_recorder.checks import view
from pp_recorder.checks.video_scan import scan_file


@pytest.fixture(autouse=True, scope="package")
def scans_once():
    """Have no video scanned twice: most defects are planted beside the same few videos."""
    kept = {}

    def scan_once(root, name, spans, fps, keep):
        path = Path(root, name)
        if not path.is_file() or path.is_symlink():
            return scan_file(root, name, spans, fps, keep)
        content = hashlib.sha256(path.read_bytes()).digest()
        frames = ((episode, *frames) for episode, frames in keep.items())
        key = (content, name, fps, *spans.items(), *frames)
        if key not in kept:
            kept[key] = scan_file(root, name, spans, fps, keep)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view, "scan_file", scan_once)
        yield
