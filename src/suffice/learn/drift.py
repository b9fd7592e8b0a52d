"""What newer answers do that a contract does not know: new labels, fields and tools, other kinds, broken limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from suffice.core.contracts import covers, may_be
from suffice.core.types import Choice, Choices, Fields, Many, Number, OutputContract, Span, Text, ToolCall
from suffice.core.values import Value, calls_of, canonical, plain
from suffice.learn import standing
from suffice.learn.places import parts, place, under
from suffice.learn.standing import PIECES, is_piece

NEW = 2
"""Records from which on something outside of the contract is a change; a single one is an oddity."""

_KINDS = {
    Choice: "a label",
    Choices: "a list of labels",
    Fields: "an object",
    ToolCall: "a tool call",
    Many: "a list",
    Number: "a number",
    Span: "a text",
    Text: "a text",
}


def kind_of(contract: OutputContract, where: str) -> str:
    """What stands at a place of the contract, in a word or two."""
    return _KINDS[next((type(inner) for at, inner in parts(contract) if at == where), Text)]


class Change(msgspec.Struct, frozen=True):
    """Something that newer answers do and the contract does not know.

    `what` is a sentence; `where` the field ("" for the whole answer, `a.b` for a field in a field, `f()` for a tool's
    arguments); `value` the new label, field or tool, or the kind of what stands there now; `records` how many do it.
    """

    what: str
    where: str
    value: str
    records: int


def outside(contract: OutputContract, value: Value, where: str = "") -> Iterator[tuple[str, str, str]]:
    """Each way in which a plain `value` leaves the contract: (kind, where, value); nothing if it keeps it.

    Kinds: `label`, `field`, `tool` (an unknown one), `kind` (a text where a label was), `absent`, `calls`, `no call`,
    `limit` (a number, a length or a count beyond what the schema allows), `form` (none of an object's forms).
    """
    match contract:
        case Choice():
            if isinstance(value, list | dict):
                yield "kind", where, _said(value)
            elif not covers(contract, value):
                yield ("absent", where, "") if value is None else ("label", where, _label(value))
        case Choices():
            if not isinstance(value, list):
                yield "kind", where, _said(value)
                return
            for item in value:
                if not isinstance(item, str):
                    yield "kind", f"{where}[]", _said(item)
                elif item not in contract.known:
                    yield "label", where, item
            if len(value) < contract.least or (contract.most is not None and len(value) > contract.most):
                yield "limit", where, ""
        case Fields():
            yield from _outside_object(contract, value, where)
        case ToolCall():
            yield from _outside_calls(contract, value, where)
        case Many(of, least, most):
            if not isinstance(value, list):
                yield "kind", where, _said(value)
                return
            for item in value:
                yield from outside(of, item, f"{where}[]")
            if len(value) < least or (most is not None and len(value) > most):
                yield "limit", where, ""
        case Number():
            if not isinstance(value, int | float) or isinstance(value, bool):
                yield "kind", where, _said(value)
            elif not covers(contract, value):
                yield "limit", where, ""
        case _:
            if not isinstance(value, str):
                yield "kind", where, _said(value)
            elif not covers(contract, value):
                yield "limit", where, ""


def _outside_object(contract: Fields, value: Value, where: str) -> Iterator[tuple[str, str, str]]:
    if not isinstance(value, dict):
        yield "kind", where, _said(value)
        return
    names = dict(contract.fields)
    for name in value.keys() - names.keys():
        yield "field", where, name
    fine = value.keys() <= names.keys()
    for name, inner in contract.fields:
        if (item := value.get(name)) is not None:
            ways = list(outside(inner, item, under(where, name)))
            fine = fine and not ways
            yield from ways
        elif name in contract.required or not may_be(inner, None):
            fine = False
            yield "absent", under(where, name), ""
    if fine and not covers(contract, value):
        yield "form", where, ""


def _outside_calls(contract: ToolCall, value: Value, where: str) -> Iterator[tuple[str, str, str]]:
    calls, tools = calls_of(value), dict(contract.tools)
    if calls is None:
        yield "kind", where, _said(value)
    elif len(calls) > 1:
        yield "calls", where, ""
    elif not calls:
        if not contract.none_allowed:
            yield "no call", where, ""
    elif contract.offered:
        if not isinstance(calls[0].get("arguments", {}), dict):
            yield "kind", where, _said(calls[0].get("arguments"))
    elif (name := str(calls[0]["name"])) not in tools:
        yield "tool", where, name
    else:
        yield from outside(tools[name], calls[0].get("arguments", {}), under(where, f"{name}()"))


def _said(value: Value) -> str:
    """The kind of a value, in a word or two."""
    if isinstance(value, dict):
        return "an object" if calls_of(value) is None else "a tool call"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return "a text"
    return "nothing" if value is None else "true or false" if isinstance(value, bool) else "a number"


def _label(value: Value) -> str:
    return value if isinstance(value, str) else canonical(value)


def drift(contract: OutputContract, inputs: Sequence[str], values: Sequence[Value]) -> list[Change]:
    """What these newer answers do that the contract does not know, the most frequent first.

    A label, field or tool counts as new from two records on (with fewer than 200 answers that is more than 1% of them;
    with more, two records that agree are still no accident of writing). Texts far longer than any label, where labels
    were, are one change together. What is left is summed up as answers outside of the contract. Looks at as many rows
    as `told` does; `records` counts those looked at. Raises ValueError unless there is an input for each answer.
    """
    rows = standing.looked_at(inputs, values)
    answers = [plain(values[i]) for i in rows]
    ways = [set(outside(contract, answer)) for answer in answers]
    longest = {at: max(map(len, _texts(inner)), default=0) for at, inner in parts(contract)}
    # A text that says far more than any label did is no new label, however often it is said.
    ways = [
        {
            ("kind", where, "a text") if kind == "label" and len(value) > 3 * longest.get(where, 0) + 20 else way
            for way in of
            for kind, where, value in [way]
        }
        for of in ways
    ]
    counts = Counter(way for of in ways for way in of)
    told_of = {way: count for way, count in counts.items() if count >= NEW}
    changes = [_change(contract, way, count, len(rows)) for way, count in told_of.items()]
    changes += _no_pieces(contract, [inputs[i] for i in rows], answers)
    odd = sum(bool(of) and not any(way in told_of for way in of) for of in ways)
    if odd:
        changes.append(Change(f"{_answers(odd, len(rows))} outside of the contract, each in its own way", "", "", odd))
    return sorted(changes, key=lambda change: (-change.records, change.where, change.value))


def _answers(count: int, of: int) -> str:
    return f"{count:,} of {of:,} answers {'is' if count == 1 else 'are'}"


def _texts(contract: OutputContract) -> list[str]:
    return [_label(value) for value in contract.values] if isinstance(contract, Choice | Choices) else []


def _change(contract: OutputContract, way: tuple[str, str, str], count: int, of: int) -> Change:
    kind, where, value = way
    at, shown = place(where), f"`{value[:60]}`"
    seen = f"in {count:,} of {of:,} answers"
    what = {
        "label": f"{at} has a new label, {shown}, {seen}",
        "field": f"{at} has a new field, {shown}, {seen}",
        "tool": f"a new tool, {shown}, is called {seen}",
        "kind": f"{at} is {value} where {kind_of(contract, where)} was, {seen}",
        "absent": f"{at} is missing, where it always was there, {seen}",
        "calls": f"several tools are called at once {seen}",
        "limit": f"{at} breaks a limit of the schema {seen}",
        "form": f"{at} has none of the forms of the schema {seen}",
        "no call": f"no tool is called {seen}, where one always was",
    }[kind]
    return Change(what, where, value, count)


def _no_pieces(contract: OutputContract, texts: Sequence[str], answers: Sequence[Value]) -> list[Change]:
    """Pieces of the input that are pieces no longer, by the limit that made them pieces."""
    given = standing.by_place(contract, texts, answers, (Span,))
    seen = {where: len(items) for where, items in given.items()}
    strange = {where: sum(not is_piece(*item) for item in items) for where, items in given.items()}
    return [
        Change(
            f"{place(where)} is no piece of the input in {count:,} of the {seen[where]:,} answers that give it",
            where,
            "a text",
            count,
        )
        for where, count in strange.items()
        if count >= NEW and count > (1 - PIECES) * seen[where]
    ]
