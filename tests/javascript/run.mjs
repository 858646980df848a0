// Tries every feature with every client at a gateway, and prints a line of JSON for each cell.
//
//     node run.mjs <gateway's URL> <key> <model> <the fake engine's URL>
//
// {"client", "feature", "stream", "outcome": "works" | "absent" | "refused" | "fails", "why"}. The engine is the tests' fake
// one: it is told when to die.

import { AI } from "./ai_clients.mjs";
import { ANTHROPIC } from "./anthropic_client.mjs";
import { FEATURES, brokenStream, brokenWhole, wrongKey } from "./features.mjs";
import { OLLAMA } from "./ollama_clients.mjs";
import { OPENAI } from "./openai_clients.mjs";
import { NotInDialect, Refused } from "./wants.mjs";

const WITHIN_MS = 20_000;
const [url, key, model, engine] = process.argv.slice(2);

console.log = console.error; // a library that talks must not be taken for a cell
globalThis.AI_SDK_LOG_WARNINGS = false;

for (const made of [...OPENAI, ...ANTHROPIC, ...OLLAMA, ...AI]) {
  const client = made({ url, key, model });
  for (const [feature, [trying, ways]] of Object.entries(FEATURES)) {
    for (const stream of ways) await tried(client, feature, stream, () => trying(client, stream));
  }
  await tried(client, "wrong key", false, () => wrongKey(made({ url, key: "fb-nobody-nothing", model })));
  await engineIsTold("faults", { kind: "cut_after", chunks: 3 });
  await tried(client, "broken stream", true, () => brokenStream(client));
  await engineIsTold("faults", { kind: "close_before_headers", times: 99 });
  await tried(client, "broken stream", false, () => brokenWhole(client));
  await engineIsTold("reset");
}
process.exit(0); // whatever connection is still kept alive

async function tried(client, feature, stream, work) {
  const [outcome, why] = await outcomeOf(work);
  process.stdout.write(`${JSON.stringify({ client: client.name, feature, stream, outcome, why })}\n`);
}

async function outcomeOf(work) {
  try {
    await within(work());
  } catch (error) {
    if (error instanceof NotInDialect) return ["absent", ""];
    if (error instanceof Refused) return ["refused", `${error.status}: ${error.message}`];
    return ["fails", `${error?.name}: ${error?.message}${error?.cause ? ` (${error.cause})` : ""}`];
  }
  return ["works", ""];
}

function within(work) {
  const late = new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`nothing came of it within ${WITHIN_MS} ms`)), WITHIN_MS).unref();
  });
  return Promise.race([work, late]);
}

async function engineIsTold(what, order) {
  const answer = await fetch(`${engine}/control/${what}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(order ?? {}),
  });
  if (!answer.ok) throw new Error(`the engine did not take ${what}: ${answer.status} ${await answer.text()}`);
}
