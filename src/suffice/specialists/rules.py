"""Rules in Python as verifiers: `rules.py:polite` is called with (input, answer, reference) and says how good it is.

True or 1 is right, False or 0 wrong, a number between counts so far. A rule that raises, hangs, or returns anything
else has said nothing, and nothing said is a whole error: never a silent pass. It runs in a process of its own
(`rule_worker`), started with the first answer. That is no sandbox: whoever writes the file may do what this user may.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from suffice.core.errors import InputError
from suffice.core.values import Value, plain

WAIT_S = 5.0
"""For one answer."""
START_S = 60.0
"""Until the file is read, and what it imports."""
SPENT = 20
"""After so many times in a row without a word in time, nothing more is asked: a rule that hangs would hold up all."""

_WORKER = Path(__file__).with_name("rule_worker.py")


class Rule:
    """One function of one file. Thread-safe: answers are asked about one at a time."""

    def __init__(self, file: Path, function: str, wait_s: float = WAIT_S) -> None:
        self._file, self._function, self._wait_s = file, function, wait_s
        self._name = f"{file.name}:{function}"
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._faults, self._first, self._hung = 0, "", 0

    def check(self) -> None:
        """Start it. Raises InputError, naming the file, where there is no such function or the file cannot be run."""
        with self._lock:
            try:
                self._started()
            except _Silent as silent:
                raise InputError(f"{self._file}: {silent}") from silent

    def __call__(self, input: str, said: Value, right: Value) -> float:
        """The loss: one less what the rule says; 1 where it says nothing that counts."""
        with self._lock:
            try:
                if self._hung >= SPENT:
                    raise _Silent(f"it gave no answer within {self._wait_s:g} s, {SPENT} times in a row")
                return 1.0 - self._asked({"input": input, "answer": plain(said), "reference": plain(right)})
            except _Silent as silent:
                self._faults += 1
                self._first = self._first or str(silent)
                return 1.0

    def prepare(self, cases: Sequence[tuple[str, Value, Value]]) -> None:
        """Nothing: an answer takes microseconds, or is the rule's own to make fast."""

    def fault(self) -> str | None:
        """On how many answers the rule has said nothing since this was last asked, and why on the first."""
        with self._lock:
            count, first, self._faults, self._first = self._faults, self._first, 0, ""
        if not count:
            return None
        answers = "1 answer" if count == 1 else f"{count:,} answers"
        return f"the rule {self._name} failed on {answers}, each counted as wholly wrong: {first}"

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _asked(self, case: dict[str, Any]) -> float:
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(case).encode() + b"\n")
            process.stdin.flush()
            found = self._line(process, self._wait_s)
        except OSError as error:
            self.close()
            raise _Silent("its process has ended") from error
        if "good" not in found:
            raise _Silent(str(found.get("error", "it gave no verdict")))
        self._hung = 0
        return float(found["good"])

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        # `-I`: neither the environment nor this folder's modules come between the rule and what it imports.
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_WORKER), str(self._file.absolute()), self._function],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        found = self._line(self._process, START_S)
        if "ready" not in found:
            self.close()
            raise _Silent(str(found.get("error", "it gave no verdict")))
        return self._process

    def _line(self, process: subprocess.Popen[bytes], wait_s: float) -> dict[str, Any]:
        """The next line, read as JSON; a process that says nothing in time is ended."""
        assert process.stdout is not None
        until, read = time.monotonic() + wait_s, b""
        while not read.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                self._hung += 1
                self.close()
                raise _Silent(f"it gave no answer within {wait_s:g} s")
            some = os.read(process.stdout.fileno(), 65536)
            if not some:
                self.close()
                raise _Silent("its process has ended")
            read += some
        found: dict[str, Any] = {}
        with contextlib.suppress(ValueError):
            found = json.loads(read)
        return found


class _Silent(Exception):
    """The rule has said nothing that counts."""
