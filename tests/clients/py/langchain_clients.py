"""LangChain: ChatOpenAI (chat, Responses) and ChatAnthropic."""

from collections.abc import Callable

from asking import QUESTION, RESULT, Ask, Variant, Weather, run
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool as as_tool
from langchain_openai import ChatOpenAI


@as_tool
def get_weather(city: str) -> str:
    """The weather now."""
    return RESULT


def by_openai(ask: Ask, **more: object) -> BaseChatModel:
    return ChatOpenAI(
        model=ask.model, base_url=ask.base, api_key=ask.key, max_retries=0, default_headers=ask.headers, **more
    )


def by_responses(ask: Ask) -> BaseChatModel:
    return by_openai(ask, use_responses_api=True)


def by_anthropic(ask: Ask) -> BaseChatModel:
    return ChatAnthropic(
        model=ask.model, base_url=ask.root, api_key=ask.key, max_retries=0, default_headers=ask.headers, max_tokens=200
    )


def variant(make: Callable[[Ask], BaseChatModel], **structured_by: str) -> Variant:
    def plain(ask: Ask, text: str) -> dict:
        found = make(ask).invoke(text)
        usage = found.usage_metadata
        told = found.response_metadata
        return {
            "text": found.text,
            "model": told.get("model_name") or told.get("model"),
            "tokens": [usage["input_tokens"], usage["output_tokens"]],
        }

    def stream(ask: Ask, text: str) -> list[str]:
        return [piece.text for piece in make(ask).stream(text) if piece.text]

    def tool(ask: Ask) -> dict:
        model = make(ask).bind_tools([get_weather])
        turns = [HumanMessage(QUESTION)]
        turns.append(model.invoke(turns))
        (call,) = turns[-1].tool_calls
        turns.append(ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]))
        return {"name": call["name"], "arguments": call["args"], "text": model.invoke(turns).text}

    def structured(ask: Ask) -> dict:
        return make(ask).with_structured_output(Weather, **structured_by).invoke(QUESTION).model_dump()

    return Variant(plain, stream, tool, structured)


if __name__ == "__main__":
    run(
        chat=variant(by_openai),
        tools=variant(by_openai, method="function_calling"),
        responses=variant(by_responses),
        messages=variant(by_anthropic),
        formats=variant(by_anthropic, method="json_schema"),
    )
