"""The controller's end of a worker process."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.contenders.base import Target

ROOT = Path(__file__).resolve().parent.parent
LONGEST_TURN = 300.0
"""Seconds after which a turn is given up."""


class WorkerFailedError(Exception):
    """A contender could not do what it was asked; the text says why."""


class Client:
    """One worker process; started on first use, and again after it was given up."""

    def __init__(self, name: str, python: str) -> None:
        self._name, self._python = name, python
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()

    def ask(self, do: str, target: Target, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises:
            WorkerFailedError: the contender raised, died, or took too long.
        """
        self.send(do, target, params)
        return self.answer()

    def send(self, do: str, target: Target, params: dict[str, Any] | None = None) -> None:
        process = self._start()
        assert process.stdin is not None
        process.stdin.write(json.dumps({"do": do, "target": asdict(target), "params": params or {}}) + "\n")
        process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=LONGEST_TURN)
        except queue.Empty:
            self.stop()
            raise WorkerFailedError(f"gave no answer within {LONGEST_TURN:.0f} s") from None
        if not line:
            self.stop()
            raise WorkerFailedError("the process ended")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise WorkerFailedError(answer["failed"])
        return answer

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    def _start(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = process = subprocess.Popen(
                [self._python, "-m", "bench.worker", self._name],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._answers = answers = queue.Queue()
            threading.Thread(target=_forward, args=(process, answers), daemon=True).start()
        return self._process


def _forward(process: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
    assert process.stdout is not None
    try:
        for line in process.stdout:
            answers.put(line)
    except ValueError:
        return  # closed by `stop`
    answers.put("")
