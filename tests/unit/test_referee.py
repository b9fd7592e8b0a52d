"""A model that judges: what it is asked, how it is measured against people, and that its errors are paid for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.stats import binom

from suffice.core.errors import InputError, SufficeError
from suffice.core.protocols import Reply
from suffice.core.types import Example, JudgeError, Policy
from suffice.learn.referee import LEAST, Pair, Referee, compared, pairs_in, pairs_of, strict
from suffice.proof.bounds import attempt_delta, p_binary


class Model:
    """An upstream that prefers what is longer, in the words that it is told to use; keeps what it was asked."""

    def __init__(self, say: str = "I think {}.") -> None:
        self.say = say
        self.asked: list[dict[str, Any]] = []

    def __call__(self, questions: Sequence[bytes]) -> list[Reply]:
        self.asked += [msgspec.json.decode(question) for question in questions]
        return [self.reply(question) for question in self.asked[-len(questions) :]]

    def reply(self, question: dict[str, Any]) -> Reply:
        text = question["messages"][1]["content"]
        first, second = (len(text.split(f"<{name}>\n")[1].split(f"\n</{name}>")[0]) for name in "AB")
        word = "SAME" if first == second else "A" if first > second else "B"
        body = {"choices": [{"message": {"content": self.say.format(word)}}]}
        return Reply(status=200, body=msgspec.json.encode(body))


def test_both_orders_are_asked_and_each_once() -> None:
    model = Model()
    judge = Referee("tone", "m", "Polite is good.", model)
    assert judge("hi", "long answer", "short") == 0.0
    assert judge("hi", "short", "long answer") == 1.0
    assert judge("hi", "equal", "alike") == 0.0
    assert len(model.asked) == 4, "the second pair is the first one turned round"
    assert model.asked[0]["model"] == "m" and model.asked[0]["temperature"] == 0
    assert "Polite is good." in model.asked[0]["messages"][0]["content"]
    judge.prepare([("hi", "long answer", "short")])
    assert len(model.asked) == 4


def test_a_judge_with_a_favourite_place_passes_nothing() -> None:
    judge = Referee("tone", "m", "", Model("A"))
    assert judge("hi", "one", "two") == judge("hi", "two", "one") == 1.0


@pytest.mark.parametrize("say", ["", "neither", "a", "As for me, both"])
def test_a_reply_that_is_no_verdict_counts_against_the_answer_and_is_told(say: str) -> None:
    judge = Referee("tone", "m", "", Model(say))
    assert judge("hi", "one", "two") == 1.0
    assert judge.fault() == "2 replies of judge tone were no verdict, and counted as one against"
    assert judge.fault() is None


def test_a_judge_that_cannot_be_asked_says_so() -> None:
    judge = Referee("tone", "m", "", lambda questions: [Reply(failure="connection refused") for _ in questions])
    with pytest.raises(SufficeError, match="judge tone cannot be asked: connection refused"):
        judge("hi", "one", "two")


def test_another_instruction_is_another_judge() -> None:
    pins = {Referee("t", model, told, Model()).pin for model in ("m", "n") for told in ("", "Be strict.")}
    assert len(pins) == 4


# ---------------------------------------------------------------------------------------------- against people


class Lenient:
    """Lets pass the answers that are named so."""

    def __call__(self, input: str, said: object, right: object) -> float:
        return float(said != "passes")

    def prepare(self, cases: Sequence[object]) -> None: ...

    def fault(self) -> str | None:
        return None


def pairs(wrong: int, passed: int, right: int = 10, failed: int = 0) -> list[Pair]:
    said = ["passes"] * passed + ["fails"] * (wrong - passed)
    kept = ["fails"] * failed + ["passes"] * (right - failed)
    return [Pair(input="", answer=answer, reference="r", good=False) for answer in said] + [
        Pair(input="", answer=answer, reference="r", good=True) for answer in kept
    ]


def test_without_a_measured_error_nothing_is_certified() -> None:
    told = compared(Lenient(), "tone", pairs(LEAST - 1, 0), 0.0125)
    assert told == (
        "nothing is certified by a judge of unknown error: tone was compared with people on 59 answers that they call "
        "wrong; 60 are needed ([judges.tone] pairs)"
    )
    assert "lets pass 60 of 100" in str(compared(Lenient(), "tone", pairs(100, 60), 0.0125))


def test_its_error_and_what_it_costs() -> None:
    found = compared(Lenient(), "tone", pairs(100, 4, 50, 5), 0.0125)
    assert isinstance(found, JudgeError)
    assert found.false_passes.value == 0.04 and found.false_fails.value == 0.1
    assert binom.cdf(4, 100, found.bound) == pytest.approx(0.0125), "Clopper and Pearson, one-sided"
    policy = Policy(max_error=0.02)
    paid = strict(policy, found)
    assert paid.max_error == pytest.approx(0.02 * (1 - found.bound))
    assert paid.slice_error == pytest.approx(0.05 * (1 - found.bound))
    assert paid.tail_error == pytest.approx(0.2 * (1 - found.bound))
    assert attempt_delta(paid.delta, 3) == pytest.approx(attempt_delta(policy.delta, 3) / 2)


def broken(psi: float, pairs_n: int, n: int, eps: float, repetitions: int, paid: bool) -> float:
    """How often a certificate is given though people would find exactly `eps` of all requests accepted and wrong."""
    dice, policy = np.random.default_rng(5), Policy(max_error=eps)
    delta = attempt_delta(policy.delta, 1)
    passed = dice.binomial(pairs_n, psi, repetitions)
    known = {k: compared(Lenient(), "j", pairs(pairs_n, k), delta / 2) for k in set(passed.tolist())}
    seen = dice.binomial(n, eps * (1 - psi), repetitions)
    certified = 0
    for k, errors in zip(passed.tolist(), seen.tolist(), strict=True):
        found = known[k]
        if isinstance(found, str):
            continue
        by = strict(policy, found) if paid else policy
        certified += binom.cdf(errors, n, by.max_error) <= attempt_delta(by.delta, 1)
    return certified / repetitions


@pytest.mark.parametrize(("psi", "pairs_n"), [(0.02, 60), (0.1, 100), (0.3, 300)])
def test_the_promise_holds_by_people_though_a_model_judged(psi: float, pairs_n: int) -> None:
    delta, repetitions = attempt_delta(0.05, 1), 2_000
    limit = delta + 3 * (delta * (1 - delta) / repetitions) ** 0.5
    assert broken(psi, pairs_n, 3_000, 0.02, repetitions, paid=True) <= limit
    if psi > 0.05:
        assert broken(psi, pairs_n, 3_000, 0.02, repetitions, paid=False) > limit, "taken at its word it would not"


def test_the_simulation_certifies_as_the_proof_does() -> None:
    losses = np.zeros(500)
    losses[:3] = 1.0
    assert p_binary(losses, 0.02) == pytest.approx(binom.cdf(3, 500, 0.02))


# ---------------------------------------------------------------------------------------------- where pairs come from


def test_pairs_from_a_file_and_what_is_wrong_with_a_line(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    line = {"input": "hi", "answer": "a", "reference": "b", "good": False}
    path.write_text(json.dumps(line) + "\n\n" + json.dumps(line | {"good": True}) + "\n")
    assert [pair.good for pair in pairs_in(path)] == [False, True]
    path.write_text(json.dumps(line) + "\n" + json.dumps(line | {"good": "no"}) + "\n")
    with pytest.raises(InputError, match=r"pairs\.jsonl:2: .*bool"):
        pairs_in(path)
    with pytest.raises(InputError, match="cannot be read"):
        pairs_in(tmp_path / "none.jsonl")


def test_pairs_from_what_people_made_of_answers() -> None:
    def row(i: int, output: str, reference: str | None, kind: Any = "human", group: str | None = None) -> Example:
        known = {} if reference is None else {"reference": reference, "has_reference": True, "reference_kind": kind}
        return Example(id=str(i), input="x", output=output, has_output=True, group=group, **known)

    rows = [row(1, "a", "a"), row(2, "a", "b"), row(3, "a", None), row(4, "a", "b", "rule")]
    assert [pair.good for pair in pairs_of(rows)] == [True, False]
    assert len(pairs_of([row(i, "a", "b", group="one customer") for i in range(9)])) == 1
