"""Mixed traffic: many works under many prompts in one stream, without tags, and the truth beside it.

What discovery is judged on. The inputs and answers are the shared data's, the prompts are written here; whatever a real
application would fill in (dates, names, ids, retrieved passages, few-shot examples) varies from request to request.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

import common

Truth = tuple[str | None, str]
"""The task, None for unrelated chat, and the style of its prompt."""
Messages = list[dict[str, Any]]

CHAT = 0.12
"""The share of unrelated chat."""
HELPFUL = "You are a helpful assistant."
START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Item:
    """One input with its answer. `said`: text or tool calls. `options`: what belongs in the prompt of this input."""

    text: str
    said: str
    calls: tuple[tuple[str, str], ...] = ()
    tools: tuple[Any, ...] = ()
    options: str = ""


@dataclass(frozen=True)
class Work:
    """A task: its inputs, and the sentences that its prompts are made of.

    `asks` are three wordings of the instruction, `noun` what the input is called, `out` what the answer is called.
    """

    name: str
    items: tuple[Item, ...]
    role: str
    asks: tuple[str, str, str]
    noun: str
    out: str
    rules: tuple[str, ...]
    options: str = ""
    weight: float = 1.0
    system: tuple[str, ...] = field(default=())


def _clean(schema: Any) -> Any:
    """A function's parameters as JSON Schema: the data has Python's names for types."""
    if isinstance(schema, dict):
        kinds = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}
        return {
            key: kinds.get(value, value) if key == "type" and isinstance(value, str) else _clean(value)
            for key, value in schema.items()
        }
    return [_clean(value) for value in schema] if isinstance(schema, list) else schema


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _banking() -> Work:
    rows = common.read_lines(common.data_folder("banking77") / "train.jsonl")
    labels = sorted({row["label"] for row in rows})
    return Work(
        "intent",
        tuple(Item(row["text"], row["label"]) for row in rows),
        "a support agent of a bank",
        (
            "Classify the customer's message into exactly one of the intents below.",
            "Read what the customer wrote and tell which intent it has.",
            "You route support requests. Decide which queue this one belongs to.",
        ),
        "Message",
        "Intent",
        ("Answer with one label only.", "Use the labels exactly as written.", "If unsure, take the closest label."),
        ", ".join(labels),
        1.6,
    )


def _snips() -> Work:
    rows = common.read_lines(common.data_folder("snips") / "train.jsonl")
    items = []
    for row in rows:
        found: dict[str, list[str]] = {}
        for slot in row["slots"]:
            found.setdefault(slot["slot"], []).append(slot["text"])
        items.append(Item(row["text"].strip(), _dumps(found)))
    names = sorted({slot["slot"] for row in rows for slot in row["slots"]})
    return Work(
        "slots",
        tuple(items),
        "the language understanding part of a voice assistant",
        (
            "Extract the slots from the user's command. Each value is copied from the command, word for word.",
            "Find every entity in the spoken command and give it back under its slot name.",
            "Fill the frame for this command with pieces of its text.",
        ),
        "Command",
        "Slots",
        ("Answer with a JSON object of lists.", "Leave out slots that do not occur.", "Answer with JSON only."),
        ", ".join(names),
    )


def _restaurant() -> Work:
    rows = common.read_lines(common.data_folder("restaurant8k") / "train.jsonl")
    return Work(
        "booking",
        tuple(Item(row["text"], _dumps({key: [value] for key, value in row["slots"].items()})) for row in rows),
        "the booking desk of a restaurant",
        (
            "Extract the booking details that the guest mentions: people, date, time, first_name, last_name.",
            "A guest is booking a table. Note down what they say about the reservation.",
            "From the guest's reply, pick the pieces that fill the reservation form.",
        ),
        "Guest",
        "Details",
        ("Answer with a JSON object.", "Copy the guest's words.", "An empty object if there is nothing."),
        "people, date, time, first_name, last_name",
    )


def _metatool() -> Work:
    rows = common.read_lines(common.data_folder("metatool") / "queries.jsonl")
    tools = sorted({row["tool"] for row in rows})
    return Work(
        "tool",
        tuple(Item(row["text"], row["tool"]) for row in rows),
        "a dispatcher that picks plug-ins",
        (
            "Choose the one tool that can best serve the user's query.",
            "Which of our plug-ins should handle this? Name it.",
            "Pick a tool for the request of the user from the catalogue.",
        ),
        "Query",
        "Tool",
        ("Answer with the tool's name only.", "Never invent a tool.", "Answer with one word only."),
        ", ".join(tools[:120]),
        1.3,
    )


def _bfcl() -> Work:
    folder = common.data_folder("bfcl")
    items = []
    for file in ("simple_python", "multiple", "live_simple", "live_multiple", "irrelevance"):
        for row in common.read_lines(folder / f"{file}.jsonl"):
            text = next(message["content"] for message in row["messages"] if message["role"] == "user")
            tools = tuple(
                {"type": "function", "function": {**function, "parameters": _clean(function["parameters"])}}
                for function in row["functions"]
            )
            calls = tuple(
                (name, _dumps({key: values[0] for key, values in arguments.items() if values and values[0] != ""}))
                for accepted in row["accepted"] or ()
                for name, arguments in accepted.items()
            )
            said = "" if calls else "None of the functions at hand can answer this, so I cannot help with it."
            items.append(Item(text, said, calls, tools))
    return Work(
        "calls",
        tuple(items),
        "an agent that acts through functions",
        (
            "Answer the user by calling the right function with the right arguments.",
            "You may call functions. Call one only where it helps with what is asked.",
            "Turn the request into function calls; if no function fits, say so.",
        ),
        "Request",
        "Call",
        ("Do not guess arguments.", "Call no function that was not offered.", "Ask back only if you must."),
    )


def _moderation() -> Work:
    rows = common.read_lines(common.data_folder("moderation") / "samples.jsonl")
    flags = ("S", "H", "V", "HR", "SH", "S3", "H2", "V2")
    return Work(
        "moderation",
        tuple(Item(row["text"], _dumps({flag: bool(row["labels"].get(flag, 0)) for flag in flags})) for row in rows),
        "a trust and safety reviewer",
        (
            "Judge whether the text breaks any of our content policies and flag each that it breaks.",
            "Review this post. For every policy say true or false.",
            "Which policies does the text below violate?",
        ),
        "Text",
        "Flags",
        ("Answer with a JSON object of booleans.", "Judge the text, not its author.", "Answer with JSON only."),
        "S (sexual), H (hate), V (violence), HR (harassment), SH (self-harm), S3 (minors), H2 (threats), V2 (gore)",
    )


def _maths() -> Work:
    rows = common.read_lines(common.data_folder("gsm8k_recorded") / "answers.jsonl")
    return Work(
        "maths",
        tuple(Item(row["question"], row["gpt-4-1106"]["answer"].strip()) for row in rows),
        "a patient maths tutor",
        (
            "Solve the word problem step by step and give the result after ####.",
            "Work through this problem for a pupil, line by line, and end with the number.",
            "Explain how to get the answer to this exercise, then state it.",
        ),
        "Problem",
        "Solution",
        ("Show every step.", "Use plain language.", "End with #### and the number."),
    )


WORKS: dict[str, Callable[[], Work]] = {
    "intent": _banking,
    "slots": _snips,
    "booking": _restaurant,
    "tool": _metatool,
    "calls": _bfcl,
    "moderation": _moderation,
    "maths": _maths,
}


@lru_cache(maxsize=16)
def work(name: str) -> Work:
    """A task with its data, read once. Raises KeyError for an unknown name."""
    return WORKS[name]()


# ------------------------------------------------------------------------------------- what varies in fixed text

COMPANIES = (
    "ACME GmbH", "Northwind Traders", "Hooli", "Tyrell & Sons", "Blue Harbor Bank", "Vandelay Industries", "Zephyr AG",
    "Globex", "Initech", "Kestrel Payments", "Umbra Health", "Lakeside Credit Union", "Orbit Retail", "Fjord Energy",
)  # fmt: skip
PERSONAS = ("Anna", "Max", "Sofia", "Nova", "Leo", "Clara", "Otto", "Mira", "Kai", "Ben", "Ida", "Theo")
PEOPLE = (
    "Maria Lopez", "Jonas Weber", "Priya Nair", "Tom O'Neill", "Li Wei", "Fatima Zahra", "Ivan Petrov", "Grace Kim",
    "Pedro Alves", "Emma Brown", "Noah Schmidt", "Aiko Tanaka", "Lars Hansen", "Chloe Martin", "Omar Haddad",
)  # fmt: skip
LOCALES = ("en-US", "en-GB", "de-DE", "fr-FR", "es-ES", "nl-NL", "sv-SE")
CITIES = ("Berlin", "Madrid", "Oslo", "Chicago", "Leeds", "Lyon", "Osaka", "Porto", "Austin", "Ghent")

TOPICS = (
    "sourdough bread", "the French Revolution", "black holes", "a wedding speech", "urban beekeeping", "tax brackets",
    "Roman roads", "knitting socks", "electric bikes", "photosynthesis", "jazz piano", "a cover letter",
    "sleep cycles",
    "house plants", "public key cryptography", "marathon training", "the Silk Road", "soil acidity", "coral reefs",
    "a haiku about rain", "Kubernetes probes", "index funds", "bird migration", "old maps", "fermented tea",
    "noise cancelling", "plate tectonics", "a toddler's tantrums", "stage fright", "bicycle gears", "opera",
    "chess openings",
    "the Cold War", "vaccines", "rust on garden tools", "wool and felt", "medieval castles", "sea turtles",
    "a budget for students",
    "grammar of Esperanto", "quantum tunnelling", "mushroom foraging", "the Dewey system", "violin bows", "glaciers",
    "time zones", "pasta shapes", "cold showers", "sign language", "wind turbines", "tea ceremonies", "lucid dreams",
    "mortgage points", "haunted houses", "compost", "prime numbers", "Baroque gardens", "moving to Lisbon",
    "cheese rinds",
    "telescopes", "a quarrel with a neighbour", "email etiquette", "the Bauhaus", "yoga for backs", "sudoku",
    "tidal power",
)  # fmt: skip
OPENINGS = (
    "", "", "", "", "Hi! ", "Hey, ", "Hello there, ", "Quick one: ", "Good morning. ", "I was wondering, ", "So, ",
    "My friend says you would know: ", "Not sure who to ask. ", "Okay, next thing. ", "Random thought: ", "Ah, and ",
)  # fmt: skip
CORES = (
    "what should I know about {a}?", "how did {a} become so popular?", "explain {a} to a child of ten.",
    "is there a link between {a} and {b}?", "write a limerick on {a}.", "give me three arguments against {a}.",
    "can you compare {a} with {b}", "draft a short blog post about {a}, friendly in tone",
    "why do people care so much about {a}", "I want to get into {a}. Where do I start?", "tell me a joke about {a}",
    "plan a weekend around {a} in {city}", "my boss asked me for a page on {a}. Outline it please.",
    "what is the best book on {a}", "in {city} everyone talks of {a}, what happened?", "{a}: overrated or not?",
    "summarise the history of {a}", "help me write to {who} about {a}", "how much does {a} usually cost",
    "translate 'I love {a}' into Italian and Polish", "what would {who} make of {a}, do you think",
    "list common myths around {a}", "does {a} have anything to do with {b}",
    "invent a game for kids about {a} and {b}",
    "what are good questions for a quiz on {a}?", "rewrite this so it is kinder: '{who}, you know nothing of {a}'",
    "I keep failing at {a}", "how do I explain {a} to {who}?", "how do I stop worrying about {a}",
    "could {a} be automated some day", "name five films which feature {a}", "what is {a}", "how does {a} work",
    "who first wrote about {a}", "where in {city} can one learn about {a}", "teach me {a} in a week",
    "when was {a} at its height", "pros and cons of {a}", "{b} or {a}, if you had to choose?",
    "make a table of terms for {a}", "which tools do professionals use for {a}?",
    "story idea: {who} discovers {a} in {city}",
    "I dreamt of {a} and of {b}. Meaning?", "find the flaw: {a} is old, old things are good, so {a} is good.",
    "give feedback on my plan to sell {a} in {city}", "thank you, now do the same for {a}",
)  # fmt: skip
TAILS = (
    "", "", "", "", "", " Keep it short.", " Thanks!", " Be honest.", " In plain words, please.",
    " I have ten minutes.",
    " Sources would be nice.", " No lists.", " It is for {who}.", " I live in {city}.",
    " Explain like I am new to it.",
    " Also mention {b}.", " Thx", " Please be brief.", " Bullet points are fine.", " Make it fun.",
)  # fmt: skip
SENTENCES = (
    "{A} has a longer past than most people assume.", "The first thing to understand about {a} is scale.",
    "In {city}, for instance, it took a generation to change.", "There are two schools of thought here.",
    "A good start is to spend an afternoon with {b}.", "That said, {a} is not for everyone.",
    "Researchers have disagreed about this since {year}.", "You could ask {who}, who wrote about it at length.",
    "Most guides leave out the cost, which is where {b} comes in.", "It helps to keep a small notebook.",
    "By {year} the picture had changed completely.", "What looks like luck is mostly practice.",
    "Compare that with {b}: the parts are the same, the order is not.", "None of this needs special equipment.",
    "If you only remember one thing, remember that {a} rewards patience.", "The usual mistake is to begin too fast.",
    "People in {city} tend to see it the other way round.", "Some of the best known examples date from {year}.",
    "A second point concerns safety.", "Here the comparison with {b} breaks down.", "Let me give an example.",
    "Suppose {who} wants to try it on a Sunday.", "Then the weather matters more than the plan.",
    "Finally, be kind to yourself while you learn.", "I would not worry about the details yet.",
)  # fmt: skip


def _fill(rng: random.Random, text: str) -> str:
    """`text` with its names for topics, people and places filled in at random."""
    if "{" not in text:
        return text
    a, b = rng.choice(TOPICS), rng.choice(TOPICS)
    filled = text.replace("{a}", a).replace("{A}", a[0].upper() + a[1:]).replace("{b}", b)
    if "{" in filled:
        filled = filled.replace("{city}", rng.choice(CITIES)).replace("{who}", rng.choice(PEOPLE))
        filled = filled.replace("{year}", str(rng.randrange(1850, 2020)))
    return filled


def _prose(rng: random.Random, low: int, high: int) -> str:
    return _fill(rng, " ".join(rng.sample(SENTENCES, rng.randint(low, high))))


def _question(rng: random.Random) -> str:
    text = _fill(rng, rng.choice(OPENINGS) + rng.choice(CORES) + rng.choice(TAILS))
    return text[0].upper() + text[1:] if rng.random() < 0.7 else text


@lru_cache(maxsize=1)
def _passages() -> tuple[str, ...]:
    """Retrieved passages: prose about all sorts of things, a few hundred different ones."""
    rng = random.Random(7)
    return tuple(_prose(rng, 2, 7) for _ in range(600))


# ---------------------------------------------------------------------------------------------------- styles

Style = Callable[[random.Random, Work, Item], Messages]


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def _answer_text(item: Item) -> str:
    return item.said or _dumps([{"name": name, "arguments": arguments} for name, arguments in item.calls])


def _date(rng: random.Random, form: str = "%Y-%m-%d") -> str:
    return (START + timedelta(days=rng.randrange(300), minutes=rng.randrange(1440))).strftime(form)


def _shots(rng: random.Random, work: Work, low: int, high: int) -> list[Item]:
    return [rng.choice(work.items) for _ in range(rng.randint(low, high))]


def _listed(work: Work, title: str) -> str:
    return f"{title}: {work.options}\n" if work.options else ""


def plain(rng: random.Random, work: Work, item: Item) -> Messages:
    """A system prompt that never varies; the user turn is the input."""
    return [_system(f"You are {work.role}. {work.asks[0]}\n{_listed(work, 'Labels')}{work.rules[0]}"), _user(item.text)]


def persona(rng: random.Random, work: Work, item: Item) -> Messages:
    """A system prompt with names, a date, a locale and a ticket number in it."""
    text = (
        f"You are {rng.choice(PERSONAS)}, {work.role} working for {rng.choice(COMPANIES)}. "
        f"Today is {_date(rng, '%A, %d %B %Y')}.\n"
        f"{work.asks[1]}\n{' '.join(work.rules)}\n"
        f"The user's locale is {rng.choice(LOCALES)}. Reference: TCK-{rng.randrange(10**6):06d}."
    )
    return [_system(text), _user(item.text)]


def before(rng: random.Random, work: Work, item: Item) -> Messages:
    """Instructions in the user turn, before the input."""
    return [_user(f"{work.asks[0]} {work.rules[1]}\n\n{work.noun}: {item.text}\n{work.out}:")]


def after(rng: random.Random, work: Work, item: Item) -> Messages:
    """Instructions in the user turn, after the input."""
    return [_user(f"{item.text}\n\n---\n{work.asks[2]} {work.rules[2]}")]


def shots_system(rng: random.Random, work: Work, item: Item) -> Messages:
    """Few-shot examples in the system prompt, other ones and another number each time."""
    shots = "\n\n".join(
        f"{work.noun}: {shot.text}\n{work.out}: {_answer_text(shot)}" for shot in _shots(rng, work, 1, 5)
    )
    return [_system(f"{work.asks[2]}\n{work.rules[0]}\n\nHere are some examples:\n\n{shots}"), _user(item.text)]


def shots_user(rng: random.Random, work: Work, item: Item) -> Messages:
    """Few-shot examples in the user turn."""
    shots = "\n".join(f"Input: {shot.text}\nOutput: {_answer_text(shot)}\n" for shot in _shots(rng, work, 1, 6))
    return [_user(f"{work.asks[1]}\n{work.rules[0]}\n\n{shots}\nInput: {item.text}\nOutput:")]


def shots_turns(rng: random.Random, work: Work, item: Item) -> Messages:
    """Few-shot examples as turns before the real one."""
    turns: Messages = []
    for shot in _shots(rng, work, 0, 4):
        turns += [_user(shot.text), {"role": "assistant", "content": _answer_text(shot)}]
    return [_system(f"{work.asks[0]} {work.rules[2]} Do it as in the examples."), *turns, _user(item.text)]


def passages(rng: random.Random, work: Work, item: Item) -> Messages:
    """Retrieved passages in the user turn, under a system prompt with the day in it."""
    found = "\n\n".join(f"[{i + 1}] {text}" for i, text in enumerate(rng.choices(_passages(), k=rng.randint(1, 4))))
    return [
        _system(f"As {work.role} you get background articles first. {work.asks[1]} Date: {_date(rng)}"),
        _user(f"Context:\n{found}\n\n{work.noun}: {item.text}"),
    ]


def xml(rng: random.Random, work: Work, item: Item) -> Messages:
    """An XML-tagged prompt in the user turn."""
    options = f"<options>{work.options}</options>\n" if work.options else ""
    return [
        _user(
            f"<instructions>\n{work.asks[1]}\n{work.rules[2]}\n</instructions>\n{options}"
            f'<session id="{rng.randrange(16**8):08x}" user="{rng.choice(PEOPLE)}"/>\n'
            f"<{work.noun.lower()}>\n{item.text}\n</{work.noun.lower()}>"
        )
    ]


def markdown(rng: random.Random, work: Work, item: Item) -> Messages:
    """A markdown system prompt with sections, some of which vary, and a prefix in the user turn."""
    rules = "\n".join(f"- {rule}" for rule in work.rules)
    text = (
        f"# Role\nYou act as {work.role} (v2.{rng.randrange(4)}).\n\n# Task\n{work.asks[0]}\n\n# Rules\n{rules}\n\n"
        f"# Customer\n- Name: {rng.choice(PEOPLE)}\n- Company: {rng.choice(COMPANIES)}\n"
        f"- Since: {_date(rng, '%d.%m.%Y')}"
    )
    return [_system(text), _user(f"{work.noun}: {item.text}")]


def short(rng: random.Random, work: Work, item: Item) -> Messages:
    """Hardly a prompt at all."""
    return [_user(f"{item.text}\n{work.out}:")]


def general(rng: random.Random, work: Work, item: Item) -> Messages:
    """Nothing that identifies the work: the bare text, under a prompt for anything or none."""
    return [_system(HELPFUL), _user(item.text)] if rng.random() < 0.5 else [_user(item.text)]


STYLES: dict[str, Style] = {
    style.__name__: style
    for style in (plain, persona, before, after, shots_system, shots_user, shots_turns, passages, xml, markdown, short)
}


# ------------------------------------------------------------------- styles for judging, not looked at in development

GERMAN = {
    "intent": "Ordne die Nachricht der Kundin oder des Kunden genau einem Anliegen zu.",
    "slots": "Finde alle Angaben im Sprachbefehl und gib sie unter ihrem Namen zurück.",
    "booking": "Notiere, was der Gast zur Reservierung sagt.",
    "tool": "Wähle das Werkzeug, das der Anfrage am besten dient.",
    "calls": "Rufe die passende Funktion mit den richtigen Argumenten auf.",
    "moderation": "Prüfe, gegen welche Regeln der Beitrag verstößt.",
    "maths": "Löse die Aufgabe Schritt für Schritt.",
}
MANUAL = " ".join(
    f"{i}. {text}"
    for i, text in enumerate(
        (
            "Handle every case on its own merits and do not carry anything over from earlier cases.",
            "Personal data stays where it is: never repeat an account number, an address or a name without need.",
            "When two readings are possible, prefer the one that costs the customer less.",
            "The style guide applies to all free text, which should be calm, short and free of jargon.",
            "Escalations are written down by the shift lead; you do not decide on them.",
            "Feedback about this manual goes to the operations desk, which revises it twice a year.",
        )
        * 3,
        1,
    )
)


def payload(rng: random.Random, work: Work, item: Item) -> Messages:
    """The user turn is a JSON object."""
    told = {"request_id": f"{rng.randrange(16**12):012x}", "instruction": work.asks[0], "lang": rng.choice(LOCALES)}
    return [_user(_dumps({**told, "rules": work.rules, "input": item.text}))]


def two_heads(rng: random.Random, work: Work, item: Item) -> Messages:
    """A developer message after the system prompt, with what is known of the customer in it."""
    facts = "\n".join(f"- {_prose(rng, 1, 1)}" for _ in range(rng.randint(0, 4)))
    memory = f"Customer: {rng.choice(PEOPLE)}\nKnown facts:\n{facts}\n\n{work.asks[2]} {work.rules[0]}"
    return [_system("Follow the developer's instructions."), {"role": "developer", "content": memory}, _user(item.text)]


def german(rng: random.Random, work: Work, item: Item) -> Messages:
    """Another language, the day and a first name in it."""
    day = _date(rng, "%d.%m.%Y")
    text = f"Heute ist der {day}. Du hilfst {rng.choice(PERSONAS)} im Kundendienst. {GERMAN[work.name]} Antworte knapp."
    return [_system(text), _user(item.text)]


def log(rng: random.Random, work: Work, item: Item) -> Messages:
    """The conversation so far as text, the instruction after it."""
    said = "\n".join(f"{rng.choice(('User', 'Agent'))}: {_question(rng)}" for _ in range(rng.randint(1, 6)))
    return [_user(f"Conversation so far:\n{said}\nUser: {item.text}\n\nLook at the last message only. {work.asks[1]}")]


def prefix(rng: random.Random, work: Work, item: Item) -> Messages:
    """Instruction and input in one line, nothing between them."""
    return [_system(HELPFUL), _user(f"{work.asks[2]} {item.text}")]


def quoted(rng: random.Random, work: Work, item: Item) -> Messages:
    """The input in quotes, a question after it."""
    return [_user(f'"{item.text}"\n\nWhich {work.out.lower()} is this? {work.rules[0]}')]


def shuffled(rng: random.Random, work: Work, item: Item) -> Messages:
    """Options in another order each time, and examples, in the system prompt."""
    options = work.options.split(", ")
    listed = "\n".join(f"* {option}" for option in rng.sample(options, min(len(options), 12)))
    shots = "\n".join(f"{shot.text} => {_answer_text(shot)}" for shot in _shots(rng, work, 2, 4))
    return [
        _system(f"{work.asks[1]} Choose among:\n{listed}\n\nFor example:\n{shots}\n\n{work.rules[1]}"),
        _user(item.text),
    ]


def manual(rng: random.Random, work: Work, item: Item) -> Messages:
    """A long manual shared by all works, the task in its midst, names and numbers around."""
    text = (
        f"Operations manual of {rng.choice(COMPANIES)}, revision {rng.randrange(40)}. {MANUAL}\n\n"
        f"Your part: {work.asks[0]} {work.rules[0]}\n\n{MANUAL}\nShift: {_date(rng, '%H:%M')}, {rng.choice(CITIES)}."
    )
    return [_system(text), _user(item.text)]


def optional(rng: random.Random, work: Work, item: Item) -> Messages:
    """Paragraphs that come and go."""
    parts = [f"{work.asks[2]}"]
    if rng.random() < 0.4:
        parts.append("The customer is a premium customer: be extra polite and offer a call back.")
    if rng.random() < 0.3:
        parts.append(f"Answer in the language of {rng.choice(LOCALES)}, whatever the customer writes in.")
    return [_system("\n\n".join([*parts, *work.rules])), _user(item.text)]


def fenced(rng: random.Random, work: Work, item: Item) -> Messages:
    """A code fence around the input, a random choice of rules before it."""
    rules = "\n".join(f"{i}) {rule}" for i, rule in enumerate(rng.sample(work.rules, rng.randint(1, 3)), 1))
    return [_user(f"{work.asks[0]}\n{rules}\n\n```\n{item.text}\n```\n\nYour {work.out.lower()}:")]


def react(rng: random.Random, work: Work, item: Item) -> Messages:
    """A framework's prompt, the same for all works but for the job and the abilities."""
    abilities = "\n".join(f"{name}: {rng.choice(SENTENCES)}" for name in ("search", "lookup", "calculate"))
    return [
        _user(
            f"Answer as best you can. You have these abilities:\n\n{abilities}\n\nUse the following format:\n\n"
            f"Question: the input\nThought: think about what to do\nFinal Answer: the result\n\n"
            f"Your job: {work.asks[1]}\n\nBegin!\n\nQuestion: {item.text}\nThought:"
        )
    ]


