// Vercel's `ai`, of two majors, with its provider for any OpenAI-compatible server. Its agents are `ToolLoopAgent`.

import * as ai7 from "ai";
import { createOpenAICompatible as provider7 } from "@ai-sdk/openai-compatible";
import * as ai6 from "ai-6";
import { createOpenAICompatible as provider6 } from "openai-compatible-2";

import { Broke, Refused, said } from "./wants.mjs";

const V7 = { ai: ai7, provider: provider7, name: "ai 7: openai-compatible", instructions: "instructions" };
const V6 = { ai: ai6, provider: provider6, name: "ai 6: openai-compatible", instructions: "system" };
const FINISHES = { stop: "stop", length: "length", "tool-calls": "tools" };

class AiSdk {
  constructor(library, { url, key, model }) {
    this.name = library.name;
    this.library = library;
    this.ai = library.ai;
    this.model = model;
    this.provider = library.provider({
      name: "forebay", baseURL: `${url}/v1`, apiKey: key, includeUsage: true, supportsStructuredOutputs: true,
    });
  }

  ask(want, stream) {
    const request = this.request(want);
    return this.named(async () => {
      if (stream) return this.streamed(this.ai.streamText({ ...request, onError: () => {} }), want);
      return this.told(await this.ai.generateText(request), 1, want);
    });
  }

  run(want, stream) {
    return this.named(async () => {
      const { model, tools, maxRetries } = this.request(want);
      const agent = new this.ai.ToolLoopAgent({ model, tools, maxRetries, stopWhen: this.ai.stepCountIs(4) });
      if (stream) return this.streamed(await agent.stream({ prompt: want.text }), want);
      return this.told(await agent.generate({ prompt: want.text }), 1, want);
    });
  }

  async embed(values) {
    const model = this.provider.embeddingModel(this.model);
    return (await this.named(() => this.ai.embedMany({ model, values, maxRetries: 0 }))).embeddings;
  }

  async streamed(result, want) {
    let pieces = 0;
    let began = false;
    for await (const part of result.fullStream) {
      if (part.type === "error") throw began ? broke(part.error) : part.error;
      began ||= part.type.endsWith("-delta");
      pieces += part.type === "text-delta";
    }
    return this.told(result, pieces, want);
  }

  // Of a streamed result each of these is a promise.
  async told(result, pieces, want) {
    const usage = await result.usage;
    const calls = await result.toolCalls;
    return said({
      text: await result.text,
      reasoning: (await result.reasoningText) ?? "",
      calls: calls.map((call) => ({ id: call.toolCallId, name: call.toolName, arguments: call.input })),
      finish: FINISHES[await result.finishReason],
      promptTokens: usage.inputTokens,
      completionTokens: usage.outputTokens,
      pieces,
      parsed: want.schema ? await result.output : undefined,
    });
  }

  request(want) {
    const content = [{ type: "text", text: want.text }];
    if (want.image) content.push({ type: "file", data: want.image, mediaType: "image/png" });
    const messages = [{ role: "user", content }];
    if (want.result) {
      const [{ name: toolName, arguments: input }, value] = want.result;
      const toolCallId = "call_1";
      messages.push(
        { role: "assistant", content: [{ type: "tool-call", toolCallId, toolName, input }] },
        { role: "tool", content: [{ type: "tool-result", toolCallId, toolName, output: { type: "text", value } }] },
      );
    }
    const request = {
      model: this.provider(want.model ?? this.model),
      messages,
      maxOutputTokens: want.maxTokens ?? 400,
      temperature: 0,
      maxRetries: 0,
    };
    if (want.system) request[this.library.instructions] = want.system;
    if (want.tools) {
      request.tools = Object.fromEntries(
        want.tools.map(({ name, parameters, run }) => [
          name, this.ai.tool({ inputSchema: this.ai.jsonSchema(parameters), ...(run && { execute: run }) }),
        ]),
      );
    }
    if (want.forced) request.toolChoice = { type: "tool", toolName: want.forced };
    if (want.schema) request.output = this.ai.Output.object({ schema: want.schema });
    if (want.thinks) request.providerOptions = { forebay: { reasoningEffort: "high" } };
    if (want.stop) request.stopSequences = [want.stop];
    return request;
  }

  async named(work) {
    try {
      return await work();
    } catch (error) {
      if (!this.ai.APICallError.isInstance(error)) throw error;
      throw new Refused(error.statusCode, error.message, error);
    }
  }
}

function broke(error) {
  return new Broke(error?.message ?? String(error), { cause: error });
}

export const AI = [(place) => new AiSdk(V7, place), (place) => new AiSdk(V6, place)];
