// What was written and not sent, kept by the browser until it is, and for nobody else who signs in there.

const DRAFTS = "forebay-draft:";

/** Where the draft of a conversation is kept, and of one that has no id yet. Those of other people are forgotten. */
export function draftOf(id: string): string {
  const own = `${DRAFTS}${document.querySelector(".bar-who")?.textContent ?? ""}:`;
  forgetDrafts((name) => !name.startsWith(own));
  return own + (id || "new");
}

export function forgetDrafts(which: (name: string) => boolean = () => true): void {
  try {
    for (const name of Object.keys(localStorage)) if (name.startsWith(DRAFTS) && which(name)) localStorage.removeItem(name);
  } catch {
    // A browser that keeps nothing has nothing to forget.
  }
}
