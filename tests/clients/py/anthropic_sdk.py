"""The `anthropic` package."""

from anthropic import Anthropic
from asking import PARAMETERS, QUESTION, RESULT, Ask, Variant, Weather, run

TOOLS = [{"name": "get_weather", "description": "The weather now.", "input_schema": PARAMETERS}]


def client(ask: Ask) -> Anthropic:
    return Anthropic(base_url=ask.root, api_key=ask.key, max_retries=0, default_headers=ask.headers)


def asked(ask: Ask, text: str) -> dict:
    return {"model": ask.model, "max_tokens": 200, "messages": [{"role": "user", "content": text}]}


def plain(ask: Ask, text: str) -> dict:
    found = client(ask).messages.create(**asked(ask, text))
    return {
        "text": found.content[0].text,
        "model": found.model,
        "tokens": [found.usage.input_tokens, found.usage.output_tokens],
    }


def stream(ask: Ask, text: str) -> list[str]:
    with client(ask).messages.stream(**asked(ask, text)) as streamed:
        pieces = list(streamed.text_stream)
        assert streamed.get_final_message().stop_reason == "end_turn"
    return pieces


def tool(ask: Ask) -> dict:
    request = asked(ask, QUESTION)
    with client(ask).messages.stream(**request, tools=TOOLS) as streamed:
        message = streamed.get_final_message()
    (call,) = message.content
    request["messages"] += [
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": RESULT}]},
    ]
    final = client(ask).messages.create(**request, tools=TOOLS)
    return {"name": call.name, "arguments": call.input, "text": final.content[0].text}


def structured(ask: Ask) -> dict:
    return client(ask).messages.parse(**asked(ask, QUESTION), output_format=Weather).parsed_output.model_dump()


if __name__ == "__main__":
    run(messages=Variant(plain, stream, tool, structured))
