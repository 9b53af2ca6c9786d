import fnmatch
import json
import shutil
from pathlib import Path

import httpx
import pytest

import collect
from pp_recorder.dataset import hub, packing
from pp_recorder.dataset.hub import HubError, push
from pp_recorder.dataset.reader import DatasetError
from tests import crash


class Api:
    """A stand-in for the Hub's API that records its calls."""

    def __init__(self):
        self.calls = {}

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.calls.__setitem__(name, (args, kwargs))


class Hub:
    """A stand-in for the Hub's API that keeps one repository as the Hub does."""

    def __init__(self):
        self.files, self.commits, self.tags = {}, [], {}

    def whoami(self):
        return {"name": "me"}

    def create_repo(self, repo_id, **options):
        pass

    def upload_folder(self, *, folder_path, ignore_patterns, delete_patterns, **where):
        root = Path(folder_path)
        names = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
        for name in [n for n in self.files if _matches(n, delete_patterns)]:
            del self.files[name]
        uploaded = [n for n in names if not _matches(n, ignore_patterns)]
        self._commit({name: (root / name).read_bytes() for name in uploaded})

    def upload_file(self, *, path_or_fileobj, path_in_repo, **where):
        self._commit({path_in_repo: path_or_fileobj})

    def delete_tag(self, repo_id, *, tag, repo_type):
        del self.tags[tag]

    def create_tag(self, repo_id, *, tag, repo_type, exist_ok=False):
        if tag in self.tags and not exist_ok:
            raise ValueError("the tag exists")
        self.tags.setdefault(tag, self.commits[-1])

    def _commit(self, changes):
        self.files.update(changes)
        self.commits.append(dict(self.files))


def _matches(name, patterns):
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


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


@pytest.mark.parametrize("layout", ["packed", "per-episode"])
def test_second_names_by_older_versions_are_not_uploaded(dataset, tmp_path, layout):
    root = shutil.copytree(dataset, tmp_path / "set")
    packing.convert(root, layout)
    videos = {str(path.relative_to(root)) for path in root.rglob("*.mp4")}
    if layout == "packed":
        for name in videos:
            (root / name).with_name("episode_00000.mp4").hardlink_to(root / name)
    api = Api()
    push(root, "me/cubes", api=api)
    ignored = api.calls["upload_folder"][1]["ignore_patterns"]
    names = {str(path.relative_to(root)) for path in root.rglob("*.mp4")}
    assert {n for n in names if not _matches(n, ignored)} == videos


def test_the_card_describes_the_dataset(dataset):
    api = Api()
    push(dataset, "me/cubes", api=api)
    card = api.calls["upload_file"][1]["path_or_fileobj"].decode()
    assert card.startswith("---\nlicense:")
    assert f"1 episodes, 1 of them successful, {crash.LENGTH} frames at 30 Hz" in card
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


def test_the_tag_moves_with_every_upload(dataset, tmp_path):
    hub_api, part = Hub(), tmp_path / "part"
    shutil.copytree(dataset, part)
    for episodes in (1, 2, 2):
        options = ["--num-episodes", str(episodes), "--output", str(part), "--resume"]
        assert collect.main([*crash.OPTIONS, *options]) == 0
        push(part, "me/cubes", api=hub_api)
        assert list(hub_api.tags) == ["v3.0"]
        tagged = hub_api.tags["v3.0"]
        assert tagged == hub_api.commits[-1]
        assert json.loads(tagged["meta/info.json"])["total_episodes"] == episodes


def test_files_that_are_gone_are_removed_and_those_of_others_stay(dataset):
    hub_api = Hub()
    old = ["data/chunk-000/file-001.parquet", "videos/observation.images.x/chunk-000/file-000.mp4"]
    others = [".gitattributes", "images/photo.png", "LICENSE"]
    hub_api.files = dict.fromkeys([*old, *others], b"")
    push(dataset, "me/cubes", api=hub_api)
    assert not set(old) & set(hub_api.files)
    assert set(others) < set(hub_api.files)
    assert "data/chunk-000/file-000.parquet" in hub_api.files


