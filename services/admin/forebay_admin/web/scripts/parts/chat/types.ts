// What the chat speaks of, in its own words and in those of the server.

export interface TextPart {
  type: "text";
  text: string;
}

export interface FilePart {
  type: "image" | "file";
  digest: string;
  name: string;
  kind?: string;
  bytes?: number;
}

export type Part = TextPart | FilePart;

export interface ToolCall {
  id?: string;
  type?: string;
  function: { name: string; arguments: string };
}

export interface Content {
  parts: Part[];
  reasoning?: string;
  tool_calls?: ToolCall[];
}

/** Something in the web, as the search server tells of it. */
export interface Source {
  title: string;
  url: string;
  text: string;
}

/** Of an answer: what stands under it. */
export interface Told {
  ttft_ms?: number;
  tokens_per_s?: number;
  duration_ms?: number;
  prompt_tokens?: number;
  completion_tokens?: number;
  finish_reason?: string;
  request_id?: string;
  /** What was found in the web before it was asked. */
  sources?: Source[];
  stopped?: boolean;
  error?: string;
  /** The id of the other answer to the same question, that was given at the same time. */
  beside?: string;
  side?: "left" | "right";
}

export interface Message {
  id: string;
  parent_id: string | null;
  role: "user" | "assistant";
  content: Content;
  model: string;
  told: Told;
  created_at: string;
}

export interface Settings {
  model?: string;
  second?: string;
  leaf?: string;
  system?: string;
  temperature?: string;
  top_p?: string;
  max_tokens?: string;
  seed?: string;
  stop?: string;
  effort?: string;
  schema?: string;
  tools?: string;
  /** "yes": the web is searched before each answer. */
  web?: string;
}

export interface Conversation {
  id: string;
  title: string;
  share_id: string | null;
  settings: Settings;
  messages: Message[];
}

export interface Model {
  name: string;
  capabilities: string[];
  context_length: number | null;
  description: string;
  is_well: boolean;
  talks: boolean;
}

export function textOf(content: Content): string {
  return content.parts.flatMap((part) => (part.type === "text" ? [part.text] : [])).join("\n\n");
}

export function filesOf(content: Content): FilePart[] {
  return content.parts.filter((part): part is FilePart => part.type !== "text");
}

export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
