// Vercel's AI SDK, with its providers of OpenAI (chat, Responses) and Anthropic.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { generateObject, generateText, Output, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";
import { RESULT, run } from "./asking.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false; // they go to stdout, which is for the answers

const Weather = z.object({ city: z.string(), degrees: z.number() });
const openai = (ask) => createOpenAI({ baseURL: ask.base, apiKey: ask.key, headers: ask.headers });
const anthropic = (ask) => createAnthropic({ baseURL: ask.base, apiKey: ask.key, headers: ask.headers });
const tools = {
  get_weather: tool({
    description: "The weather now.",
    inputSchema: z.object({ city: z.string() }),
    execute: async () => RESULT,
  }),
};

const variant = (model, structured) => ({
  async plain(ask, text) {
    const found = await generateText({ model: model(ask), prompt: text, maxRetries: 0 });
    const { inputTokens, outputTokens } = found.usage;
    return { text: found.text, model: found.response.modelId, tokens: [inputTokens, outputTokens] };
  },
  async stream(ask, text) {
    const pieces = [];
    let failed;
    const found = streamText({ model: model(ask), prompt: text, maxRetries: 0, onError: ({ error }) => (failed = error) });
    for await (const piece of found.textStream) pieces.push(piece);
    if (failed) throw failed;
    return pieces;
  },
  async tool(ask, text) {
    let failed;
    const found = streamText({
      model: model(ask),
      prompt: text,
      tools,
      stopWhen: stepCountIs(3),
      maxRetries: 0,
      onError: ({ error }) => (failed = error),
    });
    await found.consumeStream();
    if (failed) throw failed;
    const [call] = (await found.steps)[0].toolCalls;
    return { name: call.toolName, arguments: call.input, text: await found.text };
  },
  structured: (ask, prompt) => structured({ model: model(ask), prompt, maxRetries: 0 }),
});

const whole = async (asked) => (await generateObject({ ...asked, schema: Weather })).object;
async function streamed(asked) {
  const found = streamObject({ ...asked, schema: Weather });
  for await (const part of found.partialObjectStream) void part;
  return await found.object;
}
const output = async (asked) => (await generateText({ ...asked, output: Output.object({ schema: Weather }) })).output;

await run({
  chat: variant((ask) => openai(ask).chat(ask.model), whole),
  responses: variant((ask) => openai(ask).responses(ask.model), streamed),
  messages: variant((ask) => anthropic(ask)(ask.model), output),
});
