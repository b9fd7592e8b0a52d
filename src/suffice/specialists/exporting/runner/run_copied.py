"""Answers texts with the specialist in this folder, or says that the frontier should be asked.

Needs the packages in requirements.txt; no network. Lines of {"input": TEXT} on stdin, one answer a line on stdout:
`python run.py < inputs.jsonl`. In Python: `Specialist(folder).answer(text)`. What reads the model lies in `code`.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "code"))

import msgspec  # noqa: E402

from suffice.core.contracts import refusal  # noqa: E402
from suffice.core.style import Style  # noqa: E402
from suffice.core.types import OutputContract  # noqa: E402


class Specialist:
    """The folder's model and settings. `answer` is a pure function of the text, and thread-safe."""

    def __init__(self, folder: Path = HERE) -> None:
        self.settings = json.loads((folder / "specialist.json").read_text("utf-8"))
        module, family, based = self.settings["loads"]
        arguments = (None, folder / "bases") if based else ()
        self._model = getattr(importlib.import_module(module), family)(*arguments).load(folder / "model")
        self._contract: Any = msgspec.convert(self.settings["contract"], OutputContract)
        self._style = msgspec.convert(self.settings["style"], Style)

    def answer(self, text: str, slices: tuple[str, ...] = ()) -> dict[str, Any]:
        """{"output", "score", "accepted", "reason"}; `slices` are the request's own."""
        found, told = self._model.predict([text])[0], self.settings
        refused = refusal(found, self._contract, told["threshold"], slices, told["closed_slices"])
        output = self._style.value(found.value)
        reason = "accepted" if refused is None else refused.value
        return {"output": output, "score": found.score, "accepted": refused is None, "reason": reason}


def _asked(number: int, line: bytes) -> tuple[str, tuple[str, ...]]:
    """The input and the slices of a line; ends with a sentence where it has none."""
    try:
        asked = json.loads(line)
        text, slices = asked["input"], tuple(asked.get("slices") or ())
        return text + "", slices
    except (ValueError, KeyError, TypeError, AttributeError):
        sys.exit(f'line {number} of the standard input is not {{"input": TEXT}}')


if __name__ == "__main__":
    specialist = Specialist()
    for number, line in enumerate(sys.stdin.buffer, 1):  # UTF-8, whatever the terminal speaks
        if line.strip():
            said = json.dumps(specialist.answer(*_asked(number, line)), ensure_ascii=False)
            sys.stdout.buffer.write(said.encode("utf-8", "replace") + b"\n")
            sys.stdout.buffer.flush()
