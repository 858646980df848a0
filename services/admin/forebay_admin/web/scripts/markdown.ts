// Markdown of models and of people, made into a piece of a page. All of it goes through a sanitiser: what is said in a conversation
// runs nothing, loads nothing, and leads away only where somebody follows a link. Code and maths have scripts of their own, fetched
// when there is some.

import DOMPurify from "dompurify";
import { Marked, type TokenizerAndRendererExtension, type Tokens } from "marked";

export interface Scripts {
  highlighting: string;
  maths: string;
}

interface Highlighting {
  highlight(text: string, language: string): string | null;
}

interface Maths {
  render(text: string, isBlock: boolean): string;
}

const BLOCK = /^(?:\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\])(?:\n|$)/;
const INLINE = /^(?:\$\$([^\n]+?)\$\$|\\\(([\s\S]+?)\\\)|\\\[([\s\S]+?)\\\]|\$(?![\s\d])((?:[^$\n\\]|\\.)+?)(?<!\s)\$(?!\d))/;

const maths = (level: "block" | "inline"): TokenizerAndRendererExtension => ({
  name: `maths-${level}`,
  level,
  start: (source: string) => {
    const found = source.search(level === "block" ? /\$\$|\\\[/ : /\$|\\\(|\\\[/);
    return found < 0 ? undefined : found;
  },
  tokenizer(source: string) {
    const found = (level === "block" ? BLOCK : INLINE).exec(source);
    if (found === null) return undefined;
    const text = found.slice(1).find((piece) => piece !== undefined) ?? "";
    return { type: `maths-${level}`, raw: found[0], text: text.trim() };
  },
  renderer: (token: Tokens.Generic) => {
    const name = level === "block" || token.raw.startsWith("$$") || token.raw.startsWith("\\[") ? "block" : "inline";
    return `<code class="maths maths-${name}">${escaped(String(token["text"]))}</code>`;
  },
});

const PLAIN_TAG = /^<\/?(?:br|sub|sup|kbd|mark|u|b|i|em|strong|p|hr)\s*\/?>\s*$/i;

const marked = new Marked({
  gfm: true,
  breaks: true,
  extensions: [maths("block"), maths("inline")],
  // HTML that somebody wrote is shown as it was written, but for what only changes how a word looks.
  renderer: { html: ({ text }) => (PLAIN_TAG.test(text) ? text : escaped(text)) },
});

const CLEAN = {
  USE_PROFILES: { html: true, mathMl: true },
  FORBID_TAGS: ["form", "input", "button", "select", "textarea", "option", "style", "img", "picture", "video", "audio", "source", "iframe", "dialog", "template"],
  FORBID_ATTR: ["style", "id", "name", "for", "popover", "background", "poster", "srcset", "src"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  RETURN_DOM_FRAGMENT: true as const,
};

const purify = DOMPurify(window);
purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName.toLowerCase() !== "a") return;
  if (!node.hasAttribute("href")) return;
  node.setAttribute("rel", "noopener noreferrer nofollow");
  node.setAttribute("target", "_blank");
});
purify.addHook("uponSanitizeAttribute", (node, data) => {
  // Classes are the pages' own; of others there are those that say what a block of code is written in, and which is maths.
  if (data.attrName !== "class") return;
  const kept = data.attrValue.split(/\s+/).filter((name) => /^(?:language-[\w+#.-]{1,40}|maths|maths-(?:block|inline)|hljs(?:-[\w-]+)?)$/.test(name));
  data.attrValue = kept.join(" ");
  data.keepAttr = kept.length > 0 && node.nodeName !== "A";
});

export function clean(html: string): DocumentFragment {
  return purify.sanitize(html, CLEAN);
}

/** Puts it where `place` is, and code and maths when their scripts are there. */
export function show(place: HTMLElement, text: string, scripts: Scripts, isFinished: boolean): void {
  place.replaceChildren(clean(marked.parse(withoutPictures(text), { async: false })));
  for (const table of place.querySelectorAll("table")) table.tabIndex = 0;
  for (const code of place.querySelectorAll<HTMLElement>("pre > code")) frame(code);
  if (!isFinished) return;
  const blocks = [...place.querySelectorAll<HTMLElement>("pre > code[class*=language-]")];
  if (blocks.length > 0 && scripts.highlighting) void colour(blocks, scripts.highlighting);
  const formulas = [...place.querySelectorAll<HTMLElement>("code.maths")];
  if (formulas.length > 0 && scripts.maths) void typeset(formulas, scripts.maths);
}

/** A picture that a model names would be fetched from elsewhere: its link is shown instead. */
function withoutPictures(text: string): string {
  return text.replace(/!\[([^\]\n]{0,500})\]\((?=https?:)/g, "[$1 (picture)](");
}

function frame(code: HTMLElement): void {
  const pre = code.parentElement;
  if (pre === null) return;
  const language = /language-([\w+#.-]+)/.exec(code.className)?.[1] ?? "";
  const head = document.createElement("div");
  head.className = "code-head";
  const name = document.createElement("span");
  name.textContent = language;
  const copy = document.createElement("button");
  copy.type = "button";
  copy.className = "copy";
  copy.dataset["copy"] = code.textContent ?? "";
  copy.textContent = "Copy";
  copy.setAttribute("aria-label", language ? `Copy the ${language}` : "Copy the code");
  head.append(name, copy);
  const box = document.createElement("div");
  box.className = "code";
  pre.tabIndex = 0;
  pre.replaceWith(box);
  box.append(head, pre);
}

async function colour(blocks: HTMLElement[], address: string): Promise<void> {
  const script = (await import(address)) as Highlighting;
  for (const block of blocks) {
    const language = /language-([\w+#.-]+)/.exec(block.className)?.[1] ?? "";
    const html = script.highlight(block.textContent ?? "", language);
    if (html !== null) block.replaceChildren(clean(html));
  }
}

async function typeset(formulas: HTMLElement[], address: string): Promise<void> {
  const script = (await import(address)) as Maths;
  for (const formula of formulas) {
    const made = clean(withoutStyles(script.render(formula.textContent ?? "", formula.classList.contains("maths-block"))));
    if (made.querySelector("math") !== null) formula.replaceWith(made);
  }
}

/** What the pages' policy would refuse, and say so. Of a formula's own HTML, in which a quote is always written as an entity. */
function withoutStyles(html: string): string {
  return html.replace(/ style="[^"]*"/g, "");
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
