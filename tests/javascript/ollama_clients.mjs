// The official `ollama` library at two addresses: chat, with the key in the address, and generate, with it in a header.

import { Ollama } from "ollama";
import { z } from "zod";

import { Broke, NotInDialect, Refused, said } from "./wants.mjs";

class OllamaClient {
  async ask(want, stream) {
    const request = this.request(want);
    if (!stream) return told([await named(() => this.send(request))]);
    const parts = [];
    const coming = await named(() => this.send({ ...request, stream }));
    try {
      for await (const part of coming) parts.push(part);
    } catch (error) {
      throw new Broke(error.message, { cause: error }); // the library has no class of its own for it
    }
    return told(parts);
  }

  async run() {
    throw new NotInDialect();
  }

  async embed(texts) {
    return (await named(() => this.client.embed({ model: this.model, input: texts }))).embeddings;
  }

  common(want) {
    if (want.forced) throw new NotInDialect();
    const options = { num_predict: want.maxTokens ?? 400, temperature: 0 };
    if (want.stop) options.stop = [want.stop];
    const request = { model: want.model ?? this.model, options };
    if (want.schema) request.format = z.toJSONSchema(want.schema);
    if (want.thinks) request.think = true;
    return request;
  }
}

class Chat extends OllamaClient {
  name = "ollama: chat";

  constructor({ url, key, model }) {
    super();
    this.client = new Ollama({ host: `${url}/k/${key}` });
    this.model = model;
  }

  send(request) {
    return this.client.chat(request);
  }

  request(want) {
    const messages = want.system ? [{ role: "system", content: want.system }] : [];
    messages.push({ role: "user", content: want.text, ...(want.image && { images: [want.image] }) });
    if (want.result) {
      const [call, result] = want.result;
      messages.push(
        { role: "assistant", content: "", tool_calls: [{ function: call }] },
        { role: "tool", content: result, tool_name: call.name },
      );
    }
    const request = { ...this.common(want), messages };
    if (want.tools) {
      request.tools = want.tools.map(({ name, parameters }) => ({ type: "function", function: { name, parameters } }));
    }
    return request;
  }
}

class Generate extends OllamaClient {
  name = "ollama: generate";

  constructor({ url, key, model }) {
    super();
    this.client = new Ollama({ host: url, headers: { Authorization: `Bearer ${key}` } });
    this.model = model;
  }

  send(request) {
    return this.client.generate(request);
  }

  request(want) {
    if (want.tools) throw new NotInDialect();
    const request = { ...this.common(want), prompt: want.text };
    if (want.system) request.system = want.system;
    if (want.image) request.images = [want.image];
    return request;
  }
}

function told(parts) {
  const heard = said();
  for (const part of parts) {
    const content = part.message?.content ?? part.response ?? "";
    heard.text += content;
    heard.pieces += content !== "";
    heard.reasoning += part.message?.thinking ?? part.thinking ?? "";
    heard.calls.push(...(part.message?.tool_calls ?? []).map((call) => call.function));
    if (!part.done) continue;
    heard.finish = heard.calls.length ? "tools" : part.done_reason;
    heard.promptTokens = part.prompt_eval_count;
    heard.completionTokens = part.eval_count;
  }
  return heard;
}

async function named(work) {
  try {
    return await work();
  } catch (error) {
    if (error.name !== "ResponseError") throw error; // a class that the library does not export
    throw new Refused(error.status_code, error.message, error);
  }
}

export const OLLAMA = [(place) => new Chat(place), (place) => new Generate(place)];
