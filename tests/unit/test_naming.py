"""Names of tasks: words of the prompt, never persons, dates, addresses or numbers."""

from __future__ import annotations

import pytest

from suffice.core.types import TASK_NAME
from suffice.core.values import Value
from suffice.learn.naming import LONGEST, name

LABELS: list[Value] = ["card_payment_fee", "card_payment_late", "card_lost"] * 5


def call(*tools: str) -> list[Value]:
    return [{"tool_calls": [{"name": tool, "arguments": {}}]} for tool in tools]


PROMPTS = {
    "You are Anna, ACME's support assistant. Classify the customer's message into one of 77 intents. Answer with JSON only.": "classify-customer-intents",  # noqa: E501
    "Extract the slots city and date from the text as JSON": "extract-slots-city",
    "Translate the following English text to French. Return only the translation.": "translate-english-french",
    "You are an expert linguist. Detect the language of the text. Respond with an ISO code.": "detect-language",
    "Summarise the meeting transcript in three bullet points.": "summarise-meeting-transcript",
    "Read the review and decide whether its sentiment is positive. Reply with one word.": "decide-sentiment-positive",
    "Given a support ticket, route it to the right team: billing, technical, sales.": "route-support-ticket",
    "Is the following comment toxic? Answer only yes or no.": "comment-toxic",
    "Answer the question using only the passage below. If the answer is not there, say 'unknown'.": "answer-passage",
    "Du bist ein hilfreicher Assistent von ACME. Ordne die Nachricht des Kunden einer Kategorie zu.": "ordne-kunden",
    "Klassifiziere die folgende Kundenanfrage. Antworte nur mit dem Label.": "klassifiziere-kundenanfrage",
    "Übersetze den Satz ins Französische.": "ubersetze-satz-franzosische",
    "Clasifica el siguiente correo electrónico según su urgencia.": "clasifica-correo-electronico",
    "TASK: CLASSIFY THE FOLLOWING TICKET INTO A CATEGORY": "classify-ticket",
    "# Ticket Classification\nPick exactly one label for the ticket below.": "classify-ticket",
    "You are an assistant that classifies insurance claims by severity.": "classify-insurance-claims",
    "Do not translate names. Convert the address to a normalized form.": "convert-address-normalized",
    "You are a travel booking assistant.": "travel-booking",
    "Read what the customer wrote and tell which intent it has.\n<options>verify_identity, refund, age_limit, top_up, atm, card</options>": "tell-intent-customer",  # noqa: E501
    "You are a dispatcher that picks plug-ins. Choose the one tool that can best serve the query.": "pick-plugins-dispatcher",  # noqa: E501
    "Answer the user by calling the right function with the right arguments.": "answer-function-arguments",
    "Tell which intent the customer has.\nLabels: a refund, age limit. Never invent a label.": "tell-intent-customer",
    "Rank the search results by relevance to the query.": "rank-search-relevance",
    "Please rate the essay from 1 to 5.": "rate-essay",
    "Grade the student's answer against the model solution": "grade-student-solution",
    "Your name is Lucy. You help customers of Northwind. Assign a priority to each incident.": "assign-priority-incident",  # noqa: E501
    "Choose the most fitting emoji for the tweet.": "choose-fitting-emoji",
    "Today is … . You are Max, an assistant at Contoso Bank. Your task is to identify which banking product it is.": "identify-banking-product",  # noqa: E501
    "Does the hypothesis follow from the premise? entailment, neutral or contradiction": "hypothesis-premise-entailment",  # noqa: E501
}  # fmt: skip


@pytest.mark.parametrize(("prompt", "expected"), PROMPTS.items())
def test_prompts(prompt: str, expected: str) -> None:
    assert name([prompt], [], [], set()) == expected


@pytest.mark.parametrize(
    ("fixed", "texts", "values", "expected"),
    [
        ("", [], LABELS, "card-payment-labels"),
        ("请提取城市", [], LABELS, "card-payment-labels"),
        ("请将客户消息分类", [], ["退款", "退款", "账单", "账单"], "labels-task"),
        ("", [], [{"city": "Paris", "date": "x", "people": "2"}] * 5, "city-date-people-fields"),
        ("", [], call("get_weather") * 3, "get-weather"),
        ("You are a helpful assistant.", ["x"], call("get_weather", "createEvent"), "event-weather-tools"),
        ("", [], [["sports", "politics"], ["sports"]], "sports-politics-labels"),
        (
            "",
            ["Anna, write a poem about love", "a poem for Peter about love"],
            ["Once on " * 9, "x"],
            "love-poem",
        ),
        ("", ["こんにちは"], [True, False], "yes-no"),
        ("", ["12"], [1, 2, 3], "numbers-task"),
        ("", [], [], "text-task"),
        ("You are a large language model trained by OpenAI.", [], [], "text-task"),
    ],
)
def test_without_a_telling_prompt(fixed: str, texts: list[str], values: list[Value], expected: str) -> None:
    assert name([fixed], texts, values, set()) == expected


def test_most_prompts_decide() -> None:
    prompts = ["Tag the topic", "", "Classify the intent of this utterance", "Classify the intent of this utterance"]
    assert name(prompts, [], [], set()) == "classify-intent"


def test_a_name_that_is_taken_is_numbered() -> None:
    first = name(["Extract the slots city and date"], [], [], set())
    second = name(["Extract the slots city and date"], [], [], {first})
    assert [second, name(["Extract the slots city and date"], [], [], {first, second})] == [f"{first}-2", f"{first}-3"]


@pytest.mark.parametrize(
    "prompt",
    [
        "You are Giovanni Kowalczyk. Classify mail to giovanni@example.com from Wojciech since 12 March 2024.",
        "Act as Dr. Smith of Globex. On 2024-05-01 label the scan. Call +49 30 1234567.",
        "Anna\nBob\nCharlie wants the summary of March.",
        "https://example.com/secret user 4711",
    ],
)
def test_no_persons_dates_addresses_or_numbers(prompt: str) -> None:
    words = name([prompt], [], [], set()).split("-")
    forbidden = "giovanni kowalczyk wojciech smith globex march anna bob charlie example com secret https"
    assert not set(words) & set(forbidden.split())
    assert not any(c.isdigit() for word in words for c in word)


@pytest.mark.parametrize(
    "prompt",
    [
        *PROMPTS,
        "",
        " \n\t ",
        "…",
        "classify " + "donaudampfschifffahrtsgesellschaftskapitaen " * 3,
        "extract internationalisation characterisations responsibilities misunderstandings",
        "@@@ ### !!! 123",
        "é" * 100,
        "{{" * 5_000,
    ],
)
def test_form(prompt: str) -> None:
    taken: set[str] = set()
    for _ in range(12):
        found = name([prompt], [], [], taken)
        assert TASK_NAME.fullmatch(found) and len(found) <= LONGEST and found == found.lower() and found not in taken
        assert len(found.split("-")) >= 2 and found == name([prompt], [], [], taken)
        taken.add(found)
