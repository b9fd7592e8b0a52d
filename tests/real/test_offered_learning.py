"""`suffice learn` and `suffice answer` where each request brings its own tools: found, learned, certified, answered."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from suffice.cli.main import suffice

CITIES = ("Oslo", "Lima", "Cairo", "Rome", "Quito", "Turin", "Delhi", "Accra", "Minsk", "Porto")
TOOLS = {
    "get_weather": ("The weather forecast for a city", ("what is the weather in {}", "will it rain in {} today")),
    "find_hotel": ("Search hotels and rooms in a city", ("find me a hotel in {}", "I need a room in {} tonight")),
    "book_flight": ("Book a flight to a city", ("book a flight to {}", "fly me to {} on friday")),
    "local_time": ("The local time and time zone of a city", ("what time is it in {}", "is it already late in {}")),
    "city_news": ("News and headlines about a city", ("any news about {}", "read me the headlines of {}")),
    "rent_car": ("Rent a car in a city", ("rent a car in {}", "I want to hire a car in {}")),
    "find_museum": ("Museums and exhibitions in a city", ("which museums are in {}", "an exhibition to see in {}")),
    "order_taxi": ("Order a taxi in a city", ("call me a taxi in {}", "I need a cab in {} now")),
}


def tool(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "description": TOOLS[name][0], "parameters": parameters}}


def line(rng: random.Random) -> dict[str, Any]:
    """A request that offers four tools, one of them meant; and the frontier's call of it."""
    offered = rng.sample(sorted(TOOLS), 4)
    meant, city = rng.choice(offered), rng.choice(CITIES)
    text = f"{rng.choice(('', 'hi, ', 'please: ', 'hello, ', 'quick: '))}{rng.choice(TOOLS[meant][1]).format(city)}"
    text += rng.choice(("", "?", " please", " thanks", f" (ref {rng.randrange(10_000)})"))
    called = {"id": "c", "type": "function", "function": {"name": meant, "arguments": json.dumps({"city": city})}}
    messages = [{"role": "system", "content": "Call the tool that helps."}, {"role": "user", "content": text}]
    return {
        "request": {"model": "m", "messages": messages, "tools": [tool(name) for name in offered]},
        "response": {
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "tool_calls",
                    "message": {"role": "assistant", "content": None, "tool_calls": [called]},
                }
            ]
        },
    }


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("offered")
    rng = random.Random(5)
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(line(rng)) + "\n" for _ in range(900)))
    home = ["--home", str(folder / "home"), "--json"]
    done = CliRunner().invoke(
        suffice, ["learn", "agent", "--data", str(data), "--max-error", "0.05", "--recipe", "linear", *home]
    )
    return folder, json.loads(done.stdout)


def test_a_task_whose_requests_bring_their_tools_is_learned(learned: tuple[Path, dict[str, Any]]) -> None:
    document = learned[1]
    assert document["contract"] == "a call of one of the tools that a request offers"
    assert "tools that the request offers" in document["reads"]
    assert document["release"] == "agent@1", document["reasons"]


def test_its_answers_are_calls_of_what_was_offered(learned: tuple[Path, dict[str, Any]]) -> None:
    folder = learned[0]
    rng = random.Random(6)
    lines = [line(rng) for _ in range(60)]
    asked = folder / "asked.jsonl"
    asked.write_text("".join(json.dumps({"request": each["request"]}) + "\n" for each in lines))
    done = CliRunner().invoke(suffice, ["answer", "agent", str(asked), "--home", str(folder / "home"), "--json"])
    answers = [json.loads(row) for row in done.stdout.splitlines()]
    accepted = 0
    for each, said in zip(lines, answers, strict=True):
        offered = [tool["function"]["name"] for tool in each["request"]["tools"]]
        called = each["response"]["choices"][0]["message"]["tool_calls"][0]["function"]
        for call in said["output"]["tool_calls"]:
            assert call["name"] in offered
        if said["accepted"]:
            accepted += 1
            expected = {"name": called["name"], "arguments": json.loads(called["arguments"])}
            assert said["output"] == {"tool_calls": [expected]}
    assert accepted >= 20


def test_what_the_frontier_answers_in_words_is_left_to_it(tmp_path: Path) -> None:
    """Of a fixed list of tools, one in four requests is chat: no call is learned for it, and none is ever given."""
    rng = random.Random(7)
    chat = ("tell me a joke", "who are you", "thanks a lot, that helped", "sing me a song", "what do you think of art")

    def asked(name: str) -> tuple[str, dict[str, str] | None]:
        if rng.random() < 0.25:
            return f"{rng.choice(chat)} {rng.choice(('please', 'my friend', 'now', 'if you can'))}", None
        city = rng.choice(CITIES)
        return rng.choice(TOOLS[name][1]).format(city) + rng.choice(("", "?", " please", " now")), {"city": city}

    def row() -> dict[str, Any]:
        name = rng.choice(sorted(TOOLS)[:4])
        text, arguments = asked(name)
        called = {"tool_calls": [{"name": name, "arguments": arguments}]}
        return {"input": text, "output": called if arguments else "I can only help with travel, but here is a thought."}

    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row()) + "\n" for _ in range(1200)))
    home = ["--home", str(tmp_path / "home"), "--json"]
    learn = ["learn", "travel", "--data", str(data), "--max-error", "0.05", "--min-coverage", "0.2"]
    document = json.loads(CliRunner().invoke(suffice, [*learn, "--recipe", "linear", *home]).stdout)
    assert document["release"] == "travel@1", document["reasons"]
    assert document["contract"].startswith("a call of one of 4 tools")
    lines = [row() for _ in range(200)]
    data.write_text("".join(json.dumps({"input": line["input"]}) + "\n" for line in lines))
    said = CliRunner().invoke(suffice, ["answer", "travel", str(data), *home]).stdout.splitlines()
    answers = [json.loads(each) for each in said]
    words = [answer for line, answer in zip(lines, answers, strict=True) if isinstance(line["output"], str)]
    calls = [answer for line, answer in zip(lines, answers, strict=True) if not isinstance(line["output"], str)]
    assert sum(answer["reason"] == "contract" for answer in words) >= 0.8 * len(words)
    assert sum(answer["accepted"] for answer in words) <= 0.05 * len(words)
    assert sum(answer["accepted"] for answer in calls) >= 0.7 * len(calls)
