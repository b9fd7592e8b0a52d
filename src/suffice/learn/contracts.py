"""The output contract: inferred from answers, told by what the request itself fixes, and how surely it is kept.

`learned` is what a model is to be learned for, `told` the same with what there is to say of it, for people. `infer`
looks at answers only (`shapes`), `schemas` reads what a request fixes, `drift` compares later answers with a contract.
All are pure.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import msgspec
import numpy as np

from suffice.core.contracts import covers
from suffice.core.prompt import Prompt
from suffice.core.types import Choice, Choices, Estimate, Number, OutputContract, Span, Text, ToolCall
from suffice.core.values import Value, calls_of, plain
from suffice.learn import schemas, shapes, standing
from suffice.learn.drift import Change, drift, kind_of, outside
from suffice.learn.places import parts, place
from suffice.learn.schemas import Asked
from suffice.learn.shapes import infer
from suffice.proof import bounds

__all__ = ["Change", "Inferred", "called", "drift", "infer", "learned", "told", "worked_out"]

EXAMPLES = 5
"""Things of one kind that a note names."""
_NUMBER = re.compile(r"\s*[-+]?[$€£]?\s?\d[\d.,]*\s?[%€]?\s*")
FEW_STAND = 0.5
"""Where fewer numbers than this share stand in their inputs, they are worked out."""


def learned(
    inputs: Sequence[str], values: Sequence[Value], *, response_format: str = "", tools: str = ""
) -> OutputContract:
    """The contract to learn from these answers, with the request's own word taken as given, without tools never called.

    `values`, one for each input, in any form; `response_format` and `tools` are canonical JSON as in `Request` ("" for
    none). Every row counts, so that no label is lost. An answer that the request's schema does not allow is outside.
    """
    asked, _ = schemas.read(response_format, tools)
    answers = [plain(value) for value in values]
    contract, _, _ = _contract(inputs, answers, asked)
    return called(contract, answers)


def of_task(prompt: Prompt | None, inputs: Sequence[str], values: Sequence[Value]) -> OutputContract:
    """`learned`, with what the requests of a task say: its prompt's format and tools, if all its prompts have the same.

    Where requests bring their own tools, and most answers are calls: a call of one of those.
    """
    if prompt is None:
        return learned(inputs, values)
    every = (prompt, *prompt.also)
    calls = [calls_of(plain(value)) for value in values]
    if all(each.offered for each in every) and 2 * sum(call is not None for call in calls) > len(calls):
        return ToolCall((), none_allowed=[] in calls, offered=True)
    told = {(each.response_format, each.tools) for each in every}
    form, tools = told.pop() if len(told) == 1 else ("", "")
    return learned(inputs, values, response_format=form, tools=tools)


class Inferred(msgspec.Struct, frozen=True, kw_only=True):
    """A contract with what speaks for it.

    `records` were handed in, unreadable ones included; `share` of them keep the contract. `sureness` is the share of
    future answers expected to keep it: the contract of one half of the answers, checked on the other half, with its
    95% interval (rows taken as independent). `given`: the request's JSON schema or tools fixed the contract. `notes`
    are plain sentences.
    """

    contract: OutputContract
    records: int
    share: float
    sureness: Estimate
    given: bool
    notes: tuple[str, ...] = ()


def told(
    inputs: Sequence[str],
    values: Sequence[Value],
    *,
    response_format: str = "",
    tools: str = "",
    unreadable: int = 0,
) -> Inferred:
    """The contract of these answers, with the request's own word taken as given.

    `values`, one for each input, are the answers that could be read, `unreadable` counts those that could not (refused,
    cut off): none of these keeps a contract. `response_format` and `tools` are canonical JSON as in `Request`; what is
    no JSON, or no schema, says nothing, and a note tells so. Observed answers settle what a schema leaves open: whether
    a text is one of a closed list, a piece of the input, or free. Tools that are offered where most answers are texts
    do not make a tool call of them.

    At most MOST_ITEMS answers are looked at, one at random (fixed seed) out of each of as many equal stretches, so that
    neither a sorted file nor a rhythm in the traffic leads astray.
    """
    records = len(values) + unreadable
    rows = standing.looked_at(inputs, values)
    texts, answers = [inputs[i] for i in rows], [plain(values[i]) for i in rows]
    asked, notes = schemas.read(response_format, tools)
    contract, given, unchecked = _contract(texts, answers, asked)
    kept = sum(covers(contract, answer) for answer in answers)
    if len(rows) < len(values):
        notes.append(f"{len(rows):,} of {len(values):,} answers were looked at")
    if unreadable:
        notes.append(f"{unreadable:,} of {records:,} answers could not be read (refused, cut off, or failed)")
    notes += [*_notes(contract, texts, answers, asked), *unchecked]
    share = kept / len(answers) * len(values) / records if answers else 0.0
    sureness = _sureness(texts, answers, asked, unreadable * len(rows) / len(values) if values else unreadable)
    return Inferred(contract=contract, records=records, share=share, sureness=sureness, given=given, notes=tuple(notes))


def called(contract: OutputContract, values: Sequence[Value]) -> OutputContract:
    """`contract` without the tools that none of these answers calls: what can be learned of it, and predicted."""
    if not isinstance(contract, ToolCall):
        return contract
    names = {calls[0]["name"] for value in values if (calls := calls_of(plain(value)))}
    return msgspec.structs.replace(contract, tools=tuple(tool for tool in contract.tools if tool[0] in names))


def worked_out(
    contract: OutputContract, texts: Sequence[str], answers: Sequence[Value]
) -> dict[str, tuple[float, int]]:
    """The places whose open numbers mostly do not stand in their inputs (sums, conversions), with the share that does
    and how many were said. No specialist works numbers out."""
    found = standing.by_place(contract, texts, answers, (Number, Text))
    shares = {
        where: (standing.share(said), len(said))
        for where, said in found.items()
        if sum(not isinstance(item, str) or _NUMBER.fullmatch(item) is not None for _, item in said)
        >= standing.PIECES * len(said)
    }
    return {where: shown for where, shown in shares.items() if shown[0] < FEW_STAND}


def _sureness(texts: Sequence[str], answers: Sequence[Value], asked: Asked, unreadable: float) -> Estimate:
    """Checked on a random half that the contract was not made from, with that half's part of the unreadable."""
    order = np.random.default_rng(1).permutation(len(answers)).tolist()
    make, check = order[: len(order) // 2], order[len(order) // 2 :]
    if not make:
        n = round(unreadable)
        low, high = bounds.clopper_pearson(0, n)
        return Estimate(value=0.0 if n else None, low=low, high=high, n=n)
    contract, _, _ = _contract([texts[i] for i in make], [answers[i] for i in make], asked)
    kept = sum(covers(contract, answers[i]) for i in check)
    n = len(check) + round(unreadable * len(check) / len(answers))
    low, high = bounds.clopper_pearson(kept, n)
    return Estimate(value=kept / n, low=low, high=high, n=n)


def _contract(texts: Sequence[str], answers: Sequence[Value], asked: Asked) -> tuple[OutputContract, bool, list[str]]:
    """The contract, whether the request fixed it, and what the request asks for and no contract keeps."""
    calls = [calls_of(answer) for answer in answers]
    if asked.tools and (not answers or sum(call is not None for call in calls) * 2 > len(answers)):
        contract, unchecked = schemas.of_tools(asked, texts, calls)
        return contract, True, unchecked
    rows = list(zip(texts, answers, strict=True))
    if asked.schema is not None:
        reader = schemas.Reader(asked.schema)
        return reader.contract(asked.schema, rows)[0], True, reader.unchecked
    if asked.any_object:
        return shapes.fields([(text, answer) for text, answer in rows if isinstance(answer, dict)]), False, []
    return (infer(texts, answers) if answers else Text()), False, []


# ---------------------------------------------------------------------------------------------- notes


def _notes(contract: OutputContract, texts: Sequence[str], answers: Sequence[Value], asked: Asked) -> list[str]:
    notes = [*_variants(contract), *_found_or_not(contract, texts, answers)]
    counts: Counter[tuple[str, str]] = Counter()
    for answer in answers:
        counts.update({(kind, where) for kind, where, _ in outside(contract, answer) if kind in _TOLD})
    for (kind, where), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:EXAMPLES]:
        what = _TOLD[kind] or f"is not {kind_of(contract, where)}"
        notes.append(f"{place(where)} {what} in {count:,} answers")
    if asked.tools:
        names = {str(call["name"]) for answer in answers for call in calls_of(answer) or []}
        never = sorted(asked.tools.keys() - names)
        if never and answers:
            more = f" and {len(never) - EXAMPLES:,} more" if len(never) > EXAMPLES else ""
            notes.append(f"offered and never called: {', '.join(never[:EXAMPLES])}{more}")
    return notes


