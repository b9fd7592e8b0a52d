"""What a task's requests have in common: the fixed text of its prompt, mined from records.

A position's texts differ in *slots* (a date, a name, the input itself) or because the prompt was *changed* (a label
added, a rule reworded). A change is a point in time: before it one text, after it another. Slots alternate. Only
requests of the prompt in force are learned from; the others belonged to another contract.

Which slots are read is decided by the requests alone, but for two cases that need to know what the task answers:
examples sent as turns of their own, and slots of which one tells the answer as well as all. Then, and only then,
`answers` is called, and the rows whose answers it gives must never certify.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import pairwise

import msgspec
import numpy as np

from suffice.core.prompt import INSTRUCTIONS, Prompt, Template, View, conversation, split_at_dates, without_dates
from suffice.core.same import role_of
from suffice.core.types import Message, Reason, Request
from suffice.core.values import Value, calls_of, canonical, plain

SAMPLE = 40
"""Distinct texts that a template is mined from: what is common to these is common to all, or is found out below."""
TOKENS = 4_000
"""Beyond this many differing tokens the whole difference is one slot: aligning them would cost too much."""
LASTS = 10
FEW_SHOT = 12
"""Answers that must be known before anything can be called an example; four in five must be said there too."""
TELLING = 200
"""Answers that must be known, with a repeated answer for most, before slots are compared by them."""

Answers = Callable[[], Mapping[int, Value]]
"""Gives what some of the requests were answered, by position."""

_HEADING = re.compile(r"\n[^\n:<>]{1,30}: ?\n?|\n<\w[^\n<>]{0,29}>\n?")
"""What stands before the input in a list of examples: a short line's beginning with a colon, or a tag."""
_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")


def in_force(requests: Sequence[Request]) -> list[int]:
    """Positions of the requests that carry the prompt in force, given requests oldest first.

    Requests are told apart by tools, response format, the roles that instruct, and what was changed in the fixed text:
    of the instructions, and of every message where all requests have the same shape. Of several prompts the one that
    most of the latest quarter of the traffic carries is in force.
    """
    heads = [tuple(role_of(message.role) for message in conversation(request.messages)[0]) for request in requests]
    shapes = [(r.tools, r.response_format, head) for r, head in zip(requests, heads, strict=True)]
    kept = _latest(shapes, list(range(len(requests))))
    if not kept:
        return []
    roles = {tuple(role_of(message.role) for message in requests[i].messages) for i in kept}
    positions = roles.pop() if len(roles) == 1 else heads[kept[0]]
    versions: list[tuple[str, ...]] = []
    for place, role in enumerate(positions):
        versions += _changes([requests[i].messages[place].text for i in kept], role in INSTRUCTIONS)
    return _latest(list(zip(*versions, strict=True)), kept) if versions else kept


def _changes(texts: Sequence[str], fixed: bool) -> list[tuple[str, ...]]:
    """The slots of one position whose values were changed rather than alternate, each a value per request.

    A changed text stays for a while (ten requests or more, on average) and does not come back again and again.
    """
    if fixed:
        texts = [without_dates(text) for text in texts]
    common = template(texts, fixed)
    columns = zip(*(common.match(text) or () for text in texts), strict=False)
    changed = []
    for values in columns:
        runs = 1 + sum(a != b for a, b in pairwise(values))
        if 1 < runs <= 2 * len(set(values)) - 1 and len(values) >= LASTS * runs:
            changed.append(values)
    return changed


