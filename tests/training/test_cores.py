"""Cores by affinity and by the quotas of containers."""

import math

import pytest

from igcnn.training import cores
from igcnn.training.cores import available_cores, cpu_quota


def files(root, texts):
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/cpu"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({}, math.inf),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "max 100000\n"}, math.inf),
        ({"proc/self/cgroup": "0::/a/b\n", f"{V2}/a/cpu.max": "200000 100000\n"}, 2.0),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                f"{V2}/a/b/cpu.max": "max 100000\n",
                f"{V2}/a/cpu.max": "400000 100000\n",
                f"{V2}/cpu.max": "300000 100000\n",
            },
            3.0,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n3:memory:/docker/x\n",
                f"{V1}/cpu.cfs_quota_us": "250000\n",
                f"{V1}/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n",
                f"{V1}/cpu.cfs_quota_us": "-1\n",
                f"{V1}/cpu.cfs_period_us": "100000\n",
            },
            math.inf,
        ),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "nonsense\n"}, math.inf),
    ],
)
def test_the_quota_of_a_container(texts, expected, tmp_path):
    assert cpu_quota(files(tmp_path, texts)) == expected


@pytest.mark.parametrize(
    ("everything", "affinity", "quota", "sharing", "expected"),
    [
        (8, 8, math.inf, 1, 8),
        (8, 8, math.inf, 3, 2),
        (8, 3, math.inf, 2, 3),
        (8, 8, 2.5, 1, 3),
        (8, 8, 2.0, 2, 1),
        (8, 8, 0.5, 1, 1),
        (8, 2, 4.0, 1, 2),
    ],
)
def test_cores(everything, affinity, quota, sharing, expected, monkeypatch):
    monkeypatch.setattr(cores.os, "cpu_count", lambda: everything)
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda pid: set(range(affinity)))
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    assert available_cores(sharing) == expected
