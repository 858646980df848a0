// The switch between the system's colours, light and dark. A cookie keeps it, so that the server says it in the next page.

const COOKIE = "forebay_theme";
const YEAR_S = 31_536_000;
const ORDER = ["", "light", "dark"] as const;

/** Sent to the document when colours are others than before. */
export const RECOLOURED = "forebay:recoloured";

export function keepThemes(): void {
  for (const button of document.querySelectorAll<HTMLButtonElement>("[data-theme-switch]")) {
    name(button, current());
    button.addEventListener("click", () => {
      const next = ORDER[(ORDER.indexOf(current()) + 1) % ORDER.length] ?? "";
      choose(next);
      name(button, next);
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", tell);
}

function current(): (typeof ORDER)[number] {
  const chosen = document.documentElement.dataset["theme"];
  return chosen === "light" || chosen === "dark" ? chosen : "";
}

function choose(theme: string): void {
  if (theme) document.documentElement.dataset["theme"] = theme;
  else delete document.documentElement.dataset["theme"];
  const secure = location.protocol === "https:" ? "; secure" : "";
  document.cookie = `${COOKIE}=${theme}; path=/; max-age=${theme ? YEAR_S : 0}; samesite=lax${secure}`;
  tell();
}

function name(button: HTMLButtonElement, theme: string): void {
  const lead = document.createElement("span");
  lead.className = "bar-wide";
  lead.textContent = "Theme: ";
  button.replaceChildren(lead, theme || "system");
}

function tell(): void {
  document.dispatchEvent(new CustomEvent(RECOLOURED));
}