def tiny(rng: random.Random, work: Work, item: Item) -> Messages:
    """Two words."""
    return [_system(f"{work.out} only."), _user(item.text)]


def profile(rng: random.Random, work: Work, item: Item) -> Messages:
    """The user's profile as JSON in the system prompt, chat before the input."""
    known = {
        "name": rng.choice(PEOPLE),
        "id": rng.randrange(10**6),
        "city": rng.choice(CITIES),
        "plan": rng.choice(("free", "pro")),
    }
    turns: Messages = []
    for _ in range(rng.randint(0, 3)):
        turns += [_user(_question(rng)), {"role": "assistant", "content": _prose(rng, 1, 3)}]
    return [
        _system(f"{_dumps({'user': known})}\n\n{work.asks[0]} {' '.join(work.rules[:2])}"),
        *turns,
        _user(item.text),
    ]


def letter(rng: random.Random, work: Work, item: Item) -> Messages:
    """The input inside a letter of a form that the application wrote."""
    return [
        _user(
            f"Dear assistant,\nplease look at this, from {rng.choice(PEOPLE)} ({rng.choice(CITIES)}): {item.text}\n"
            f"{work.asks[1]} {work.rules[2]}\nBest regards, {rng.choice(COMPANIES)}"
        )
    ]


HELD: dict[str, Style] = {
    style.__name__: style for style in (payload, two_heads, german, log, prefix, quoted, shuffled)
}
HELD_MORE: dict[str, Style] = {
    style.__name__: style for style in (manual, optional, fenced, react, tiny, profile, letter)
}


