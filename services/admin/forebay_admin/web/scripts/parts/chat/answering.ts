// One answer of one model: a key is fetched, a gateway is asked, and what comes is told as it comes.

import { mintKey, Refused } from "./calls";
import { events } from "./events";
import type { Told, ToolCall } from "./types";

export interface Answer {
  text: string;
  reasoning: string;
  toolCalls: ToolCall[];
  told: Told;
}

export interface Asking {
  gateway: string;
  model: string;
  body: Record<string, unknown>;
  signal: AbortSignal;
  /** Each time that there is more. */
  onMore: (soFar: Answer) => void;
  /** Each piece as it came. */
  onRaw?: (piece: string) => void;
}

interface Chunk {
  error?: { message?: string } | string;
  choices?: { delta?: Delta; message?: Delta; finish_reason?: string | null }[];
  usage?: { prompt_tokens?: number; completion_tokens?: number } | null;
}

interface Delta {
  content?: string | null;
  reasoning_content?: string | null;
  reasoning?: string | null;
  tool_calls?: { index?: number; id?: string; type?: string; function?: { name?: string; arguments?: string } }[];
}

const ADVICE: Record<string, string> = {
  quota_spent: "Under Limits you see when it begins anew, and can ask for more.",
  rate_limited: "Wait a moment and ask again.",
  concurrency_limited: "Wait until another answer has ended, and ask again.",
  queue_full: "Many are waiting: try again in a moment, or take another model.",
  queue_timeout: "Many are waiting: try again in a moment, or take another model.",
  no_backend: "Take another model, or try again later.",
  model_unknown: "Take another model.",
  context_too_long: "Begin another conversation, shorten the message, or take a model with a longer context.",
  key_revoked: "Ask again: another key is made for your chat.",
  key_expired: "Ask again: another key is made.",
  body_too_large: "Leave out a file.",
  state_unavailable: "Ask again in a moment.",
};

export async function ask(asking: Asking): Promise<Answer> {
  const { gateway, model, body, signal, onMore, onRaw } = asking;
  const answer: Answer = { text: "", reasoning: "", toolCalls: [], told: {} };
  let began = performance.now();
  let first: number | null = null;
  let pieces = 0;
  let isWhole = false;
  const noteFirst = () => {
    pieces += 1;
    if (first === null) {
      first = performance.now();
      answer.told.ttft_ms = Math.round(first - began);
    }
  };
  try {
    const key = await mintKey(model);
    signal.throwIfAborted();
    began = performance.now();
    const response = await send(gateway, key, body, signal);
    const request = response.headers.get("x-request-id");
    if (request !== null) answer.told.request_id = request;
    if (!response.ok || response.body === null) {
      const told = await response.text();
      onRaw?.(told);
      throw new Refused(refusal(response, told), response.status);
    }
    for await (const data of events(response.body)) {
      onRaw?.(data);
      isWhole ||= data === "[DONE]";
      if (isWhole) break;
      const chunk = parse(data);
      if (chunk === null) continue;
      if (chunk.error !== undefined) throw new Refused(messageOf(chunk.error), 502);
      take(answer, chunk, noteFirst);
      onMore(answer);
    }
    if (!isWhole && answer.told.finish_reason === undefined) answer.told.error = "The answer broke off. What came of it is kept; ask again for all of it.";
  } catch (error) {
    if (signal.aborted) answer.told.stopped = true;
    else if (error instanceof Refused) answer.told.error = error.message;
    else answer.told.error = "The connection broke off. What came of the answer is kept; ask again for all of it.";
  }
  const ended = performance.now();
  answer.told.duration_ms = Math.round(ended - began);
  const tokens = answer.told.completion_tokens ?? pieces;
  if (first !== null && tokens > 1 && ended > first) {
    answer.told.tokens_per_s = Math.round(((tokens - 1) / ((ended - first) / 1000)) * 10) / 10;
  }
  onMore(answer);
  return answer;
}

async function send(gateway: string, key: string, body: unknown, signal: AbortSignal): Promise<Response> {
  try {
    return await fetch(`${gateway}/v1/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body: JSON.stringify(body),
      signal,
      credentials: "omit",
      referrerPolicy: "no-referrer",
    });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Refused(
      `Your browser does not reach the gateway at ${gateway}. If that goes on, tell your administrator: ` +
        "public_gateway_url is where browsers find it, and its pages_url is where these pages are.",
      0,
    );
  }
}

function take(answer: Answer, chunk: Chunk, noteFirst: () => void): void {
  if (chunk.usage) {
    if (chunk.usage.prompt_tokens !== undefined) answer.told.prompt_tokens = chunk.usage.prompt_tokens;
    if (chunk.usage.completion_tokens !== undefined) answer.told.completion_tokens = chunk.usage.completion_tokens;
  }
  const [choice] = chunk.choices ?? [];
  if (choice === undefined) return;
  const delta = choice.delta ?? choice.message ?? {};
  const thought = delta.reasoning_content ?? delta.reasoning ?? "";
  if (thought || delta.content || delta.tool_calls?.length) noteFirst();
  answer.reasoning += thought;
  answer.text += delta.content ?? "";
  for (const piece of delta.tool_calls ?? []) {
    const at = piece.index ?? answer.toolCalls.length;
    const call = (answer.toolCalls[at] ??= { function: { name: "", arguments: "" } });
    if (piece.id) call.id = piece.id;
    if (piece.type) call.type = piece.type;
    call.function.name += piece.function?.name ?? "";
    call.function.arguments += piece.function?.arguments ?? "";
  }
  if (choice.finish_reason) answer.told.finish_reason = choice.finish_reason;
}

export function refusal(response: Response, body: string): string {
  const said = messageOf(parse(body)?.error ?? `The gateway answered ${response.status}.`);
  const reason = response.headers.get("x-forebay-reason") ?? "";
  const wait = Number(response.headers.get("retry-after"));
  const advice = ADVICE[reason] ?? "";
  const when = wait > 0 && (reason === "rate_limited" || reason === "queue_full") ? ` (In ${wait} s.)` : "";
  return `${said}${advice ? ` ${advice}` : ""}${when}`;
}

function messageOf(error: { message?: string } | string): string {
  return typeof error === "string" ? error : (error.message ?? "The gateway refused it.");
}

function parse(data: string): Chunk | null {
  try {
    const told: unknown = JSON.parse(data);
    return typeof told === "object" ? (told as Chunk | null) : null;
  } catch {
    return null;
  }
}
