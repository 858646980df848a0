// A form that was sent is not sent again by somebody who presses twice: two keys would be made, and the first never be seen.

const ON_ITS_WAY_MS = 5_000;

const sent = new WeakSet<HTMLFormElement>();

export function keepSending(): void {
  // After everything else has had its say about it.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (event.defaultPrevented || !(form instanceof HTMLFormElement) || form.getAttribute("method") !== "post") return;
    if (sent.has(form)) {
      event.preventDefault();
      return;
    }
    sent.add(form);
    setTimeout(() => sent.delete(form), ON_ITS_WAY_MS);
  });
}
