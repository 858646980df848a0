// Models that think aloud write their thoughts into the answer, between <think> and </think>. Others tell them apart.

const BEGIN = /^\s*<think(?:ing)?>/;
const END = /<\/think(?:ing)?>/;

export function apart(text: string, reasoning: string): { text: string; reasoning: string } {
  const begun = BEGIN.exec(text);
  if (begun === null) return { text, reasoning };
  const rest = text.slice(begun[0].length);
  const end = END.exec(rest);
  const thought = end === null ? rest : rest.slice(0, end.index);
  const said = end === null ? "" : rest.slice(end.index + end[0].length).trimStart();
  return { text: said, reasoning: [reasoning, thought.trim()].filter(Boolean).join("\n\n") };
}