_TOLD = {
    "field": "has a field that is not in the contract",
    "tool": "calls a tool that is not offered",
    "absent": "is missing, which the contract does not allow,",
    "limit": "breaks a limit of the schema",
    "form": "has none of the forms of the schema",
    "kind": "",
}


def _found_or_not(contract: OutputContract, texts: Sequence[str], answers: Sequence[Value]) -> list[str]:
    """Why an open part is a piece of the input and not a label, and which parts are not to be found there at all."""
    notes = []
    for where, said in standing.by_place(contract, texts, answers, (Span,)).items():
        new = shapes.newness([item for _, item in said])
        if new <= shapes.OPEN:
            distinct = len({str(item) for _, item in said})
            notes.append(
                f"{place(where)} is taken for a piece of the input, not for one of {distinct:,} labels: "
                + (
                    f"about {new:.0%} of its values are new ones, which can only be found there"
                    if new > shapes.NEW_PIECES
                    else "its values are copied from there"
                )
            )
    out = worked_out(contract, texts, answers)
    for where, (share, n) in out.items():
        notes.append(
            f"{place(where)} is a number that stands in the input in only {share:.0%} of {n:,} answers: it is worked "
            "out, which no specialist does"
        )
    for where, said in standing.by_place(contract, texts, answers, (Text,)).items():
        share = standing.share(said)
        if where not in out and 0.1 <= share < standing.PIECES:
            notes.append(
                f"{place(where)} is free text: in only {share:.0%} of {len(said):,} answers is it a piece of the input"
            )
    return notes


