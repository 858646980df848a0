// The official `@anthropic-ai/sdk`: messages, and its own loop around tools, which is at the beta address.

import Anthropic from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";

import { Broke, NotInDialect, Refused, said } from "./wants.mjs";

const FINISHES = { end_turn: "stop", stop_sequence: "stop", max_tokens: "length", tool_use: "tools" };

class Messages {
  name = "anthropic: messages";

  constructor({ url, key, model }) {
    this.client = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });
    this.model = model;
  }

  ask(want, stream) {
    return named(async () => {
      const request = this.request(want);
      const { messages } = this.client;
      if (!stream) return told(await (want.schema ? messages.parse(request) : messages.create(request)), 1);
      return streamed(messages.stream(request));
    });
  }

  run(want, stream) {
    return named(async () => {
      const tools = want.tools.map(({ name, parameters, run }) =>
        betaTool({ name, inputSchema: parameters, description: name, run }),
      );
      const runner = this.client.beta.messages.toolRunner({ ...this.request({ ...want, tools: undefined }), tools, stream });
      let last;
      for await (const turn of runner) last = stream ? await streamed(turn) : told(turn, 1);
      return last;
    });
  }

  async embed() {
    throw new NotInDialect();
  }

  request(want) {
    const content = [{ type: "text", text: want.text }];
    if (want.image) {
      const source = { type: "base64", media_type: "image/png", data: want.image.toString("base64") };
      content.push({ type: "image", source });
    }
    const messages = [{ role: "user", content }];
    if (want.result) {
      const [call, result] = want.result;
      messages.push(
        { role: "assistant", content: [{ type: "tool_use", id: "toolu_1", name: call.name, input: call.arguments }] },
        { role: "user", content: [{ type: "tool_result", tool_use_id: "toolu_1", content: result }] },
      );
    }
    const request = { model: want.model ?? this.model, messages, max_tokens: want.maxTokens ?? 400 };
    if (want.system) request.system = want.system;
    if (want.tools) request.tools = want.tools.map(({ name, parameters }) => ({ name, input_schema: parameters }));
    if (want.forced) request.tool_choice = { type: "tool", name: want.forced };
    if (want.schema) request.output_config = { format: zodOutputFormat(want.schema) };
    if (want.thinks) Object.assign(request, { thinking: { type: "enabled", budget_tokens: 1024 }, max_tokens: 2048 });
    if (want.stop) request.stop_sequences = [want.stop];
    return request;
  }
}

async function streamed(stream) {
  let pieces = 0;
  stream.on("text", () => pieces++);
  return told(await stream.finalMessage(), pieces);
}

function told(message, pieces) {
  const { usage } = message;
  const heard = said({ pieces, finish: FINISHES[message.stop_reason], parsed: message.parsed_output ?? undefined });
  for (const block of message.content) {
    if (block.type === "text") heard.text += block.text;
    if (block.type === "thinking") heard.reasoning += block.thinking;
    if (block.type === "tool_use") heard.calls.push({ id: block.id, name: block.name, arguments: block.input });
  }
  heard.promptTokens = usage.input_tokens + (usage.cache_read_input_tokens ?? 0);
  heard.completionTokens = usage.output_tokens;
  return heard;
}

async function named(work) {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Anthropic.APIError)) throw error;
    if (error.status === undefined) throw new Broke(error.message, { cause: error });
    throw new Refused(error.status, error.message, error);
  }
}

export const ANTHROPIC = [(place) => new Messages(place)];
