// Lines over time, on pages that have a plot: `draw` is called once with each figure. The numbers come as JSON,
// {t: [unix seconds], series: [{label, unit, values}]}, and stand in a table beside the picture.

import uPlot from "uplot";
import { full, short } from "./parts/amounts";
import { RECOLOURED } from "./parts/themes";

interface Series {
  label: string;
  unit?: string;
  values: (number | null)[];
}

interface Told {
  t: number[];
  series: Series[];
}

const COLOURS = 8;
const HEIGHT = 220;
const SMALL_HEIGHT = 130;
const MOST_ROWS = 500;
/** Nobody did anything: it does not keep a session alive. */
const LEFT_OPEN = { "x-forebay-left-open": "yes" };

export function draw(figure: HTMLElement): void {
  new Plot(figure).begin();
}

class Plot {
  readonly #figure: HTMLElement;
  readonly #canvas: HTMLElement;
  readonly #legend: HTMLUListElement;
  readonly #hidden = new Set<string>();
  readonly #sizes: ResizeObserver;
  #chart: uPlot | null = null;
  #told: Told = { t: [], series: [] };
  #again: ReturnType<typeof setTimeout> | undefined;

  constructor(figure: HTMLElement) {
    this.#figure = figure;
    this.#canvas = part(figure, "[data-plot-canvas]");
    this.#legend = document.createElement("ul");
    this.#legend.className = "legend";
    this.#canvas.after(this.#legend);
    this.#sizes = new ResizeObserver(() => this.#resize());
  }