BRANDS = (
    "We are Larch & Co, makers of garden furniture since 1911. Our tone is warm and a little old-fashioned.",
    "Pixelhut sells refurbished phones online. Customers are young, write short messages and want quick help.",
    "Monte Alto Insurance covers homes and travel. Everything we say may be read by a regulator, so be exact.",
)


def brand(rng: random.Random, work: Work, item: Item) -> Messages:
    """One of three brands described before the task: a slot with few long values."""
    return [_system(f"{rng.choice(BRANDS)}\n\n{work.asks[0]}\n\n{work.rules[0]}"), _user(item.text)]


def table_row(rng: random.Random, work: Work, item: Item) -> Messages:
    """A row of a table in the user turn."""
    told = f"{work.asks[1]} The data comes as CSV."
    return [_system(told), _user(f"id,lang,text\n{rng.randrange(10**5)},{rng.choice(LOCALES)},{item.text}")]


def headings(rng: random.Random, work: Work, item: Item) -> Messages:
    """The frame of a fine-tuning set, the same for all works."""
    return [_user(f"### Instruction:\n{work.asks[2]}\n\n### Input:\n{item.text}\n\n### Response:")]


def sandwich(rng: random.Random, work: Work, item: Item) -> Messages:
    """Passages and input without labels between two halves of the instruction."""
    found = "\n\n".join(rng.choices(_passages(), k=rng.randint(1, 5)))
    return [
        _user(f"{work.asks[0]} Background first, then the text.\n\n{found}\n\n{item.text}\n\n{' '.join(work.rules)}")
    ]


