"""A worker process of a probe, and what it said."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from bench.client import ROOT
from bench.contenders.base import Target

LONGEST = 240.0
"""Seconds after which a process is given up."""


class ProbeFailedError(Exception):
    """A process ended as it should not have; the text is its last word."""


class Process:
    """Its lines go to a file: a process that is killed leaves no pipe behind, and none that waits fills one."""

    def __init__(
        self, python: str, name: str, folder: Path, task: str, target: Target, **params: Any
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._said = folder / uuid4().hex
        arguments = json.dumps({"target": asdict(target), "params": params})
        with self._said.open("wb") as out, self._said.with_suffix(".errors").open("wb") as errors:
            self._process = subprocess.Popen(
                [python, "-m", "bench.probes.worker", name, task, arguments],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=errors,
            )

    def lines(self) -> list[dict[str, Any]]:
        """What it has said so far; half a line of one that was killed is nothing."""
        lines = self._said.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def until(self, count: int) -> None:
        """Wait until it has said so many things."""
        end = time.monotonic() + LONGEST
        while len(self.lines()) < count and self._process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def result(self) -> list[dict[str, Any]]:
        """What it said, to its end.

        Raises:
            ProbeFailedError: it failed, or did not end.
        """
        try:
            self._process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ProbeFailedError(f"no end within {LONGEST:.0f} s") from None
        if self._process.returncode:
            errors = self._said.with_suffix(".errors").read_text(encoding="utf-8").strip().splitlines()
            raise ProbeFailedError(errors[-1][:200] if errors else f"exit code {self._process.returncode}")
        return self.lines()


def marks(lines: list[dict[str, Any]], kind: str) -> list[str]:
    """All marks of lines of that kind, in their order."""
    return [mark for line in lines for mark in line.get(kind, [])]
