// The `@anthropic-ai/sdk` package.

import Anthropic from "@anthropic-ai/sdk";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { z } from "zod";
import { PARAMETERS, RESULT, run } from "./asking.mjs";

const Weather = z.object({ city: z.string(), degrees: z.number() });
const tools = [{ name: "get_weather", description: "The weather now.", input_schema: PARAMETERS }];
const client = (ask) =>
  new Anthropic({ baseURL: ask.root, apiKey: ask.key, maxRetries: 0, defaultHeaders: ask.headers });
const asked = (ask, text) => ({ model: ask.model, max_tokens: 200, messages: [{ role: "user", content: text }] });

const messages = {
  async plain(ask, text) {
    const found = await client(ask).messages.create(asked(ask, text));
    const { input_tokens, output_tokens } = found.usage;
    return { text: found.content[0].text, model: found.model, tokens: [input_tokens, output_tokens] };
  },
  async stream(ask, text) {
    const pieces = [];
    await client(ask).messages.stream(asked(ask, text)).on("text", (piece) => pieces.push(piece)).finalMessage();
    return pieces;
  },
  async tool(ask, text) {
    const request = asked(ask, text);
    const message = await client(ask).messages.stream({ ...request, tools }).finalMessage();
    const [call] = message.content;
    request.messages.push(
      { role: "assistant", content: message.content },
      { role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: RESULT }] },
    );
    const final = await client(ask).messages.create({ ...request, tools });
    return { name: call.name, arguments: call.input, text: final.content[0].text };
  },
  async structured(ask, text) {
    const output_config = { format: zodOutputFormat(Weather) };
    return (await client(ask).messages.parse({ ...asked(ask, text), output_config })).parsed_output;
  },
};

await run({ messages });
