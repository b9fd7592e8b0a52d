"""Instructor: values by tools, by JSON Schema and from Anthropic; whole and in parts."""

from collections.abc import Callable

import instructor
from anthropic import Anthropic
from asking import QUESTION, Ask, Variant, Weather, run
from openai import OpenAI

TURNS = [{"role": "user", "content": QUESTION}]


def of_openai(ask: Ask) -> OpenAI:
    return OpenAI(base_url=ask.base, api_key=ask.key, max_retries=0, default_headers=ask.headers)


def by_tools(ask: Ask) -> instructor.Instructor:
    return instructor.from_openai(of_openai(ask), mode=instructor.Mode.TOOLS)


def by_schema(ask: Ask) -> instructor.Instructor:
    return instructor.from_openai(of_openai(ask), mode=instructor.Mode.JSON_SCHEMA)


def by_responses(ask: Ask) -> instructor.Instructor:
    return instructor.from_openai(of_openai(ask), mode=instructor.Mode.RESPONSES_TOOLS)


def by_anthropic(ask: Ask) -> instructor.Instructor:
    asking = Anthropic(base_url=ask.root, api_key=ask.key, max_retries=0, default_headers=ask.headers)
    return instructor.from_anthropic(asking, mode=instructor.Mode.ANTHROPIC_TOOLS)


def variant(make: Callable[[Ask], instructor.Instructor], **more: object) -> Variant:
    def structured(ask: Ask) -> dict:
        return (
            make(ask)
            .create(model=ask.model, messages=TURNS, response_model=Weather, max_retries=0, **more)
            .model_dump()
        )

    def partial(ask: Ask) -> dict:
        found = make(ask).create_partial(model=ask.model, messages=TURNS, response_model=Weather, max_retries=0, **more)
        return list(found)[-1].model_dump()

    return Variant(structured=structured), Variant(structured=partial)


if __name__ == "__main__":
    tools, tools_partial = variant(by_tools)
    schema, schema_partial = variant(by_schema)
    responses, _ = variant(by_responses)
    messages, messages_partial = variant(by_anthropic, max_tokens=200)
    run(
        tools=tools,
        tools_partial=tools_partial,
        schema=schema,
        schema_partial=schema_partial,
        responses=responses,
        messages=messages,
        messages_partial=messages_partial,
    )
