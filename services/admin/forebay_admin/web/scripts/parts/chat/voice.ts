// Voice: what is said becomes text, what is written is read aloud, by models that a backend serves.

import { refusal } from "./answering";
import { mintKey, Refused } from "./calls";

export async function transcribe(gateway: string, model: string, sound: Blob): Promise<string> {
  const form = new FormData();
  form.append("model", model);
  form.append("file", sound, `speech.${sound.type.includes("ogg") ? "ogg" : sound.type.includes("mp4") ? "mp4" : "webm"}`);
  const response = await send(gateway, "transcriptions", model, form);
  const told = (await response.json()) as { text?: string };
  return told.text?.trim() ?? "";
}

export async function speak(gateway: string, model: string, text: string): Promise<HTMLAudioElement> {
  const response = await send(gateway, "speech", model, JSON.stringify({ model, input: text, voice: "alloy" }), "application/json");
  const address = URL.createObjectURL(await response.blob());
  const audio = new Audio(address);
  audio.addEventListener("ended", () => URL.revokeObjectURL(address));
  return audio;
}

/** Until `stop` is called. Raises where there is no microphone, or it may not be used. */
export async function record(): Promise<{ stop: () => Promise<Blob> }> {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const recorder = new MediaRecorder(stream);
  const pieces: Blob[] = [];
  recorder.addEventListener("dataavailable", ({ data }) => pieces.push(data));
  recorder.start();
  return {
    stop: () =>
      new Promise((resolve) => {
        recorder.addEventListener("stop", () => {
          for (const track of stream.getTracks()) track.stop();
          resolve(new Blob(pieces, { type: recorder.mimeType }));
        });
        recorder.stop();
      }),
  };
}

async function send(gateway: string, what: string, model: string, body: BodyInit, kind?: string): Promise<Response> {
  const headers: Record<string, string> = { authorization: `Bearer ${await mintKey(model)}` };
  if (kind !== undefined) headers["content-type"] = kind;
  const response = await fetch(`${gateway}/v1/audio/${what}`, { method: "POST", headers, body, credentials: "omit" });
  if (!response.ok) throw new Refused(refusal(response, await response.text()), response.status);
  return response;
}
