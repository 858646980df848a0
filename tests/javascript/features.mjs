// What is tried with each client: a function for each. Returning means that it works. As `tests/compatibility/features.py`.

import assert from "node:assert/strict";
import { z } from "zod";

import { Broke, Refused } from "./wants.mjs";

const TEXT = "Grüße, 世界 🎉: ein Satz, der durch alle Schichten geht.";
const WEATHER = {
  name: "weather",
  parameters: {
    type: "object",
    properties: { city: { type: "string" }, days: { type: "integer" } },
    required: ["city"],
  },
};
const CLOCK = {
  name: "clock",
  parameters: { type: "object", properties: { zone: { type: "string", enum: ["UTC", "CET"] } } },
};
const PERSON = z.object({ name: z.string(), age: z.int() });
const PICTURE = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
  "base64",
);
const WEATHER_CALL = { name: "weather", arguments: { city: "text", days: 1 } };
const CLOCK_CALL = { name: "clock", arguments: { zone: "UTC" } };

// Name → [function, the ways it is tried: streamed or not].
const BOTH = [false, true];
const WHOLE = [false]; // what comes whole anyway
export const FEATURES = {
  text: [text, BOTH],
  "system prompt": [systemPrompt, BOTH],
  usage: [usage, BOTH],
  length: [length, BOTH],
  stop: [stop, BOTH],
  tool: [tool, BOTH],
  "forced tool": [forcedTool, BOTH],
  "parallel tools": [parallelTools, BOTH],
  "tool result": [toolResult, BOTH],
  agent: [agent, BOTH],
  "json schema": [jsonSchema, BOTH],
  reasoning: [reasoning, BOTH],
  "reasoning, then tool": [reasoningThenTool, BOTH],
  vision: [vision, BOTH],
  embeddings: [embeddings, WHOLE],
  "unknown model": [unknownModel, BOTH],
};

async function text(client, stream) {
  const told = await client.ask({ text: `repeat: ${TEXT}` }, stream);
  assert.equal(told.text, TEXT);
  assert.equal(told.finish, "stop");
  assert.equal(told.pieces > 1, stream, `it came in ${told.pieces} pieces`);
}

async function systemPrompt(client, stream) {
  const told = await client.ask({ text: "repeat: yes", system: "You repeat." }, stream);
  assert.equal(told.text, "yes");
}

async function usage(client, stream) {
  const short = await client.ask({ text: "repeat: a" }, stream);
  const long = await client.ask({ text: "repeat: a b c d e f g h" }, stream);
  const tokens = [short.promptTokens, long.promptTokens, short.completionTokens, long.completionTokens];
  assert.ok(0 < tokens[0] && tokens[0] < tokens[1] && 0 < tokens[2] && tokens[2] < tokens[3], `usage: ${tokens}`);
}

async function length(client, stream) {
  const told = await client.ask({ text: "repeat: a b c d e f g h i j k", maxTokens: 3 }, stream);
  assert.equal(told.finish, "length");
  assert.equal(told.completionTokens, 3);
}

async function stop(client, stream) {
  const told = await client.ask({ text: "repeat: before STOP after", stop: "STOP" }, stream);
  assert.equal(told.text.trim(), "before");
  assert.equal(told.finish, "stop");
}

async function tool(client, stream) {
  assertCalls(await client.ask({ text: "Use the tool.", tools: [WEATHER] }, stream), WEATHER_CALL);
}

async function forcedTool(client, stream) {
  assertCalls(await client.ask({ text: "Hello.", tools: [WEATHER, CLOCK], forced: "clock" }, stream), CLOCK_CALL);
}

async function parallelTools(client, stream) {
  const told = await client.ask({ text: "Use all the tools.", tools: [WEATHER, CLOCK] }, stream);
  assertCalls(told, WEATHER_CALL, CLOCK_CALL);
}

async function toolResult(client, stream) {
  const result = [{ name: "weather", arguments: { city: "Rome" } }, "sunny and 21 degrees"];
  const told = await client.ask({ text: "Use the tool.", tools: [WEATHER], result }, stream);
  assert.match(told.text, /sunny and 21 degrees/);
  assert.equal(told.finish, "stop");
}

// The library's own loop: it calls the tool, sends back what came of it, and ends with a text.
async function agent(client, stream) {
  const asked = [];
  const run = async (given) => {
    asked.push(given);
    return "sunny and 21 degrees";
  };
  const told = await client.run({ text: "Use the tool.", tools: [{ ...WEATHER, run }] }, stream);
  assert.deepEqual(asked, [WEATHER_CALL.arguments]);
  assert.match(told.text, /sunny and 21 degrees/);
  assert.equal(told.pieces > 1, stream, `it came in ${told.pieces} pieces`);
}

async function jsonSchema(client, stream) {
  const told = await client.ask({ text: "Describe a person.", schema: PERSON }, stream);
  PERSON.strict().parse(JSON.parse(told.text));
  if (told.parsed !== undefined) assert.deepEqual(told.parsed, JSON.parse(told.text));
}

async function reasoning(client, stream) {
  const told = await client.ask({ text: "repeat: thought through", thinks: true }, stream);
  assert.ok(told.reasoning, "no reasoning");
  assert.equal(told.text, "thought through");
}

async function reasoningThenTool(client, stream) {
  const told = await client.ask({ text: "Use the tool.", tools: [WEATHER], thinks: true }, stream);
  assert.ok(told.reasoning, "no reasoning");
  assertCalls(told, WEATHER_CALL);
}

async function vision(client, stream) {
  const told = await client.ask({ text: "What is this?", image: PICTURE }, stream);
  assert.match(told.text, /I see 1 image/);
}

async function embeddings(client) {
  const [first, second] = await client.embed(["a cat", "a dog"]);
  assert.ok(first.length > 0);
  assert.equal(first.length, second.length);
  assert.ok(first.every((number) => Number.isFinite(number)));
  assert.notDeepEqual(first, second);
}

async function unknownModel(client, stream) {
  const refused = await refusal(client.ask({ text: "Hello.", model: "no-such-model" }, stream));
  assert.equal(refused.status, 404);
  assert.match(refused.message, /no-such-model/);
}

export async function wrongKey(client) {
  const refused = await refusal(client.ask({ text: "Hello." }, false));
  assert.ok([401, 403].includes(refused.status), `status ${refused.status}`);
}

// With an engine that dies after some tokens.
export async function brokenStream(client) {
  await assert.rejects(client.ask({ text: "repeat: a b c d e f g h" }, true), Broke);
}

// The same without a stream: nothing has reached the client, so it hears a status.
export async function brokenWhole(client) {
  const refused = await refusal(client.ask({ text: "repeat: a b c d e f g h" }, false));
  assert.ok([500, 502, 503].includes(refused.status), `status ${refused.status}`);
}

async function refusal(asking) {
  try {
    await asking;
  } catch (error) {
    if (error instanceof Refused) return error;
    throw error;
  }
  throw new assert.AssertionError({ message: "it was not refused" });
}

function assertCalls(told, ...wanted) {
  assert.deepEqual(told.calls.map(({ name, arguments: given }) => ({ name, arguments: given })), wanted);
  assert.equal(told.finish, "tools");
  const ids = told.calls.map((call) => call.id).filter(Boolean);
  assert.equal(new Set(ids).size, ids.length, `ids are not unique: ${ids}`);
}

