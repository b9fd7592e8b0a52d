"""Dividing and joining on real data: mixtures without prompts, one work, and prompts in eleven styles.

Skips where the shared data are absent.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import adjusted_rand_score

from suffice.core.values import Value, plain
from suffice.learn.contracts import infer
from suffice.learn.joining import Side, join
from suffice.learn.meaning import Asked, Division, divide, fit

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SUFFICE_DATA", ROOT.parent / "shared" / "data"))

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"the shared data are not at {DATA}: set SUFFICE_DATA to their folder"
)


def mixture() -> Any:
    """The module of mixed traffic, with the prompts' styles and the chat."""
    if str(ROOT / "bench") not in sys.path:
        sys.path.insert(0, str(ROOT / "bench"))
    import mixture as module

    return module


def said(item: Any) -> Value:
    if item.calls:
        return {"tool_calls": [{"name": name, "arguments": json.loads(given)} for name, given in item.calls]}
    return plain(item.said)


def drawn(counts: dict[str, int], seed: int = 1) -> tuple[list[Asked], list[str]]:
    """Bare requests of these works, "chat" among them, shuffled; and the work of each."""
    module, rng = mixture(), random.Random(seed)
    rows: list[tuple[str, Asked]] = []
    for name, count in counts.items():
        for _ in range(count):
            if name == "chat":
                messages, answer = module._chat(rng)
                rows.append((name, Asked(messages[-1]["content"], answer)))
            else:
                item = rng.choice(module.work(name).items)
                tools = json.dumps(item.tools) if item.tools else ""
                rows.append((name, Asked(item.text, said(item), True, tools)))
    rng.shuffle(rows)
    return [row for _, row in rows], [name for name, _ in rows]


def scored(division: Division, names: list[str]) -> tuple[float, float, float]:
    """Adjusted Rand index of assigned rows, share of work assigned, share of chat left out."""
    given = [(name, group) for name, group in zip(names, division.groups, strict=True) if group is not None]
    index = adjusted_rand_score([name for name, _ in given], [group for _, group in given])
    chat = names.count("chat")
    inside = sum(name == "chat" for name, _ in given)
    return float(index), (len(given) - inside) / (len(names) - chat), 1 - inside / max(1, chat)


WORKS = ("intent", "slots", "booking", "tool", "calls", "moderation", "maths")


@pytest.mark.parametrize("left_out", ["", "booking"])
def test_a_mixture_without_prompts(left_out: str) -> None:
    sample, names = drawn({name: 300 for name in (*WORKS, "chat") if name != left_out})
    division = divide(sample)
    index, assigned, left = scored(division, names)
    assert index >= 0.8
    assert assigned >= 0.9
    assert left >= 0.9
    for group in range(len(division.found)):  # no group mixes works, but for a few rows that look like another's
        inside = Counter(name for name, each in zip(names, division.groups, strict=True) if each == group)
        assert inside.most_common(1)[0][1] >= 0.75 * inside.total()


def test_a_matcher_of_the_mixture() -> None:
    sample, _ = drawn(dict.fromkeys((*WORKS, "chat"), 200))
    matching = fit(sample, divide(sample))
    assert matching is not None
    assert len(matching.labels) == len(WORKS)
    assert matching.told.precision.value is not None
    assert matching.told.precision.value >= 0.98
    assert matching.told.matched.value is not None
    assert matching.told.matched.value >= 0.4


@pytest.mark.parametrize("name", WORKS)
def test_one_work_is_one(name: str) -> None:
    sample, _ = drawn({name: 300})
    assert divide(sample).one


def test_small_and_skewed() -> None:
    for counts in (dict.fromkeys((*WORKS, "chat"), 60), {"intent": 900, "slots": 50, "chat": 50}):
        sample, names = drawn(counts)
        index, _, left = scored(divide(sample), names)
        assert index >= 0.7
        assert left >= 0.9


def test_styles_of_one_prompt_are_joined() -> None:
    module, rng = mixture(), random.Random(3)
    sides, truth = [], []
    for name in WORKS:
        for wrapped in ("{}", "Message: {}", "Leo\ncase 12\n{}"):
            items = [rng.choice(module.work(name).items) for _ in range(150)]
            asked = [
                Asked(wrapped.format(item.text), said(item), True, json.dumps(item.tools) if item.tools else "")
                for item in items
            ]
            ask = rng.choice(module.work(name).asks)
            sides.append(Side(asked, infer([row.text for row in asked], [row.value for row in asked]), ask))
            truth.append(name)
    found = [0] * len(sides)
    for place, group in enumerate(join(sides)):
        assert len({truth[i] for i in group}) == 1  # never two works
        for i in group:
            found[i] = place
    assert adjusted_rand_score(truth, found) >= 0.8