  begin(): void {
    this.#sizes.observe(this.#canvas);
    document.addEventListener(RECOLOURED, this.#recolour);
    this.#figure.querySelector("details")?.addEventListener("toggle", () => this.#tabulate());
    void this.#renew();
  }

  async #renew(isAgain = false): Promise<void> {
    if (this.#isGone()) return;
    try {
      const answer = await fetch(this.#figure.dataset["plot"] ?? "", { headers: { accept: "application/json", ...(isAgain ? LEFT_OPEN : {}) } });
      if (!answer.ok) throw new Error(String(answer.status));
      this.#take((await answer.json()) as Told);
    } catch {
      this.#say("This could not be loaded; what is shown may be old.");
    }
    const every = Number(this.#figure.dataset["every"] ?? 0);
    if (every > 0) this.#again = setTimeout(() => void this.#whenSeen(), every * 1000);
  }

  async #whenSeen(): Promise<void> {
    if (document.hidden) await new Promise((go) => document.addEventListener("visibilitychange", go, { once: true }));
    await this.#renew(true);
  }

  #take(told: Told): void {
    const isSame = told.series.map(({ label }) => label).join("\n") === this.#told.series.map(({ label }) => label).join("\n");
    this.#told = told;
    const isEmpty = told.t.length === 0 || told.series.every(({ values }) => values.every((value) => value === null));
    this.#say(isEmpty ? "Nothing was measured in this time." : "");
    this.#canvas.hidden = isEmpty;
    if (this.#chart !== null && isSame) this.#chart.setData(this.#columns());
    else this.#build();
    this.#tabulate();
  }

  /** Stacked, each series is drawn on what lies below it. */
  #columns(): uPlot.AlignedData {
    const { t, series } = this.#told;
    if (this.#figure.dataset["stacked"] === undefined) return [t, ...series.map(({ values }) => values)];
    const below = t.map(() => 0);
    const stacked = series.map(({ label, values }) =>
      values.map((value, index) => {
        if (value === null || this.#hidden.has(label)) return null;
        below[index] = (below[index] ?? 0) + value;
        return below[index] ?? null;
      }),
    );
    return [t, ...stacked];
  }

  #build(): void {
    this.#chart?.destroy();
    this.#chart = null;
    if (this.#told.t.length > 0 && !this.#canvas.hidden) this.#chart = new uPlot(this.#options(), this.#columns(), this.#canvas);
    this.#name();
  }

  #options(): uPlot.Options {
    const colour = colours(this.#figure);
    const unit = this.#figure.dataset["unit"] ?? "";
    const kind = this.#figure.dataset["kind"] ?? "line";
    const isStacked = this.#figure.dataset["stacked"] !== undefined;
    const axis: uPlot.Axis = {
      stroke: colour("--ink-soft"),
      font: "12px system-ui, sans-serif",
      grid: { stroke: colour("--line"), width: 1 },
      ticks: { stroke: colour("--line"), width: 1, size: 4 },
    };
    const series = this.#told.series.map(({ label }, index): uPlot.Series => {
      const stroke = colour(`--series-${(index % COLOURS) + 1}`);
      const made: uPlot.Series = { label, stroke, width: 1.75, show: !this.#hidden.has(label), points: { size: 4 } };
      // Beyond the colour: every other line is dashed.
      if (index % 2 === 1 && kind === "line") made.dash = [7, 3];
      if (kind !== "line") made.fill = fade(stroke, kind === "bars" ? 0.75 : 0.18);
      if (kind === "bars" && uPlot.paths.bars) made.paths = uPlot.paths.bars({ size: [0.7, 60] });
      return made;
    });
    const bands = isStacked ? series.slice(1).map((_, index): uPlot.Band => ({ series: [index + 2, index + 1] })) : [];
    return {
      width: this.#width(),
      height: this.#height(),
      legend: { show: false },
      cursor: { y: false, drag: { x: true, y: false } },
      scales: { y: { range: (_, least, most) => [Math.min(0, least ?? 0), (most ?? 0) > 0 ? (most ?? 0) * 1.06 : 1] } },
      axes: [
        { ...axis, space: 70, size: 34, values: clock },
        { ...axis, size: 56, values: (_, splits) => splits.map((value) => short(value, unit)) },
      ],
      series: [{}, ...series],
      bands,
      hooks: { setCursor: [() => this.#point()] },
    };
  }

  /** The legend: each name is a button that shows or hides its line. */
  #name(): void {
    this.#legend.replaceChildren(
      ...this.#told.series.map(({ label }, index) => {
        const item = document.createElement("li");
        const button = item.appendChild(document.createElement("button"));
        button.type = "button";
        button.className = "legend-button";
        button.setAttribute("aria-pressed", String(!this.#hidden.has(label)));
        button.append(swatch(index), label, document.createElement("span"));
        button.addEventListener("click", () => this.#toggle(label));
        return item;
      }),
    );
    this.#point();
  }

  #toggle(label: string): void {
    if (!this.#hidden.delete(label)) this.#hidden.add(label);
    const index = this.#told.series.findIndex((each) => each.label === label);
    this.#legend.children[index]?.firstElementChild?.setAttribute("aria-pressed", String(!this.#hidden.has(label)));
    this.#chart?.setSeries(index + 1, { show: !this.#hidden.has(label) });
    if (this.#figure.dataset["stacked"] !== undefined) this.#chart?.setData(this.#columns());
  }

  /** What each was at the cursor, or is now. */
  #point(): void {
    const at = this.#chart?.cursor.idx;
    this.#told.series.forEach(({ values, unit }, index) => {
      const value = at === null || at === undefined ? values.at(-1) : values[at];
      const words = this.#legend.children[index]?.querySelector("span");
      if (words) words.textContent = full(value, unit ?? "");
    });
  }

  #tabulate(): void {
    const { t, series } = this.#told;
    const place = this.#figure.querySelector<HTMLElement>("[data-plot-table]");
    if (place === null || !this.#figure.querySelector("details")?.open || t.length === 0) return;
    const table = document.createElement("table");
    table.className = "table";
    const caption = table.createCaption();
    caption.className = "unseen";
    caption.textContent = this.#figure.querySelector("figcaption span")?.textContent ?? "";
    const head = table.createTHead().insertRow();
    for (const words of ["When", ...series.map(({ label }) => label)]) head.append(cell("th", words, "col"));
    const body = table.createTBody();
    for (let index = t.length - 1; index >= Math.max(0, t.length - MOST_ROWS); index -= 1) {
      const row = body.insertRow();
      row.append(cell("th", moment.format((t[index] ?? 0) * 1000), "row"));
      for (const { values, unit } of series) row.append(cell("td", full(values[index], unit ?? ""), "", "number"));
    }
    place.replaceChildren(table);
  }

  #say(words: string): void {
    const place = this.#figure.querySelector("[data-plot-said]");
    if (place !== null && place.textContent !== words) place.textContent = words;
  }

