// Formulas: from TeX to MathML, which browsers set by themselves.

import temml from "temml";

/** HTML of it, or of the text as it was where it is no TeX. */
export function render(text: string, isBlock: boolean): string {
  try {
    return temml.renderToString(text, { displayMode: isBlock, throwOnError: true, trust: false, maxExpand: 1000 });
  } catch {
    return "";
  }
}
