"""The report as a page."""

from html.parser import HTMLParser

import pytest

from pp_recorder.checks.cli import main
from tests.pp_recorder.checks.defects import DEFECTS, EPISODES, edit_cell, edit_info, edit_json

HOSTILE = '"><script>alert(1)</script>'


class Page(HTMLParser):
    """Collects what a page has and whether its elements are closed."""

    VOID = ("meta", "img", "br", "line", "circle", "path", "rect", "polyline")

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.images = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html(healthy, tmp_path):
    assert main([str(healthy), "--html", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert page.open == []
    assert "Could not be drawn" not in text
    assert "script" not in page.seen
    assert "http" not in text
    assert len(page.images) == 2 * 2 * 4
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.images)
    assert page.images[1]["alt"] == "Episode 0, cam_high, grasp: frame 50"
    assert page.seen.count("h1") == 1
    assert page.seen.count("polyline") == 8 * 2


@pytest.mark.parametrize("name", ["data missing", "episodes missing", "mp4 missing", "NaN"])
def test_html_of_a_broken_dataset(dataset, tmp_path, name):
    DEFECTS[name][0](dataset)
    assert main([str(dataset), "--html", str(tmp_path / "page.html")]) == 1
    text = (tmp_path / "page.html").read_text()
    assert Page(text).open == []
    assert "Could not be drawn" not in text
    assert "Unsound" in text


def test_html_of_a_foreign_dataset(foreign, tmp_path):
    assert main([str(foreign), "--html", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "Could not be drawn" not in text
    assert len(Page(text).images) == 3 * 4


def test_texts_of_the_dataset_are_escaped(dataset, tmp_path):
    edit_info(robot_type=HOSTILE)(dataset)
    assert main([str(dataset), "--html", str(tmp_path / "page.html")]) == 0
    assert "<script" not in (tmp_path / "page.html").read_text()


def test_texts_of_features_failures_and_findings_are_escaped(dataset, tmp_path):
    edit_cell(EPISODES, "episode/success", 0, False)(dataset)
    edit_cell(EPISODES, "episode/failure_reason", 0, HOSTILE)(dataset)
    edit_cell(EPISODES, "episode/failure_phase", 0, HOSTILE)(dataset)
    names = [f"{HOSTILE}{k}" for k in range(8)]
    edit_json(dataset, "meta/info.json", lambda i: i["features"]["action"].update(names=names))
    edit_info(splits={HOSTILE: "0:9"})(dataset)
    assert main([str(dataset), "--html", str(tmp_path / "page.html")]) == 1
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert page.open == []
    assert "script" not in page.seen
    assert "Could not be drawn" not in text
    # In an episode, the failures, 8 charts three times each, 8 rows of statistics and 2 findings.
    assert text.count("alert(1)") == 2 + 2 + 8 * 3 + 8 + 2
