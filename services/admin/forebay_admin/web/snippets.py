"""What one pastes to use a key, ready-made for the usual programs. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection
from dataclasses import dataclass

PLACEHOLDER = "fb-…"
"""Stands for a key that is not shown."""
_ASKED = "Why is the sky blue?"


@dataclass(frozen=True, slots=True)
class Snippet:
    name: str
    title: str
    text: str


def snippets(gateway: str, key: str, model: str, can: Collection[str] = ()) -> tuple[Snippet, ...]:
    """`gateway`: without a slash at its end. `can`: the model's capabilities; none: it chats."""
    if "embedding" in can and not {"chat", "completion"} & set(can):
        return (_curl_embedding(gateway, key, model), _python_embedding(gateway, key, model))
    return (
        _curl(gateway, key, model),
        _python(gateway, key, model),
        _script(gateway, key, model),
        _ollama(gateway, key, model),
        _claude_code(gateway, key, model),
        _open_webui(gateway, key),
    )


def _curl(gateway: str, key: str, model: str) -> Snippet:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": _ASKED}]}, ensure_ascii=False)
    return Snippet(
        "curl",
        "curl",
        f"curl -s {shlex.quote(f'{gateway}/v1/chat/completions')} \\\n"
        f"  -H {shlex.quote(f'authorization: Bearer {key}')} \\\n"
        f"  -H 'content-type: application/json' \\\n"
        f"  -d {shlex.quote(body)}\n",
    )


def _python(gateway: str, key: str, model: str) -> Snippet:
    return Snippet(
        "python",
        "Python",
        "# pip install openai\n"
        "from openai import OpenAI\n\n"
        f"client = OpenAI(base_url={_text(f'{gateway}/v1')}, api_key={_text(key)})\n"
        "answer = client.chat.completions.create(\n"
        f"    model={_text(model)},\n"
        f'    messages=[{{"role": "user", "content": {_text(_ASKED)}}}],\n'
        ")\n"
        "print(answer.choices[0].message.content)\n",
    )


def _script(gateway: str, key: str, model: str) -> Snippet:
    return Snippet(
        "javascript",
        "JavaScript",
        "// npm install openai\n"
        'import OpenAI from "openai";\n\n'
        f"const client = new OpenAI({{ baseURL: {_text(f'{gateway}/v1')}, apiKey: {_text(key)} }});\n"
        "const answer = await client.chat.completions.create({\n"
        f"  model: {_text(model)},\n"
        f'  messages: [{{ role: "user", content: {_text(_ASKED)} }}],\n'
        "});\n"
        "console.log(answer.choices[0].message.content);\n",
    )


def _ollama(gateway: str, key: str, model: str) -> Snippet:
    """Its command line has no place for a key but the address."""
    return Snippet(
        "ollama", "ollama", f"OLLAMA_HOST={shlex.quote(f'{gateway}/k/{key}')} ollama run {shlex.quote(model)}\n"
    )


def _claude_code(gateway: str, key: str, model: str) -> Snippet:
    return Snippet(
        "claude-code",
        "Claude Code",
        f"export ANTHROPIC_BASE_URL={shlex.quote(gateway)}\n"
        f"export ANTHROPIC_AUTH_TOKEN={shlex.quote(key)}\n"
        f"export ANTHROPIC_MODEL={shlex.quote(model)}\n"
        f"export ANTHROPIC_SMALL_FAST_MODEL={shlex.quote(model)}\n"
        "claude\n",
    )


def _open_webui(gateway: str, key: str) -> Snippet:
    return Snippet(
        "open-webui",
        "Open WebUI",
        "docker run -d -p 3000:8080 -v open-webui:/app/backend/data \\\n"
        f"  -e OPENAI_API_BASE_URL={shlex.quote(f'{gateway}/v1')} \\\n"
        f"  -e OPENAI_API_KEY={shlex.quote(key)} \\\n"
        "  -e ENABLE_OLLAMA_API=false ghcr.io/open-webui/open-webui:main\n",
    )


def _curl_embedding(gateway: str, key: str, model: str) -> Snippet:
    body = json.dumps({"model": model, "input": [_ASKED]}, ensure_ascii=False)
    return Snippet(
        "curl",
        "curl",
        f"curl -s {shlex.quote(f'{gateway}/v1/embeddings')} \\\n"
        f"  -H {shlex.quote(f'authorization: Bearer {key}')} \\\n"
        f"  -H 'content-type: application/json' \\\n"
        f"  -d {shlex.quote(body)}\n",
    )


def _python_embedding(gateway: str, key: str, model: str) -> Snippet:
    return Snippet(
        "python",
        "Python",
        "# pip install openai\n"
        "from openai import OpenAI\n\n"
        f"client = OpenAI(base_url={_text(f'{gateway}/v1')}, api_key={_text(key)})\n"
        f"answer = client.embeddings.create(model={_text(model)}, input=[{_text(_ASKED)}])\n"
        "print(len(answer.data[0].embedding))\n",
    )


def _text(text: str) -> str:
    """As both Python and JavaScript read it."""
    return json.dumps(text, ensure_ascii=False)
