// The settings of a conversation: what stands in the fields of the panel.

import { byId } from "./made";
import type { Settings } from "./types";

const FIELDS = ["system", "temperature", "top_p", "max_tokens", "seed", "stop", "effort", "schema", "tools"] as const;
const WAIT_MS = 600;

type Field = HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement;

export class Panel {
  readonly #panel = byId("chat-panel", HTMLElement);
  readonly #button = byId("chat-settings", HTMLButtonElement);
  readonly #onChange: () => void;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(settings: Settings, onChange: () => void) {
    this.#onChange = onChange;
    for (const name of FIELDS) this.#field(name).value = settings[name] ?? "";
    this.#panel.addEventListener("input", () => this.#later());
    this.#button.addEventListener("click", () => {
      this.#panel.hidden = !this.#panel.hidden;
      this.#button.setAttribute("aria-expanded", String(!this.#panel.hidden));
      if (!this.#panel.hidden) this.#field("system").focus();
    });
    byId("chat-reset", HTMLButtonElement).addEventListener("click", () => {
      for (const name of FIELDS) this.#field(name).value = "";
      this.#later();
    });
  }

  read(): Settings {
    const settings: Settings = {};
    for (const name of FIELDS) {
      const value = this.#field(name).value;
      if (value.trim()) settings[name] = value;
    }
    return settings;
  }

  #later(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#onChange(), WAIT_MS);
  }

  #field(name: (typeof FIELDS)[number]): Field {
    const found = document.getElementById(`f-${name}`);
    if (found instanceof HTMLInputElement || found instanceof HTMLTextAreaElement || found instanceof HTMLSelectElement) return found;
    throw new Error(`There is no field ${name} on this page.`);
  }
}
