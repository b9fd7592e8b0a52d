"""Real data sets as traffic that `suffice learn --data` takes, each with rows that nothing sees before the end.

A row is {"input", "reference"}, with "output" too where a real model's recorded answer is there. Shuffles are seeded.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import common

Row = dict[str, Any]

HELD_SHARE, MOST_HELD = 0.25, 3_000
"""Of data without a test file of its own this share is left untouched, at most so many rows."""
QUICK_ROWS, QUICK_HELD = 3_000, 800
RECORDED = "recorded-qwen3-30b-a3b.jsonl"


class DataSet(NamedTuple):
    """What to learn and certify from, the untouched rows, and a word on how they were made.

    `labels`: the fields whose answers are labels, not pieces of the input; `structured` where there are pieces.
    """

    learn: list[Row]
    held: list[Row]
    note: str
    structured: bool = False
    labels: tuple[str, ...] = ()


def banking(seed: int) -> DataSet:
    """Intents, trusted labels: train and one half of test, against the other half."""
    learn, held = _halved("banking77", seed)
    return DataSet([_plain(row) for row in learn], [_plain(row) for row in held], "77 intents, trusted labels")


def banking_recorded(seed: int) -> DataSet:
    """The same with the answers of a real, noisy model: certified by the signed loss."""
    learn, held = _halved("banking77", seed)
    recorded = common.read_lines(common.data_folder("banking77") / RECORDED)
    said = {" ".join(row["text"].split()): row["answer"] for row in recorded}

    def told(row: Row) -> Row:
        return {**_plain(row), "output": said[" ".join(row["text"].split())]}

    note = "77 intents, Qwen3-30B-A3B's recorded answers as the frontier, trusted labels beside them: signed loss"
    return DataSet([told(row) for row in learn], [told(row) for row in held], note)


def snips(seed: int) -> DataSet:
    """Intent and slots in one object: {"intent": label, slot: [pieces in text order]}."""
    return DataSet(
        *_parted(_snips_rows(with_intent=True), seed), "7 intents with 39 slots, pieces of the text", True, ("intent",)
    )


def snips_slots(seed: int) -> DataSet:
    """Slots alone."""
    return DataSet(*_parted(_snips_rows(with_intent=False), seed), "39 slots, pieces of the text", True)


def snips_intent(seed: int) -> DataSet:
    """The intent alone."""
    rows = [{"input": row["input"], "reference": row["reference"]["intent"]} for row in _snips_rows(with_intent=True)]
    return DataSet(*_parted(rows, seed), "7 intents")


def restaurant(seed: int) -> DataSet:
    """Fields of pieces; what was asked for stands in the input, as it would in a prompt."""
    learn, held = _halved("restaurant8k", seed)

    def told(row: Row) -> Row:
        asked = ", ".join(name.replace("_", " ") for name in row["requested"])
        return {"input": f"Asked for: {asked or 'nothing'}\nGuest: {row['text']}", "reference": row["slots"]}

    return DataSet([told(row) for row in learn], [told(row) for row in held], "5 fields, pieces of the text", True)


def metatool(seed: int) -> DataSet:
    """The tool to use, by its name."""
    return DataSet(*_parted(_metatool_rows(), seed), "199 tools, by name")


def metatool_calls(seed: int) -> DataSet:
    """The same as tool calls without arguments."""
    rows = [
        {**row, "reference": {"tool_calls": [{"name": row["reference"], "arguments": {}}]}} for row in _metatool_rows()
    ]
    return DataSet(*_parted(rows, seed), "199 tools, called without arguments")


def moderation(seed: int) -> DataSet:
    """The policies that a text breaks, as a set of labels."""
    every = common.read_lines(common.data_folder("moderation") / "samples.jsonl")
    names = {name for row in every for name in row["labels"]}
    known = [row for row in every if row["labels"].keys() == names]
    rows = [
        {"input": row["text"], "reference": sorted(name for name, broken in row["labels"].items() if broken)}
        for row in known
    ]
    note = f"a set of {len(names)} labels; left out: {len(every) - len(known)} rows in which one is unknown"
    return DataSet(*_parted(rows, seed), note)


def repeated(seed: int) -> DataSet:
    """BANKING77's texts as traffic that repeats itself: the k-th commonest text comes 1/k as often as the first."""
    folder = common.data_folder("banking77")
    pool = [*common.read_lines(folder / "train.jsonl"), *common.read_lines(folder / "test.jsonl")]
    dice = random.Random(seed)
    dice.shuffle(pool)
    drawn = dice.choices(pool, [1 / (k + 1) for k in range(len(pool))], k=13_000)
    rows = [_plain(row) for row in drawn]
    once = len({row["input"] for row in rows})
    return DataSet(rows[:10_000], rows[10_000:], f"BANKING77 drawn by Zipf's law: {once:,} distinct texts, 77 intents")


SETS: dict[str, Callable[[int], DataSet]] = {
    "banking77": banking,
    "banking77-recorded": banking_recorded,
    "banking77-repeated": repeated,
    "snips": snips,
    "snips-slots": snips_slots,
    "snips-intent": snips_intent,
    "restaurant8k": restaurant,
    "metatool": metatool,
    "metatool-calls": metatool_calls,
    "moderation": moderation,
}


def load(name: str, seed: int, quick: bool) -> DataSet:
    """A set by its name; `quick` keeps the first QUICK_ROWS and QUICK_HELD of its shuffled rows."""
    found = SETS[name](seed)
    return found._replace(learn=found.learn[:QUICK_ROWS], held=found.held[:QUICK_HELD]) if quick else found


def _plain(row: Row) -> Row:
    return {"input": row["text"], "reference": row["label"]}


def _halved(folder: str, seed: int) -> tuple[list[Row], list[Row]]:
    """Train with one half of test, shuffled, and the other half."""
    where, dice = common.data_folder(folder), random.Random(seed)
    test = common.read_lines(where / "test.jsonl")
    dice.shuffle(test)
    learn = common.read_lines(where / "train.jsonl") + test[: len(test) // 2]
    dice.shuffle(learn)
    return learn, test[len(test) // 2 :]


def _parted(rows: Sequence[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """Shuffled rows to learn from, and those to leave untouched."""
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    held = min(int(HELD_SHARE * len(shuffled)), MOST_HELD)
    return shuffled[held:], shuffled[:held]


def _snips_rows(with_intent: bool) -> list[Row]:
    where = common.data_folder("snips")
    found = []
    for row in (*common.read_lines(where / "train.jsonl"), *common.read_lines(where / "validate.jsonl")):
        answer: Row = {"intent": row["intent"]} if with_intent else {}
        for piece in row["slots"]:
            answer.setdefault(piece["slot"], []).append(piece["text"])
        found.append({"input": row["text"], "reference": answer})
    return found


def _metatool_rows() -> list[Row]:
    rows = common.read_lines(common.data_folder("metatool") / "queries.jsonl")
    return [{"input": row["text"], "reference": row["tool"]} for row in rows]