def terse(rng: random.Random, work: Work, item: Item) -> Messages:
    """One line, lower case."""
    return [_user(f"{work.noun.lower()}: {item.text} | {work.out.lower()}:")]


def reordered(rng: random.Random, work: Work, item: Item) -> Messages:
    """A header with time, address and link; the rules in any order."""
    rules = "\n".join(f"* {rule}" for rule in rng.sample(work.rules, 3))
    name = rng.choice(PEOPLE).split()[0].lower()
    header = f"[{_date(rng, '%Y-%m-%dT%H:%M:%SZ')}] {name}@example.com https://example.com/t/{rng.randrange(10**6)}"
    return [_system(f"{header}\n{work.asks[2]}\n{rules}"), _user(item.text)]


def follow_up(rng: random.Random, work: Work, item: Item) -> Messages:
    """The prompt inline in the first turn, then corrections."""
    turns = [_user(f"{work.asks[1]}\n{work.noun} = {item.text}")]
    for _ in range(rng.randint(0, 2)):
        turns += [{"role": "assistant", "content": _answer_text(item)}, _user(_question(rng))]
    return turns


def constant_shots(rng: random.Random, work: Work, item: Item) -> Messages:
    """Examples that never change, a name before them."""
    shots = "\n".join(f"{shot.text} -> {_answer_text(shot)}" for shot in work.items[:3])
    return [_system(f"Dear {rng.choice(PERSONAS)}! {work.asks[0]}\n{shots}"), _user(f"{item.text} ->")]


