"""Run a pipeline of commands: wall time, CPU time of its processes, and a clear error when one fails."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec


class Timed(msgspec.Struct, frozen=True):
    """Seconds on the wall, CPU seconds of the client processes, and the last one's output."""

    wall: float
    client: float
    output: bytes = b""


def run(
    *commands: Sequence[str],
    env: Mapping[str, str] | None = None,
    source: Path | None = None,
    data: bytes | None = None,
    timeout: float = 1800,
) -> Timed:
    """Run commands joined by pipes; the first reads `source` or `data`. Raises RuntimeError with the end of what they said."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as result, tempfile.TemporaryFile() as given:
        if data is not None:
            given.write(data)
            given.seek(0)
        stream = source.open("rb") if source else given
        began = time.perf_counter()
        processes: list[subprocess.Popen[bytes]] = []
        with stream:
            reader: object = stream
            for i, command in enumerate(commands):
                last = i == len(commands) - 1
                process = subprocess.Popen(
                    command,
                    stdin=reader,  # type: ignore[arg-type]
                    stdout=result if last else subprocess.PIPE,
                    stderr=said,
                    env={**os.environ, **(env or {})},
                )
                if i:
                    assert processes[-1].stdout is not None
                    processes[-1].stdout.close()
                processes.append(process)
                reader = process.stdout
        cpu = 0.0
        codes = []
        for process in processes:
            code, used = _wait(process, began + timeout)
            codes.append(code)
            cpu += used
        wall = time.perf_counter() - began
        said.seek(0)
        result.seek(0)
        output = result.read()
        if any(codes):
            words = (said.read() + output).decode(errors="replace").strip()
            raise RuntimeError(f"{commands[codes.index(max(codes, key=bool))][0]} failed: {words[-1500:]}")
        return Timed(wall, cpu, output)


def _wait(process: subprocess.Popen[bytes], deadline: float) -> tuple[int, float]:
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, usage.ru_utime + usage.ru_stime
        if time.perf_counter() > deadline:
            process.kill()
        time.sleep(0.002)
