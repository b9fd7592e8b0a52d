"""The process that runs a rule in Python: a line of JSON in, a line of JSON out. Started by `rules.Rule`.

    python -I rule_worker.py FILE FUNCTION

It says once `{"ready": true}`, or `{"error": ...}` where the file gives no such function. What the rule prints goes to
stderr. A process of its own can be ended when a rule hangs; a sandbox it is not: a rule may do whatever this user may.
Imports nothing but the standard library, for it starts without this package.
"""

from __future__ import annotations

import json
import math
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main(file: str, name: str) -> None:
    """Load the rule and answer until stdin ends."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a rule that prints must not be taken for its own verdict

    def say(document: dict[str, Any]) -> None:
        out.write(json.dumps(document) + "\n")
        out.flush()

    sys.path.insert(0, str(Path(file).parent))
    try:
        rule = runpy.run_path(file).get(name)
    except BaseException as error:  # noqa: BLE001 - the boundary of somebody's file: whatever it raises is told
        say({"error": _told(error)})
        return
    if not callable(rule):
        say({"error": f"it has no function {name}"})
        return
    say({"ready": True})
    for line in sys.stdin:
        say(_verdict(rule, json.loads(line)))


def _verdict(rule: Callable[..., Any], case: dict[str, Any]) -> dict[str, Any]:
    try:
        found = rule(case["input"], case["answer"], case["reference"])
    except BaseException as error:  # noqa: BLE001 - as above; `exit()` in a rule is no verdict either
        return {"error": _told(error)}
    if isinstance(found, bool):
        return {"good": float(found)}
    if not isinstance(found, int | float):
        return {"error": f"it returned {type(found).__name__}, not true, false or a number from 0 to 1"}
    if not (math.isfinite(found) and 0 <= found <= 1):
        return {"error": f"it returned {found}, not a number from 0 to 1"}
    return {"good": float(found)}


def _told(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


if __name__ == "__main__":
    main(*sys.argv[1:])
