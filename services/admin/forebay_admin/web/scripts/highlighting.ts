// Colours for code, in the languages that people ask models for.

import hljs from "highlight.js/lib/common";

const LONGEST = 100_000;

/** HTML of it; null in a language that is not known here. */
export function highlight(text: string, language: string): string | null {
  if (text.length > LONGEST || hljs.getLanguage(language) === undefined) return null;
  return hljs.highlight(text, { language, ignoreIllegals: true }).value;
}