HELD_LAST: dict[str, Style] = {
    style.__name__: style
    for style in (brand, table_row, headings, sandwich, terse, reordered, follow_up, constant_shots)
}


# ------------------------------------------------------------------------------------------------------ rows


def _chat(rng: random.Random) -> tuple[Messages, str]:
    """Unrelated chat, one to four exchanges long, and the answer."""
    messages: Messages = [_system(HELPFUL)] if rng.random() < 0.5 else []
    for _ in range(rng.choice((0, 0, 0, 1, 2, 3))):
        messages += [_user(_question(rng)), {"role": "assistant", "content": _prose(rng, 2, 5)}]
    return [*messages, _user(_question(rng))], _prose(rng, 4, 14)


def labelled(
    n: int,
    seed: int,
    prompts: bool = True,
    tasks: Sequence[str] | None = None,
    styles: dict[str, Style] | None = None,
    chat: float = CHAT,
) -> Iterator[tuple[dict[str, Any], Truth]]:
    """`n` rows of long-form traffic with their truth, the same for the same arguments.

    `prompts=False`: no prompt identifies the work. `tasks` limits the works (all of `WORKS` otherwise), `styles` the
    styles; `chat` is the share of unrelated chat. Raises KeyError for an unknown task.
    """
    rng = random.Random(seed)
    works = [work(name) for name in tasks or WORKS]
    chosen = (styles or STYLES) if prompts else {"bare": general}
    pairs = [(one, name, style) for one in works for name, style in chosen.items()]
    weights = [one.weight * rng.uniform(0.4, 1.6) for one, _, _ in pairs]
    drawn: Iterator[tuple[Work, str, Style]] = iter(())
    for i in range(n):
        tools: tuple[Any, ...] = ()
        message: dict[str, Any] = {"role": "assistant"}
        truth: Truth = (None, "chat")
        if rng.random() < chat:
            messages, message["content"] = _chat(rng)
        else:
            pair = next(drawn, None)
            if pair is None:
                drawn = iter(rng.choices(pairs, weights, k=1000))
                pair = next(drawn)
            one, name, style = pair
            item = rng.choice(one.items)
            messages, tools, truth = style(rng, one, item), item.tools, (one.name, name)
            message["content"] = item.said or None
            if item.calls:
                message["tool_calls"] = [
                    {"id": f"call_{i}_{k}", "type": "function", "function": {"name": called, "arguments": arguments}}
                    for k, (called, arguments) in enumerate(item.calls)
                ]
        request: dict[str, Any] = {"model": "gpt-5.2", "messages": messages}
        if tools:
            request["tools"] = list(tools)
        asked = sum(len(turn["content"] or "") for turn in messages) // 4 + 8
        told = len(message["content"] or "") // 4 + 12 * len(message.get("tool_calls", ())) + 1
        response = {
            "id": f"chatcmpl-{i}",
            "object": "chat.completion",
            "created": int(START.timestamp()) + 20 * i,
            "model": "gpt-5.2",
            "choices": [
                {"index": 0, "message": message, "finish_reason": "tool_calls" if "tool_calls" in message else "stop"}
            ],
            "usage": {"prompt_tokens": asked, "completion_tokens": told, "total_tokens": asked + told},
        }
        at = (START + timedelta(seconds=20 * i)).isoformat()
        yield {"request": request, "response": response, "at": at}, truth


