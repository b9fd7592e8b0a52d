"""A readable name for a task, out of its prompt's own words: `classify-customer-intents`.

    a verb of work and what it is done to, from the prompt -> else tools, labels or fields of the answers -> else the
    words that most inputs share -> else what kind of answer it is

Words, not understanding: a name is there to be recognised, and a person may change it. What could be a person, a date,
an address or a number is never part of a name. Other languages than English are known by a few words only; scripts
that are not Latin not at all.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from suffice.core.values import Value, calls_of

LONGEST = 40
WORDS = 3
"""Words of a name, if there are as many; a name has two at least."""
LONGEST_WORD = 24
READ_CHARS = 6_000
"""Of a longer prompt the beginning says what is asked; examples follow."""
READ_TEXTS = 400
LONGEST_LIST = 6
ITEM_WORDS = 4
"""So many items of no more words than this, by commas, are a list and no sentence."""
FEW_LABELS = 0.5
"""Answers that are texts are labels if at most this share of them is distinct."""
LABEL_WORDS = 5

_WORK = """
classify categorise categorize extract summarise summarize translate route detect moderate rewrite rank sort tag label
assign triage transcribe redact anonymise anonymize normalise normalize deduplicate paraphrase proofread parse convert
score rate grade predict recognise recognize annotate segment map match flag filter screen estimate evaluate assess
compare verify validate diagnose prioritise prioritize recommend plan schedule transform simplify shorten correct
"""
_SOFT = """
answer write draft generate create identify determine decide choose select pick find check analyse analyze describe
explain compose suggest list name judge tell mark compute calculate solve edit review
"""
_NOUNS = """
classification:classify classifier:classify categorisation:categorise categorization:categorize extraction:extract
extractor:extract summarisation:summarise summarization:summarize summariser:summarise summarizer:summarize
translation:translate translator:translate routing:route router:route detection:detect detector:detect
moderation:moderate moderator:moderate ranking:rank ranker:rank tagging:tag tagger:tag triage:triage scoring:score
grader:grade grading:grade redaction:redact transcription:transcribe evaluator:evaluate evaluation:evaluate
recommender:recommend recommendation:recommend prediction:predict predictor:predict parser:parse converter:convert
"""
_FOREIGN = """
klassifiziere klassifizieren ordne kategorisiere kategorisieren extrahiere extrahieren ubersetze ubersetzen erkenne
erkennen bewerte bewerten beantworte bestimme bestimmen formuliere fasse prufe
classe classez classer classifie classifiez classifier extrais extrayez extraire resume resumez resumer traduis
traduisez traduire identifie identifiez identifier categorise categorisez detecte detectez detecter determine determinez
clasifica clasifique clasificar extrae extraiga extraer resuma resumir traduce traduzca traducir identifica identifique
identificar detectar determina determinar categoriza categorizar
classifica classificare classificar estrai estrarre riassumi riassumere traduci tradurre rileva assegna
classifique extraia extrair traduza traduzir identificar
classificeer vertaal bepaal beoordeel categoriseer
"""

_STOP = """
a about above according accurate accurately across act actual after again against all along also always am among an and
another any anyone anything appropriate are aren't around as asked asks assist assistance assistant assistants at
available away back based be because become been before begin being below best better between both brief but by call
called calls can can't cannot careful carefully case cases clear clearly come comma complete concise concisely consider
considering consisting contain containing contains content context correct correctly could currently day days default
detailed do does doesn't doing don't done during each either else empty end ensure etc even every everything exact
exactly example examples except excellent exist existing expert experienced explanation explanations extra few first
fit fits follow followed following follows for form format formatted formatting found friendly from full fully further
general get give given gives go goal good great had has have having he help helpful helpfully helping helps her here
him his honest how however i i'm if important in include included includes including indicate information input inputs
inside instead instruction instructions into is isn't it it's its itself job json just keep key keys kind know known
knowledge language's last later least less let like likely long look made main make makes many markdown matter
may me mean means mentioned might mine month more most much must my name named names need needed needs never new next
no none nor not note nothing now number numbers object objects of off often ok old on once one only onto or order other
others otherwise our out output outputs over own part particular per perform perhaps piece please point polite politely
possible precise precisely present professional proper properly provide provided provides providing put question's quite
rather ready real really relevant reply respond responding responds response responses result results return returned
returning returns right role rule rules same say says schema see senior sentence's set several shall she short should
show shown shows simple simply since single skilled so some someone something specialist specific specified speak
start state step steps still strict strictly string strings such sure system take takes talk task tasks than thank
thanks that the their them then there these they thing things think this those though three through time times to today
together too toward trained true false try turn two type types under unless until up upon us use used useful
user users uses using usually valid value values various very want wants was way ways we week well were what whatever
when where whether which while who whole whom whose why will wish with within without word words work working works
would write wrong year years yes yet you you'll you're your yours yourself zero four five six seven eight nine ten
hello hi dear regards sincerely gpt chatgpt claude gemini llama openai anthropic mistral ai llm model models bot
chatbot agent agents copilot assistant engine virtual digital smart intelligent world class yaml xml html null csv
monday tuesday wednesday thursday friday saturday sunday january february march april june july august september
october november december jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun tomorrow
yesterday date's am pm utc gmt mr mrs ms dr prof
read reads wrote written serve serves handle boolean booleans acts acting calling closest background id ids session
locale
could couldn't didn't hadn't hasn't haven't won't wouldn't shouldn't ain't ain ll ve re im ive dont cant got getting
going gonna did does anybody somebody ever ago able ask asking maybe told think thought seem seems lot bit
"""
_STOP_FOREIGN = """
der die das den dem des ein eine einer eines einem einen und oder nicht mit von vom zu zum zur im in ins am an auf aus
bei fur uber unter nach vor als auch nur du sie er es wir ihr ich bist ist sind sein hat haben wird werden soll sollen
bitte jede jeder jedes alle welche welcher welches deine dein deiner ihre ihren ihrer antworte antwort gib aufgabe
folgende folgenden folgender hilfreicher hilfreiche assistent assistentin experte expertin text wie was wenn dass man
le la les un une des du de et ou ne pas avec pour par sur sous dans est es sont tu vous il elle nous je que qui quoi
ce cette ces son sa ses votre vos ton ta tes suivant suivante suivants au aux en reponds repondez reponse seulement
uniquement expert assistante utile donne donnez chaque plus si comme
el los las uno una unos unas y o no con por para sobre es eres son ser tu usted su sus que cual este esta estos estas
siguiente siguientes al del en se responde responda respuesta solo solamente experto experta asistente util cada mas
il lo gli uno e di a da con su per tra fra sei sono che questo questa seguente seguenti della delle dei degli dello
nel nella rispondi risposta soltanto esperto assistente utile ogni
os as um uma uns umas e do da dos das em no na nos nas com por para voce que este esta seguinte seguintes ao resposta
apenas somente especialista
het een van en of niet met voor op aan uit bij naar als ook alleen je jij bent is zijn wordt deze dit volgende antwoord
geef expert jouw uw
"""
_DETERMINERS = """
der die das des dem den ein eine einer eines einem einen jede jeder jedes jeden alle alles folgende folgenden folgender
im ins zum zur vom am in nach und oder als deren dessen diese dieser dieses diesen diesem
"""
_WEAK = """
text texts message messages query queries question questions request requests sentence sentences document documents
paragraph statement tool tools conversation dialogue utterance utterances item items entry entries description category
categories label labels class classes list lists option options field fields data answer answers snippet
nachricht nachrichten anfrage kategorie kategorien texte message categorie mensaje categoria texto testo messaggio
"""
"""Words that say what every prompt has: taken where there is no better."""
_NAMES = (
    """
