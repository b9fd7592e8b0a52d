// The runner under Node, with the JavaScript of the page: `node run.mjs < inputs.jsonl`, lines of {"input": TEXT}.
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { load } from "./specialist.js";

const specialist = await load((name) => readFile(new URL(name, import.meta.url)));
for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  if (!line.trim()) continue;
  const { input, slices } = JSON.parse(line);
  console.log(JSON.stringify(await specialist.answer(input, slices ?? [])));
}