def rows(
    n: int, seed: int, prompts: bool = True, tasks: Sequence[str] | None = None, **more: Any
) -> Iterator[dict[str, Any]]:
    """The rows of `labelled`, without their truth."""
    return (row for row, _ in labelled(n, seed, prompts, tasks, **more))


def write(
    path: Path, n: int, seed: int = 1, prompts: bool = True, tasks: Sequence[str] | None = None, **more: Any
) -> dict[str, Truth]:
    """Write `n` rows as JSON Lines; gives back the truth by response id."""
    truth: dict[str, Truth] = {}
    with path.open("wb") as file:
        for row, told in labelled(n, seed, prompts, tasks, **more):
            truth[row["response"]["id"]] = told
            file.write(msgspec.json.encode(row) + b"\n")
    return truth


def score(found: Mapping[str, Hashable], truth: Mapping[str, Truth], styles: bool = True) -> dict[str, Any]:
    """How well groups agree with the truth, both by response id; an id without a group was not assigned.

    `styles`: a prompt style is a group of its own; otherwise the task is. `ari` counts the assigned rows of tasks,
    `ari_all` takes each row that was not assigned as a group of its own; `assigned` and `purity` are shares of the
    rows of tasks. `false_joins` are groups of which less than 99% is one task (never mind the style), `chat_taken` the
    share of unrelated chat in groups that are mostly a task's.
    """
    from sklearn.metrics import adjusted_rand_score

    groups: dict[Hashable, Counter[str | None]] = defaultdict(Counter)
    for key, group in found.items():
        groups[group][truth[key][0]] += 1
    told = [(truth[key] if styles else truth[key][0], found.get(key)) for key in truth if truth[key][0] is not None]
    seen = [(str(true), str(group)) for true, group in told if group is not None]
    every = [(str(true), str(i) if group is None else f"g{group}") for i, (true, group) in enumerate(told)]
    joins = []
    pure = 0
    for group, counts in sorted(groups.items(), key=lambda pair: -pair[1].total()):
        works = Counter({name: count for name, count in counts.items() if name is not None})
        if not works:
            continue
        (_, count), *rest = works.most_common()
        pure += count
        if rest and count < 0.99 * works.total():
            joins.append({"group": group, "rows": works.total(), "purity": count / works.total(), "works": dict(works)})
    chat = [found.get(key) for key in truth if truth[key][0] is None]
    taken = sum(group is not None and groups[group].most_common(1)[0][0] is not None for group in chat)
    return {
        "ari": float(adjusted_rand_score(*zip(*seen, strict=True))) if seen else 0.0,
        "ari_all": float(adjusted_rand_score(*zip(*every, strict=True))) if every else 0.0,
        "assigned": len(seen) / max(1, len(told)),
        "purity": pure / max(1, len(seen)),
        "groups": len(groups),
        "false_joins": joins,
        "chat_taken": taken / max(1, len(chat)),
    }


