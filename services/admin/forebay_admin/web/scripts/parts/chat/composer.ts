// Where one writes: the text, the files that go with it, and what was written and not sent.

import { draftOf } from "./drafts";
import { button, byId, made } from "./made";

export interface Picked {
  file: File;
  kind: string;
  isPicture: boolean;
}

const MOST_BYTES = 10 * 1024 * 1024;
const MOST_FILES = 20;
const PICTURES = ["image/png", "image/jpeg", "image/webp", "image/gif"];

export class Composer {
  readonly text = byId("chat-text", HTMLTextAreaElement);
  readonly #form = byId("composer", HTMLFormElement);
  readonly #files = byId("chat-files", HTMLUListElement);
  readonly #input = byId("chat-file", HTMLInputElement);
  readonly #wrong: (why: string) => void;
  #picked: Picked[] = [];
  #draft: string;

  constructor(id: string, onSend: () => void, wrong: (why: string) => void) {
    this.#wrong = wrong;
    this.#draft = draftOf(id);
    this.text.value = recall(this.#draft);
    this.text.addEventListener("input", () => keep(this.#draft, this.text.value));
    this.text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      onSend();
    });
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      onSend();
    });
    this.#input.addEventListener("change", () => {
      void this.#pick(this.#input.files);
      this.#input.value = "";
    });
    this.text.addEventListener("paste", (event) => {
      if (event.clipboardData?.files.length) {
        event.preventDefault();
        void this.#pick(event.clipboardData.files);
      }
    });
    this.#form.addEventListener("dragover", (event) => event.preventDefault());
    this.#form.addEventListener("drop", (event) => {
      event.preventDefault();
      void this.#pick(event.dataTransfer?.files ?? null);
    });
  }

  get files(): readonly Picked[] {
    return this.#picked;
  }

  /** The conversation has an id now. */
  belongTo(id: string): void {
    keep(this.#draft, "");
    this.#draft = draftOf(id);
  }

  clear(): void {
    this.text.value = "";
    keep(this.#draft, "");
    this.#picked = [];
    this.#show();
  }

  /** What was not sent after all. */
  putBack(text: string, files: readonly Picked[]): void {
    if (this.text.value === "") this.text.value = text;
    keep(this.#draft, this.text.value);
    this.#picked = [...files];
    this.#show();
  }

  async #pick(files: FileList | null): Promise<void> {
    for (const file of files ?? []) {
      if (this.#picked.length >= MOST_FILES) {
        this.#wrong(`A message has at most ${MOST_FILES} files.`);
        break;
      }
      const why = await this.#take(file);
      if (why !== "") this.#wrong(why);
    }
    this.#show();
  }

  async #take(file: File): Promise<string> {
    if (file.size === 0) return `${file.name} is empty.`;
    if (file.size > MOST_BYTES) return `${file.name} has more than 10 MiB.`;
    const isPicture = PICTURES.includes(file.type);
    if (!isPicture && !(await isText(file))) return `${file.name} is neither a text nor a picture (PNG, JPEG, WebP, GIF).`;
    this.#picked.push({ file, kind: isPicture ? file.type : "text/plain", isPicture });
    return "";
  }

  #show(): void {
    this.#files.hidden = this.#picked.length === 0;
    this.#files.replaceChildren(
      ...this.#picked.map((one) => {
        const away = button("×", () => {
          this.#picked = this.#picked.filter((other) => other !== one);
          this.#show();
          this.text.focus();
        }, { label: `Leave out ${one.file.name}` });
        return made("li", { className: "attachment" }, made("span", { className: "cut", text: one.file.name }), away);
      }),
    );
  }
}

async function isText(file: File): Promise<boolean> {
  try {
    return !new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer()).includes("\0");
  } catch {
    return false;
  }
}

function recall(name: string): string {
  try {
    return localStorage.getItem(name) ?? "";
  } catch {
    return "";
  }
}

function keep(name: string, text: string): void {
  try {
    if (text) localStorage.setItem(name, text);
    else localStorage.removeItem(name);
  } catch {
    // A browser that keeps nothing loses drafts, and nothing else.
  }
}
