// The runner under Node, with the JavaScript of the page: `node run.mjs < inputs.jsonl`, lines of {"input": TEXT}.
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { load } from "./specialist.js";

const specialist = await load((name) => readFile(new URL(name, import.meta.url)));
let number = 0;
for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  number += 1;
  if (!line.trim()) continue;
  let asked;
  try {
    asked = JSON.parse(line);
  } catch {
    asked = null;
  }
  if (typeof asked?.input !== "string") {
    console.error(`line ${number} of the standard input is not {"input": TEXT}`);
    process.exit(1);
  }
  console.log(JSON.stringify(await specialist.answer(asked.input, asked.slices ?? [])));
}
