// Splits a text into word pieces, as the tokenizer in tokenizer.json does: BPE as Llama has it, WordPiece as BERT has it.

/** A function from the code points of a text to the ids of its word pieces. */
export function splitter(tokenizer, characters, { most, marks }) {
  const { vocab } = tokenizer.model;
  const special = new Map(tokenizer.added_tokens.map(({ content, id }) => [content, id]));
  const longestFirst = [...special.keys()].sort((one, other) => other.length - one.length);
  const cut = new RegExp(`(${longestFirst.map((text) => text.replace(/[^\w\s]/g, "\\$&")).join("|")})`);
  const split = tokenizer.model.type === "BPE" ? bpe(tokenizer.model) : wordPiece(tokenizer.model, characters);
  return (codes) => {
    const text = codes.map((code) => String.fromCodePoint(code)).join("");
    const parts = special.size ? text.split(cut) : [text];
    const ids = parts.flatMap((part) => (special.has(part) ? [special.get(part)] : part ? split(part) : []));
    if (!marks) return most ? ids.slice(0, most) : ids;
    return [vocab["[CLS]"], ...(most ? ids.slice(0, most - 2) : ids), vocab["[SEP]"]];
  };
}

function bpe({ vocab, merges }) {
  const size = Object.keys(vocab).length;
  const ranks = new Map();
  merges.forEach((merge, rank) => {
    const [left, right] = typeof merge === "string" ? merge.split(" ") : merge;
    ranks.set(vocab[left] * size + vocab[right], [rank, vocab[left + right]]);
  });
  const bytes = new TextEncoder();
  const hex = (byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
  return (part) => {
    const ids = Array.from(`\u2581${part.replaceAll(" ", "\u2581")}`).flatMap((char) =>
      vocab[char] !== undefined ? [vocab[char]] : Array.from(bytes.encode(char), (byte) => vocab[hex(byte)]),
    );
    // The pair of the lowest rank is joined, the first of equals, until there is none.
    const pair = (at) => ranks.get(ids[at] * size + ids[at + 1])?.[0] ?? Infinity;
    const found = ids.map((_, at) => pair(at));
    for (;;) {
      let best = 0;
      for (let at = 1; at < found.length; at++) if (found[at] < found[best]) best = at;
      if (!(found[best] < Infinity)) return ids;
      ids.splice(best, 2, ranks.get(ids[best] * size + ids[best + 1])[1]);
      found.splice(best, 1);
      found[best] = pair(best);
      if (best) found[best - 1] = pair(best - 1);
    }
  };
}

/** `characters`: what each becomes (`becomes`, and in ranges `padded`, `gone`, `apart`), and what they are beside others
 *  (`space`, `marks`), as ranges of code points. */
function wordPiece({ vocab, unk_token, continuing_subword_prefix: inner, max_input_chars_per_word: longest }, characters) {
  const among = (ranges) => {
    const flat = ranges.flat();
    return (code) => {
      let [low, high] = [0, flat.length];
      while (low < high) {
        const middle = (low + high) >> 1;
        if (flat[middle] <= code) low = middle + 1;
        else high = middle;
      }
      return low % 2 === 1;
    };
  };
  const [padded, gone, apart, space, marks] = ["padded", "gone", "apart", "space", "marks"].map((name) =>
    among(characters[name]),
  );
  const becomes = new Map(characters.becomes);
  const plain = (char) => {
    const code = char.codePointAt(0);
    if (becomes.has(code)) return becomes.get(code);
    return padded(code) ? ` ${char} ` : gone(code) ? "" : apart(code) ? char.normalize("NFD") : char;
  };
  const split = (word) => {
    const chars = Array.from(word);
    if (chars.length > longest) return [vocab[unk_token]];
    const ids = [];
    for (let start = 0; start < chars.length; ) {
      let stop = chars.length;
      let id;
      for (; stop > start; stop--) {
        id = vocab[(start ? inner : "") + chars.slice(start, stop).join("")];
        if (id !== undefined) break;
      }
      if (id === undefined) return [vocab[unk_token]];
      ids.push(id);
      start = stop;
    }
    return ids;
  };
  return (part) => {
    const words = [];
    let word = "";
    const done = () => {
      if (word) words.push(word);
      word = "";
    };
    for (const char of Array.from(part, plain).join("")) {
      const code = char.codePointAt(0);
      if (space(code)) done();
      else if (marks(code)) {
        done();
        words.push(char);
      } else word += char;
    }
    done();
    return words.flatMap(split);
  };
}
