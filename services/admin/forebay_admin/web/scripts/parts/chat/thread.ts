// The thread: what was said, one message below the other, and two answers beside one another where two models gave them.

import { callText } from "./asked";
import { button, made } from "./made";
import { apart } from "./thoughts";
import type { Tree } from "./tree";
import type { FilePart, Message, Source, Told } from "./types";
import { filesOf, textOf } from "./types";

export interface Deeds {
  edit(message: Message, text: string): void;
  answerAgain(message: Message): void;
  readBranch(message: Message): void;
  readAloud(message: Message): void;
  address(file: FilePart): string;
  canReadAloud(): boolean;
  /** Whether whoever looks may read what became of a request. */
  canExplain(): boolean;
  isBusy(): boolean;
}

interface MarkdownScript {
  show(place: HTMLElement, text: string, scripts: { highlighting: string; maths: string }, isFinished: boolean): void;
}

const SHOWN_EVERY_MS = 80;
/** Something in it may be Markdown: for a plain text, its script is not fetched. */
const MARKED = /[*_`#|[\]<>&$~\\]|^\s*(?:[-+>]|\d+[.)])\s|\n|https?:/m;

export class Thread {
  readonly #list: HTMLOListElement;
  readonly #deeds: Deeds;
  readonly #scripts: { markdown: string; highlighting: string; maths: string };
  readonly #bodies = new Map<string, HTMLElement>();
  readonly #due = new Map<string, number>();
  #script: Promise<MarkdownScript> | null = null;

  constructor(list: HTMLOListElement, deeds: Deeds, scripts: { markdown: string; highlighting: string; maths: string }) {
    this.#list = list;
    this.#deeds = deeds;
    this.#scripts = scripts;
  }

  show(tree: Tree, branch: Message[]): void {
    for (const timer of this.#due.values()) clearTimeout(timer);
    this.#due.clear();
    this.#bodies.clear();
    const items = branch.map((message) => {
      const other = tree.get(message.told.beside);
      if (other === undefined || other.parent_id !== message.parent_id) return this.#item(tree, message);
      const both = message.told.side === "right" ? [other, message] : [message, other];
      const pair = made("div", { className: "pair" });
      for (const one of both) pair.append(this.#message(tree, one, one === message ? "chosen" : "other"));
      return made("li", {}, pair);
    });
    this.#list.replaceChildren(...items);
  }

  /** An answer that has become longer, or has ended. */
  renew(message: Message, isFinished: boolean): void {
    clearTimeout(this.#due.get(message.id));
    if (isFinished) {
      this.#due.delete(message.id);
      this.#fill(message, true);
      return;
    }
    // The longer it is, the longer it takes to show: so it is shown less often.
    const length = textOf(message.content).length;
    const timer = setTimeout(() => this.#fill(message, false), SHOWN_EVERY_MS + length / 100);
    if (!this.#due.has(message.id)) this.#fill(message, false);
    this.#due.set(message.id, timer);
  }

  #item(tree: Tree, message: Message): HTMLLIElement {
    const one = this.#message(tree, message, "");
    const item = made("li", { className: one.className });
    item.append(...one.childNodes);
    this.#bodies.set(message.id, item);
    return item;
  }

  #message(tree: Tree, message: Message, standing: "" | "chosen" | "other"): HTMLElement {
    const who = message.role === "user" ? "You" : message.model || "Assistant";
    const box = made("div", { className: `message is-${message.role}` });
    const head = made("div", { className: "message-head" }, made("span", { className: "strong", text: who }));
    if (standing === "chosen") head.append(made("span", { className: "badge is-info", text: "goes on" }));
    box.append(head, made("div", { className: "message-inside stack-tight" }), made("div", { className: "message-foot" }));
    this.#bodies.set(message.id, box);
    this.#fill(message, true, box, tree, standing);
    return box;
  }

  #fill(message: Message, isFinished: boolean, box = this.#bodies.get(message.id), tree?: Tree, standing = ""): void {
    const inside = box?.querySelector<HTMLElement>(".message-inside");
    const foot = box?.querySelector<HTMLElement>(".message-foot");
    if (box === undefined || !inside || !foot) return;
    const { text, reasoning } = apart(textOf(message.content), message.content.reasoning ?? "");
    const streams = message.told.duration_ms === undefined && message.role === "assistant" && !isFinished;
    box.classList.toggle("is-streaming", streams);
    box.classList.toggle("is-failed", message.told.error !== undefined);
    this.#showThoughts(inside, reasoning, streams && text === "");
    const body = part(inside, "message-body");
    this.#showFiles(body, filesOf(message.content));
    const prose = part(body, message.role === "user" ? "as-written" : "prose");
    if (message.role === "user") prose.textContent = text;
    else this.#showMarkdown(prose, text, !streams);
    this.#showCalls(inside, message);
    showSources(inside, message.told.sources ?? []);
    const wrong = part(body, "message-error");
    wrong.hidden = message.told.error === undefined;
    wrong.textContent = message.told.error ?? "";
    body.hidden = !text && !message.told.error && filesOf(message.content).length === 0 && !streams;
    if (!streams && tree !== undefined) this.#showFoot(foot, tree, message, standing);
  }

  #showMarkdown(place: HTMLElement, text: string, isFinished: boolean): void {
    place.dataset["text"] = text;
    if (!this.#scripts.markdown || !MARKED.test(text)) {
      place.classList.add("as-written");
      place.textContent = text;
      return;
    }
    place.classList.remove("as-written");
    this.#script ??= import(this.#scripts.markdown) as Promise<MarkdownScript>;
    this.#script.then(
      (script) => {
        if (place.dataset["text"] === text) script.show(place, text, this.#scripts, isFinished);
      },
      () => {
        place.classList.add("as-written");
        place.textContent = text;
      },
    );
  }

  #showThoughts(inside: HTMLElement, reasoning: string, isThinking: boolean): void {
    let fold = inside.querySelector<HTMLDetailsElement>(":scope > .thinking");
    if (reasoning === "") {
      fold?.remove();
      return;
    }
    if (fold === null) {
      fold = made("details", { className: "thinking" }, made("summary"), made("div", { className: "as-written" }));
      inside.prepend(fold);
    }
    const [summary, text] = fold.children;
    if (summary !== undefined) summary.textContent = isThinking ? "Thinking …" : "Reasoning";
    if (text !== undefined) text.textContent = reasoning;
  }

  #showFiles(body: HTMLElement, files: FilePart[]): void {
    if (files.length === 0) return;
    const list = part(body, "attachments", "ul");
    if (list.childElementCount === files.length) return;
    list.replaceChildren(
      ...files.map((file) => {
        const link = made("a", { href: this.#deeds.address(file), text: file.name });
        link.download = file.name;
        const item = made("li", { className: "attachment" }, link);
        if (file.type === "image") {
          const picture = made("img");
          picture.src = this.#deeds.address(file);
          picture.alt = "";
          item.prepend(picture);
        }
        return item;
      }),
    );
  }

  #showCalls(inside: HTMLElement, message: Message): void {
    const calls = message.content.tool_calls ?? [];
    const shown = [...inside.querySelectorAll<HTMLDetailsElement>(":scope > .tool-call")];
    calls.forEach((call, at) => {
      let fold = shown[at];
      if (fold === undefined) {
        fold = made("details", { className: "tool-call" }, made("summary"), made("div", {}, made("pre", {}, made("code"))));
        fold.open = true;
        inside.append(fold);
      }
      const summary = fold.querySelector("summary");
      const code = fold.querySelector("code");
      if (summary) summary.textContent = `Wants ${call.function.name || "a tool"} called`;
      if (code) code.textContent = pretty(call.function.arguments) ?? callText(call);
    });
  }

  #showFoot(foot: HTMLElement, tree: Tree, message: Message, standing: string): void {
    const deeds = this.#deeds;
    foot.replaceChildren();
    const facts = factsOf(message.told);
    if (facts) foot.append(made("span", { text: facts }));
    const request = message.told.request_id;
    if (request !== undefined && deeds.canExplain()) {
      foot.append(made("a", { href: `/console/explain/${encodeURIComponent(request)}`, text: "What became of it", title: `Request ${request}` }));
    }
    const others = standing === "" ? branches(tree, message) : [];
    if (others.length > 1) foot.append(this.#pager(others, message));
    const text = apart(textOf(message.content), "").text;
    if (message.role === "assistant") {
      if (text) {
        const copy = made("button", { className: "copy", text: "Copy", label: "Copy the answer" });
        copy.dataset["copy"] = text;
        foot.append(copy);
      }
      if (standing === "other") foot.append(button("Go on with this one", () => deeds.readBranch(message)));
      if (standing === "") foot.append(button("Answer again", () => deeds.answerAgain(message)));
      if (text && deeds.canReadAloud()) foot.append(button("Read aloud", () => deeds.readAloud(message)));
    } else {
      foot.append(button("Edit", () => this.#edit(foot, message)));
    }
  }

  #pager(others: Message[], message: Message): HTMLElement {
    const at = others.indexOf(message);
    const go = (to: number) => () => {
      const other = others[to];
      if (other !== undefined && !this.#deeds.isBusy()) this.#deeds.readBranch(other);
    };
    const before = button("‹", go(at - 1), { label: "The one before" });
    const after = button("›", go(at + 1), { label: "The next one" });
    before.disabled = at === 0;
    after.disabled = at === others.length - 1;
    return made("span", { className: "nowrap", label: "Versions" }, before, ` ${at + 1}/${others.length} `, after);
  }

  #edit(foot: HTMLElement, message: Message): void {
    const body = foot.parentElement?.querySelector<HTMLElement>(".as-written");
    if (!body || this.#deeds.isBusy()) return;
    const area = made("textarea", { className: "input", label: "Your message, changed" });
    area.value = textOf(message.content);
    area.rows = Math.min(12, area.value.split("\n").length + 1);
    const undo = () => {
      area.replaceWith(body);
      row.replaceWith(foot);
    };
    const send = () => {
      undo();
      this.#deeds.edit(message, area.value);
    };
    const row = made(
      "div",
      { className: "message-foot" },
      button("Send", send, { className: "button is-primary is-small" }),
      button("Cancel", undo, { className: "button is-small" }),
    );
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") undo();
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        send();
      }
    });
    body.replaceWith(area);
    foot.replaceWith(row);
    area.focus();
  }
}

/** What an answer was given with; below it, and numbered as its model was told. */
function showSources(inside: HTMLElement, sources: readonly Source[]): void {
  const links = sources.filter(({ url }) => /^https?:\/\//i.test(url) && URL.canParse(url));
  const list = inside.querySelector<HTMLElement>(":scope > .sources");
  if (links.length === 0) {
    list?.remove();
    return;
  }
  if (list?.childElementCount === links.length) return;
  list?.remove();
  inside.append(
    made(
      "ol",
      { className: "sources", label: "Sources" },
      ...links.map(({ title, url }) => {
        const link = made("a", { href: url, text: title });
        link.rel = "noopener noreferrer nofollow";
        link.target = "_blank";
        return made("li", {}, link, " ", made("span", { className: "soft", text: new URL(url).hostname }));
      }),
    ),
  );
}

/** The versions of a message, two answers that were given together counted as one. */
function branches(tree: Tree, message: Message): Message[] {
  const all = tree.siblings(message);
  return all.filter((one) => one === message || one.told.side !== "right" || tree.get(one.told.beside) === undefined);
}

export function factsOf(told: Told): string {
  const facts: string[] = [];
  if (told.ttft_ms !== undefined) facts.push(`first token after ${(told.ttft_ms / 1000).toFixed(2)} s`);
  if (told.tokens_per_s !== undefined) facts.push(`${told.tokens_per_s.toFixed(1)} tokens/s`);
  if (told.completion_tokens !== undefined) facts.push(`${told.completion_tokens.toLocaleString("en")} tokens`);
  if (told.finish_reason === "length") facts.push("ended at its longest");
  if (told.stopped === true) facts.push("stopped");
  return facts.join(" · ");
}

function part(inside: HTMLElement, name: string, tag: "div" | "ul" = "div"): HTMLElement {
  let found = inside.querySelector<HTMLElement>(`:scope > .${name}`);
  if (found === null) {
    found = made(tag, { className: name });
    inside.append(found);
  }
  return found;
}

function pretty(json: string): string | null {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return null;
  }
}
