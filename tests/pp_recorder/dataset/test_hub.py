import fnmatch

import pytest

import collect
from pp_recorder.dataset import hub
from pp_recorder.dataset.hub import push
from pp_recorder.dataset.reader import DatasetError
from tests import crash


class Api:
    """A stand-in for the Hub's API that records its calls."""

    def __init__(self):
        self.calls = {}

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.calls.__setitem__(name, (args, kwargs))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets") / "recorded"
    assert collect.main([*crash.OPTIONS, "--num-episodes", "1", "--output", str(root)]) == 0
    return root


def test_each_video_is_uploaded_once(dataset):
    api = Api()
    assert push(dataset, "me/cubes", api=api) == "https://huggingface.co/datasets/me/cubes"
    assert api.calls["create_repo"][1]["repo_type"] == "dataset"
    assert api.calls["create_tag"][1]["tag"] == "v3.0"
    ignored = api.calls["upload_folder"][1]["ignore_patterns"]
    names = [str(p.relative_to(dataset)) for p in dataset.rglob("*") if p.is_file()]
    kept = [n for n in names if not any(fnmatch.fnmatch(n, pattern) for pattern in ignored)]
    assert sorted(n.rpartition("/")[2] for n in kept if n.endswith("mp4")) == ["file-000.mp4"] * 2
    assert "meta/collection.json" in kept


def test_the_card_describes_the_dataset(dataset):
    api = Api()
    push(dataset, "me/cubes", api=api)
    card = api.calls["upload_file"][1]["path_or_fileobj"].decode()
    assert card.startswith("---\nlicense:")
    assert "1 episodes, 1 of them successful, 180 frames at 30 Hz" in card
    assert 'LeRobotDataset("me/cubes")' in card
    assert "| `observation.state` | float32 | 23 |" in card


def test_an_empty_dataset_is_not_uploaded(dataset, tmp_path):
    hasty = ["--no-cameras", "--steps-per-segment", "1", "--num-episodes", "1"]
    collect.main([*hasty, "--output", str(tmp_path / "empty")])
    with pytest.raises(DatasetError, match="holds no episode; nothing was uploaded"):
        push(tmp_path / "empty", "me/cubes", api=Api())


def test_without_the_library_the_extra_is_named_before_any_work(
    dataset, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    assert hub.main([str(dataset), "me/cubes"]) == 2
    assert "franka-pick-place[hub]" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        collect.main(["--output", str(tmp_path / "set"), "--push-to-hub", "me/cubes"])
    assert "franka-pick-place[hub]" in capsys.readouterr().err


def test_collect_uploads_its_dataset(tmp_path, monkeypatch, capsys):
    api = Api()
    monkeypatch.setattr(hub, "require_library", lambda: None)
    monkeypatch.setattr(hub, "_make_api", lambda: api)
    options = ["--no-cameras", "--num-episodes", "1", "--push-to-hub", "me/cubes"]
    assert collect.main(["--output", str(tmp_path / "set"), *options]) == 0
    assert "uploaded   https://huggingface.co/datasets/me/cubes" in capsys.readouterr().out
    assert api.calls["create_tag"][0] == ("me/cubes",)
