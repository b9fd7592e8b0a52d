// What the scripts in JavaScript share, as py/asking.py: one JSON argument, one JSON document of what came.

export const HELLO = "Say hello.";
export const QUESTION = "What is the weather in Oslo?";
export const RESULT = "7 degrees";
export const PARAMETERS = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};

// `variants`: by name, functions `plain`, `stream`, `tool`, `structured` of (ask, text); ask has base, root, key, model, headers.
export async function run(variants) {
  const asked = JSON.parse(process.argv[2]);
  const found = {};
  for (const [name, variant] of Object.entries(variants)) {
    const session = `${asked.client}-${name}`;
    const of = (model, headers) => ({
      base: asked.base,
      root: asked.base.replace(/\/v1$/, ""),
      key: asked.key,
      model,
      headers,
    });
    const mine = (found[name] = {});
    for (const model of asked.models) {
      const ask = of(model, { "X-Suffice-Session": `${session}-${model}` });
      mine[model] = {
        plain: await tried(variant.plain, ask, HELLO),
        stream: await tried(variant.stream, ask, HELLO),
        tool: await tried(variant.tool, ask, QUESTION),
        structured: await tried(variant.structured, ask, QUESTION),
      };
    }
    const there = of(asked.models.at(-1), { "X-Suffice-Session": session, "X-Suffice-Task": asked.task });
    mine.specialist = {
      plain: await tried(variant.plain, there, asked.text),
      stream: await tried(variant.stream, there, asked.text),
    };
  }
  console.log(JSON.stringify(found));
}

async function tried(call, ask, text) {
  if (!call) return null;
  try {
    return await call(ask, text);
  } catch (error) {
    return { error: `${error.stack}\n${JSON.stringify(error, Object.getOwnPropertyNames(error))}` };
  }
}
