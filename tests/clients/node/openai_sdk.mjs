// The `openai` package in JavaScript: Chat Completions and Responses.

import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { PARAMETERS, RESULT, run } from "./asking.mjs";

const Weather = z.object({ city: z.string(), degrees: z.number() });
const FUNCTION = { name: "get_weather", description: "The weather now.", parameters: PARAMETERS, strict: true };
const client = (ask) =>
  new OpenAI({ baseURL: ask.base, apiKey: ask.key, maxRetries: 0, defaultHeaders: ask.headers });
const turns = (text) => [{ role: "user", content: text }];

const chat = {
  async plain(ask, text) {
    const found = await client(ask).chat.completions.create({ model: ask.model, messages: turns(text) });
    const { prompt_tokens, completion_tokens } = found.usage;
    return { text: found.choices[0].message.content, model: found.model, tokens: [prompt_tokens, completion_tokens] };
  },
  async stream(ask, text) {
    const pieces = [];
    const stream = await client(ask).chat.completions.create({ model: ask.model, messages: turns(text), stream: true });
    for await (const chunk of stream) if (chunk.choices[0]?.delta.content) pieces.push(chunk.choices[0].delta.content);
    return pieces;
  },
  async tool(ask, text) {
    const tools = [{ type: "function", function: FUNCTION }];
    const messages = turns(text);
    const stream = client(ask).chat.completions.stream({ model: ask.model, messages, tools });
    const { message } = (await stream.finalChatCompletion()).choices[0];
    const [call] = message.tool_calls;
    messages.push(
      { role: "assistant", tool_calls: [{ id: call.id, type: call.type, function: { name: call.function.name, arguments: call.function.arguments } }] },
      { role: "tool", tool_call_id: call.id, content: RESULT },
    );
    const final = await client(ask).chat.completions.create({ model: ask.model, messages, tools });
    return {
      name: call.function.name,
      arguments: JSON.parse(call.function.arguments),
      text: final.choices[0].message.content,
    };
  },
  async structured(ask, text) {
    const response_format = zodResponseFormat(Weather, "weather");
    const found = await client(ask).chat.completions.parse({ model: ask.model, messages: turns(text), response_format });
    return found.choices[0].message.parsed;
  },
};

const responses = {
  async plain(ask, text) {
    const found = await client(ask).responses.create({ model: ask.model, input: text });
    const { input_tokens, output_tokens } = found.usage;
    return { text: found.output_text, model: found.model, tokens: [input_tokens, output_tokens] };
  },
  async stream(ask, text) {
    const pieces = [];
    const stream = client(ask).responses.stream({ model: ask.model, input: text });
    for await (const event of stream) if (event.type === "response.output_text.delta") pieces.push(event.delta);
    await stream.finalResponse();
    return pieces;
  },
  async tool(ask, text) {
    const tools = [{ type: "function", ...FUNCTION }];
    const input = turns(text);
    const first = await client(ask).responses.stream({ model: ask.model, input, tools }).finalResponse();
    const [call] = first.output;
    const { parsed_arguments, ...item } = call;
    input.push(item, { type: "function_call_output", call_id: call.call_id, output: RESULT });
    const final = await client(ask).responses.create({ model: ask.model, input, tools });
    return { name: call.name, arguments: JSON.parse(call.arguments), text: final.output_text };
  },
  async structured(ask, text) {
    const format = zodTextFormat(Weather, "weather");
    const found = await client(ask).responses.parse({ model: ask.model, input: text, text: { format } });
    return found.output_parsed;
  },
};

await run({ chat, responses });
