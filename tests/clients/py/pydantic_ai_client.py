"""Pydantic AI: the models of OpenAI (chat, Responses) and Anthropic."""

import asyncio
from collections.abc import Callable

from anthropic import AsyncAnthropic
from asking import QUESTION, RESULT, Ask, Variant, Weather, run
from openai import AsyncOpenAI
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider


def of_openai(ask: Ask) -> OpenAIProvider:
    return OpenAIProvider(
        openai_client=AsyncOpenAI(base_url=ask.base, api_key=ask.key, max_retries=0, default_headers=ask.headers)
    )


def by_chat(ask: Ask) -> Model:
    return OpenAIChatModel(ask.model, provider=of_openai(ask))


def by_responses(ask: Ask) -> Model:
    return OpenAIResponsesModel(ask.model, provider=of_openai(ask))


def by_messages(ask: Ask) -> Model:
    asking = AsyncAnthropic(base_url=ask.root, api_key=ask.key, max_retries=0, default_headers=ask.headers)
    return AnthropicModel(ask.model, provider=AnthropicProvider(anthropic_client=asking))


def variant(make: Callable[[Ask], Model], form: Callable[[type], object]) -> Variant:
    def plain(ask: Ask, text: str) -> dict:
        async def asked() -> dict:
            found = await Agent(make(ask)).run(text)
            usage = found.usage() if callable(found.usage) else found.usage
            response = found.all_messages()[-1]
            return {
                "text": found.output,
                "model": response.model_name,
                "tokens": [usage.input_tokens, usage.output_tokens],
            }

        return asyncio.run(asked())

    def stream(ask: Ask, text: str) -> list[str]:
        async def asked() -> list[str]:
            async with Agent(make(ask)).run_stream(text) as streamed:
                return [piece async for piece in streamed.stream_text(delta=True, debounce_by=None)]

        return asyncio.run(asked())

    def tool(ask: Ask) -> dict:
        async def asked() -> dict:
            agent = Agent(make(ask))

            @agent.tool_plain
            def get_weather(city: str) -> str:
                """The weather now."""
                return RESULT

            found = await agent.run(QUESTION)
            parts = [part for message in found.all_messages() for part in message.parts]
            (call,) = [part for part in parts if isinstance(part, ToolCallPart)]
            return {"name": call.tool_name, "arguments": call.args_as_dict(), "text": found.output}

        return asyncio.run(asked())

    def structured(ask: Ask) -> dict:
        async def asked() -> dict:
            return (await Agent(make(ask), output_type=form(Weather)).run(QUESTION)).output.model_dump()

        return asyncio.run(asked())

    return Variant(plain, stream, tool, structured)


if __name__ == "__main__":
    run(
        chat=variant(by_chat, lambda kind: kind),
        formats=variant(by_chat, NativeOutput),
        responses=variant(by_responses, NativeOutput),
        messages=variant(by_messages, lambda kind: kind),
    )