aaron adam adrian aisha alan albert alejandro alessandro alex alexander alexandra alice alicia ali amanda amelia amy ana
andrea andreas andrew andy angela anita anja ann anna anne annie anthony antonio arthur ashley astrid barbara beatrice
ben benjamin bernard beth betty bill bob brandon brenda brian bruce camille carl carla carlos carmen carol caroline
catherine charles charlie charlotte chen chloe chris christian christina christine christopher claire clara claudia
cynthia dan daniel daniela david deborah dennis diana diego dieter dimitri donald donna dorothy doug dylan edward elena
elizabeth ella ellen emily emma eric erik ethan eva evelyn fatima felix fernando fiona florian francesca francis
francisco frank franz fred gabriel gary george gerald giovanni giulia greg gregory guillaume hannah hans harold harry
hassan heather heidi helen helena helga henry hiroshi hugo ian ibrahim ingrid isabel isabella ivan jack jacob jacqueline
james jamie jan jane janet jason javier jean jeff jeffrey jennifer jenny jeremy jerry jesse jessica jim joan joe johan
johann johanna john johnny jonas jonathan jordan jorge jose joseph joshua juan judith judy julia julian julie jun jurgen
justin karen karin karl kate katharina katherine kathleen katie keith kelly ken kenneth kevin kim klaus kyle larry lars
laura lauren lea leah lena leo leon leonardo lily linda lisa liu louis louise luca lucas lucia lucy luis lukas luke
magnus manuel marc marco marcus margaret maria marie mario marion mark markus marta martha martin mary mateo matt matteo
matthew matthias maya megan mehmet mei melissa mia michael michel michelle miguel mike mohamed mohammad mohammed monica
monika muhammad nadia nancy natalia natalie natasha nathan nicholas nick nicole nicolas nina noah olga oliver olivia
omar oscar otto pablo pamela paolo patricia patrick paul paula pedro peter petra philip philipp pierre priya rachel
rafael rahul raj ralph raymond rebecca richard robert roberto roger ron ronald rosa ruth ryan sabine sam samantha samuel
sandra sara sarah scott sean sebastian sergei sergio sharon sofia sophia sophie stefan stefanie stella stephanie stephen
steve steven sue susan susanne sven svetlana tanja tara teresa theo theresa thomas tim timothy tina tobias todd tom tony
tyler ursula uwe valentina vanessa vera veronica victor victoria vincent virginia vladimir walter wang wei wendy werner
william wolfgang xavier yasmin yuki yusuf zhang zoe smith johnson williams brown jones garcia miller davis rodriguez
martinez hernandez lopez gonzalez wilson anderson taylor moore jackson lee perez thompson white harris sanchez clark
muller schmidt schneider fischer weber meyer wagner becker hoffmann
""".replace("brown ", "")
    .replace("white ", "")
    .replace(" mark ", " ")
    .replace(" jan ", " ")
    .replace(" bill ", " ")
)
"""Given and family names that are often met. It cannot be complete: in prompts a capital letter tells names too."""

_NOISE = re.compile(
    r"(?<!\S)\S{1,200}@\S+|https?://\S+|www\.\S+|</?\w[^<>]{0,80}>"
    r"|(?<!\w)['\"“‘`][^'\"”’`\n]{1,30}['\"”’`](?!\w)"
    r"|\b(?:large |small )?language models?\b|\bdo(?: not|n['’]t) \w+\b|\bwithout \w+ing\b|\bnever \w+\b",
    re.IGNORECASE,
)
"""Addresses, tags, what is quoted, and work that is not to be done."""
_SENTENCE = re.compile(r"[.!?](?=\s|$)|[:;\n|•]+|(?<=\s)[-–—*]+(?=\s)")
_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)?|,")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|[_\-./\s]+")
_ROLE = re.compile(
    r"\s*(?:you(?:['’]re| are| act| work)|act as|i am|i['’]m|my name|your name|du bist|sie sind|tu es|vous etes|eres"
    r"|usted es|sei |voce e|je bent|u bent)\b",
    re.IGNORECASE,
)
_BEFORE_VERBS = """
to please and then or you must should will can shall may that who which , now first also always only just task job goal
bitte
"""
_ACRONYMS = "sql faq seo cv hr icd sku crm pii spam esg kyc aml iban gdpr api"
_GERMAN = "der das und des dem den ein eine einer einem einen ist ins zum zur folgende folgenden wird"
_FOLD = str.maketrans(
    {"ß": "ss", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D",
     "ı": "i", "þ": "th", "ð": "d", "’": "'"}
)  # fmt: skip


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


STOP = _set(_STOP) | _set(_STOP_FOREIGN)
WEAK = _set(_WEAK)
NAMES = _set(_NAMES)
FOREIGN = _set(_FOREIGN)
DETERMINERS = _set(_DETERMINERS)
BEFORE_VERBS = _set(_BEFORE_VERBS)
ACRONYMS = _set(_ACRONYMS)
GERMAN = _set(_GERMAN)
NOUNS = dict(pair.split(":") for pair in _NOUNS.split())
AMBIGUOUS = _set(
    "route rank sort tag label score rate grade segment map match flag filter screen estimate plan schedule correct "
    "answer draft list name check find review read mark edit judge tell select pick write triage name match describe"
)
"""Verbs that may be nouns or more: believed where a verb stands."""


def _forms(verbs: str) -> dict[str, str]:
    """Each form of regular verbs with the verb itself."""
    found: dict[str, str] = {}
    for verb in verbs.split():
        stem = verb[:-1] if verb.endswith("e") else verb
        third = verb[:-1] + "ies" if verb.endswith("y") else verb + ("es" if verb.endswith(("ch", "ss", "x")) else "s")
        for form in (verb, third, stem + "ing"):
            found.setdefault(form, verb)
    return found | {"tagging": "tag", "tags": "tag", "flagging": "flag", "mapping": "map", "planning": "plan"}


HARD = _forms(_WORK)
SOFT = {form: verb for form, verb in _forms(_SOFT).items() if form not in HARD}


def name(fixed: Sequence[str], texts: Sequence[str], values: Sequence[Value], taken: set[str]) -> str:
    """A name of two to four words in kebab-case that is not `taken` (else -2, -3, ... follows).

    `fixed` holds the fixed text of each of the task's prompts ("" where there is none), `texts` inputs, `values` their
    answers. The same arguments give the same name.
    """
    prompts = [tuple(_of_prompt(text)) for text in fixed if text.strip()]
    counted = Counter(words for words in prompts if words)
    # Of names that as many prompts give, one that tells the work.
    ranked = sorted(counted, key=lambda found: (counted[found], found[0] in HARD), reverse=True)
    words = [*ranked[0]] if ranked else []
    kind = _kind(values)
    if not words:
        words = _of_answers(values, kind) or [*_of_inputs(texts), *([] if kind == "text" else [kind])]
    words = _fitting(words)
    if not words:
        words = [kind, "task"]
    elif len(words) == 1:
        words.append("task" if words == [kind] else "answers" if kind == "text" else kind)
    return _free("-".join(words), taken)


def _fitting(words: Iterable[str]) -> list[str]:
    """The words, each once, as many as a name holds; room is left for a number and one word more."""
    found: list[str] = []
    for part in dict.fromkeys(part for word in words for part in word.split("-")):
        if len("-".join([*found, part])) <= LONGEST - 4 and len(found) < WORDS + 1:
            found.append(part)
    return found


def _free(base: str, taken: set[str]) -> str:
    """`base`, or with the first number that makes it one that is not taken."""
    known = {one.casefold() for one in taken}
    base = base[:LONGEST].strip("-")
    if base not in known:
        return base
    n = 2
    while (numbered := base[: LONGEST - len(f"-{n}")].rstrip("-") + f"-{n}") in known:
        n += 1
    return numbered


# ---------------------------------------------------------------------------------------------- from the prompt


class _Word(NamedTuple):
    """A word of a prompt: folded and in lower case; `usable` in a name."""

    text: str
    usable: bool


def _of_prompt(text: str) -> list[str]:
    """The verb of work in a prompt and what it is done to; the prompt's telling words where it has none."""
    text = _NOISE.sub(" ", _folded(text[:READ_CHARS]))
    letters = [c for c in text if c.isalpha()]
    if letters and sum(c.isupper() for c in letters) > 0.6 * len(letters):
        text = text.lower()
    text = re.sub(r"\b([Pp]lug|[Ee])-(ins?|mails?)\b", r"\1\2", text)
    pieces = [piece for piece in _SENTENCE.split(text) if piece.strip() and not _lists(piece)]
    lower = {token for token in _TOKEN.findall(text) if token[:1].islower()}
    german = len(set(text.lower().split()) & GERMAN) >= 2
    sentences = [(_words(piece, lower, german), bool(_ROLE.match(piece))) for piece in pieces]
    action = _action(sentences)
    if action is not None:
        at, place, verb = action
        own = sentences[at][0]
        after, before = list(_telling(own[place + 1 :])), list(_telling(own[:place]))
        meant = [word.text for word in own[place + 1 : place + 2]] in (["it"], ["them"], ["its"], ["each"])
        near = [*before, *after] if meant else [*after, *before]
        if not any(word not in WEAK for word in near):
            near = [*_spread(sentences), *near]
        near = [word for word in near if word != verb and HARD.get(word, SOFT.get(word)) != verb]
        strong = [word for word in near if word not in WEAK]
        weak = [word for word in near if word in WEAK]
        return list(dict.fromkeys([verb, *(strong or weak[:1])]))[:WORDS]
    nouns = [(word.text, NOUNS[word.text]) for words, _ in sentences for word in words if word.text in NOUNS]
    found = [word for word in _spread(sentences) if word not in NOUNS]
    if nouns:
        return list(dict.fromkeys([nouns[0][1], *found]))[:WORDS]
    found = [word for word in _spread(sorted(sentences, key=lambda sentence: sentence[1])) if word not in NOUNS]
    return [word for word in found if word not in WEAK][:WORDS]