def mined(n: int, seed: int, least: int = 10, **more: Any) -> tuple[dict[str, Any], list[Any], dict[str, Truth]]:
    """What `learn.mining` finds in `n` rows: its score with the seconds it took, the rules, and the truth."""
    from suffice.learn.mining import mine_members
    from suffice.wire.chat import request_of

    truth, requests = {}, []
    for row, told in labelled(n, seed, **more):
        truth[row["response"]["id"]] = told
        requests.append(request_of(row["request"]))
    keys = list(truth)
    began = time.perf_counter()
    rules = mine_members(requests, least=least)
    seconds = time.perf_counter() - began
    found = {keys[i]: number for number, one in enumerate(rules) if not one.rule.bare for i in one.members}
    bare = sum(len(one.members) for one in rules if one.rule.bare)
    return {**score(found, truth), "bare": bare, "seconds": seconds}, rules, truth


def main() -> None:
    """Write rows (`mixture.py write N FILE`), or score mining (`mine [N [SEED ...]] [--bare]`).

    `--held`, `--held-more`, `--held-last`: with styles that were written to judge it.
    """
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    for name in WORKS:
        work(name)
    if arguments[:1] == ["write"]:
        count, began = int(arguments[1]), time.perf_counter()
        write(Path(arguments[2]), count)
        print(f"{count / (time.perf_counter() - began):,.0f} rows/s")
        return
    count = int(arguments[1]) if len(arguments) > 1 else 12_000
    more: dict[str, Any] = {"styles": HELD} if "--held" in sys.argv else {}
    more |= {"styles": HELD_MORE} if "--held-more" in sys.argv else {}
    more |= {"styles": HELD_LAST} if "--held-last" in sys.argv else {}
    lines = []
    for seed in map(int, arguments[2:] or ("1", "2", "3")):
        result, _, _ = mined(count, seed, prompts="--bare" not in sys.argv, **more)
        keys = ("ari", "ari_all", "assigned", "purity", "chat_taken")
        figures = [f"{result[key]:.3f}" for key in keys]
        joins = len(result["false_joins"])
        lines.append([str(seed), *figures, str(result["groups"]), str(joins), f"{result['seconds']:.1f}"])
        for join in result["false_joins"]:
            print(f"seed {seed}: {join}")
    head = ("seed", "ARI", "ARI of all", "assigned", "purity", "chat taken", "groups", "false joins", "seconds")
    print(common.table(head, lines))


if __name__ == "__main__":
    main()
