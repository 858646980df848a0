// Pieces of pages, made by hand: text is only ever put in as text.

type Look = Partial<{ className: string; text: string; title: string; label: string; href: string; pressed: boolean; onClick: () => void }>;

export function made<K extends keyof HTMLElementTagNameMap>(name: K, look: Look = {}, ...inside: (Node | string)[]): HTMLElementTagNameMap[K] {
  const one = document.createElement(name);
  if (look.className !== undefined) one.className = look.className;
  if (look.text !== undefined) one.textContent = look.text;
  if (look.title !== undefined) one.title = look.title;
  if (look.label !== undefined) one.setAttribute("aria-label", look.label);
  if (look.href !== undefined) one.setAttribute("href", look.href);
  if (look.pressed !== undefined) one.setAttribute("aria-pressed", String(look.pressed));
  if (look.onClick !== undefined) one.addEventListener("click", look.onClick);
  if (one instanceof HTMLButtonElement) one.type = "button";
  one.append(...inside);
  return one;
}

export function button(text: string, onClick: () => void, look: Look = {}): HTMLButtonElement {
  return made("button", { className: "button is-bare is-small", ...look, text, onClick });
}

export function byId<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`There is no ${kind.name} #${id} on this page.`);
  return found;
}
