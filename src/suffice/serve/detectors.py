"""Detectors: where in a text something stands that may not leave. The built-in forms, own expressions, Presidio.

Own expressions run on RE2, which takes time in proportion to the text whatever the expression is: the standard
library's can be made to run for years by one line of a request.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from suffice.core.config import Privacy
from suffice.core.errors import InputError
from suffice.serve import personal
from suffice.serve.personal import Found

Find = Callable[[str], list[Found]]

_OURS = {
    "PHONE_NUMBER": "PHONE",
    "CREDIT_CARD": "CARD",
    "IBAN_CODE": "IBAN",
    "IP_ADDRESS": "IP",
    "US_SSN": "SSN",
}
_NOT_ASKED = frozenset({"DATE_TIME", "URL", "EMAIL_ADDRESS"})
"""Presidio's entities that identify nobody by themselves and stand in every other text; and those for which it fetches
a list of domains from the network (our own form finds e-mail)."""
_SURE = 0.4
"""Presidio's score from which on something is held back: its plain patterns without context give 0.05 to 0.3."""


class Detectors:
    """What is looked for under these settings. Raises InputError for an expression that is none, or a detector that is
    not installed.

    `slow`: a look belongs into a thread, however short the text.
    """

    def __init__(self, privacy: Privacy) -> None:
        self._privacy = privacy
        self.slow = privacy.detector == "presidio"
        self._model = _installed(privacy) if self.slow else ""
        self._own = _own(privacy.also)
        self._kinds = (*personal.KINDS, *privacy.also)
        self._presidio: Find | None = None
        self._loading = threading.Lock()

    def open(self) -> None:
        """Load what takes time to load."""
        with self._loading:
            if self.slow and self._presidio is None:
                self._presidio = _presidio(self._privacy.language, self._model)

    def forms(self, text: str) -> list[Found]:
        """What has one of the forms, built-in or own: in the order of the text, none over another."""
        found = personal.find(text)
        if not self._own:
            return found
        return personal.merged(found + [one for find in self._own for one in find(text)], self._kinds)

    def find(self, text: str) -> list[Found]:
        """All of it."""
        if not self.slow:
            return self.forms(text)
        self.open()
        assert self._presidio is not None
        told = self._presidio(text)
        more = sorted({one.kind for one in told} - {*self._kinds})
        return personal.merged(self.forms(text) + told, (*self._kinds, *more))


def _own(also: Mapping[str, str]) -> list[Find]:
    if not also:
        return []
    try:
        import re2
    except ImportError as error:
        raise InputError(
            "[privacy] `also`: own expressions need google-re2: pip install 'suffice[patterns]'"
        ) from error
    options = re2.Options()
    options.log_errors = False
    found: list[Find] = []
    for name, expression in also.items():
        try:
            compiled = re2.compile(expression, options)
        except re2.error as error:
            told = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else error
            raise InputError(f"[privacy] `also.{name}`: {told}") from error
        if compiled.search("") is not None:
            raise InputError(f"[privacy] `also.{name}`: {expression!r} is found in an empty text too")
        found.append(_finder(name, compiled.finditer))
    return found


def _finder(name: str, finditer: Callable[[str], Iterable[re.Match[str]]]) -> Find:
    def find(text: str) -> list[Found]:
        return [Found(*match.span(), name) for match in finditer(text) if match.end() > match.start()]

    return find


def _installed(privacy: Privacy) -> str:
    """The spaCy model that Presidio is to read with; a package or a folder. It would be fetched if it were missing."""
    model = privacy.model or f"{privacy.language}_core_{'web' if privacy.language in ('en', 'zh') else 'news'}_lg"
    if find_spec("presidio_analyzer") is None or find_spec("spacy") is None:
        raise InputError("[privacy] detector = 'presidio' needs Presidio: pip install 'suffice[privacy]'")
    if not Path(model).is_dir() and (not model.isidentifier() or find_spec(model) is None):
        raise InputError(
            f"[privacy] detector = 'presidio': there is no spaCy model {model!r}: "
            f"`python -m spacy download {model}`, or name a folder in `model`"
        )
    return model


def _presidio(language: str, model: str) -> Find:
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    settings = {"nlp_engine_name": "spacy", "models": [{"lang_code": language, "model_name": model}]}
    engine = AnalyzerEngine(
        nlp_engine=NlpEngineProvider(nlp_configuration=settings).create_engine(), supported_languages=[language]
    )
    asked = sorted({*engine.get_supported_entities(language)} - _NOT_ASKED)
    one_at_a_time = threading.Lock()

    def find(text: str) -> list[Found]:
        with one_at_a_time:
            told = engine.analyze(text, language=language, entities=asked, score_threshold=_SURE)
        return [Found(one.start, one.end, _OURS.get(one.entity_type, one.entity_type)) for one in told]

    return find
