// Short words at the edge of the page, which are read aloud and go away by themselves.

const SHOWN_MS = 6000;

export function say(text: string): void {
  const place = document.querySelector("[data-toasts]");
  if (place === null) return;
  const toast = document.createElement("div");
  toast.className = "toast";
  toast.textContent = text;
  place.append(toast);
  setTimeout(() => toast.remove(), SHOWN_MS);
}
