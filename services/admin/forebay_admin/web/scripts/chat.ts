// The chat: asks models through a gateway, from here, and keeps what was said on the pages' server.

import { ask, type Answer } from "./parts/chat/answering";
import { asCommand, BadSetting, estimate, requestOf } from "./parts/chat/asked";
import * as calls from "./parts/chat/calls";
import { Composer, type Picked } from "./parts/chat/composer";
import { button, byId, made } from "./parts/chat/made";
import { Panel } from "./parts/chat/panel";
import { Thread } from "./parts/chat/thread";
import { apart } from "./parts/chat/thoughts";
import { Tree } from "./parts/chat/tree";
import { filesOf, newId, textOf, type Conversation, type FilePart, type Message, type Model, type Part, type Settings, type Source } from "./parts/chat/types";
import { record, speak, transcribe } from "./parts/chat/voice";

const SAID_ALOUD = 300;
const LAST_MODEL = "forebay-chat-model";

class Chat {
  readonly #root = byId("chat", HTMLElement);
  readonly #gateway = (this.#root.dataset["gateway"] ?? "").replace(/\/+$/, "");
  readonly #isPlayground = this.#root.dataset["playground"] === "yes";
  readonly #model = byId("chat-model", HTMLSelectElement);
  readonly #second = byId("chat-second", HTMLSelectElement);
  readonly #beside = byId("chat-beside", HTMLButtonElement);
  readonly #stop = byId("chat-stop", HTMLButtonElement);
  readonly #send = byId("chat-send", HTMLButtonElement);
  readonly #notice = byId("chat-notice", HTMLElement);
  readonly #said = byId("chat-said", HTMLElement);
  /** Not there where no search server is configured. */
  readonly #web = document.getElementById("chat-web");
  readonly #contents = new Map<string, string>();
  readonly #composer: Composer;
  readonly #panel: Panel;
  readonly #thread: Thread;
  readonly #answering = new Map<string, Message>();
  #conversation: Conversation | null;
  #tree: Tree;
  #leaf: string | undefined;
  #models: Model[] = [];
  #under: AbortController | null = null;

