import os

import pytest

from pp_env.processors import usable_processors


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def count(folder, own, files):
    """Return the number of processors with these groups: file names and contents."""
    for name, content in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (folder / "own").write_text(own)
    return usable_processors(folder / "cgroup", folder / "own")


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "3200000 100000\n"}, 8),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "100000 50000\n"}, 2),
        ("0::/a\n", {"a/cpu.max": "max 100000\n", "other/cpu.max": "100000 100000\n"}, 8),
        ("0::/../neighbour\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/system.slice/docker-1.scope\n", {"cpu.max": "200000 100000\n"}, 2),
    ],
)
def test_groups_of_version_2(tmp_path, own, files, expected):
    assert count(tmp_path, own, files) == expected


def quota_1(folder, quota, period="100000"):
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": period}


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("4:cpu,cpuacct:/\n", quota_1("cpu,cpuacct", 300000), 3),
        ("4:cpu,cpuacct:/\n", quota_1("cpu", 300000), 3),
        ("4:cpu:/\n", quota_1("cpu", -1), 8),
        ("4:cpu:/a/b\n", {**quota_1("cpu/a/b", 400000), **quota_1("cpu/a", 20000, "10000")}, 2),
        ("4:cpu,cpuacct:/docker/0a1b\n", quota_1("cpu,cpuacct", 250000), 3),
        ("5:cpuset:/\n4:memory:/\n", quota_1("cpu", 100000), 8),
        ("4:cpu:/\n0::/\n", quota_1("cpu", 500000), 5),
    ],
)
def test_groups_of_version_1(tmp_path, own, files, expected):
    assert count(tmp_path, own, files) == expected


@pytest.mark.parametrize("content", ["", "many\n", "1 2 3\n", "100000 0\n"])
def test_what_cannot_be_understood_is_no_limit(tmp_path, content):
    assert count(tmp_path, "0::/\n", {"cpu.max": content}) == 8


def test_a_system_without_groups(tmp_path, monkeypatch):
    assert usable_processors(tmp_path / "none", tmp_path / "none") == 8
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_processors(tmp_path / "none", tmp_path / "none") == 6