def _lists(piece: str) -> bool:
    """Whether a sentence is but a list, of labels say: that is what is chosen from, not what is done."""
    items = piece.split(",")
    return len(items) >= LONGEST_LIST and len(piece.split()) <= ITEM_WORDS * len(items)


def _words(piece: str, lower: set[str], german: bool) -> list[_Word]:
    """A sentence's words. One with a capital letter that is nowhere written without it may be a name, and is none."""
    tokens = _TOKEN.findall(piece)
    said = [token for token in tokens if token != ","]
    heading = piece.lstrip().startswith("#") or (
        len(said) > 1
        and all(t[:1].isupper() or _plain(t) in STOP for t in said)
        and any(_plain(token) in NOUNS or _plain(token) in HARD for token in said)
    )
    found: list[_Word] = []
    for i, token in enumerate(tokens):
        word = _plain(token)
        usable = (word.isascii() and word.isalpha() and 2 < len(word) <= LONGEST_WORD) or word in ACRONYMS
        usable = usable and word not in STOP and word not in NAMES
        if usable and token[:1].isupper() and not heading and token.lower() not in lower and word not in ACRONYMS:
            before = found[-1].text if found else ""
            of_work = word in HARD or word in SOFT or word in FOREIGN or word in NOUNS
            after = _plain(tokens[i + 1]) if i + 1 < len(tokens) else ""
            starts = not found and not token.isupper() and after not in ("", ",", "is", "was", "works", "and")
            usable = of_work or starts or (german and before in DETERMINERS)
        found.append(_Word(word, usable))
    return found


