// The official `openai` library, of two majors, at three addresses: chat completions, completions and responses. Streams are
// read through the library's own collectors (`stream()`), which demand more of them than a plain loop does.

import OpenAI7 from "openai";
import { zodResponseFormat as responseFormat7, zodTextFormat as textFormat7 } from "openai/helpers/zod";
import { ResponsesToolRunner } from "openai/helpers/responses-tool-runner";
import OpenAI6 from "openai-6";
import { zodResponseFormat as responseFormat6, zodTextFormat as textFormat6 } from "openai-6/helpers/zod";

import { Broke, NotInDialect, Refused, said } from "./wants.mjs";

const V6 = { name: "openai 6", OpenAI: OpenAI6, responseFormat: responseFormat6, textFormat: textFormat6 };
const V7 = { name: "openai 7", OpenAI: OpenAI7, responseFormat: responseFormat7, textFormat: textFormat7 };
V7.ResponsesRunner = ResponsesToolRunner; // which 6 has not
const FINISHES = { stop: "stop", length: "length", tool_calls: "tools" };

class OpenAIClient {
  constructor(library, address, { url, key, model }) {
    this.name = `${library.name}: ${address}`;
    this.library = library;
    this.model = model;
    this.client = new library.OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
  }

  ask(want, stream) {
    return this.named(async () => (stream ? this.streamed(this.request(want)) : this.whole(this.request(want))));
  }

  async run() {
    throw new NotInDialect();
  }

  async embed(texts) {
    const told = await this.named(() => this.client.embeddings.create({ model: this.model, input: texts }));
    return told.data.map((vector) => vector.embedding);
  }

  async named(work) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof this.library.OpenAI.APIError)) throw error;
      if (error.status === undefined) throw new Broke(error.message, { cause: error });
      throw new Refused(error.status, error.message, error);
    }
  }
}

class Chat extends OpenAIClient {
  async whole(request) {
    const { completions } = this.client.chat;
    const completion = await (request.response_format ? completions.parse(request) : completions.create(request));
    return this.told(completion, { pieces: 1 });
  }

  async streamed(request) {
    const stream = this.client.chat.completions.stream({ ...request, stream_options: { include_usage: true } });
    let [pieces, reasoning] = [0, ""];
    stream.on("content", () => pieces++);
    stream.on("chunk", (chunk) => (reasoning += chunk.choices.map((choice) => thoughts(choice.delta)).join("")));
    return this.told(await stream.finalChatCompletion(), { pieces, reasoning });
  }

  run(want, stream) {
    return this.named(async () => {
      const tools = want.tools.map(({ name, parameters, run }) => ({
        type: "function",
        function: { name, parameters, parse: JSON.parse, function: run },
      }));
      const runner = this.client.chat.completions.runTools({ ...this.request({ ...want, tools: [] }), tools, stream });
      let pieces = stream ? 0 : 1;
      if (stream) runner.on("content", () => pieces++);
      return this.told(await runner.finalChatCompletion(), { pieces });
    });
  }

  told(completion, fields) {
    const [{ message, finish_reason }] = completion.choices;
    const calls = (message.tool_calls ?? []).map(({ id, type, function: called }) => {
      if (type !== "function") throw new Error(`a call of type ${type}`);
      return { id, name: called.name, arguments: JSON.parse(called.arguments) };
    });
    return said({
      text: message.content ?? "",
      reasoning: thoughts(message),
      calls,
      finish: FINISHES[finish_reason],
      promptTokens: completion.usage?.prompt_tokens,
      completionTokens: completion.usage?.completion_tokens,
      parsed: message.parsed ?? undefined,
      ...fields,
    });
  }

  request(want) {
    let content = want.text;
    if (want.image) {
      content = [
        { type: "text", text: want.text },
        { type: "image_url", image_url: { url: dataUrl(want.image) } },
      ];
    }
    const messages = want.system ? [{ role: "system", content: want.system }] : [];
    messages.push({ role: "user", content });
    if (want.result) {
      const [call, result] = want.result;
      const called = { name: call.name, arguments: JSON.stringify(call.arguments) };
      messages.push(
        { role: "assistant", content: null, tool_calls: [{ id: "call_1", type: "function", function: called }] },
        { role: "tool", tool_call_id: "call_1", content: result },
      );
    }
    const request = { model: want.model ?? this.model, messages, max_tokens: want.maxTokens ?? 400, temperature: 0 };
    if (want.tools?.length) {
      request.tools = want.tools.map(({ name, parameters }) => ({ type: "function", function: { name, parameters } }));
    }
    if (want.forced) request.tool_choice = { type: "function", function: { name: want.forced } };
    if (want.schema) request.response_format = this.library.responseFormat(want.schema, "person");
    if (want.thinks) request.reasoning_effort = "high";
    if (want.stop) request.stop = [want.stop];
    return request;
  }
}

