"""Learning beside serving: a process of its own that takes only what the gateway leaves."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

Command = Callable[[str, float | None, bool], Sequence[str]]
"""The command line that learns a task: all of it, certified on the traffic since a time, or learned on that alone."""
STOP_S = 5.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""In the environment of whatever runs beside the gateway."""


class Learning:
    """At most one learning run at a time, as gentle as the system allows."""

    def __init__(self, command: Command, logs: Path) -> None:
        self._command, self._logs = command, logs
        self._process: subprocess.Popen[bytes] | None = None
        self._task = ""

    @property
    def busy(self) -> bool:
        """Whether a run is under way, or its end was not asked for yet."""
        return self._process is not None

    def start(self, task: str, since: float | None, forget: bool = False) -> None:
        """Start a run; what it says goes to a file in the home. A session of its own: see `gently`."""
        with (self._logs / f"learn-{task}.log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command(task, since, forget),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **ONE_THREAD},
            )
        self._task = task
        gently(self._process.pid)

    def ended(self) -> tuple[str, int] | None:
        """The task and the exit code of a run that has ended; once."""
        if self._process is None or (code := self._process.poll()) is None:
            return None
        self._process = None
        return self._task, code

    def stop(self) -> None:
        """End a run under way: it leaves releases and stages as they were."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()


def gently(pid: int) -> None:
    """Run only when nobody else wants to.

    The idle class counts within a group of processes alone where the kernel groups them by session (autogroup), so the
    group is made nice as well. What the system does not allow is left as it is.
    """
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, 19)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text("19")