def _action(sentences: Sequence[tuple[Sequence[_Word], bool]]) -> tuple[int, int, str] | None:
    """Sentence, place and base form of the first verb of work; one of the softer verbs where there is no other."""
    soft: tuple[int, int, str] | None = None
    for at, (words, _) in enumerate(sentences):
        for place, word in enumerate(words):
            before = next((w.text for w in reversed(words[:place]) if not w.text.endswith("ly")), "")
            after = words[place + 1].text if place + 1 < len(words) else ""
            base = HARD.get(word.text, SOFT.get(word.text))
            # "Label the ticket", but not "Labels: ...".
            starts = before == "" and after != "" and base in (None, word.text)
            stands = starts or before in BEFORE_VERBS
            if before in ("not", "never", "don't", "no") or (base in AMBIGUOUS and not stands):
                continue
            if word.text in HARD:
                return at, place, HARD[word.text]
            if word.text in FOREIGN and stands and word.usable:
                return at, place, word.text
            about_form = after in ("with", "only", "in", "as", "using", "by", "exactly", "") or word.text in STOP
            if soft is None and word.text in SOFT and stands and not (about_form and SOFT[word.text] != "write"):
                soft = at, place, SOFT[word.text]
    return soft


def _telling(words: Iterable[_Word]) -> Iterator[str]:
    """Words that may stand in a name."""
    return (word.text for word in words if word.usable)


