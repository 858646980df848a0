// Moments as the reader's clock and zone have them, and how old what is shown has become: [data-moment], [data-age].

const SECOND = 1000;
const STEPS: [number, string][] = [
  [86_400, "d"],
  [3600, "h"],
  [60, "min"],
];

const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

let skewMs = 0;

export function keepMoments(): void {
  skewMs = skew();
  renewMoments();
  setInterval(() => {
    if (!document.hidden) renewMoments();
  }, SECOND);
}

/** After something on the page was replaced. */
export function renewMoments(): void {
  const nowMs = Date.now() + skewMs;
  for (const time of document.getElementsByTagName("time")) {
    if (time.dataset["age"] !== undefined) showAge(time, nowMs);
    else if (time.dataset["moment"] !== undefined) showMoment(time);
  }
}

function showAge(time: HTMLTimeElement, nowMs: number): void {
  const ageS = (nowMs - Date.parse(time.dateTime)) / SECOND;
  const period = Number(time.dataset["period"] ?? 0);
  put(time, ago(ageS));
  const isStale = period > 0 && ageS > period;
  if (isStale !== time.classList.contains("is-stale")) time.classList.toggle("is-stale", isStale);
}

function showMoment(time: HTMLTimeElement): void {
  // What a live part brings anew has the server's words again.
  if (time.dataset["moment"] === time.textContent) return;
  const at = new Date(time.dateTime);
  time.title = exact.format(at);
  const words = local.format(at);
  put(time, words);
  time.dataset["moment"] = words;
}

function put(time: HTMLTimeElement, words: string): void {
  if (time.textContent !== words) time.textContent = words;
}

export function ago(seconds: number): string {
  if (seconds < 2) return "just now";
  for (const [length, unit] of STEPS) if (seconds >= length) return `${Math.floor(seconds / length)} ${unit} ago`;
  return `${Math.floor(seconds)} s ago`;
}

/** How far the server's clock is ahead of this one: it told its own as it made the page. */
function skew(): number {
  const told = Number(document.body.dataset["now"]);
  const [entry] = performance.getEntriesByType("navigation");
  if (!told || !(entry instanceof PerformanceNavigationTiming)) return 0;
  const found = told * SECOND - (performance.timeOrigin + entry.responseStart);
  return Math.abs(found) > 1.5 * SECOND ? found : 0; // less is the way between, not the clocks
}
