// Numbers as plots write them.

const BYTES: [number, string][] = [
  [2 ** 40, "TiB"],
  [2 ** 30, "GiB"],
  [2 ** 20, "MiB"],
  [2 ** 10, "KiB"],
];
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const plain = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

/** For an axis: short, and without the unit where that stands above the plot. */
export function short(value: number, unit: string): string {
  if (unit === "bytes" || unit === "B") return bytes(value);
  return Math.abs(value) >= 10_000 ? compact.format(value) : plain.format(value);
}

/** For a legend or a table. */
export function full(value: number | null | undefined, unit: string): string {
  if (value === null || value === undefined) return "—";
  if (unit === "bytes" || unit === "B") return bytes(value);
  return `${plain.format(value)}${unit ? ` ${unit}` : ""}`;
}

function bytes(value: number): string {
  for (const [step, name] of BYTES) if (Math.abs(value) >= step) return `${plain.format(Number((value / step).toPrecision(3)))} ${name}`;
  return `${plain.format(value)} B`;
}