  #resize(): void {
    if (this.#isGone()) return;
    const width = this.#width();
    if (this.#chart !== null && width > 0 && width !== this.#chart.width) this.#chart.setSize({ width, height: this.#height() });
  }

  #width(): number {
    return Math.floor(this.#canvas.clientWidth);
  }

  #height(): number {
    return this.#figure.classList.contains("is-small") ? SMALL_HEIGHT : HEIGHT;
  }

  readonly #recolour = (): void => {
    if (!this.#isGone()) this.#build();
  };

  /** The figure left the page: nothing of it stays behind. */
  #isGone(): boolean {
    if (this.#figure.isConnected) return false;
    clearTimeout(this.#again);
    this.#sizes.disconnect();
    document.removeEventListener(RECOLOURED, this.#recolour);
    this.#chart?.destroy();
    this.#chart = null;
    return true;
  }
}

const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const time = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const seconds = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

const MINUTE_S = 60;
const DAY_S = 86_400;

function clock(_: uPlot, splits: number[], __: number, ___: number, step: number): string[] {
  return splits.map((at, index) => {
    const date = new Date(at * 1000);
    if (step >= DAY_S) return day.format(date);
    const before = splits[index - 1];
    const isNewDay = before !== undefined && new Date(before * 1000).getDate() !== date.getDate();
    if (isNewDay) return `${time.format(date)}\n${day.format(date)}`;
    return (step < MINUTE_S ? seconds : time).format(date);
  });
}

function part(figure: HTMLElement, selector: string): HTMLElement {
  const found = figure.querySelector<HTMLElement>(selector);
  if (found === null) throw new Error(`a plot without ${selector}`);
  return found;
}

function cell(name: "th" | "td", words: string, scope: string, look = ""): HTMLTableCellElement {
  const made = document.createElement(name);
  made.textContent = words;
  if (scope) made.scope = scope;
  if (look) made.className = look;
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

function swatch(index: number): SVGElement {
  const made = document.createElementNS(SVG, "svg");
  made.setAttribute("viewBox", "0 0 10 10");
  made.setAttribute("aria-hidden", "true");
  const square = made.appendChild(document.createElementNS(SVG, "rect"));
  square.setAttribute("width", "10");
  square.setAttribute("height", "10");
  square.setAttribute("class", `fill-${(index % COLOURS) + 1}`);
  return made;
}

/** A token's colour as it is now: tokens have one for light and one for dark. */
function colours(figure: HTMLElement): (token: string) => string {
  const probe = figure.appendChild(document.createElement("i"));
  const found = new Map<string, string>();
  probe.hidden = true;
  const read = (token: string): string => {
    probe.style.color = `var(${token})`;
    return getComputedStyle(probe).color;
  };
  for (const token of ["--ink-soft", "--line", ...Array.from({ length: COLOURS }, (_, i) => `--series-${i + 1}`)]) found.set(token, read(token));
  probe.remove();
  return (token) => found.get(token) ?? "currentColor";
}

function fade(colour: string, share: number): string {
  return colour.replace(/^rgb\((.*)\)$/, (_, inside: string) => `rgb(${inside.replaceAll(",", " ")} / ${share})`);
}
