"""The `openai` package: Chat Completions and Responses."""

import json

from asking import PARAMETERS, QUESTION, RESULT, Ask, Variant, Weather, run
from openai import OpenAI

FUNCTION = {"name": "get_weather", "description": "The weather now.", "parameters": PARAMETERS, "strict": True}


def client(ask: Ask) -> OpenAI:
    return OpenAI(base_url=ask.base, api_key=ask.key, max_retries=0, default_headers=ask.headers)


def chat(ask: Ask, text: str) -> dict:
    found = client(ask).chat.completions.create(model=ask.model, messages=[{"role": "user", "content": text}])
    usage = found.usage
    return {
        "text": found.choices[0].message.content,
        "model": found.model,
        "tokens": [usage.prompt_tokens, usage.completion_tokens],
    }


def chat_stream(ask: Ask, text: str) -> list[str]:
    chunks = client(ask).chat.completions.create(
        model=ask.model, messages=[{"role": "user", "content": text}], stream=True
    )
    return [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]


def chat_tool(ask: Ask) -> dict:
    turns = [{"role": "user", "content": QUESTION}]
    tools = [{"type": "function", "function": FUNCTION}]
    with client(ask).chat.completions.stream(model=ask.model, messages=turns, tools=tools) as stream:
        message = stream.get_final_completion().choices[0].message
    call = message.tool_calls[0]
    turns += [
        message.to_dict(mode="json"),
        {"role": "tool", "tool_call_id": call.id, "content": RESULT},
    ]
    final = client(ask).chat.completions.create(model=ask.model, messages=turns, tools=tools)
    return {
        "name": call.function.name,
        "arguments": json.loads(call.function.arguments),
        "text": final.choices[0].message.content,
    }


def chat_structured(ask: Ask) -> dict:
    found = client(ask).chat.completions.parse(
        model=ask.model, messages=[{"role": "user", "content": QUESTION}], response_format=Weather
    )
    return found.choices[0].message.parsed.model_dump()


def responses(ask: Ask, text: str) -> dict:
    found = client(ask).responses.create(model=ask.model, input=text)
    return {
        "text": found.output_text,
        "model": found.model,
        "tokens": [found.usage.input_tokens, found.usage.output_tokens],
    }


def responses_stream(ask: Ask, text: str) -> list[str]:
    with client(ask).responses.stream(model=ask.model, input=text) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert stream.get_final_response().output_text == "".join(pieces)
    return pieces


def responses_tool(ask: Ask) -> dict:
    items = [{"role": "user", "content": QUESTION}]
    tools = [{"type": "function", **FUNCTION}]
    with client(ask).responses.stream(model=ask.model, input=items, tools=tools) as stream:
        (call,) = stream.get_final_response().output
    items += [
        call.to_dict(mode="json", exclude_unset=True),
        {"type": "function_call_output", "call_id": call.call_id, "output": RESULT},
    ]
    final = client(ask).responses.create(model=ask.model, input=items, tools=tools)
    return {"name": call.name, "arguments": json.loads(call.arguments), "text": final.output_text}


def responses_structured(ask: Ask) -> dict:
    found = client(ask).responses.parse(model=ask.model, input=QUESTION, text_format=Weather)
    return found.output_parsed.model_dump()


if __name__ == "__main__":
    run(
        chat=Variant(chat, chat_stream, chat_tool, chat_structured),
        responses=Variant(responses, responses_stream, responses_tool, responses_structured),
    )
