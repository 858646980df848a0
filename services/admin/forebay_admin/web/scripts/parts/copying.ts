// Buttons that copy: [data-copy] has the text.

import { say } from "./toasts";

const SHOWN_MS = 2000;

export function keepCopying(): void {
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest<HTMLElement>("[data-copy]") : null;
    if (button !== null) void copy(button);
  });
}

async function copy(button: HTMLElement): Promise<void> {
  const text = button.dataset["copy"] ?? "";
  try {
    await write(text);
  } catch {
    say("The browser did not let it be copied; select it instead.");
    return;
  }
  say("Copied.");
  if (button.dataset["copied"] !== undefined) return;
  const words = button.textContent;
  button.dataset["copied"] = "";
  button.textContent = "Copied";
  setTimeout(() => {
    button.textContent = words;
    delete button.dataset["copied"];
  }, SHOWN_MS);
}

async function write(text: string): Promise<void> {
  // Browsers have no clipboard for pages without TLS, other than those of this machine.
  if (navigator.clipboard !== undefined) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  const open = document.querySelector("dialog[open]") ?? document.body; // outside of it nothing can be selected
  open.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("not copied");
}
