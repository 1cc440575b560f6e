"""Runs every benchmark, or the one named with its arguments: `python -m benchmarks [xtr 1000 …]`."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
from pathlib import Path

FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "asimddp", "i8mm")


def modules() -> list[str]:
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def cpu_features() -> list[str]:
    """Return which of the features that matter here the CPU has; nothing where the system does not tell."""
    told = Path("/proc/cpuinfo")
    present = set(told.read_text().split()) if told.exists() else set()
    return [feature for feature in FEATURES if feature in present]


def print_machine() -> None:
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    print(f"commit {commit.stdout.strip() or 'unknown'}")
    print(f"cpu {platform.machine()} {os.cpu_count()} threads, {' '.join(cpu_features())}")


def main() -> None:
    print_machine()
    asked = sys.argv[1:2]  # What follows is the benchmark's own.
    if not set(asked) <= set(modules()):
        raise SystemExit(f"no benchmark {asked[0]}: there are {', '.join(modules())}.")
    for name in asked or modules():
        print(f"\n{name}")
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
