"""How many cores this process may use: its affinity, and the quota of its container."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def available_cores(sharing: int = 1) -> int:
    """Return how many cores this process may use.

    Args:
        sharing: so many processes train on this computer; each has its share, unless what
            started them has bound this one to cores already.
    """
    cores = everything = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    bound = cores != everything
    cores = math.ceil(min(cores, cpu_quota()))
    return max(1, cores if bound else cores // sharing)


def cpu_quota(root: Path = Path("/")) -> float:
    """Return how many cores' time the control groups of this process have, infinity for no limit.

    Args:
        root: where proc and sys are.
    """
    quotas = [math.inf]
    for quota, period in _limits(root):
        try:
            if float(quota) > 0:  # "max" and −1 are no limit
                quotas.append(float(quota) / float(period))
        except ValueError:
            continue
    return min(quotas)


def _limits(root: Path) -> Iterator[tuple[str, str]]:
    """Yield quota and period of each group that this process is in, v2 and v1, up to the root."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        path = PurePosixPath(group)
        for place in (path, *path.parents):  # a container sees its own group as the root
            here = root / "sys/fs/cgroup" / ("cpu" if controllers else "") / str(place)[1:]
            try:
                if controllers:
                    names = "cpu.cfs_quota_us", "cpu.cfs_period_us"
                    quota, period = ((here / name).read_text().strip() for name in names)
                else:
                    quota, period = (here / "cpu.max").read_text().split()
            except (OSError, ValueError):
                continue
            yield quota, period
