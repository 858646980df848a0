// A conversation that somebody shares: what models said in it is shown as the chat shows it. Without this it is read as it was
// written.

interface MarkdownScript {
  show(place: HTMLElement, text: string, scripts: { highlighting: string; maths: string }, isFinished: boolean): void;
}

const { markdown = "", highlighting = "", maths = "" } = document.getElementById("shared")?.dataset ?? {};
const said = document.querySelectorAll<HTMLElement>("[data-said]");
if (markdown !== "" && said.length > 0) {
  const script = (await import(markdown)) as MarkdownScript;
  for (const place of said) {
    place.classList.remove("as-written");
    script.show(place, place.textContent ?? "", { highlighting, maths }, true);
  }
}

export {};
