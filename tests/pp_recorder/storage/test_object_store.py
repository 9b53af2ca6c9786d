"""Collecting into object storage: a real S3 protocol server on loopback, and other file systems."""

import logging
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress

import boto3
import pytest
from moto.server import ThreadedMotoServer

import collect
from pp_collect import replay, runs
from pp_recorder.checks import cli as inspect
from pp_recorder.dataset import hub, keys, merge
from pp_recorder.storage import lease, mirror
from pp_recorder.storage.lease import Lease
from pp_recorder.storage.object_store import ObjectStore, StoreError
from tests import ROOT, crash
from tests.pp_recorder.parallel.test_processes import _wait_for

QUICK = ["--steps-per-segment", "2", "--keep", "all", "--seed", "3"]
STATE = [*QUICK, "--no-cameras", "--workers", "1"]
INFO = keys.INFO_PATH
IMAGES = [*QUICK, "--resolution", "32", "--preset", "fast", "--workers", "1"]


class Bucket:
    """A bucket, accessed by another client than the recorder's."""

    name = "data"

    def __init__(self, endpoint):
        self._endpoint = endpoint
        self._s3 = boto3.client("s3", endpoint_url=endpoint)
        self._s3.create_bucket(Bucket=self.name)

    def contents(self, prefix):
        """Return the objects under a prefix, by name, without the empty ones for folders."""
        listed = self._s3.list_objects_v2(Bucket=self.name, Prefix=f"{prefix}/").get("Contents", [])
        found = {}
        for path in [entry["Key"] for entry in listed if not entry["Key"].endswith("/")]:
            with suppress(self._s3.exceptions.NoSuchKey):  # deleted by a run since it was listed
                found[path.removeprefix(f"{prefix}/")] = self.get(path)
        return found

    def get(self, key):
        return self._s3.get_object(Bucket=self.name, Key=key)["Body"].read()

    def put(self, key, content=b""):
        self._s3.put_object(Bucket=self.name, Key=key, Body=content)

    def delete(self, key):
        self._s3.delete_object(Bucket=self.name, Key=key)

    def copy_to(self, folder, prefix):
        for name, content in self.contents(prefix).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder

    def accept(self, requests):
        """Answer this number of requests, and reject the credentials of all others."""
        address = f"{self._endpoint}/moto-api/reset-auth"
        plain = {"Content-Type": "text/plain"}
        body = str(requests).encode()
        urllib.request.urlopen(urllib.request.Request(address, body, plain)).close()


@pytest.fixture(scope="module")
def bucket():
    with pytest.MonkeyPatch.context() as patch:
        logging.getLogger("werkzeug").setLevel(logging.WARNING)  # not every request
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield Bucket(endpoint)
        server.stop()


