"""Answers texts with the specialist in this folder, or says that the frontier should be asked.

Needs onnxruntime, tokenizers and numpy; no network. Lines of {"input": TEXT} on stdin, one answer a line on stdout:
`python run.py < inputs.jsonl`. In Python: `Specialist(folder).answer(text)`.
"""

import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class Specialist:
    """The folder's graph, tokenizer and settings. `answer` is a pure function of the text, and thread-safe."""

    def __init__(self, folder: Path = Path(__file__).parent) -> None:
        self.settings = json.loads((folder / "specialist.json").read_text("utf-8"))
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if self.settings["pieces"]["most"]:
            self._tokenizer.enable_truncation(self.settings["pieces"]["most"])
        encoder = self.settings["encoder"]
        self._encoder = _session(folder / encoder) if encoder else None
        self._graph = _session(folder / "specialist.onnx")

    def answer(self, text: str, slices: tuple[str, ...] = ()) -> dict[str, Any]:
        """{"output", "score", "accepted", "reason"}; `slices` are the request's own."""
        settings = self.settings
        picks, log_odds, familiar = self._graph.run(["picks", "log_odds", "familiar"], self._read(text))
        score = self._score(float(log_odds), picks)
        allowed, output = self._written(picks.tolist())
        shut = set(slices) & set(settings["closed"]["slices"]) or int(picks[0]) in settings["closed"]["answers"]
        reasons = [
            (not allowed, "contract"),
            (not familiar, "unfamiliar"),
            (shut, "slice"),
            (not score >= settings["cutoff"], "below_threshold"),
        ]
        reason = next((name for holds, name in reasons if holds), "accepted")
        return {"output": output, "score": score, "accepted": reason == "accepted", "reason": reason}

    def _read(self, text: str) -> dict[str, Any]:
        limits, pieces = self.settings["text"], self.settings["pieces"]
        plain = text[: pieces["chars"]].encode("utf-8", "replace").decode("utf-8")
        ids = self._tokenizer.encode(plain, add_special_tokens=pieces["marks"]).ids
        if len(text) > limits["longest"]:
            text = text[: limits["longest"] - limits["tail"]] + " " + text[-limits["tail"] :]
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        read = {"codes": codes.astype(np.int64), "pieces": np.array(ids, dtype=np.int64)}
        if self._encoder:
            read["states"] = self._encoder.run(None, {"input_ids": read.pop("pieces")[None]})[0][0]
        return read

    def _score(self, log_odds: float, picks: Any) -> float:
        combined = self.settings["combined"]
        if combined:  # how often were the answers to all questions seen together?
            digest = hashlib.blake2b(picks.astype("<i4").tobytes(), digest_size=8).hexdigest()
            log_odds += combined["weight"] * combined["known"].get(digest, 0.0)
        if abs(log_odds) > 15:  # squeezed into 30, its order kept
            log_odds = math.copysign(15 + 15 * math.tanh((abs(log_odds) - 15) / 60), log_odds)
        return 1 / (1 + math.exp(-log_odds))

    def _written(self, picks: list[int]) -> tuple[bool, Any]:
        layout, wrong = self.settings["layout"], list[str]()
        text: str = _node(layout["root"], picks, wrong, True)
        return not wrong, json.loads(text) if layout["parsed"] else layout["before"] + text + layout["after"]


def _session(file: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _node(node: dict[str, Any], picks: list[int], wrong: list[str], whole: bool = False) -> Any:
    """The JSON of a node, None where it says nothing; `wrong` grows where the contract is not kept."""
    if "head" in node:
        return node["says"][picks[node["head"]]]
    if "tools" in node:
        tool = node["tools"][picks[0]]
        call = [f'{{"name": {tool[0]}, "arguments": {_node(tool[1], picks, wrong, True)}}}'] if tool else []
        return f'{{"tool_calls": [{"".join(call)}]}}'
    if "labels" in node:
        parts = [text for head, yes, text in node["labels"] if picks[head] == yes]
        most = len(parts) if node["most"] is None else node["most"]
        if (parts or whole) and not node["least"] <= len(parts) <= most:
            wrong.append("labels")
    else:
        said = {key: _node(inner, picks, wrong) for key, _, inner, _ in node["fields"] if inner}
        said = {key: text for key, text in said.items() if text is not None}
        ways = [needed for keys, needed in node["ways"] if said.keys() <= set(keys)]
        kept = not node["ways"] or any(said.keys() >= set(needed) for needed in ways)
        if (said or whole) and not (said.keys() >= set(node["required"]) and kept):
            wrong.append("fields")
        forms = [form for form in node["forms"] if said.keys() <= set(form)]
        parts = []
        for key, name, _, silent in node["fields"] if said or whole else []:
            if key in said or (silent is not None and all(key in form for form in forms)):
                parts.append(name + said.get(key, silent))
    if not parts and not whole:
        return None
    opens, closes = node["ends"] if parts else (node["ends"][0][0], node["ends"][1][-1])
    return opens + node["between"].join(parts) + closes


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
