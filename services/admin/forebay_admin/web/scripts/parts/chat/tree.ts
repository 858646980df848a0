// A conversation's messages as the tree that they are.

import type { Message } from "./types";

export class Tree {
  readonly #messages = new Map<string, Message>();

  constructor(messages: Message[] = []) {
    for (const message of messages) this.#messages.set(message.id, message);
  }

  get(id: string | undefined): Message | undefined {
    return id === undefined ? undefined : this.#messages.get(id);
  }

  put(message: Message): void {
    this.#messages.set(message.id, message);
  }

  /** In the order in which they were said. */
  children(parent: string | null): Message[] {
    return [...this.#messages.values()].filter((message) => message.parent_id === parent);
  }

  siblings(message: Message): Message[] {
    return this.children(message.parent_id).filter((one) => one.role === message.role);
  }

  /** From the first message to the one named, or to the end that was said last. */
  branch(leaf: string | undefined): Message[] {
    const found: Message[] = [];
    const seen = new Set<string>();
    let at = this.get(leaf) ?? this.#last();
    while (at !== undefined && !seen.has(at.id)) {
      seen.add(at.id);
      found.unshift(at);
      at = this.get(at.parent_id ?? undefined);
    }
    return found;
  }

  /** The end that was said last, below that message. */
  endBelow(id: string): string {
    let at = id;
    for (;;) {
      const below = this.children(at).at(-1);
      if (below === undefined || below.id === id) return at;
      at = below.id;
    }
  }

  #last(): Message | undefined {
    const parents = new Set([...this.#messages.values()].map((message) => message.parent_id));
    return [...this.#messages.values()].filter(({ id }) => !parents.has(id)).at(-1);
  }
}
