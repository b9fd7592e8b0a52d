// The specialist in this folder: `const specialist = await load(); await specialist.answer(text)`.
// Needs onnxruntime-web (in `ort/`) and no network but the folder itself.
import * as ort from "./ort/ort.wasm.min.mjs";
import { blake2b } from "./blake2b.js";
import { splitter } from "./pieces.js";

/** Reads a file of the folder over HTTP: what `load` uses in a page. */
async function fetched(name) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name} cannot be read: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

/** The specialist; `read` gives a file's bytes by its name. */
export async function load(read = fetched) {
  const json = async (name) => JSON.parse(new TextDecoder().decode(await read(name)));
  const [settings, tokenizer, characters] = await Promise.all(
    ["specialist.json", "tokenizer.json", "pieces.json"].map(json),
  );
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
  ort.env.wasm.wasmBinary = await read("ort/ort-wasm-simd-threaded.wasm");
  const session = async (name) =>
    ort.InferenceSession.create(await read(name), { executionProviders: ["wasm"], logSeverityLevel: 3 });
  const encoder = settings.encoder ? await session(settings.encoder) : null;
  const graph = await session("specialist.onnx");
  return new Specialist(settings, splitter(tokenizer, characters, settings.pieces), encoder, graph);
}

class Specialist {
  constructor(settings, split, encoder, graph) {
    this.settings = settings;
    this.split = split;
    this.encoder = encoder;
    this.graph = graph;
    this.busy = Promise.resolve();
  }

  /** {output, score, accepted, reason}; `slices` are the request's own. One text at a time, in order. */
  answer(text, slices = []) {
    const answered = this.busy.then(() => this.#answer(text, slices));
    this.busy = answered.catch(() => {});
    return answered;
  }

  async #answer(text, slices) {
    const { settings } = this;
    const found = await this.graph.run(await this.#read(text));
    const picks = Array.from(found.picks.data, Number);
    const score = this.#score(Number(found.log_odds.data[0]), picks);
    const wrong = [];
    const { root, parsed, before, after } = settings.layout;
    const written = node(root, picks, wrong, true);
    const output = parsed ? JSON.parse(written) : before + written + after;
    const { closed } = settings;
    const shut = slices.some((name) => closed.slices.includes(name)) || closed.answers.includes(picks[0]);
    const reason = wrong.length
      ? "contract"
      : Number(found.familiar.data[0]) !== 1
        ? "unfamiliar"
        : shut
          ? "slice"
          : !(score >= settings.cutoff)
            ? "below_threshold"
            : "accepted";
    return { output, score, accepted: reason === "accepted", reason };
  }

  async #read(text) {
    const { text: limits, pieces } = this.settings;
    let codes = Array.from(text, (char) => char.codePointAt(0));
    const ids = this.split(codes.slice(0, pieces.chars).map((code) => (code >> 11 === 0x1b ? 63 : code)));
    if (codes.length > limits.longest) {
      codes = [...codes.slice(0, limits.longest - limits.tail), 32, ...codes.slice(-limits.tail)];
    }
    const row = (numbers) => new ort.Tensor("int64", BigInt64Array.from(numbers, BigInt), [numbers.length]);
    if (!this.encoder) return { codes: row(codes), pieces: row(ids) };
    const found = await this.encoder.run({ input_ids: row(ids).reshape([1, ids.length]) });
    const states = found[this.encoder.outputNames[0]];
    return { codes: row(codes), states: states.reshape(states.dims.slice(1)) };
  }

  #score(logOdds, picks) {
    const { combined } = this.settings;
    if (combined) {
      // how often were the answers to all questions seen together?
      const digest = blake2b(new Uint8Array(Int32Array.from(picks).buffer), 8);
      logOdds += combined.weight * (combined.known[digest] ?? 0);
    }
    if (Math.abs(logOdds) > 15) {
      // squeezed into 30, its order kept
      logOdds = Math.sign(logOdds) * (15 + 15 * Math.tanh((Math.abs(logOdds) - 15) / 60));
    }
    return 1 / (1 + Math.exp(-logOdds));
  }
}

const within = (few, many) => few.every((each) => many.includes(each));

/** The JSON of a node, null where it says nothing; `wrong` grows where the contract is not kept. */
function node(of, picks, wrong, whole = false) {
  if (of.says) return of.says[picks[of.head]];
  if (of.tools) {
    const tool = of.tools[picks[0]];
    const call = tool ? `{"name": ${tool[0]}, "arguments": ${node(tool[1], picks, wrong, true)}}` : "";
    return `{"tool_calls": [${call}]}`;
  }
  let parts = [];
  if (of.labels) {
    parts = of.labels.filter(([head, yes]) => picks[head] === yes).map(([, , text]) => text);
    if ((parts.length || whole) && (parts.length < of.least || parts.length > (of.most ?? Infinity))) wrong.push("labels");
  } else {
    const said = new Map();
    for (const [key, , inner] of of.fields) {
      const text = inner && node(inner, picks, wrong);
      if (text !== null) said.set(key, text);
    }
    const keys = [...said.keys()];
    const kept = !of.ways.length || of.ways.some(([all, needed]) => within(keys, all) && within(needed, keys));
    if ((keys.length || whole) && !(within(of.required, keys) && kept)) wrong.push("fields");
    const forms = of.forms.filter((form) => within(keys, form));
    for (const [key, name, , silent] of keys.length || whole ? of.fields : []) {
      if (said.has(key)) parts.push(name + said.get(key));
      else if (silent !== null && forms.every((form) => form.includes(key))) parts.push(name + silent);
    }
  }
  if (!parts.length && !whole) return null;
  const [opens, closes] = parts.length ? of.ends : [of.ends[0][0], of.ends[1].at(-1)];
  return opens + parts.join(of.between) + closes;
}
