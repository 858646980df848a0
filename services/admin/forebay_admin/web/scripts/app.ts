// What every page loads. Pages work without it; with it they renew themselves, copy, ask before deleting, and know the
// reader's clock.

import htmx from "htmx.org";
import { forgetDrafts } from "./parts/chat/drafts";
import { keepCopying } from "./parts/copying";
import { keepDialogs } from "./parts/dialogs";
import { keepLive, RENEWED, reopenLive } from "./parts/live";
import { keepMoments, renewMoments } from "./parts/moments";
import { keepSending } from "./parts/sending";
import { keepThemes } from "./parts/themes";
import { say } from "./parts/toasts";

interface PlotScript {
  draw(figure: HTMLElement): void;
}

// The pages' policy allows neither, and a kept page could hold what was shown once.
htmx.config.allowEval = false;
htmx.config.allowScriptTags = false;
htmx.config.includeIndicatorStyles = false;
htmx.config.historyCacheSize = 0;
htmx.config.refreshOnHistoryMiss = true;
htmx.config.selfRequestsOnly = true;

document.documentElement.classList.add("is-scripted");
keepDialogs();
keepCopying();
keepThemes();
keepMoments();
keepLive();
keepSending();
drawPlots();

document.addEventListener(RENEWED, ({ target }) => {
  if (target instanceof HTMLElement) htmx.process(target);
  renewMoments();
  drawPlots();
});
document.addEventListener("submit", ({ target }) => {
  if (target instanceof HTMLFormElement && target.getAttribute("action") === "/sign-out") forgetDrafts();
});
document.addEventListener("htmx:afterSettle", () => {
  renewMoments();
  drawPlots();
  reopenLive();
});
document.addEventListener("htmx:configRequest", (event) => {
  const { verb, parameters } = (event as CustomEvent<{ verb: string; parameters: Record<string, unknown> }>).detail;
  const token = document.body.dataset["csrf"];
  if (verb !== "get" && token !== undefined) parameters["csrf"] ??= token;
});
document.addEventListener("htmx:beforeSwap", (event) => {
  const { detail } = event as CustomEvent<{ xhr: XMLHttpRequest; shouldSwap: boolean }>;
  // Signed out meanwhile: the whole page has to learn of it.
  if (new URL(detail.xhr.responseURL, location.href).pathname.startsWith("/sign-in")) {
    detail.shouldSwap = false;
    location.reload();
  }
});
document.addEventListener("htmx:responseError", (event) => {
  const { xhr } = (event as CustomEvent<{ xhr: XMLHttpRequest }>).detail;
  const page = new DOMParser().parseFromString(xhr.responseText, "text/html");
  say(page.querySelector("main p")?.textContent?.trim() || `That did not work (${xhr.status}).`);
});
document.addEventListener("htmx:sendError", () => say("Forebay does not answer."));

function drawPlots(): void {
  for (const figure of document.querySelectorAll<HTMLElement>("[data-plot][data-script]:not([data-drawn])")) {
    figure.dataset["drawn"] = "";
    import(figure.dataset["script"] ?? "").then(
      (script: PlotScript) => script.draw(figure),
      () => say("Plots could not be loaded."),
    );
  }
}