@pytest.fixture
def hasty(monkeypatch):
    """Let leases expire within two seconds, and uploads fail at the first error."""
    monkeypatch.setattr(lease, "_HEARTBEAT_INTERVAL", 0.1)
    monkeypatch.setattr(lease, "_LEASE_DURATION", 1.5)
    monkeypatch.setattr(mirror, "_RETRY_DELAYS", ())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Record three episodes without images in a folder, and return its files."""
    root = tmp_path_factory.mktemp("sets") / "alone"
    assert collect.main([*STATE, "--num-episodes", "3", "--output", str(root)]) == 0
    return files(root)


@pytest.fixture
def prefix(request):
    return request.node.name.replace("[", "-").rstrip("]")


def run(prefix, staging, *options, episodes=3, base=STATE, workers=1, resume=False):
    output = ["--output", f"s3://data/{prefix}", "--staging", str(staging)]
    counts = ["--num-episodes", str(episodes), "--workers", str(workers)]
    return collect.main([*base, *counts, *output, *options, *["--resume"][:resume]])


def files(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def images(bucket, tmp_path_factory):
    """Return the files of a dataset begun and ended by two machines, and of one in a folder."""
    folder = tmp_path_factory.mktemp("images")
    options = {"prefix": "images", "base": IMAGES}
    assert run(staging=folder / "one", episodes=1, **options) == 0
    assert run(**options, staging=folder / "two", resume=True, workers=2) == 0
    assert not any(folder.iterdir())
    assert collect.main([*IMAGES, "--num-episodes", "3", "--output", str(folder / "alone")]) == 0
    return bucket.contents("images"), files(folder / "alone")


def test_a_store_holds_the_same_files_as_a_folder(images):
    stored, alone = images
    assert stored == alone
    assert sum(name.endswith(".mp4") for name in stored) == 2


def test_a_complete_dataset_starts_no_simulator(bucket, prefix, tmp_path, monkeypatch):
    assert run(prefix, tmp_path / "one", episodes=1) == 0
    before = bucket.contents(prefix)
    monkeypatch.setattr(runs, "make_env", lambda *_, **__: pytest.fail("a simulator started"))
    assert run(prefix, tmp_path / "two", episodes=1, resume=True) == 0
    assert bucket.contents(prefix) == before
    with pytest.raises(pytest.fail.Exception, match="a simulator started"):
        run(prefix, tmp_path / "two", episodes=2, resume=True)


def test_chunks_are_joined_there_as_well(bucket, prefix, tmp_path, monkeypatch):
    monkeypatch.setattr(keys, "CHUNK_SIZE", 3)
    assert run(prefix, tmp_path / "staging", episodes=5) == 0
    assert run(prefix, tmp_path / "staging", resume=True, episodes=7) == 0
    options = [*STATE, "--num-episodes", "7", "--output", str(tmp_path / "alone")]
    assert collect.main(options) == 0
    assert bucket.contents(prefix) == files(tmp_path / "alone")
    assert len(list((tmp_path / "alone").glob("data/*/*.parquet"))) == 3


def test_the_dataset_is_valid_after_every_request(bucket, prefix, tmp_path, monkeypatch):
    seen, one_by_one = [], threading.Lock()

    def observed(operation):
        def request(self, name, *content):
            with one_by_one:
                operation(self, name, *content)
                if INFO in bucket.contents(prefix):
                    copy = bucket.copy_to(tmp_path / f"copy-{len(seen)}", prefix)
                    seen.append(crash.finished(copy))

        return request

    for name in ("write", "delete"):
        monkeypatch.setattr(ObjectStore, name, observed(getattr(ObjectStore, name)))
    assert run(prefix, tmp_path / "staging", episodes=2, base=IMAGES) == 0
    assert sorted(set(seen)) == [0, 1, 2]
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("writes", "machine"),
    [(1, "other"), (6, "same"), (8, "other"), (18, "same")],
)
def test_a_death_between_any_two_files_loses_nothing(
    bucket, prefix, tmp_path, monkeypatch, hasty, alone, writes, machine
):
    """A dataset starts with six files, an episode takes four, and the final join two."""
    real, done = ObjectStore.write, []

    def dying(self, name, content):
        if not name.startswith("."):
            done.append(name)
            if len(done) > writes:
                raise SystemExit("killed")
        real(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "write", dying)
        patch.setattr(Lease, "release", lambda self: self._released.set())
        with pytest.raises(SystemExit):
            run(prefix, tmp_path / "same")
    before = crash.finished(bucket.copy_to(tmp_path / "before", prefix))
    assert before >= (writes - 6) // 4
    assert run(prefix, tmp_path / machine, resume=True) == 0
    assert bucket.contents(prefix) == alone
    assert not (tmp_path / machine).exists()


def test_a_killed_run_is_resumed_on_another_machine(bucket, prefix, tmp_path, hasty, capsys):
    command = [
        sys.executable, "collect.py", *STATE, "--num-episodes", "5000", "--output",
        f"s3://data/{prefix}", "--staging", tmp_path / "staging",
    ]  # fmt: skip
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        _wait_for(lambda: b'"total_episodes": 2' in bucket.contents(prefix).get(INFO, b""))
        process.kill()
    kept = crash.finished(bucket.copy_to(tmp_path / "kept", prefix))
    assert kept >= 2
    assert run(prefix, tmp_path / "other", resume=True, episodes=kept + 1) == 0
    assert f"is claimed by process {process.pid} on" in capsys.readouterr().err
    options = [*STATE, "--num-episodes", str(kept + 1), "--output", str(tmp_path / "alone")]
    assert collect.main(options) == 0
    assert bucket.contents(prefix) == files(tmp_path / "alone")


def test_a_signal_ends_a_run_cleanly(bucket, prefix, tmp_path):
    command = [
        sys.executable, "collect.py", *STATE, "--num-episodes", "5000", "--output",
        f"s3://data/{prefix}", "--staging", tmp_path / "staging",
    ]  # fmt: skip
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        _wait_for(lambda: b'"total_episodes": 2' in bucket.contents(prefix).get(INFO, b""))
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    kept = crash.finished(bucket.copy_to(tmp_path / "kept", prefix))
    assert f"s3://data/{prefix} is a valid dataset of {kept} of the 5000 episodes" in out
    assert not (tmp_path / "staging").exists()
    assert not any(name.startswith(".") for name in bucket.contents(prefix))


def test_an_upload_is_repeated_after_an_outage(
    bucket, prefix, tmp_path, monkeypatch, alone, capsys
):
    real, failures = ObjectStore.write, iter(range(2))

    def failing(self, name, content):
        if name == INFO and b'"total_episodes": 2' in content and next(failures, None) is not None:
            raise StoreError("out of reach")
        real(self, name, content)

    monkeypatch.setattr(ObjectStore, "write", failing)
    monkeypatch.setattr(mirror, "_RETRY_DELAYS", (0.0, 0.1))
    assert run(prefix, tmp_path / "staging") == 0
    assert capsys.readouterr().err.count("out of reach; trying again in") == 2
    assert bucket.contents(prefix) == alone


def test_a_failed_upload_is_kept_and_repeated_later(
    bucket, prefix, tmp_path, monkeypatch, hasty, alone, capsys
):
    """The credentials expire before the last file of the second episode."""
    real, infos = ObjectStore.write, []

    def expiring(self, name, content):
        if name == INFO:
            infos.append(name)
            if len(infos) == 3:
                bucket.accept(0)
        real(self, name, content)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(ObjectStore, "write", expiring)
            assert run(prefix, tmp_path / "staging") == 1
    finally:
        bucket.accept("inf")
    err = capsys.readouterr().err
    assert "INVALID_ACCESS_KEY_ID" in err
    assert f"what could not be uploaded is in {tmp_path / 'staging'}, and --resume" in err
    assert crash.finished(bucket.copy_to(tmp_path / "before", prefix)) == 1
    # The second episode is not made again: it is there when the third is wanted.
    assert run(prefix, tmp_path / "staging", resume=True, episodes=2) == 0
    report = capsys.readouterr().out
    assert "frames     36\n" in report
    assert "per second" not in report, "no frame was recorded"
    assert run(prefix, tmp_path / "staging", resume=True) == 0
    assert bucket.contents(prefix) == alone


def test_a_failed_upload_is_dropped_after_another_run(
    bucket, prefix, tmp_path, monkeypatch, hasty, alone, capsys
):
    real = ObjectStore.write

    def failing(self, name, content):
        if name == INFO and b'"total_episodes": 2' in content:
            raise StoreError("out of reach")
        real(self, name, content)

    assert run(prefix, tmp_path / "one", episodes=1) == 0
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "write", failing)
        assert run(prefix, tmp_path / "one", resume=True, episodes=2) == 1
    assert run(prefix, tmp_path / "two", resume=True) == 0
    assert run(prefix, tmp_path / "one", resume=True) == 0
    assert "has changed; what was still to be uploaded is dropped" in capsys.readouterr().err
    assert bucket.contents(prefix) == alone


class TestTwoRuns:
    def test_the_second_run_is_refused(self, bucket, prefix, tmp_path, hasty, capsys):
        store = ObjectStore(f"s3://data/{prefix}")
        first = Lease(store, "first")
        try:
            assert run(prefix, tmp_path / "staging") == 1
            first.require_valid()
        finally:
            first.release()
        assert f"another run is writing into s3://data/{prefix} (process" in capsys.readouterr().err
        assert bucket.contents(prefix) == {}

    def test_a_run_with_an_expired_lease_stops(
        self, bucket, prefix, tmp_path, monkeypatch, alone, capsys
    ):
        real = ObjectStore.write

        def paused(self, name, content):
            real(self, name, content)
            if name == INFO and b'"total_episodes": 1' in content:
                for note in [n for n in self.sizes() if n.startswith(".lock-")]:
                    self.delete(note)

        with monkeypatch.context() as patch:
            patch.setattr(ObjectStore, "write", paused)
            assert run(prefix, tmp_path / "staging") == 1
        assert "another run has taken over" in capsys.readouterr().err
        assert crash.finished(bucket.copy_to(tmp_path / "copy", prefix)) == 1
        assert run(prefix, tmp_path / "staging", resume=True) == 0
        assert bucket.contents(prefix) == alone


def refused(prefix, staging, *options):
    """Run a collection that is refused before any work."""
    with pytest.raises(SystemExit) as stopped:
        run(prefix, staging, *options)
    assert stopped.value.code == 2
    assert not staging.exists()


def test_a_used_prefix_is_refused_and_left_alone(bucket, prefix, tmp_path, capsys):
    bucket.put(f"{prefix}/thesis.txt", b"precious")
    refused(prefix, tmp_path / "staging")
    assert "is not empty; nothing was written" in capsys.readouterr().err
    assert run(prefix, tmp_path / "staging", resume=True) == 1
    assert f"s3://data/{prefix} is no dataset of ours" in capsys.readouterr().err
    assert bucket.contents(prefix) == {"thesis.txt": b"precious"}


def test_a_used_staging_folder_is_refused_and_left_alone(bucket, prefix, tmp_path, capsys):
    (tmp_path / "staging/dataset").mkdir(parents=True)
    (tmp_path / "staging/dataset/thesis.txt").touch()
    assert run(prefix, tmp_path / "staging") == 1
    assert "staging must be an absent or empty folder" in capsys.readouterr().err
    assert (tmp_path / "staging/dataset/thesis.txt").exists()


def test_another_configuration_is_refused_and_changes_nothing(bucket, prefix, tmp_path, capsys):
    assert run(prefix, tmp_path / "staging", episodes=1) == 0
    before = bucket.contents(prefix)
    assert run(prefix, tmp_path / "staging", "--seed", "4", resume=True) == 1
    assert f"s3://data/{prefix} was collected otherwise" in capsys.readouterr().err
    assert bucket.contents(prefix) == before


def test_damage_is_cut_back_to_the_longest_valid_prefix(bucket, images, prefix, tmp_path, capsys):
    for name, content in images[0].items():
        if name != "videos/observation.images.cam_high/chunk-000/file-000.mp4":
            bucket.put(f"{prefix}/{name}", content)
    assert run(prefix, tmp_path / "staging", resume=True, base=IMAGES) == 0
    assert "resume: dropped episodes 0 to 2, because" in capsys.readouterr().err
    assert bucket.contents(prefix) == images[0]


def test_a_wrong_bucket_is_refused(bucket, tmp_path, capsys):
    with pytest.raises(SystemExit):
        collect.main([*STATE, "--output", "s3://date/set", "--staging", str(tmp_path / "staging")])
    assert "s3://date/set cannot be written: " in (err := capsys.readouterr().err)
    assert "NO_SUCH_BUCKET" in err


def test_wrong_credentials_are_refused(bucket, prefix, tmp_path, capsys):
    bucket.accept(0)
    try:
        refused(prefix, tmp_path / "staging")
    finally:
        bucket.accept("inf")
    assert "INVALID_ACCESS_KEY_ID" in (err := capsys.readouterr().err)
    assert "check the address, the credentials, and that the store answers" in err


def test_a_store_that_does_not_answer_is_reported_within_seconds(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    begin = time.monotonic()
    refused("set", tmp_path / "staging")
    assert time.monotonic() - begin < 20
    assert "s3://data/set cannot be listed: " in (err := capsys.readouterr().err)
    assert "that the store answers" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "s3://name:secret@data/set"], "must not hold a password"),
        (["--output", "nowhere://data/set"], "Protocol not known: nowhere"),
        (["--output", "s3://data/set?colour=red"], "query parameter in S3 URI: 'colour'"),
        (["--output", "s3://data/set", "--push-to-hub", "me/set"], "copy it first"),
        (["--output", "datasets/set", "--staging", "x"], "--staging is for an --output with a URL"),
    ],
)
def test_bad_options_stop_before_any_work(options, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        collect.main([*STATE, *options])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (inspect.main, ["s3://data/set"]),
        (merge.main, ["s3://data/set", "--output", "set"]),
        (merge.main, ["set", "--output", "s3://data/set"]),
        (hub.main, ["s3://data/set", "me/set"]),
        (replay.replay_main, ["s3://data/set"]),
    ],
)
def test_commands_that_need_a_folder_refuse_a_url(command, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        command(words)
    assert stopped.value.code == 2
    assert "must be a folder, got s3://data/set; copy it" in capsys.readouterr().err


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_other_stores(scheme, tmp_path, alone):
    """One scheme of pyarrow, and one of fsspec alone."""
    url = f"{scheme}://{tmp_path}/set"
    options = [*STATE, "--output", url, "--staging", str(tmp_path / "staging")]
    assert collect.main([*options, "--num-episodes", "1"]) == 0
    assert collect.main([*options, "--num-episodes", "3", "--resume"]) == 0
    store = ObjectStore(url)
    assert {name: store.read(name) for name in store.sizes()} == alone


def test_without_fsspec_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(SystemExit):
        collect.main([*STATE, "--output", "memory://data/set"])
    assert "pip install 'franka-pick-place[fsspec]'" in capsys.readouterr().err