def _variants(contract: OutputContract, where: str = "") -> list[str]:
    """Labels that are one label but for case, quotes or a full stop, for each closed list of the contract."""
    notes = []
    for at, inner in parts(contract, where):
        if not isinstance(inner, Choice | Choices):
            continue
        same: defaultdict[str, list[str]] = defaultdict(list)
        for value in inner.values:
            if isinstance(value, str):
                same[_bare(value)].append(value)
        alike = [forms for forms in same.values() if len(forms) > 1]
        if alike:
            shown = "; ".join(" and ".join(f"`{form[:40]}`" for form in forms) for forms in alike[:EXAMPLES])
            more = f"; and {len(alike) - EXAMPLES:,} more" if len(alike) > EXAMPLES else ""
            plural = "s" if len(alike) > 1 else ""
            notes.append(
                f"{place(at)} writes {len(alike):,} label{plural} in more than one way, apart only by case, quotes "
                f"or a full stop: {shown}{more}"
            )
    return notes


def _bare(label: str) -> str:
    """A label without what people do not mean by it."""
    return re.sub(r"\s+", " ", label.strip().strip("\"'`“”‘’«»*").rstrip(".。").strip("\"'`“”‘’«»* ")).casefold()


SENTENCE = 5
"""Words from which on an answer is more than a name."""


def is_prose(contract: OutputContract) -> bool:
    """Whether answers are texts that might be worded otherwise: free text, or a list that is mostly of sentences."""
    match contract:
        case Text():
            return True
        case Choice(values):
            texts = [value for value in values if isinstance(value, str)]
            return sum(len(text.split()) >= SENTENCE for text in texts) > len(values) / 2
        case _:
            return False
