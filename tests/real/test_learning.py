"""From a file to a release and its answers, through the command line: every promise, every shape, every refusal.

The data are made here: short mails whose words tell the label, so that a run takes a second or two.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from suffice.core.contracts import refusal
from suffice.core.protocols import Progress
from suffice.core.types import OutputContract, Policy, Prediction, Recipe, TrainSet, TuneSet
from suffice.core.values import Value
from suffice.learn import pipeline
from suffice.store import artefacts, records, releases
from suffice.store.home import Home

Cli = Callable[..., tuple[int, list[Any], str]]
Write = Callable[..., Path]
Row = dict[str, Any]

TOPICS = {
    "billing": ["invoice", "charged", "refund", "payment", "price", "card"],
    "tech": ["crash", "error", "login", "slow", "update", "screen"],
    "shipping": ["parcel", "courier", "late", "address", "tracking", "delivery"],
}
LABELS = sorted(TOPICS)
FILLER = ["hello", "please", "today", "again", "team", "my", "still", "need", "help", "with", "the", "about"]


def mails(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """(text, right label)."""
    dice = random.Random(seed)
    found = []
    for _ in range(n):
        label = dice.choice(LABELS)
        words = dice.choices(TOPICS[label], k=3) + dice.choices(FILLER, k=4)
        dice.shuffle(words)
        found.append((" ".join(words), label))
    return found


def other(label: str, dice: random.Random) -> str:
    return dice.choice([each for each in LABELS if each != label])


def rows(n: int, answer: Callable[[str], Value] = str, seed: int = 0) -> list[Row]:
    """Short form: what the frontier said of each mail."""
    return [{"input": text, "output": answer(label)} for text, label in mails(n, seed)]


def learn(cli: Cli, file: Path, *options: object, home: str = "home") -> tuple[int, Row, str]:
    code, documents, told = cli("learn", "t", "--data", file, *options, home=home)
    return code, documents[0] if documents else {}, told


def released(cli: Cli, write: Write, data: list[Row], *options: object, home: str = "home") -> Row:
    code, document, told = learn(cli, write(data), *options, home=home)
    assert code == 0, (document.get("reasons"), told)
    return document


def answers(cli: Cli, write: Write, lines: list[Any], task: str = "t") -> list[Row]:
    code, found, told = cli("answer", task, write(lines, "ask.jsonl"))
    assert code == 0, told
    assert len(found) == len(lines)
    return found


def within(estimate: Row) -> bool:
    return bool(0 <= estimate["low"] <= estimate["value"] <= estimate["high"] <= 1 and estimate["n"] > 0)


# ---------------------------------------------------------------------------------------------- promises


def test_agreement(cli: Cli, written: Write) -> None:
    found = released(cli, written, rows(1200))
    certificate = found["certificate"]
    assert (found["release"], found["promise"], found["reference"]) == ("t@1", "agreement", "frontier")
    assert (certificate["max_error"], certificate["confidence"], certificate["attempt"]) == (0.02, 0.95, 1)
    assert certificate["delta"] == pytest.approx(0.025)
    assert certificate["p_value"] <= certificate["delta"]
    assert "binomial" in certificate["method"]
    assert (certificate["n"], sum(found["splits"].values())) == (found["splits"]["calibration"], 1200)
    assert all(within(found[key]) for key in ("accuracy", "coverage", "accepted_error"))
    assert found["frontier_error"] is None
    assert found["coverage"]["value"] > 0.8
    assert found["candidates"][0]["verdict"] == "chosen"
    assert "differs from the frontier" in found["sentence"]


def test_absolute_where_no_recorded_answer_differs_or_none_is_recorded(cli: Cli, written: Write) -> None:
    for home, kept in (("both", ("output", "reference")), ("alone", ("reference",))):
        data = [{"input": text, **dict.fromkeys(kept, label)} for text, label in mails(1200)]
        found = released(cli, written, data, home=home)
        assert (found["promise"], found["reference"]) == ("absolute", "human")


def test_signed_where_the_frontier_errs(cli: Cli, written: Write) -> None:
    dice = random.Random(1)
    data: list[Row] = []
    for i, (text, label) in enumerate(mails(4000)):
        wrong = dice.random() < 0.1
        data.append({"input": text, "output": other(label, dice) if wrong else label})
        if i % 4:  # every fourth has no trusted answer
            data[-1] |= {"reference": label, "reference_kind": "rule"}
    found = released(cli, written, data, "--seed", 1)
    assert (found["promise"], found["reference"], found["certificate"]["reference"]) == ("signed", "rule", "rule")
    assert "betting" in found["certificate"]["method"]
    assert found["frontier_error"]["value"] > 0.03
    assert found["worse"] is not None


def test_labels_of_the_disagreements_of_one_calibration_cost_nothing(cli: Cli, written: Write, tmp_path: Path) -> None:
    """The frontier errs on 6%, so by its answers nothing certifies; then someone says who was right."""
    dice = random.Random(3)
    truths = dict(mails(3000))
    data = [
        {"input": text, "output": other(label, dice) if dice.random() < 0.06 else label} for text, label in mails(3000)
    ]
    wish = ("--min-coverage", "0.8")
    code, first, _ = learn(cli, written(data), *wish)
    assert (code, first["promise"], first["attempt"]) == (1, "agreement", 1)
    assert first["worth_labelling"] == [], "here they would be calibration's errors"

    home = Home(tmp_path / "home")
    trained = next(name for name, place in releases.get_splits(home, "t").items() if place == "train")
    texts = {row.id: row.input for row, _ in records.query(home, task="t")}
    records.add_trusted(home, records.Trusted(trained, "human", truths[str(texts[trained])]))

    def label(found: Row, share: float) -> None:
        named = found["worth_labelling"]
        assert named
        for row in named[: math.ceil(share * len(named))]:
            assert truths[row["input"]] in row["answers"]
            records.add_trusted(home, records.Trusted(row["record"], "human", truths[row["input"]]))

    code, documents, _ = cli("learn", "t", *wish)
    second = documents[0]
    assert (code, second["promise"], second["attempt"]) == (1, "signed", 2), "another loss is another look"
    shown = cli("show", "t", "--label", 100)[1][0]["worth_labelling"]
    assert [row["record"] for row in shown] == [row["record"] for row in second["worth_labelling"]]
    label(second, 0.3)
    code, documents, _ = cli("learn", "t", *wish)
    label(documents[0], 1.0)
    code, documents, _ = cli("learn", "t", *wish)
    third = documents[0]
    assert (code, third["release"], third["attempt"]) == (0, "t@1", 2), third["reasons"]
    assert third["certificate"]["delta"] == pytest.approx(0.05 / 6)
    assert releases.attempts(home, "t") == 2


def test_a_label_that_was_changed_is_another_look(cli: Cli, written: Write, tmp_path: Path) -> None:
    dice = random.Random(3)
    data = [
        {"input": text, "output": other(label, dice) if dice.random() < 0.06 else label} for text, label in mails(3000)
    ]
    data[0]["reference"] = data[0]["output"]
    _, first, _ = learn(cli, written(data), "--min-coverage", "0.8")
    home = Home(tmp_path / "home")
    for answer, attempts in (("billing", 1), ("tech", 2)):
        for row in first["worth_labelling"][:3]:
            records.add_trusted(home, records.Trusted(row["record"], "human", answer))
        cli("learn", "t", "--min-coverage", "0.8")
        assert releases.attempts(home, "t") == attempts


def test_what_a_changed_frontier_said_before_can_be_forgotten(cli: Cli, written: Write) -> None:
    renamed = {"billing": "tech", "tech": "billing", "shipping": "shipping"}
    old = [
        {"input": text, "output": renamed[label], "at": 1000.0 + i} for i, (text, label) in enumerate(mails(1500, 5))
    ]
    new = [{"input": text, "output": label, "at": 9000.0 + i} for i, (text, label) in enumerate(mails(1200, 6))]
    found = released(cli, written, [*old, *new], "--since", "9000", "--forget")
    assert found["examples"] == 1200
    assert found["accuracy"]["value"] > 0.9
    code, _, told = cli("learn", "t", "--forget")
    assert (code, "--since" in told) == (2, True)


def test_human_and_rule_in_one_calibration_are_not_mixed(cli: Cli, written: Write) -> None:
    data = [
        {"input": text, "reference": label, "reference_kind": ("human", "rule")[i % 2]}
        for i, (text, label) in enumerate(mails(900))
    ]
    code, _, told = learn(cli, written(data))
    assert code == 2
    assert "human" in told
    assert "rule" in told


# ---------------------------------------------------------------------------------------------- shapes


def calls(label: str) -> Value:
    """A call whose argument is of a short list, and none for shipping."""
    if label == "shipping":
        return {"tool_calls": []}
    return {"tool_calls": [{"name": "route", "arguments": {"queue": label, "urgent": label == "tech"}}]}


SHAPES: dict[str, Callable[[str], Value]] = {
    "label": str,
    "label with a line end": lambda label: label + "\n",
    "boolean": lambda label: label == "tech",
    "number": lambda label: LABELS.index(label) + 1,
    "digit as text": lambda label: str(LABELS.index(label) + 1),
    "null": lambda label: None if label == "tech" else label,
    "labels": lambda label: [] if label == "tech" else ["mail", label],
    "object": lambda label: {"queue": label, "urgent": label == "tech", "level": LABELS.index(label)},
    "object with a field that is null now and then": lambda label: {
        "a": None if label == "tech" else 1,
        "queue": label,
    },
    "object with an optional field": lambda label: {"queue": label, **({"urgent": True} if label == "tech" else {})},
    "object within an object": lambda label: {"z": {"queue": label}, "a": 1},
    "JSON text": lambda label: json.dumps({"queue": label, "urgent": label == "tech"}, indent=2),
    "fenced JSON text": lambda label: f'```json\n{{"queue":"{label}"}}\n```',
    "call": lambda label: {"tool_calls": [{"name": "to_" + label, "arguments": {"when": "now"}}]},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_answers_have_the_shape_of_the_training_outputs(
    cli: Cli, written: Write, shape: Callable[[str], Value]
) -> None:
    released(cli, written, rows(700, shape), "--max-error", 0.05)
    fresh = mails(120, seed=5)
    found = answers(cli, written, [{"input": text} for text, _ in fresh])
    same = [alike(line["output"], shape(label)) for line, (_, label) in zip(found, fresh, strict=True)]
    assert sum(same) / len(same) > 0.9
    assert sum(line["accepted"] for line in found) / len(found) > 0.5
    for line in found:
        assert line.keys() >= {"output", "score", "accepted", "reason"}
        assert line["accepted"] == (line["reason"] == "accepted")


def alike(said: Value, right: Value) -> bool:
    """The same to the letter; labels are a set."""
    if isinstance(said, list) and isinstance(right, list):
        return sorted(map(str, said)) == sorted(map(str, right))
    return repr(said) == repr(right)


@pytest.mark.parametrize(
    "answer",
    [
        lambda label: {"queue": label, "why": None},
        lambda label: {"queue": label, "notes": []},
        lambda label: {"queue": label, "notes": ""},
        lambda label: {"tool_calls": [{"name": "to", "arguments": {"queue": label, "why": None}}]},
    ],
    ids=["null", "list", "text", "argument"],
)
def test_a_field_that_never_says_anything_is_no_obstacle(
    cli: Cli, written: Write, answer: Callable[[str], Value]
) -> None:
    released(cli, written, rows(500, answer), "--max-error", 0.05)
    (found,) = answers(cli, written, [{"input": "invoice refund charged card"}])
    assert found["output"] == answer("billing")


def test_no_call_is_learned_and_accepted(cli: Cli, written: Write) -> None:
    released(cli, written, rows(700, calls), "--max-error", 0.05)
    fresh = mails(120, seed=5)
    found = answers(cli, written, [{"input": text} for text, _ in fresh])
    silent = [line for line, (_, label) in zip(found, fresh, strict=True) if label == "shipping"]
    assert sum(line["accepted"] and line["output"] == {"tool_calls": []} for line in silent) > 0.5 * len(silent)


def test_an_object_whose_fields_all_say_nothing_is_learned(cli: Cli, written: Write) -> None:
    data = rows(700, lambda label: {"queue": label, "who": {"name": "you" if label == "tech" else None}})
    found = released(cli, written, data, "--max-error", 0.05)
    assert found["accuracy"]["value"] > 0.9


def test_labels_within_an_object_are_learned_in_the_frontiers_order(cli: Cli, written: Write) -> None:
    data = rows(700, lambda label: {"tags": ["urgent", label]})
    assert released(cli, written, data, "--max-error", 0.05)["accuracy"]["value"] > 0.9


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda text: text.split()[0] + " " + text[::-1], "free text"),
        (lambda text: len(text) + hash(text) % 997 / 7, "number"),
    ],
    ids=["free text", "numbers"],
)
def test_an_answer_without_a_closed_list_is_turned_away(
    cli: Cli, written: Write, answer: Callable[[str], Value], named: str
) -> None:
    code, found, _ = learn(cli, written([{"input": text, "output": answer(text)} for text, _ in mails(700)]))
    assert (code, found["release"]) == (1, None)
    assert named in " ".join(found["reasons"])


# ---------------------------------------------------------------------------------------------- saying no


def refused(cli: Cli, write: Write, data: list[Row], *options: object) -> Row:
    code, document, _ = learn(cli, write(data), *options)
    assert (code, document["release"], document["certificate"]) == (1, None, None)
    assert document["reasons"]
    return document


def spent(tmp_path: Path) -> int:
    return releases.attempts(Home(tmp_path / "home"), "t")


def test_one_label_is_nothing_to_learn(cli: Cli, written: Write, tmp_path: Path) -> None:
    assert "same answer" in refused(cli, written, rows(700, lambda _: "a"))["reasons"][0]
    assert spent(tmp_path) == 0


def test_twelve_examples_say_how_many_are_missing_and_cost_nothing(cli: Cli, written: Write, tmp_path: Path) -> None:
    (reason,) = refused(cli, written, rows(12))["reasons"]
    assert re.search(r"at least [\d,]+ more", reason)
    assert spent(tmp_path) == 0


def test_enough_is_enough(cli: Cli, written: Write) -> None:
    """The number that a refusal names is the number that it takes."""
    (reason,) = refused(cli, written, rows(100))["reasons"]
    more = int(re.search(r"at least ([\d,]+) more", reason)[1].replace(",", ""))  # type: ignore[index]
    assert "cannot certify: at least" not in " ".join(
        learn(cli, written(rows(100 + more, seed=3)), home="next")[1]["reasons"]
    )


def test_random_labels_cannot_be_certified(cli: Cli, written: Write, tmp_path: Path) -> None:
    dice = random.Random(0)
    found = refused(cli, written, rows(900, lambda _: dice.choice(LABELS)))
    assert "cannot certify" in found["reasons"][0]
    assert "more" in found["reasons"][-1]
    assert within(found["accuracy"])
    assert spent(tmp_path) == 1


def test_a_few_wrong_labels_give_an_estimate_of_what_is_missing(cli: Cli, written: Write) -> None:
    dice = random.Random(0)
    data = rows(500, lambda label: other(label, dice) if dice.random() < 0.04 else label)
    reasons = refused(cli, written, data, "--max-error", 0.03)["reasons"]
    assert re.search(r"[\d,]+ more examples|more labels alone", reasons[-1])


def test_contradicting_answers_are_noted(cli: Cli, written: Write) -> None:
    data = rows(900)
    data += [{"input": row["input"], "output": "tech"} for row in data[:60]]
    code, found, _ = learn(cli, written(data), "--max-error", 0.15)
    assert code == 0, found["reasons"]
    assert any("contradicting" in note for note in found["notes"])


def test_min_coverage_is_kept(cli: Cli, written: Write) -> None:
    dice = random.Random(0)
    data = [
        {"input": text, "output": label} if i % 2 else
        {"input": " ".join(dice.choices(FILLER, k=7)), "output": dice.choice(LABELS)}
        for i, (text, label) in enumerate(mails(2000))
    ]  # fmt: skip
    assert released(cli, written, data, "--min-coverage", 0.2)["coverage"]["value"] < 0.8
    code, found, _ = learn(cli, written(data), "--min-coverage", 0.9, home="next")
    assert (code, found["release"]) == (1, None)


@pytest.mark.parametrize(
    "options",
    [("--max-error", "2"), ("--max-error", "nan"), ("--confidence", "1"), ("--min-coverage", "0.01"), ("--recipe", "x"),
     ("--budget", "0"), ("--budget", "nan"), ("--max-error", "x"), ("--seed", "x"), ("--since", "1766000000000"),
     ("--since", "nan"), ("--none",)],
    ids=" ".join,
)  # fmt: skip
def test_options_that_cannot_be_are_one_line(cli: Cli, written: Write, options: Sequence[str]) -> None:
    code, _, told = learn(cli, written(rows(30)), *options)
    assert code == 2
    assert len(told.strip().splitlines()) == 1


def test_files_and_tasks_that_are_not_there(cli: Cli, written: Write, tmp_path: Path) -> None:
    assert cli("learn", "t")[0] == 2
    assert cli("learn", "t", "--data", tmp_path / "none.jsonl")[0] == 2
    code, _, told = cli("learn", "t", "--data", written(["{", "5"]))
    assert code == 2
    assert "line 1" in told
    assert "line 2" in told
    assert cli("learn", "not a name", "--data", written(rows(30)))[0] == 2
    assert cli("answer", "t", written(rows(3)))[0] in (1, 2)


def test_bad_lines_are_told_and_the_good_ones_learned(cli: Cli, written: Write) -> None:
    data: list[Any] = rows(500)
    code, found, told = learn(cli, written([*data[:100], "{broken", *data[100:]]), "--max-error", 0.05)
    assert (code, found["examples"]) == (0, 500)
    assert "line 101" in told


def test_a_bad_task_name_is_a_bad_line(cli: Cli, written: Write) -> None:
    file = written([*rows(3), {**rows(1)[0], "task": "not a name"}])
    code, (found,), _ = cli("import", file, "--task", "t")
    assert (code, found["imported"], [bad["line"] for bad in found["bad"]]) == (0, 3, [4])


def test_a_release_is_no_task(cli: Cli, written: Write, tmp_path: Path) -> None:
    cli("import", written([{**row, "task": "t@3"} for row in rows(3)]))
    assert "t@3" not in releases.all_tasks(Home(tmp_path / "home"))


# ---------------------------------------------------------------------------------------------- again


def test_nothing_new_is_the_same_release_at_no_cost(cli: Cli, written: Write, tmp_path: Path) -> None:
    first = released(cli, written, rows(700), "--max-error", 0.05)
    again = released(cli, written, rows(700), "--max-error", 0.05)
    assert {key: value for key, value in again.items() if key != "report"} == {
        key: value for key, value in first.items() if key != "report"
    }
    assert cli("learn", "t", "--max-error", 0.05)[1][0]["release"] == "t@1"
    assert spent(tmp_path) == 1


def test_the_same_data_and_seed_give_the_same_digest_anywhere(cli: Cli, written: Write) -> None:
    first = released(cli, written, rows(700), "--max-error", 0.05, home="one")
    second = released(cli, written, rows(700), "--max-error", 0.05, home="two")
    third = released(cli, written, rows(700), "--max-error", 0.05, "--seed", 1, home="three")
    assert first["digest"] == second["digest"] != third["digest"]


def test_new_rows_make_a_second_release(cli: Cli, written: Write, tmp_path: Path) -> None:
    released(cli, written, rows(1000), "--max-error", 0.05)
    before = releases.get_splits(Home(tmp_path / "home"), "t")
    assert "test" not in before.values()  # the gate has read them: now they train
    code, found, _ = learn(cli, written(rows(1500, seed=9), "more.jsonl"), "--max-error", 0.05)
    assert code == 0, found["reasons"]
    assert (found["release"], found["attempt"]) == ("t@2", 2)
    assert found["certificate"]["delta"] == pytest.approx(0.05 / 6)
    after = releases.get_splits(Home(tmp_path / "home"), "t")
    assert {name: after[name] for name in before} == before
    fresh = {place for name, place in after.items() if name not in before}
    assert "calibration" in fresh
    assert answers(cli, written, [{"input": "invoice refund charged"}], "t@1")[0]["output"] == "billing"


def test_a_run_without_new_rows_to_test_on_says_how_many_it_needs(cli: Cli, written: Write, tmp_path: Path) -> None:
    released(cli, written, rows(1000), "--max-error", 0.05)
    code, found, _ = learn(cli, written(rows(1000)), "--max-error", 0.04)
    assert (code, found["release"]) == (1, None)
    assert re.search(r"[\d,]+ new rows needed", found["reasons"][0])
    assert spent(tmp_path) == 1


def test_groups_are_the_unit(cli: Cli, written: Write, tmp_path: Path) -> None:
    dice = random.Random(0)
    data = [{**row, "group": f"customer {dice.randrange(700)}"} for row in rows(2100)]
    found = released(cli, written, data, "--max-error", 0.05)
    assert "groups" in found["certificate"]["method"]
    assert found["certificate"]["n"] < found["splits"]["calibration"]
    assert "groups of requests" in found["sentence"]


def test_every_row_of_a_group_that_the_gate_has_read_trains(cli: Cli, written: Write, tmp_path: Path) -> None:
    groups = [f"customer {i}" for i in range(1000) for _ in range(8 if i % 8 == 0 else 2)]
    data = [{**row, "group": group} for row, group in zip(rows(len(groups)), groups, strict=True)]
    released(cli, written, data, "--max-error", 0.05)
    assert "test" not in releases.get_splits(Home(tmp_path / "home"), "t").values()


def test_one_task_that_cannot_be_learned_does_not_stop_the_others(cli: Cli, written: Write) -> None:
    mixed = [
        {"input": text, "reference": label, "reference_kind": ("human", "rule")[i % 2], "task": "a"}
        for i, (text, label) in enumerate(mails(700))
    ]
    cli("import", written(mixed + [{**row, "task": "b"} for row in rows(700)]))
    cli("learn", "--max-error", 0.05)
    assert cli("answer", "b", written([{"input": "x"}], "ask.jsonl"))[0] == 0


# ---------------------------------------------------------------------------------------------- answering


def exchange(text: str, label: str, i: int, system: str = "Answer with the queue.") -> Row:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": f"Mail: {text}\nQueue:"}]
    choice = {"index": 0, "message": {"role": "assistant", "content": label}, "finish_reason": "stop"}
    return {"request": {"model": "m", "messages": messages}, "response": {"id": f"c{i}", "choices": [choice]}}


def test_recorded_exchanges_are_learned_and_answered(cli: Cli, written: Write) -> None:
    data = [exchange(text, label + "\n", i) for i, (text, label) in enumerate(mails(700))]
    found = released(cli, written, data, "--max-error", 0.05)
    assert "user message" in found["reads"]
    text, label = mails(1, seed=7)[0]
    lines = [{"request": exchange(text, "", 0)["request"]}, {"input": text}]
    by_request, by_input = answers(cli, written, lines)
    assert by_request["output"] == by_input["output"] == label + "\n"
    assert by_request["score"] == by_input["score"]
    changed = {"request": exchange(text, "", 0, system="Answer with the queue or `other`.")["request"]}
    unsupported = {"request": {**lines[0]["request"], "n": 2}}
    found_lines = answers(cli, written, [changed, unsupported])
    assert [(line["accepted"], line["reason"]) for line in found_lines] == [
        (False, "prompt_changed"),
        (False, "unsupported"),
    ]


def test_output_is_there_even_if_the_prompt_has_changed(cli: Cli, written: Write) -> None:
    released(cli, written, [exchange(t, a, i) for i, (t, a) in enumerate(mails(500))], "--max-error", 0.05)
    text, _ = mails(1, seed=7)[0]
    changed = exchange(text, "", 0, system="Answer with the queue or `other`.")["request"]
    (line,) = answers(cli, written, [{"request": {**changed, "n": 2}}])
    assert line["output"] is not None


def test_a_prompt_that_changed_in_the_file_leaves_the_older_part_out(cli: Cli, written: Write) -> None:
    systems = ["Answer with the queue."] * 300 + ["Answer with the queue, in lower case."] * 500
    timed = [{**exchange(text, label, i, systems[i]), "at": float(i)} for i, (text, label) in enumerate(mails(800))]
    found = released(cli, written, timed, "--max-error", 0.05)
    assert (found["examples"], list(found["dropped"].values())) == (500, [300])


def test_the_order_of_the_file_is_the_order_of_time(cli: Cli, written: Write) -> None:
    systems = ["Answer with the queue."] * 300 + ["Answer with the queue, in lower case."] * 500
    data = [exchange(text, label, i, systems[i]) for i, (text, label) in enumerate(mails(800))]
    assert released(cli, written, data, "--max-error", 0.05)["examples"] == 500


@pytest.mark.parametrize("layout", [(", ", ": "), (",", ":")], ids=["spaced", "compact"])
def test_a_call_keeps_the_layout_of_its_arguments(
    cli: Cli, written: Write, tmp_path: Path, layout: tuple[str, str]
) -> None:
    def arguments(label: str) -> str:
        return json.dumps({"queue": label, "urgent": label == "tech"}, separators=layout)

    data = [exchange(text, "", i) for i, (text, _) in enumerate(mails(500))]
    for row, (_, label) in zip(data, mails(500), strict=True):
        call = {"id": "c", "type": "function", "function": {"name": "route", "arguments": arguments(label)}}
        row["response"]["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
    released(cli, written, data, "--max-error", 0.05)
    stored = releases.get_release(Home(tmp_path / "home"), "t")
    assert stored is not None
    value: Value = {"tool_calls": [{"name": "route", "arguments": {"urgent": True, "queue": "tech"}}]}
    assert stored.serving.style.render(value).calls == (("route", arguments("tech")),)


def test_ways_to_ask(cli: Cli, written: Write) -> None:
    released(cli, written, rows(500), "--max-error", 0.05)
    code, piped, _ = cli("answer", "t@1", "-", stdin=b'{"input": "invoice refund card"}\n\n{"input": ""}\n')
    assert (code, len(piped), piped[0]["output"]) == (0, 2, "billing")
    code, recorded, _ = cli("answer", "t")
    assert (code, len(recorded)) == (0, 500)
    assert all(line["output"] in LABELS for line in recorded)
    assert all(line["then"] in LABELS for line in recorded)
    assert cli("answer", "t@2", written(rows(1), "ask.jsonl"))[0] == 1
    assert cli("answer", "u", written(rows(1), "ask.jsonl"))[0] == 1
    code, out, told = cli("answer", "t", written([{"input": "x"}, {"input": 5}], "ask.jsonl"))
    assert (code, out) == (2, [])
    assert "line 2" in told
    assert cli("answer", "t", written(["{"], "ask.jsonl"))[0] == 2


def test_unlike_anything_seen_is_not_accepted(cli: Cli, written: Write) -> None:
    released(cli, written, rows(900), "--max-error", 0.05)
    strange = ["我的卡在哪里", "zxq vrrk plmw uuu", "Natalia sold clips to 48 of her friends in April. How many?"]
    found = answers(cli, written, [{"input": text} for text in strange])
    assert not any(line["accepted"] for line in found)


# ---------------------------------------------------------------------------------------------- is it true?


LIMIT, DRAWS = 0.05, 30


def test_the_promise_is_kept_over_many_draws(tmp_path: Path) -> None:
    """Labels noisy to a known degree: a release is wrong too often in about δ_1 of the draws at most."""
    fresh = noisy(6000, seed=10_000)
    made = broken = 0
    for seed in range(DRAWS):
        home = Home(tmp_path / str(seed))
        releases.ensure_task(home, "t")
        records.import_rows(home, [stored(i, row) for i, row in enumerate(noisy(900, seed))], [])
        settings = pipeline.Settings(policy=Policy(max_error=LIMIT), seed=seed)
        found = pipeline.learn(home, "t", [Counting()], settings, clock=lambda: 0.0, progress=lambda *_: None).stored
        if found is None:
            continue
        made += 1
        draft = found.release.draft
        specialist = Counting().load(artefacts.folder_of(home, draft.artefact))
        predictions = specialist.predict([row["input"] for row in fresh])
        wrong = sum(
            refusal(said, draft.contract, draft.threshold.score) is None and said.value != row["output"]
            for said, row in zip(predictions, fresh, strict=True)
        )
        broken += wrong / len(fresh) > LIMIT
    assert made >= DRAWS // 2  # a promise is not kept by never making one
    assert broken <= 4  # at a true rate of δ_1 = 0.025, five in 30 happen once in 1,500 times


def stored(i: int, row: Row) -> records.Row:
    """A row of the short form."""
    answer = json.dumps(row["output"]).encode()
    return records.Row(
        id=f"r{i:05d}", at=float(i), source="import", dialect="short", task="t", route="frontier", status=200,
        input=row["input"], answer=answer,
    )  # fmt: skip


def noisy(n: int, seed: int) -> list[Row]:
    """Mails whose answer is wrong for 2% of the clear ones and for 30% of the quarter that say little."""
    dice = random.Random(seed)
    found = []
    for text, label in mails(n, seed):
        vague = dice.random() < 0.25
        if vague:
            text = " ".join(dice.sample([*dice.choices(FILLER, k=6), dice.choice(TOPICS[label])], 7))
        wrong = dice.random() < (0.3 if vague else 0.02)
        found.append({"input": text, "output": other(label, dice) if wrong else label})
    return found


class Counting:
    """A family of one file and no solver: each word votes for the labels it was seen with."""

    name = "counting"

    def __init__(self, votes: dict[str, dict[str, float]] | None = None) -> None:
        self.votes = votes or {}

    def supports(self, contract: OutputContract) -> str | None:
        return None

    def recipes(self, seed: int) -> list[Recipe]:
        return [Recipe(family=self.name, seed=seed)]

    def fit(
        self,
        recipe: Recipe,
        contract: OutputContract,
        train: TrainSet,
        tune: TuneSet,
        progress: Progress,
        scratch: Path | None = None,
    ) -> Counting:
        seen: dict[str, Counter[str]] = defaultdict(Counter)
        for example in train:
            for word in example.input.split():
                seen[word][str(example.target)] += 1
        return Counting(
            {word: {label: math.log(counts[label] + 1) for label in LABELS} for word, counts in seen.items()}
        )

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        found = []
        for text in inputs:
            sums = [sum(self.votes.get(word, {}).get(label, 0.0) for word in text.split()) for label in LABELS]
            second, first = sorted(sums)[-2:]
            found.append(Prediction(value=LABELS[sums.index(first)], score=1 / (1 + math.exp(second - first))))
        return found

    def save(self, folder: Path) -> None:
        (folder / "votes.json").write_text(json.dumps(self.votes, sort_keys=True))

    def load(self, folder: Path) -> Counting:
        return Counting(json.loads((folder / "votes.json").read_text()))