def _spread(sentences: Sequence[tuple[Sequence[_Word], bool]]) -> list[str]:
    """All telling words of a prompt in their order, verbs left out."""
    return [
        word
        for words, _ in sentences
        for word in _telling(words)
        if word not in HARD and word not in SOFT and word not in FOREIGN
    ]


# ---------------------------------------------------------------------------------------------- without a prompt


def _kind(values: Sequence[Value]) -> str:
    """What most answers are, in a word of a name."""
    kinds = Counter(_kind_of(value) for value in values if value is not None)
    if not kinds:
        return "text"
    kind = kinds.most_common(1)[0][0]
    if kind != "text":
        return kind
    said = [value.strip() for value in values if isinstance(value, str)]
    few = len(set(said)) <= max(2, FEW_LABELS * len(said)) or (len(said) < 4 and len(set(said)) < len(said))
    short = all(len(one.split()) <= LABEL_WORDS and len(_CAMEL.split(one)) <= 2 * LABEL_WORDS for one in said)
    return "labels" if few and short and len(said) > 1 else "text"


def _kind_of(value: Value) -> str:
    if calls_of(value) is not None:
        return "tool-calls"
    match value:
        case bool():
            return "yes-no"
        case int() | float():
            return "numbers"
        case str():
            return "text"
        case list():
            return "labels"
        case _:
            return "fields"


