"""What this machine is and how busy it is."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import re
import time
from pathlib import Path

import psutil


def processor() -> str:
    """The processor's own name, as far as the system tells."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def computes_bfloat16(flags: Path = Path("/proc/cpuinfo")) -> bool | None:
    """Whether the processor has instructions for bfloat16; None if it cannot be told.

    Without them every number is unpacked and packed again, and float32 is faster.
    """
    try:
        text = flags.read_text(errors="replace")
    except OSError:
        return None
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    if not found:
        return None
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(found[1].split()))


def system() -> str:
    """The operating system, its release and the processor's kind."""
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """The machine's memory, in bytes."""
    return int(psutil.virtual_memory().total)


def waiting_of_threads() -> str:
    """How threads of OpenMP wait for each other, as far as this process was told."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    told = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    return ", ".join(told) or "default"


def load_average() -> float:
    """Runnable processes, mean of the last minute."""
    return float(psutil.getloadavg()[0])


class OtherLoad:
    """How much of the machine others used since the last look, 0..1 of all cores."""

    def __init__(self) -> None:
        self._last = self._read()

    @staticmethod
    def _read() -> tuple[float, float, float]:
        everyone = psutil.cpu_times()
        busy = everyone.user + everyone.system + getattr(everyone, "nice", 0.0)
        own = os.times()
        return time.monotonic(), busy, own.user + own.system

    def look(self) -> float:
        """The share of all cores that other processes used since the last look."""
        now, last = self._read(), self._last
        self._last = now
        wall, busy, own = (a - b for a, b in zip(now, last, strict=True))
        capacity = max(wall, 1e-9) * (os.cpu_count() or 1)
        return min(1.0, max(0.0, (busy - own) / capacity))


def seconds_since_start() -> float:
    """Wall-clock seconds since this process was made."""
    return max(0.0, time.time() - psutil.Process().create_time())


def starter() -> psutil.Process | None:
    """The process that started this program; None if it has ended.

    On Windows the parent may be the small program that is `python.exe` of a virtual
    environment, with the same command line: then it is the parent of that.
    """
    me = psutil.Process()
    with contextlib.suppress(psutil.Error):
        above = me.parent()
        while above and above.cmdline()[1:] == me.cmdline()[1:]:
            above = above.parent()
        return above
    return None


def give_back_memory() -> None:
    """Return to the system what nothing uses any more.

    Models are in cycles of references, and glibc keeps freed memory for later.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # no glibc
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory_bytes() -> int:
    """The most resident memory that this process has had, in bytes.

    On Linux `ru_maxrss` will not do: a process begins with that of the one that started
    it, which may be larger.
    """
    with contextlib.suppress(OSError), Path("/proc/self/status").open() as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024  # said in kB, meant as KiB
    try:
        import resource
    except ImportError:  # on Windows
        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if platform.system() == "Darwin" else int(peak) * 1024
