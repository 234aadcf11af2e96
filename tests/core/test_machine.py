"""What is said of a machine, from files as other machines have them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from paripassu.core.machine import computes_bfloat16, peak_memory_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 sse\n", True),
        ("flags : fpu amx_bf16\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("flags\t\t: fpu avx2 avx512f\nbugs : avx512_bf16\n", False),
        ("flags : avx512_bf16x\n", False),
        ("processor : 0\n", None),
        ("", None),
    ],
)
def test_whether_it_computes_in_bfloat16(tmp_path, text, expected):
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    assert computes_bfloat16(file) is expected


def test_peak_memory_is_not_that_of_the_process_that_started_it():
    """Red on Linux: `ru_maxrss`, which a program inherits from who starts it."""
    size = 400 * 2**20
    given = bytearray(size)
    given[::4096] = b"x" * (size // 4096)  # each page is touched
    code = "from paripassu.core import machine; print(machine.peak_memory_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert 2**20 < int(done.stdout) < size / 2
    assert peak_memory_bytes() > size
    del given


def test_a_system_that_does_not_tell(tmp_path):
    assert computes_bfloat16(tmp_path / "none") is None