def _latest(keys: Sequence[object], positions: list[int]) -> list[int]:
    """The positions whose key is the most frequent one of the latest quarter of the traffic."""
    if not positions:
        return []
    latest = Counter(keys[-max(1, len(keys) // 4) :])
    chosen = latest.most_common(1)[0][0]
    return [position for position, key in zip(positions, keys, strict=True) if key == chosen]


def mine(requests: Sequence[Request], answers: Answers = dict, turn: Template | None = None) -> Prompt:
    """The fixed part of requests of one prompt (`in_force`), and the view. Raises ValueError without any.

    `turn`: the fixed text of the first user turn where it is known already (a rule's); taken if it fits them all.
    """
    if not requests:
        raise ValueError("a prompt is mined from requests: there are none")
    first = requests[0]
    roles = {tuple(role_of(message.role) for message in request.messages) for request in requests}
    view: View
    if len(roles) == 1:
        view, columns = "slots", [list(column) for column in zip(*(r.messages for r in requests), strict=True)]
    else:
        heads = [conversation(request.messages)[0] for request in requests]
        columns = [list(column) for column in zip(*heads, strict=False)]
        view = "turns"
    asking = next((i for i, column in enumerate(columns) if column[0].role == "user"), -1)
    messages = tuple(
        (column[0].role, _of_column([m.text for m in column], column[0].role, turn if i == asking else None))
        for i, column in enumerate(columns)
    )
    instructions = sum(role in INSTRUCTIONS for role, _ in messages)
    prompt = Prompt(messages=messages, tools=first.tools, response_format=first.response_format, view=view)
    if view == "turns":
        few_shot = _examples([_said(request) for request in requests], answers)
        return msgspec.structs.replace(prompt, view="last_user") if few_shot else prompt
    whole = messages[-1][1].literals == ("", "") and messages[-1][0] == "user"
    if whole and len(messages) == instructions + 1:
        # the whole user turn varies: say so in the plainer way
        return msgspec.structs.replace(prompt, messages=messages[:-1], view="last_user")
    last = _after_examples(messages, columns, answers)
    if last is None:
        return _behind_examples(_telling_slot(prompt, requests, answers), requests, answers)
    if whole and all(role in INSTRUCTIONS for role, _ in messages[:instructions]):
        return msgspec.structs.replace(prompt, messages=messages[:instructions], view="last_user")
    return msgspec.structs.replace(prompt, asked=last)


def _of_column(texts: Sequence[str], role: str, known: Template | None) -> Template:
    """The template of one position: the known one if all its texts fit it, else mined.

    One that says the same twice is out of a list of examples: how many there are must not matter.
    """
    if known is not None and known.slots and all(known.match(text) is not None for text in texts):
        headings = [literal.strip() for literal in known.literals if literal.strip()]
        if len(set(headings)) == len(headings):
            return known
    return template(texts, role in INSTRUCTIONS)


def _after_examples(
    messages: Sequence[tuple[str, Template]], columns: Sequence[Sequence[Message]], answers: Answers
) -> tuple[int, ...] | None:
    """The slots of the last user turn, where the turns before it are examples that differ from request to request.

    They are if the assistant's turns look like what the task answers; a question of the assistant's does not. None
    where they are not, or are the same in every request (then they are no slots).
    """
    said = [i for i, (role, _) in enumerate(messages) if role == "assistant"]
    if not said or messages[-1][0] != "user" or not all(messages[i][1].slots for i in said):
        return None
    if not _examples([[columns[i][at].text for i in said] for at in range(len(columns[0]))], answers):
        return None
    asked = [(i, template.slots) for i, (role, template) in enumerate(messages) if role not in INSTRUCTIONS]
    places = [i for i, slots in asked for _ in range(slots)]
    return tuple(slot for slot, i in enumerate(places) if i == len(messages) - 1)


def _said(request: Request) -> list[str]:
    """What the assistant says in a request."""
    return [message.text for message in conversation(request.messages)[1] if message.role == "assistant"]


def _examples(said: Sequence[Sequence[str]], answers: Answers) -> bool:
    """Whether what is said in requests are examples: most of what the task answers is said there too, as it is."""
    if sum(map(bool, said)) < 0.5 * len(said):
        return False
    known = answers()
    looks = {_look(text) for texts in said for text in texts}
    return len(known) >= FEW_SHOT and sum(_look(answer) in looks for answer in known.values()) >= 0.8 * len(known)


def _behind_examples(prompt: Prompt, requests: Sequence[Request], answers: Answers) -> Prompt:
    """`prompt` reading only what stands behind the last heading ("Input: "), where before it are examples.

    The line before that heading must end with what the task answers; what a customer says last in a chat is no such.
    """
    read = [text for request in requests if not isinstance(text := prompt.read(request), Reason)]
    headings = Counter(heading for text in read for heading in set(_HEADING.findall(text)))
    common = [heading for heading, count in headings.items() if count >= 0.9 * len(read)]
    behind = max(common, key=lambda heading: sum(text.rfind(heading) for text in read), default="")
    if not behind or any(not text.rpartition(behind)[2].strip() for text in read):
        return prompt
    before = [text.rpartition(behind)[0].rstrip().rpartition("\n")[2] for text in read]
    said = [[line.partition(": ")[2] or line] for line in before if line]
    return msgspec.structs.replace(prompt, behind=behind) if _examples(said, answers) else prompt


def _look(answer: Value) -> object:
    """What answers of one task have in common: the fields of an object, the tools called, else the answer itself."""
    said = plain(answer)
    calls = calls_of(said)
    if calls is not None:
        return tuple(str(call["name"]) for call in calls)
    return tuple(sorted(said)) if isinstance(said, dict) else canonical(said)


def _telling_slot(prompt: Prompt, requests: Sequence[Request], answers: Answers) -> Prompt:
    """`prompt` with the one slot that tells the answer as well as all slots together, if the others tell nothing of it.

    Only where answers repeat: what is a piece of the input may stand in any slot.
    """
    slots = sum(template.slots for role, template in prompt.messages if role not in INSTRUCTIONS)
    if slots < 2:
        return prompt
    known = {at: canonical(answer) for at, answer in answers().items() if not isinstance(plain(answer), list | dict)}
    counts = Counter(known.values())
    if len(known) < TELLING or len(counts) < 2 or sum(n >= 4 for n in counts.values()) * 10 < len(counts) * 5:
        return prompt
    parts: list[list[str]] = []
    for at in known:
        alone = [msgspec.structs.replace(prompt, asked=(i,)).read(requests[at]) for i in range(slots)]
        parts.append([text if not isinstance(text, Reason) else "" for text in alone])
    labels = list(known.values())
    together = _told(["\n".join(texts) for texts in parts], labels)
    each = [_told([texts[i] for texts in parts], labels) for i in range(slots)]
    best = int(np.argmax(each))
    commonest = max(counts.values())
    chance = commonest + 2 * np.sqrt(commonest * (1 - commonest / len(labels)))
    silent = all(right <= chance for i, right in enumerate(each) if i != best)
    return msgspec.structs.replace(prompt, asked=(best,)) if each[best] >= together > chance and silent else prompt


def _told(texts: Sequence[str], labels: Sequence[str]) -> int:
    """How many of the answers the words of the texts tell: naive Bayes, each half of the rows by the other."""
    words = [set(re.findall(r"\w+", text.casefold())) for text in texts]
    right = 0
    for half in (0, 1):
        seen: defaultdict[str, Counter[str]] = defaultdict(Counter)
        total: Counter[str] = Counter()
        for i in range(1 - half, len(texts), 2):
            total[labels[i]] += 1
            for word in words[i]:
                seen[word][labels[i]] += 1
        names = sorted(total)
        sizes = np.array([total[name] for name in names], dtype=np.float64)
        logs = {
            word: np.log((np.array([counts[name] for name in names]) + 0.1) / (sizes + 0.2))
            for word, counts in seen.items()
        }
        for i in range(half, len(texts), 2):
            score = np.log(sizes) + sum((logs[word] for word in sorted(words[i]) if word in logs), np.zeros(len(names)))
            right += names[int(np.argmax(score))] == labels[i]
    return right


def template(texts: Sequence[str], fixed: bool) -> Template:
    """What is common to all the texts of one position, with slots between. `fixed`: the position gives instructions."""
    distinct = list(dict.fromkeys(texts))
    step = max(1, len(distinct) // SAMPLE)
    common = _tokens(distinct[0], fixed)
    for text in distinct[step::step]:
        common = _common(common, _tokens(text, fixed))
    found = _telling(common, fixed or len(distinct) == 1)
    if all(found.match(text) is not None for text in distinct):
        return found
    # A text outside the sample differs where the sample agrees: keep what stands at the edges of all of them.
    first = _tokens(distinct[0], fixed)
    start, end = _edges(first, (_tokens(text, fixed) for text in distinct[1:]))
    return _telling([*first[:start], _SLOT, *first[len(first) - end :]], fixed)


def _tokens(text: str, fixed: bool) -> list[str]:
    """Words, white space and marks; in instructions a date is a slot from the start."""
    parts = [_TOKEN.findall(part) for part in (split_at_dates(text) if fixed else [text])]
    return parts[0] + [token for part in parts[1:] for token in (_SLOT, *part)]


_SLOT = "\0"  # among tokens, where texts differ; no token equals it


def _common(common: list[str], tokens: list[str]) -> list[str]:
    """The tokens of `common` that stand in `tokens` too, in order, with a slot wherever something else stands."""
    start, end = _edges(common, [tokens])
    a, b = common[start : len(common) - end], tokens[start : len(tokens) - end]
    kept: list[str] = []
    if len(a) <= TOKENS and len(b) <= TOKENS:
        for block in SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks():
            kept += [_SLOT, *a[block.a : block.a + block.size]]
    elif a or b:
        kept = [_SLOT]
    return [*common[:start], *(kept if a or b else []), *common[len(common) - end :]]


def _edges(first: list[str], others: Iterable[list[str]]) -> tuple[int, int]:
    """How many tokens rows have in common at their start, and after that at their end; one is held at a time."""
    shortest = start = end = len(first)
    for row in others:
        shortest = min(shortest, len(row))
        start = next((i for i in range(min(start, len(row))) if row[i] != first[i]), min(start, len(row)))
        end = next((i for i in range(min(end, len(row))) if row[-1 - i] != first[-1 - i]), min(end, len(row)))
    return start, min(end, shortest - start)


def _telling(common: list[str], fixed: bool) -> Template:
    """The template of the runs long enough to tell something.

    Between slots: two words, or a heading on a line of its own. At an edge of instructions: anything. At an edge of
    what people write, where a common "?" or "I" is chance: two words, or one with punctuation or a line break.
    """
    runs: list[list[str]] = [[]]
    for token in common:
        if token == _SLOT:
            runs.append([])
        else:
            runs[-1].append(token)

    def tells(run: list[str], edge: bool) -> bool:
        words = sum(token[0].isalnum() for token in run)
        marked = any("\n" in token or not (token[0].isalnum() or token.isspace()) for token in run)
        heads = words == 1 and "\n" in run and any(token in ":>" for token in run)
        return words >= 2 or heads or (edge and (fixed or (words == 1 and marked)))

    if len(runs) == 1:
        return Template(("".join(runs[0]),))
    middle = ["".join(run) for run in runs[1:-1] if tells(run, False)]
    first, last = ("".join(run) if tells(run, True) else "" for run in (runs[0], runs[-1]))
    return Template((first, *middle, last))