@pytest.mark.parametrize(
    "repo_id",
    ["cubes", "", "me/", "/cubes", "me/my cubes", "me/a/b", "me/-x", "me/x--y", "me/x..y", "me/x.",
     "me/x.git", "https://huggingface.co/me/x", "mé/x", "me/x\n", "me/" + 94 * "x"],
)  # fmt: skip
def test_a_name_that_is_none_is_refused_before_any_work(dataset, tmp_path, monkeypatch, repo_id):
    with pytest.raises(ValueError, match=r"must be USER/NAME of letters"):
        push(dataset, repo_id, api=Hub())
    monkeypatch.setattr(hub, "require_library", lambda: None)
    with pytest.raises(SystemExit) as stopped:
        collect.main(["--output", str(tmp_path / "set"), f"--push-to-hub={repo_id}"])
    assert stopped.value.code == 2
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("repo_id", ["me/x", "Me_1/franka-pick.place_2", "me/" + 93 * "x"])
def test_names_that_can_be(repo_id):
    hub.require_repo_id(repo_id)


class LocalTokenNotFoundError(OSError):
    """As huggingface_hub raises it."""


class Failing(Hub):
    """A Hub whose requests raise an error."""

    def __init__(self, error):
        super().__init__()
        self._error = error

    def whoami(self):
        raise self._error

    create_repo = upload_folder = lambda self, *args, **options: self.whoami()


def refusal(status):
    request = httpx.Request("GET", "https://huggingface.co")
    response = httpx.Response(status, request=request)
    return httpx.HTTPStatusError(f"{status} Error\nmore", request=request, response=response)


OFFLINE = [httpx.ConnectError("[Errno 111] Connection refused"), httpx.ReadTimeout("timed out"),
           ConnectionError("Cannot reach https://huggingface.co: offline mode"), TimeoutError(),
           refusal(503)]  # fmt: skip


@pytest.mark.parametrize("error", OFFLINE, ids=repr)
def test_offline_is_one_sentence(dataset, monkeypatch, capsys, error):
    monkeypatch.setattr(hub, "_make_api", lambda: Failing(error))
    assert hub.main([str(dataset), "me/cubes"]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {dataset} was not uploaded: the Hub cannot be reached (")
    assert f"try again: pp-push {dataset} me/cubes" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (refusal(401), "does not accept the token; log in with"),
        (refusal(403), "does not accept the token; log in with"),
        (LocalTokenNotFoundError("no token"), "does not accept the token; log in with"),
        (refusal(409), "refused (409 Error); try again"),
    ],
    ids=repr,
)
def test_a_refusal_is_one_sentence(dataset, error, words):
    with pytest.raises(HubError) as failed:
        push(dataset, "me/cubes", api=Failing(error))
    assert words in str(failed.value)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("error", [TypeError("a bug"), FileNotFoundError(2, "gone", "data")])
def test_other_errors_are_not_taken_for_the_hubs(dataset, error):
    with pytest.raises(type(error)) as failed:
        push(dataset, "me/cubes", api=Failing(error))
    assert failed.value is error


def test_the_token_is_checked_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hub, "require_library", lambda: None)
    monkeypatch.setattr(hub, "_make_api", lambda: Failing(refusal(401)))
    with pytest.raises(SystemExit) as stopped:
        collect.main(["--output", str(tmp_path / "set"), "--push-to-hub", "me/cubes"])
    assert stopped.value.code == 2
    assert "nothing can be uploaded to me/cubes: the Hub does not" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_collecting_offline_keeps_the_dataset_and_tells_the_supervisor(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(hub, "require_library", lambda: None)
    monkeypatch.setattr(hub, "_make_api", lambda: Failing(OFFLINE[0]))
    output, file = tmp_path / "set", tmp_path / "status.json"
    options = ["--no-cameras", "--num-episodes", "1", "--push-to-hub", "me/cubes", "--workers", "1"]
    assert collect.main(["--output", str(output), "--status-file", str(file), *options]) == 1
    status = json.loads(file.read_text())
    assert (status["state"], status["exit_status"], status["episodes"]) == ("failed", 1, 1)
    assert status["error"].startswith(f"{output} was not uploaded: the Hub cannot be reached")
    messages = capsys.readouterr().err
    assert "the dataset is collected first, and uploaded then" in messages
    assert f"error: {status['error']}" in messages
