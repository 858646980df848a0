// Dialogs: links that open one ([data-dialog] has its id), and the question before a form that cannot be taken back
// ([data-confirm] has it, on the form or on the button).

const agreed = new WeakSet<HTMLFormElement>();

export function keepDialogs(): void {
  document.addEventListener("click", (event) => {
    if (!(event.target instanceof Element)) return;
    const link = event.target.closest<HTMLElement>("[data-dialog]");
    const dialog = link === null ? null : document.getElementById(link.dataset["dialog"] ?? "");
    if (dialog instanceof HTMLDialogElement && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      dialog.showModal();
    } else if (event.target instanceof HTMLDialogElement && isBeside(event.target, event)) {
      event.target.close();
    }
    if (event.target.closest("dialog") !== null) return;
    for (const menu of document.querySelectorAll<HTMLDetailsElement>("details.actions[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll<HTMLDetailsElement>("details.actions[open]")) {
      menu.open = false;
      menu.querySelector("summary")?.focus();
    }
  });
  // Before anything else learns of it.
  document.addEventListener("submit", demandConsent, { capture: true });
}

function demandConsent(event: SubmitEvent): void {
  const form = event.target;
  if (!(form instanceof HTMLFormElement)) return;
  const question = event.submitter?.dataset["confirm"] ?? form.dataset["confirm"];
  if (!question || agreed.delete(form)) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const submitter = event.submitter;
  ask(question, submitter?.textContent?.trim() || "Yes", () => {
    agreed.add(form);
    form.requestSubmit(submitter);
  });
}

function ask(question: string, yes: string, go: () => void): void {
  const dialog = document.createElement("dialog");
  dialog.className = "dialog";
  dialog.setAttribute("aria-label", question);
  const body = dialog.appendChild(document.createElement("div"));
  body.className = "dialog-body";
  body.append(element("p", "", question), element("div", "button-row", ""));
  const no = element("button", "button", "Cancel");
  const sure = element("button", "button is-danger", yes);
  body.lastElementChild?.append(sure, no);
  no.addEventListener("click", () => dialog.close());
  sure.addEventListener("click", () => {
    dialog.close();
    go();
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  no.focus();
}

function element(name: string, look: string, text: string): HTMLElement {
  const made = document.createElement(name);
  made.className = look;
  made.textContent = text;
  if (made instanceof HTMLButtonElement) made.type = "button";
  return made;
}

function isBeside(dialog: HTMLDialogElement, event: MouseEvent): boolean {
  const box = dialog.getBoundingClientRect();
  const inside =
    event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
  return !inside && event.detail > 0; // keys that press a button inside have no place
}
