"""The process's memory as the ResNet's summaries log it (specification, section 7)."""

import resource

import psutil


def memory_scalars() -> dict[str, float]:
    """`{tag: value}`: `memory/peak_rss` in KiB, `memory/rss` and `memory/vms` in bytes."""
    now = psutil.Process().memory_info()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"memory/peak_rss": peak, "memory/rss": now.rss, "memory/vms": now.vms}
