"""The `llm` command, chat and Responses, in one process: each command as it is typed."""

import json
import os
import tempfile
from pathlib import Path

from asking import QUESTION, RESULT, Ask, Variant, Weather, run
from click.testing import CliRunner

FUNCTION = f'''
def get_weather(city: str) -> str:
    "The weather now."
    return "{RESULT}"
'''


def command(ask: Ask, *arguments: str, responses: bool = False) -> str:
    """What a command writes; its model is declared as for any server compatible with OpenAI."""
    model = {
        "model_id": "mine",
        "model_name": ask.model,
        "api_base": ask.base,
        "headers": ask.headers,
        "supports_schema": True,
        "supports_tools": True,
        **({"responses": True} if responses else {}),
    }
    folder = Path(os.environ["LLM_USER_PATH"])
    (folder / "extra-openai-models.yaml").write_text(json.dumps([model]))  # which YAML includes
    from llm.cli import cli

    done = CliRunner().invoke(cli, [*arguments, "-m", "mine", "--key", ask.key])
    if done.exit_code:
        raise RuntimeError(done.output) from done.exception
    return done.stdout


def variant(responses: bool) -> Variant:
    def plain(ask: Ask, text: str) -> dict:
        return {"text": command(ask, text, "--no-stream", responses=responses).strip()}

    def stream(ask: Ask, text: str) -> list[str]:
        return [command(ask, text, responses=responses).removesuffix("\n")]

    def tool(ask: Ask) -> dict:
        said = command(ask, QUESTION, "--functions", FUNCTION, "--tools-debug", responses=responses)
        return {"text": said.strip()}

    def structured(ask: Ask) -> dict:
        return json.loads(
            command(ask, QUESTION, "--schema", json.dumps(Weather.model_json_schema()), responses=responses)
        )

    return Variant(plain, stream, tool, structured)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LLM_USER_PATH"] = folder
        run(chat=variant(False), responses=variant(True))