  constructor(conversation: Conversation | null) {
    this.#conversation = conversation;
    this.#tree = new Tree(conversation?.messages ?? []);
    const chosen = this.#tree.get(conversation?.settings.leaf);
    // What was said since it was chosen is read, too: a page that was closed meanwhile could not say so.
    this.#leaf = chosen === undefined ? undefined : this.#tree.endBelow(chosen.id);
    const { markdown = "", highlighting = "", maths = "" } = this.#root.dataset;
    this.#thread = new Thread(
      byId("thread", HTMLOListElement),
      {
        edit: (message, text) => void this.#edit(message, text),
        answerAgain: (message) => void this.#answerAgain(message),
        readBranch: (message) => this.#readBranch(message),
        readAloud: (message) => void this.#readAloud(message),
        address: (file) => calls.fileAddress(this.#conversation?.id ?? "", file.digest),
        canReadAloud: () => this.#able("speech") !== undefined,
        canExplain: () => this.#root.dataset["explains"] === "yes",
        isBusy: () => this.#under !== null,
      },
      { markdown, highlighting, maths },
    );
    this.#composer = new Composer(conversation?.id ?? "", () => void this.#submit(), (why) => this.#tell(why));
    this.#panel = new Panel(conversation?.settings ?? {}, () => this.#keepSettings());
    this.#stop.addEventListener("click", () => this.#under?.abort());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#under !== null && document.querySelector("dialog[open]") === null) this.#under.abort();
    });
    addEventListener("pagehide", () => this.#part());
    this.#beside.addEventListener("click", () => {
      this.#second.hidden = !this.#second.hidden;
      this.#beside.setAttribute("aria-pressed", String(!this.#second.hidden));
      this.#keepSettings();
    });
    this.#web?.setAttribute("aria-pressed", String(conversation?.settings.web === "yes"));
    this.#web?.addEventListener("click", () => {
      this.#web?.setAttribute("aria-pressed", String(!this.#searches()));
      this.#keepSettings();
    });
    for (const select of [this.#model, this.#second]) {
      select.addEventListener("change", () => {
        this.#showAble();
        this.#keepSettings();
      });
    }
    this.#showActions();
  }

  async open(): Promise<void> {
    this.#show();
    try {
      this.#models = await calls.listModels();
    } catch (error) {
      this.#tell(`Which models there are is not known at the moment. ${words(error)}`);
    }
    const settings = this.#conversation?.settings ?? {};
    const talking = this.#models.filter(({ talks }) => talks);
    const wanted = settings.model ?? recall();
    fill(this.#model, talking, wanted);
    fill(this.#second, talking, settings.second ?? talking.find(({ name }) => name !== this.#model.value)?.name ?? "");
    this.#second.hidden = settings.second === undefined;
    this.#beside.setAttribute("aria-pressed", String(!this.#second.hidden));
    this.#beside.disabled = talking.length === 0;
    if (this.#models.length > 0 && talking.length === 0) this.#tell("No model here answers in a chat.");
    if (this.#models.length === 0 && this.#notice.childElementCount === 0) this.#tell("There is no model yet that your key may use.");
    this.#showAble();
    this.#openVoice();
    this.#show(); // now that it is known what can be read aloud
    this.#composer.text.focus({ preventScroll: true });
    this.#scroll();
  }

  // --- asking ---

  async #submit(): Promise<void> {
    const text = this.#composer.text.value.trim();
    const files = this.#composer.files;
    if (this.#under !== null || (text === "" && files.length === 0)) return;
    if (!this.#demandSuited(files)) return;
    this.#clearNotice();
    const under = this.#begin();
    this.#composer.clear();
    try {
      const conversation = await this.#begun();
      const parts: Part[] = await this.#upload(conversation, files);
      if (text) parts.push({ type: "text", text });
      const parent = this.#tree.branch(this.#leaf).at(-1)?.id ?? null;
      const question = this.#message("user", parent, { parts });
      await this.#sendQuestion(question, under);
    } catch (error) {
      this.#composer.putBack(text, files);
      this.#tell(words(error));
    } finally {
      this.#end();
    }
  }

  async #edit(before: Message, text: string): Promise<void> {
    const files = filesOf(before.content);
    if (this.#under !== null || (text.trim() === "" && files.length === 0)) return;
    this.#clearNotice();
    const under = this.#begin();
    try {
      const parts: Part[] = [...files, ...(text.trim() ? [{ type: "text", text: text.trim() } as const] : [])];
      await this.#sendQuestion(this.#message("user", before.parent_id, { parts }), under);
    } catch (error) {
      this.#tell(words(error));
    } finally {
      this.#end();
    }
  }

  async #answerAgain(before: Message): Promise<void> {
    const question = this.#tree.get(before.parent_id ?? undefined);
    if (this.#under !== null || question === undefined) return;
    this.#clearNotice();
    const under = this.#begin();
    try {
      await this.#answer(question, under);
    } catch (error) {
      this.#tell(words(error));
    } finally {
      this.#end();
    }
  }

  /** The question is kept before it is asked; raises when either is refused. */
  async #sendQuestion(question: Message, under: AbortController): Promise<void> {
    const conversation = await this.#begun();
    const branch = [...this.#tree.branch(question.parent_id ?? undefined), question];
    if (question.parent_id === null) branch.splice(0, branch.length, question);
    await this.#readContents(conversation, branch);
    for (const model of this.#asked()) this.#demandFits(model, requestOf(model, branch, this.#panel.read(), this.#contents));
    await calls.keep(conversation.id, question);
    this.#tree.put(question);
    this.#leaf = question.id;
    if (conversation.messages.length === 0 && this.#tree.branch(question.id).length === 1) void this.#learnTitle();
    await this.#answer(question, under);
  }

  async #answer(question: Message, under: AbortController): Promise<void> {
    const conversation = await this.#begun();
    const branch = this.#tree.branch(question.id);
    await this.#readContents(conversation, branch);
    const models = this.#asked();
    if (models.length === 0) throw new BadSetting("Choose a model first.");
    const sources = this.#searches() ? await this.#search(textOf(question.content), under.signal) : [];
    const requestsWith = () => models.map((model) => requestOf(model, branch, this.#panel.read(), this.#contents, sources));
    let requests = requestsWith();
    while (sources.length > 0 && !requests.every((body, at) => this.#fits(models[at] ?? "", body))) {
      sources.pop();
      requests = requestsWith();
    }
    const answers = models.map((model) => this.#message("assistant", question.id, { parts: [] }, model));
    const [left, right] = answers;
    if (left !== undefined && right !== undefined) {
      left.told = { beside: right.id, side: "left" };
      right.told = { beside: left.id, side: "right" };
    }
    for (const answer of answers) {
      if (sources.length > 0) answer.told.sources = sources;
      this.#tree.put(answer);
      this.#answering.set(answer.id, answer);
    }
    this.#leaf = left?.id;
    this.#show();
    this.#scroll();
    for (const answer of answers) this.#thread.renew(answer, false);
    this.#said.textContent = models.length > 1 ? "Two models answer." : "The model answers.";
    await Promise.all(answers.map((answer, at) => this.#stream(conversation, answer, requests[at] ?? {}, under.signal, at === 0)));
    this.#keepSettings();
    this.#show();
    const aloud = answers.map((answer) => `${answer.model}: ${answer.told.error ?? apart(textOf(answer.content), "").text.slice(0, SAID_ALOUD)}`);
    this.#said.textContent = aloud.join(" ");
  }

  /** Nothing, and why, where it cannot be searched: the model is asked all the same. */
  async #search(text: string, signal: AbortSignal): Promise<Source[]> {
    if (text.trim() === "" || this.#web === null) return [];
    const usual = this.#web.textContent;
    this.#said.textContent = "The web is searched.";
    this.#web.textContent = "Searching …";
    this.#show();
    this.#scroll();
    try {
      const found = await calls.search(text, signal);
      if (found.length === 0) this.#tell("Nothing was found in the web; the model answers without.");
      return found;
    } catch (error) {
      if (!signal.aborted) this.#tell(`The web was not searched, and the model answers without. ${words(error)}`);
      return [];
    } finally {
      this.#web.textContent = usual;
    }
  }

  #searches(): boolean {
    return this.#web?.getAttribute("aria-pressed") === "true";
  }

  async #stream(conversation: Conversation, answer: Message, body: Record<string, unknown>, signal: AbortSignal, isFirst: boolean): Promise<void> {
    const beside = answer.told;
    const raw = this.#isPlayground && isFirst ? this.#showRaw(body) : undefined;
    const take = (soFar: Answer) => {
      answer.content = contentOf(soFar);
      answer.told = { ...soFar.told, ...beside };
    };
    const asking = {
      gateway: this.#gateway,
      model: answer.model,
      body,
      signal,
      onMore: (soFar: Answer) => {
        const isNear = this.#isNearEnd();
        take(soFar);
        this.#thread.renew(answer, false);
        if (isNear) this.#scroll();
      },
      ...(raw === undefined ? {} : { onRaw: raw }),
    };
    take(await ask(asking));
    this.#answering.delete(answer.id);
    this.#thread.renew(answer, true);
    try {
      await calls.keep(conversation.id, answer);
    } catch (error) {
      this.#tell(`The answer is not kept: ${words(error)}`);
    }
  }

  /** The page is being left: what came so far is kept. */
  #part(): void {
    const conversation = this.#conversation;
    if (conversation === null) return;
    for (const answer of this.#answering.values()) {
      answer.told = { ...answer.told, stopped: true };
      void calls.keep(conversation.id, answer, true).catch(() => undefined);
    }
    this.#under?.abort();
  }

  #message(role: "user" | "assistant", parent: string | null, content: Message["content"], model = ""): Message {
    return { id: newId(), parent_id: parent, role, content, model, told: {}, created_at: new Date().toISOString() };
  }

  async #begun(): Promise<Conversation> {
    if (this.#conversation !== null) return this.#conversation;
    const begun = await calls.begin(this.#settings());
    this.#conversation = { ...begun, messages: [] };
    this.#composer.belongTo(begun.id);
    if (!this.#isPlayground) history.replaceState(null, "", `/chat/${begun.id}`);
    this.#showActions();
    return this.#conversation;
  }

  async #learnTitle(): Promise<void> {
    const conversation = this.#conversation;
    if (conversation === null) return;
    const { title } = await calls.read(conversation.id);
    conversation.title = title;
    this.#showTitle();
  }

  async #upload(conversation: Conversation, files: readonly Picked[]): Promise<Part[]> {
    const parts: FilePart[] = [];
    for (const { file, kind, isPicture } of files) {
      const made = await calls.attach(conversation.id, file, kind);
      this.#contents.set(made.digest, isPicture ? await dataAddress(file) : await file.text());
      parts.push({ type: isPicture ? "image" : "file", digest: made.digest, name: file.name.slice(0, 300), kind: made.kind, bytes: made.bytes });
    }
    return parts;
  }

  async #readContents(conversation: Conversation, branch: Message[]): Promise<void> {
    const wanted = branch.flatMap((message) => filesOf(message.content)).filter(({ digest }) => !this.#contents.has(digest));
    for (const { type, digest } of wanted) {
      const blob = await calls.fileOf(conversation.id, digest);
      this.#contents.set(digest, type === "image" ? await dataAddress(blob) : await blob.text());
    }
  }

  #demandSuited(files: readonly Picked[]): boolean {
    const blind = this.#asked().find((name) => !this.#can(name, "vision"));
    if (files.some(({ isPicture }) => isPicture) && blind !== undefined) {
      this.#tell(`${blind} sees no pictures. Take a model with vision, or leave the pictures out.`);
      return false;
    }
    if (this.#asked().length === 0) {
      this.#tell("Choose a model first.");
      return false;
    }
    return true;
  }

  #fits(name: string, body: Record<string, unknown>): boolean {
    const context = this.#models.find((model) => model.name === name)?.context_length;
    return !context || estimate(body) <= context;
  }

  #demandFits(name: string, body: Record<string, unknown>): void {
    const context = this.#models.find((model) => model.name === name)?.context_length;
    const tokens = estimate(body);
    if (context && !this.#fits(name, body)) {
      throw new BadSetting(
        `This has about ${tokens.toLocaleString("en")} tokens, and ${name} reads ${context.toLocaleString("en")} at most. ` +
          "Leave out a file or a part of it, begin another conversation, or take a model with a longer context.",
      );
    }
  }

  #asked(): string[] {
    const names = [this.#model.value, this.#second.hidden ? "" : this.#second.value];
    return names.filter(Boolean);
  }

  #begin(): AbortController {
    this.#under = new AbortController();
    this.#stop.hidden = false;
    this.#send.hidden = true;
    return this.#under;
  }

  #end(): void {
    this.#under = null;
    this.#stop.hidden = true;
    this.#send.hidden = false;
  }

  // --- showing ---

  #show(): void {
    this.#thread.show(this.#tree, this.#tree.branch(this.#leaf));
  }

  #readBranch(message: Message): void {
    if (this.#under !== null) return;
    this.#leaf = this.#tree.endBelow(message.id);
    this.#show();
    this.#keepSettings();
  }

  #showTitle(): void {
    const conversation = this.#conversation;
    if (conversation === null) return;
    if (!this.#isPlayground) {
      byId("chat-title", HTMLElement).textContent = conversation.title;
      document.title = `${conversation.title} · Forebay`;
    }
    const list = byId("chat-entries", HTMLUListElement);
    let link = list.querySelector<HTMLAnchorElement>(`a[data-id="${CSS.escape(conversation.id)}"]`);
    if (link === null) {
      link = made("a", { href: `/chat/${conversation.id}` });
      link.dataset["id"] = conversation.id;
      for (const other of list.querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
      link.setAttribute("aria-current", "page");
      list.prepend(made("li", {}, link));
      document.getElementById("chat-none")?.remove();
    }
    link.textContent = link.title = conversation.title;
  }

  #showActions(): void {
    const conversation = this.#conversation;
    const actions = byId("chat-actions", HTMLElement);
    if (conversation === null || !actions.hidden && actions.dataset["ready"] === "yes") return;
    actions.hidden = false;
    actions.dataset["ready"] = "yes";
    for (const link of actions.querySelectorAll<HTMLAnchorElement>("a[data-save]")) {
      link.href = `/chat/${conversation.id}/export?as=${link.dataset["save"] ?? "json"}`;
    }
    const form = actions.querySelector("form");
    if (form !== null) form.action = `/chat/${conversation.id}/delete`;
    const fold = actions.querySelector("details");
    byId("chat-rename", HTMLButtonElement).addEventListener("click", () => {
      if (fold !== null) fold.open = false;
      this.#rename();
    });
    byId("chat-share", HTMLButtonElement).addEventListener("click", () => {
      if (fold !== null) fold.open = false;
      void this.#share();
    });
  }

  #rename(): void {
    const conversation = this.#conversation;
    if (conversation === null) return;
    const title = byId("chat-title", HTMLElement);
    const input = made("input", { className: "input", label: "Title of the conversation" });
    input.value = conversation.title;
    input.maxLength = 200;
    const form = made("form", { className: "row" }, input);
    const done = () => form.replaceWith(title);
    const save = made("button", { className: "button is-primary is-small", text: "Rename" });
    save.type = "submit";
    form.append(save, button("Cancel", done, { className: "button is-small" }));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      calls.change(conversation.id, { title: input.value }).then(
        (after) => {
          conversation.title = after.title;
          done();
          this.#showTitle();
        },
        (error: unknown) => this.#tell(words(error)),
      );
    });
    title.replaceWith(form);
    input.select();
  }

  async #share(): Promise<void> {
    const conversation = this.#conversation;
    if (conversation === null) return;
    try {
      const { url } = await calls.share(conversation.id);
      const copy = made("button", { className: "copy", text: "Copy", label: "Copy the link" });
      copy.dataset["copy"] = url;
      const end = button("End sharing", () => {
        calls.unshare(conversation.id).then(
          () => this.#tell("It is no longer shared.", "good"),
          (error: unknown) => this.#tell(words(error)),
        );
      }, { className: "button is-small" });
      this.#tell("Whoever is signed in here can read this conversation under this link, as it is then:", "good", made("code", { text: url }), copy, end);
    } catch (error) {
      this.#tell(words(error));
    }
  }

  #showAble(): void {
    const model = this.#models.find(({ name }) => name === this.#model.value);
    const able = byId("chat-able", HTMLElement);
    able.replaceChildren();
    if (model === undefined) return;
    const facts = [...model.capabilities.filter((word) => word !== "completion" && word !== "chat")];
    if (model.context_length !== null) facts.push(`${model.context_length.toLocaleString("en")} tokens of context`);
    if (!model.is_well) facts.push("no backend has it at the moment");
    able.textContent = [model.name, ...facts].join(" · ");
    remember(model.name);
  }

  #showRaw(body: Record<string, unknown>): (piece: string) => void {
    byId("raw-command", HTMLElement).textContent = asCommand(this.#gateway, body);
    byId("raw-copy", HTMLElement).dataset["copy"] = asCommand(this.#gateway, body);
    byId("raw-request", HTMLElement).textContent = JSON.stringify(body, null, 2);
    const place = byId("raw-response", HTMLElement);
    place.textContent = "";
    return (piece) => place.append(`${piece}\n`);
  }

  #tell(text: string, tone: "bad" | "good" = "bad", ...more: Node[]): void {
    const inside = made("div", { className: "stack-tight" }, made("div", { className: `tone is-${tone}`, text: tone === "bad" ? "Not done" : "Done" }), made("div", { text }));
    if (more.length > 0) inside.append(made("div", { className: "row" }, ...more));
    this.#notice.replaceChildren(made("div", { className: `notice is-${tone}` }, inside, button("Close", () => this.#clearNotice())));
  }

  #clearNotice(): void {
    this.#notice.replaceChildren();
  }

  #isNearEnd(): boolean {
    return innerHeight + scrollY >= document.documentElement.scrollHeight - 160;
  }

  #scroll(): void {
    scrollTo({ top: document.documentElement.scrollHeight });
  }

  // --- keeping ---

  #settings(): Settings {
    const settings: Settings = this.#panel.read();
    if (this.#model.value) settings.model = this.#model.value;
    if (!this.#second.hidden && this.#second.value) settings.second = this.#second.value;
    if (this.#leaf !== undefined) settings.leaf = this.#leaf;
    if (this.#searches()) settings.web = "yes";
    return settings;
  }

  #keepSettings(): void {
    const conversation = this.#conversation;
    if (conversation === null) return;
    calls.change(conversation.id, { settings: this.#settings() }).catch((error: unknown) => this.#tell(`The settings are not kept: ${words(error)}`));
  }

  // --- voice ---

  #openVoice(): void {
    const model = this.#able("transcription");
    const speak = byId("chat-speak", HTMLButtonElement);
    if (model === undefined || !("MediaRecorder" in window) || navigator.mediaDevices === undefined) return;
    speak.hidden = false;
    let running: Awaited<ReturnType<typeof record>> | null = null;
    speak.addEventListener("click", () => {
      void (async () => {
        try {
          if (running === null) {
            running = await record();
            speak.textContent = "End dictation";
            return;
          }
          const sound = await running.stop();
          running = null;
          speak.textContent = "Dictate";
          const text = await transcribe(this.#gateway, model.name, sound);
          this.#composer.text.value = [this.#composer.text.value, text].filter(Boolean).join(" ");
          this.#composer.text.dispatchEvent(new Event("input"));
          this.#composer.text.focus();
        } catch (error) {
          running = null;
          speak.textContent = "Dictate";
          this.#tell(error instanceof DOMException ? "The browser did not let the microphone be used." : words(error));
        }
      })();
    });
  }

  async #readAloud(message: Message): Promise<void> {
    const model = this.#able("speech");
    if (model === undefined) return;
    try {
      const audio = await speak(this.#gateway, model.name, apart(textOf(message.content), "").text);
      await audio.play();
    } catch (error) {
      this.#tell(words(error));
    }
  }

  #able(word: string): Model | undefined {
    return this.#models.find(({ capabilities, is_well }) => is_well && capabilities.includes(word));
  }

  #can(name: string, word: string): boolean {
    return this.#models.some((model) => model.name === name && model.capabilities.includes(word));
  }
}

function contentOf(answer: Answer): Message["content"] {
  const { text, reasoning } = apart(answer.text, answer.reasoning);
  const content: Message["content"] = { parts: text ? [{ type: "text", text: plain(text) }] : [] };
  if (reasoning) content.reasoning = plain(reasoning);
  if (answer.toolCalls.length > 0) content.tool_calls = answer.toolCalls.map((call) => ({ ...call, function: { ...call.function } }));
  return content;
}

/** No server keeps a NUL, or half of a character. */
function plain(text: string): string {
  return text.replaceAll("\0", "").replace(/[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g, "\uFFFD");
}

function fill(select: HTMLSelectElement, models: Model[], wanted: string): void {
  select.replaceChildren(
    ...models.map((model) => {
      const words = [model.name, ...(model.capabilities.includes("vision") ? ["sees"] : []), ...(model.capabilities.includes("thinking") ? ["thinks"] : []), ...(model.is_well ? [] : ["away"])];
      const option = new Option(words.length > 1 ? `${words[0]} (${words.slice(1).join(", ")})` : model.name, model.name);
      option.disabled = !model.is_well;
      return option;
    }),
  );
  const first = models.find(({ is_well }) => is_well)?.name ?? "";
  select.value = models.some(({ name, is_well }) => name === wanted && is_well) ? wanted : first;
}

function dataAddress(file: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(String(reader.result)));
    reader.addEventListener("error", () => reject(new BadSetting("A picture cannot be read.")));
    reader.readAsDataURL(file);
  });
}

function words(error: unknown): string {
  if (error instanceof calls.Refused || error instanceof BadSetting) return error.message;
  console.error(error);
  return "Something went wrong on this page: load it again.";
}

function recall(): string {
  try {
    return localStorage.getItem(LAST_MODEL) ?? "";
  } catch {
    return "";
  }
}

function remember(name: string): void {
  try {
    localStorage.setItem(LAST_MODEL, name);
  } catch {
    // It is chosen again, then.
  }
}

document.documentElement.classList.add("is-scripted");
const id = byId("chat", HTMLElement).dataset["id"] ?? "";
// On a phone, the list would stand above what one came for.
if (matchMedia("(max-width: 56rem)").matches) byId("chat-list", HTMLDetailsElement).open = false;
openChat(id).catch((error: unknown) => {
  const notice = document.getElementById("chat-notice");
  if (notice !== null) notice.textContent = words(error);
});

async function openChat(id: string): Promise<void> {
  await new Chat(id ? await calls.read(id) : null).open();
}
