// The page: one request at a time, its answer, and whether it may be used.
import { load } from "./specialist.js";

const [name, ask, text, decision, output] = ["name", "ask", "text", "decision", "output"].map((id) =>
  document.getElementById(id),
);
try {
  const specialist = await load();
  name.textContent = specialist.settings.name;
  document.title = specialist.settings.name;
  decision.textContent = "Everything runs in this page: what you write is sent nowhere.";
  ask.querySelector("button").disabled = false;
  ask.addEventListener("submit", async (event) => {
    event.preventDefault();
    const began = performance.now();
    const found = await specialist.answer(text.value);
    const took = `${(performance.now() - began).toFixed(1)} ms, score ${found.score.toPrecision(4)}`;
    decision.textContent = found.accepted ? `Answered (${took}).` : `Ask the frontier: ${found.reason} (${took}).`;
    output.textContent = typeof found.output === "string" ? found.output : JSON.stringify(found.output, null, 1);
    output.hidden = !found.accepted;
  });
} catch (error) {
  decision.textContent = `The model cannot be loaded: ${error.message}`;
}
