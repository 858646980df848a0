// Calls to the pages' own server: conversations, and a key for each request to a gateway.

import type { Conversation, Message, Model, Settings, Source } from "./types";

const API = "/chat/api";

/** Something was not done, and the server says why in words. */
export class Refused extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

export async function listModels(): Promise<Model[]> {
  return (await call<{ models: Model[] }>("GET", "/models")).models;
}

/** For one request to that model, from this page, within minutes. */
export async function mintKey(model: string): Promise<string> {
  return (await call<{ value: string }>("POST", "/key", { model })).value;
}

/** What the web has about it, by the search server that is configured. */
export async function search(query: string, signal: AbortSignal): Promise<Source[]> {
  return (await call<{ sources: Source[] }>("POST", "/search", { query }, false, signal)).sources;
}

export function begin(settings: Settings): Promise<Conversation> {
  return call("POST", "/conversations", { settings });
}

export function read(id: string): Promise<Conversation> {
  return call("GET", `/conversations/${id}`);
}

export function change(id: string, told: { title?: string; settings?: Settings }): Promise<Conversation> {
  return call("PATCH", `/conversations/${id}`, told);
}

/** `parting`: the page is being left, and the browser finishes the call after it is gone. */
export function keep(id: string, message: Message, parting = false): Promise<Message> {
  const { parent_id, role, content, model, told } = message;
  return call("PUT", `/conversations/${id}/messages/${message.id}`, { parent_id, role, content, model, told }, parting);
}

export function share(id: string): Promise<{ share_id: string; url: string }> {
  return call("POST", `/conversations/${id}/share`);
}

export function unshare(id: string): Promise<void> {
  return call("DELETE", `/conversations/${id}/share`);
}

export async function attach(id: string, file: Blob, kind: string): Promise<{ digest: string; kind: string; bytes: number }> {
  const response = await fetch(`${API}/conversations/${id}/files`, {
    method: "POST",
    headers: { ...own(), "content-type": kind },
    body: file,
  });
  return answerOf(response);
}

export async function fileOf(id: string, digest: string): Promise<Blob> {
  const response = await fetch(fileAddress(id, digest));
  if (!response.ok) throw new Refused("A file of this conversation cannot be read.", response.status);
  return response.blob();
}

export function fileAddress(id: string, digest: string): string {
  return `${API}/conversations/${id}/files/${digest}`;
}

async function call<T>(verb: string, path: string, body?: unknown, parting = false, signal?: AbortSignal): Promise<T> {
  const headers: Record<string, string> = own();
  if (body !== undefined) headers["content-type"] = "application/json";
  let response: Response;
  try {
    response = await fetch(`${API}${path}`, {
      method: verb,
      headers,
      body: body === undefined ? null : JSON.stringify(body),
      keepalive: parting,
      signal: signal ?? null,
    });
  } catch {
    throw new Refused("Forebay does not answer. Look whether you are connected, and try again.", 0);
  }
  return answerOf(response);
}

async function answerOf<T>(response: Response): Promise<T> {
  if (response.status === 204) return undefined as T;
  const told: unknown = await response.json().catch(() => null);
  if (!response.ok) throw new Refused(why(told) ?? `That did not work (${response.status}).`, response.status);
  return told as T;
}

function why(told: unknown): string | null {
  const error = (told as { error?: { message?: unknown } } | null)?.error;
  return typeof error?.message === "string" ? error.message : null;
}

function own(): Record<string, string> {
  return { "x-forebay-csrf": document.body.dataset["csrf"] ?? "" };
}
