// What is asked of every client, and what comes back, in words of no dialect. As `tests/compatibility/wants.py`.
//
// A want: {text, system, tools, forced, result, schema, thinks, image, stop, maxTokens, model}. `schema` is zod's, since
// that is what people write with these libraries; `tools` carry JSON Schema; `result` is [call, text]: a call that the model
// made before, and what came of it.

export function said(fields = {}) {
  return {
    text: "", reasoning: "", calls: [], finish: "", promptTokens: 0, completionTokens: 0, pieces: 0,
    parsed: undefined, // what the library itself made of a document
    ...fields,
  };
}

// The client's dialect, or its library, has no words for this.
export class NotInDialect extends Error {}

// The library raised the error that it has for a status.
export class Refused extends Error {
  constructor(status, message, cause) {
    super(message, { cause });
    this.status = status;
  }
}

// The library raised in the middle of a stream.
export class Broke extends Error {}
