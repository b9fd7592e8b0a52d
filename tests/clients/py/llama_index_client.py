"""LlamaIndex: OpenAILike."""

from asking import QUESTION, RESULT, Ask, Variant, Weather, run
from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike


def get_weather(city: str) -> str:
    """The weather now."""
    return RESULT


def model(ask: Ask) -> OpenAILike:
    return OpenAILike(
        model=ask.model,
        api_base=ask.base,
        api_key=ask.key,
        is_chat_model=True,
        is_function_calling_model=True,
        max_retries=0,
        default_headers=ask.headers,
    )


def plain(ask: Ask, text: str) -> dict:
    found = model(ask).chat([ChatMessage(role=MessageRole.USER, content=text)])
    return {
        "text": found.message.content,
        "model": found.raw["model"] if isinstance(found.raw, dict) else found.raw.model,
    }


def stream(ask: Ask, text: str) -> list[str]:
    pieces = model(ask).stream_chat([ChatMessage(role=MessageRole.USER, content=text)])
    return [piece.delta for piece in pieces if piece.delta]


def tool(ask: Ask) -> dict:
    llm = model(ask)
    offered = [FunctionTool.from_defaults(get_weather)]
    first = llm.chat_with_tools(offered, user_msg=QUESTION)
    (call,) = llm.get_tool_calls_from_response(first)
    history = [
        ChatMessage(role=MessageRole.USER, content=QUESTION),
        first.message,
        ChatMessage(role=MessageRole.TOOL, content=RESULT, additional_kwargs={"tool_call_id": call.tool_id}),
    ]
    final = llm.chat_with_tools(offered, chat_history=history)
    return {"name": call.tool_name, "arguments": call.tool_kwargs, "text": final.message.content}


def structured(ask: Ask) -> dict:
    return model(ask).structured_predict(Weather, PromptTemplate(QUESTION)).model_dump()


if __name__ == "__main__":
    run(chat=Variant(plain, stream, tool, structured))