def _of_answers(values: Sequence[Value], kind: str) -> list[str]:
    """The words that tools, labels or fields share; those of the commonest where they share none."""
    said: Counter[str] = Counter()
    for value in values:
        calls = calls_of(value)
        if calls is not None:
            said.update(str(call["name"]) for call in calls)
        elif isinstance(value, dict) and kind == "fields":
            said.update(list(value))
        elif isinstance(value, list) and kind == "labels":
            said.update(str(item) for item in value)
        elif isinstance(value, str) and kind == "labels":
            said[value.strip()] += 1
    # As often, then in the order of the alphabet: the order of records must not matter.
    ordered = [text for text, _ in sorted(said.items(), key=lambda item: (-item[1], item[0]))]
    split = {text: _label_words(text, verbs=kind == "tool-calls") for text in ordered}
    if kind == "tool-calls" and len(ordered) == 1:
        return split[ordered[0]][:WORDS]
    ending = {"tool-calls": "tools"}.get(kind, kind)
    if kind == "fields":
        return [*list(dict.fromkeys(words[0] for words in split.values() if words))[:WORDS], ending] if said else []
    shared = Counter(word for words in split.values() for word in set(words))
    common = [word for word, n in sorted(shared.items(), key=lambda item: (-item[1], item[0])) if n > 1][: WORDS - 1]
    first = [word for words in split.values() for word in words[-1:]]
    chosen = list(dict.fromkeys([*common, *([] if len(common) > 1 else first)]))[: WORDS - 1]
    return [*chosen, ending] if chosen else []


def _label_words(text: str, verbs: bool) -> list[str]:
    """The words of a label, a field or a tool that may stand in a name; none of what looks like an address."""
    if "@" in text or "://" in text:
        return []
    words = [_plain(part) for part in _CAMEL.split(_folded(text))]
    kept = [word for word in words if word.isascii() and word.isalpha() and 1 < len(word) <= LONGEST_WORD]
    usual = frozenset({"get", "set", "call", "find", "list", "check"}) if verbs else frozenset({"order", "case", "no"})
    return [word for word in kept if word not in NAMES and (word not in STOP or word in usual)]


def _of_inputs(texts: Sequence[str]) -> list[str]:
    """The two words that most inputs share, written without a capital letter somewhere: those are no names."""
    often: Counter[str] = Counter()
    for text in texts[:READ_TEXTS]:
        tokens = _TOKEN.findall(_NOISE.sub(" ", _folded(text[:READ_CHARS])))
        words = {token for token in tokens if token.islower() and token.isascii() and token.isalpha()}
        often.update(word for word in words if 3 < len(word) <= LONGEST_WORD)
    usable = ((word, n) for word, n in often.items() if word not in STOP and word not in NAMES and word not in WEAK)
    least = 2 if len(texts) > 1 else 1
    ordered = sorted(((word, n) for word, n in usable if n >= least), key=lambda item: (-item[1], item[0]))
    return [word for word, _ in ordered[: WORDS - 1]]


# ---------------------------------------------------------------------------------------------- words


def _folded(text: str) -> str:
    """Latin letters without their accents."""
    parts = unicodedata.normalize("NFKD", text.translate(_FOLD))
    return "".join(c for c in parts if not unicodedata.combining(c))


def _plain(token: str) -> str:
    """A token in lower case, without the genitive."""
    word = token.lower().replace("’", "'")
    return word[:-2] if word.endswith("'s") else word.rstrip("'")