class Completions extends OpenAIClient {
  async whole(request) {
    const told = await this.client.completions.create(request);
    return this.collected([told], 1);
  }

  async streamed(request) {
    const chunks = [];
    const asked = { ...request, stream: true, stream_options: { include_usage: true } };
    for await (const chunk of await this.client.completions.create(asked)) chunks.push(chunk);
    return this.collected(chunks, chunks.filter((chunk) => chunk.choices[0]?.text).length);
  }

  collected(chunks, pieces) {
    const told = said({ pieces });
    for (const { choices, usage } of chunks) {
      told.text += choices[0]?.text ?? "";
      told.finish = FINISHES[choices[0]?.finish_reason] ?? told.finish;
      told.promptTokens = usage?.prompt_tokens ?? told.promptTokens;
      told.completionTokens = usage?.completion_tokens ?? told.completionTokens;
    }
    return told;
  }

  request(want) {
    if (want.system || want.tools || want.image || want.thinks || want.schema) throw new NotInDialect();
    const request = { model: want.model ?? this.model, prompt: want.text, max_tokens: want.maxTokens ?? 400 };
    request.temperature = 0;
    if (want.stop) request.stop = [want.stop];
    return request;
  }
}

class Responses extends OpenAIClient {
  async whole(request) {
    const { responses } = this.client;
    return this.told(await (request.text ? responses.parse(request) : responses.create(request)), 1);
  }

  async streamed(request) {
    const stream = this.client.responses.stream(request);
    let pieces = 0;
    stream.on("response.output_text.delta", () => pieces++);
    return this.told(await stream.finalResponse(), pieces);
  }

  run(want, stream) {
    if (!this.library.ResponsesRunner) throw new NotInDialect();
    return this.named(async () => {
      const request = this.request(want);
      const functions = request.tools.map((tool, n) => ({ tool, execute: want.tools[n].run }));
      delete request.tools;
      let pieces = stream ? 0 : 1;
      const onEvent = (event) => (pieces += event.type === "response.output_text.delta");
      const options = stream ? { stream, onEvent } : {};
      const response = await new this.library.ResponsesRunner({ functions }).run(this.client, request, options);
      return this.told(response, pieces);
    });
  }

  told(response, pieces) {
    const told = said({ text: response.output_text, pieces, parsed: response.output_parsed ?? undefined });
    for (const item of response.output) {
      if (item.type === "function_call") {
        told.calls.push({ id: item.call_id, name: item.name, arguments: JSON.parse(item.arguments) });
      } else if (item.type === "reasoning") {
        told.reasoning += (item.content ?? []).map((part) => part.text).join("");
      }
    }
    told.finish = told.calls.length ? "tools" : response.status === "incomplete" ? "length" : "stop";
    told.promptTokens = response.usage?.input_tokens;
    told.completionTokens = response.usage?.output_tokens;
    return told;
  }

  request(want) {
    if (want.stop) throw new NotInDialect();
    const content = [{ type: "input_text", text: want.text }];
    if (want.image) content.push({ type: "input_image", image_url: dataUrl(want.image), detail: "auto" });
    const input = [{ role: "user", content }];
    if (want.result) {
      const [call, result] = want.result;
      input.push(
        { type: "function_call", call_id: "call_1", name: call.name, arguments: JSON.stringify(call.arguments) },
        { type: "function_call_output", call_id: "call_1", output: result },
      );
    }
    const request = { model: want.model ?? this.model, input, max_output_tokens: want.maxTokens ?? 400 };
    Object.assign(request, { temperature: 0, store: false });
    if (want.system) request.instructions = want.system;
    if (want.tools) {
      request.tools = want.tools.map(({ name, parameters }) => ({ type: "function", name, parameters, strict: false }));
    }
    if (want.forced) request.tool_choice = { type: "function", name: want.forced };
    if (want.schema) request.text = { format: this.library.textFormat(want.schema, "person") };
    if (want.thinks) request.reasoning = { effort: "high" };
    return request;
  }
}

// Beyond OpenAI's own API: the library passes on what it does not know.
function thoughts(part) {
  return part.reasoning_content ?? part.reasoning ?? "";
}

function dataUrl(image) {
  return `data:image/png;base64,${image.toString("base64")}`;
}

export const OPENAI = [V7, V6].flatMap((library) => [
  (place) => new Chat(library, "chat.completions", place),
  (place) => new Responses(library, "responses", place),
  (place) => new Completions(library, "completions", place),
]);
