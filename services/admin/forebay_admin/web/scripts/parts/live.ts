// Parts of the page that the server renews: [data-live] has the topic. One stream for all of them, closed while nobody looks, since
// browsers have few connections for one host.

import { Idiomorph } from "idiomorph";

const HIDDEN_MS = 15_000;
const LOST_MS = 8_000;

/** Sent to the part that has become another; it bubbles. */
export const RENEWED = "forebay:renewed";

type State = "live" | "lost" | "ended" | "";

const WORDS: Record<State, string> = {
  live: "Live",
  lost: "Connection lost, trying again",
  ended: "No longer live: load the page again",
  "": "",
};

let source: EventSource | null = null;
let hiding: ReturnType<typeof setTimeout> | undefined;
let losing: ReturnType<typeof setTimeout> | undefined;
let shown: State = "";

export function keepLive(): void {
  document.addEventListener("input", ({ target }) => {
    if (target instanceof Element) target.closest("form")?.setAttribute("data-touched", "");
  });
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiding);
    if (document.hidden) hiding = setTimeout(close, HIDDEN_MS);
    else if (source === null && shown !== "ended") open();
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", ({ persisted }) => {
    if (persisted) open();
  });
  if (!document.hidden) open();
}

/** When parts have come or gone. */
export function reopenLive(): void {
  const wanted = topics().join();
  if (shown === "ended" || (source !== null && source.url.endsWith(query(wanted))) || (source === null && !wanted)) return;
  close();
  open();
}

function topics(): string[] {
  const parts = document.querySelectorAll<HTMLElement>("[data-live]");
  return [...new Set([...parts].map((part) => part.dataset["live"] ?? ""))].filter(Boolean);
}

function query(wanted: string): string {
  return `?topics=${encodeURIComponent(wanted)}`;
}

function open(): void {
  const wanted = topics();
  if (wanted.length === 0) return;
  const opened = new EventSource(`/live${query(wanted.join())}`);
  source = opened;
  opened.addEventListener("open", () => show("live"));
  opened.addEventListener("error", () => {
    if (opened.readyState === EventSource.CLOSED) end();
    else losing ??= setTimeout(() => show("lost"), LOST_MS);
  });
  opened.addEventListener("ended", end);
  for (const topic of wanted) {
    opened.addEventListener(topic, ({ data }: MessageEvent<string>) => {
      show("live");
      renew(topic, data);
    });
  }
}

function close(): void {
  source?.close();
  source = null;
  clearTimeout(losing);
  losing = undefined;
}

function end(): void {
  close();
  show("ended");
}

function show(state: State): void {
  if (state === "live") {
    clearTimeout(losing);
    losing = undefined;
  }
  if (state === shown) return;
  shown = state;
  for (const part of document.querySelectorAll("[data-live]")) part.classList.toggle("is-stale", state !== "live");
  const words = document.querySelector<HTMLElement>("[data-live-state]");
  if (words === null) return;
  words.hidden = false;
  words.textContent = WORDS[state];
  words.classList.toggle("is-live", state === "live");
  words.classList.toggle("is-lost", state !== "live");
}

function renew(topic: string, html: string): void {
  for (const part of document.querySelectorAll<HTMLElement>(`[data-live="${CSS.escape(topic)}"]`)) {
    Idiomorph.morph(part, html, {
      morphStyle: "innerHTML",
      ignoreActiveValue: true,
      callbacks: { beforeNodeMorphed: mayChange, beforeAttributeUpdated: mayChangeAttribute },
    });
    part.dispatchEvent(new CustomEvent(RENEWED, { bubbles: true }));
  }
}

/** What somebody types into or looks at stays: forms that were touched, plots that were drawn. */
function mayChange(old: Node): boolean {
  return !(old instanceof Element && old.matches("form[data-touched], [data-drawn]"));
}

/** What somebody opened stays open. */
function mayChangeAttribute(name: string, node: Element): boolean {
  return !(name === "open" && node.matches("details, dialog"));
}
