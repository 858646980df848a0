"""Folds the chunks of a streamed answer into the one that a client gets who did not ask for a stream.

For engines that notice a client's going only while they stream. Pure; nothing an engine said is dropped: texts are joined,
lists of log probabilities are joined, tool calls are put together by index, and of any other field the last value stands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

_JOINED_PIECES = "\0pieces"


def fold_chat(chunks: Iterable[dict[str, Any]], model: str, usage: dict[str, Any] | None) -> dict[str, Any]:
    """A `chat.completion` object from `chat.completion.chunk` objects, in the order in which they came."""
    answer: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for piece in _pieces(chunks, answer):
        index = piece.get("index", 0)
        choice = choices.setdefault(index, {"index": index, "message": {"role": "assistant", "content": None}})
        _add_choice(choice, piece)
    finished = [_finished(choices[index]) for index in sorted(choices)]
    return _whole(answer, "chat.completion", model, finished, usage)


def fold_completion(chunks: Iterable[dict[str, Any]], model: str, usage: dict[str, Any] | None) -> dict[str, Any]:
    """A `text_completion` object from pieces that are called so too, in the order in which they came."""
    answer: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for piece in _pieces(chunks, answer):
        index = piece.get("index", 0)
        choice = choices.setdefault(index, {"text": "", "index": index, "logprobs": None, "finish_reason": None})
        for name, value in piece.items():
            if name == "text" and isinstance(value, str):
                _append(choice, name, value)
            elif name == "logprobs":
                choice[name] = _joined_logprobs(choice.get(name), value)
            elif value is not None or name not in choice:
                choice[name] = value
    finished = [{name: _text_of(value) for name, value in choices[index].items()} for index in sorted(choices)]
    return _whole(answer, "text_completion", model, finished, usage)


def _pieces(chunks: Iterable[dict[str, Any]], answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Of all choices; what else the chunks say goes into the answer."""
    for chunk in chunks:
        answer.update({name: value for name, value in chunk.items() if name not in ("choices", "usage")})
        yield from chunk.get("choices") or ()


def _whole(
    answer: dict[str, Any], kind: str, model: str, choices: list[dict[str, Any]], usage: dict[str, Any] | None
) -> dict[str, Any]:
    whole = {**answer, "object": kind, "model": model, "choices": choices}
    return whole if usage is None else {**whole, "usage": usage}


def _add_choice(choice: dict[str, Any], piece: dict[str, Any]) -> None:
    for name, value in piece.items():
        if name == "delta":
            _add_delta(choice["message"], value or {})
        elif name == "logprobs":
            choice["logprobs"] = _joined_logprobs(choice.get("logprobs"), value)
        elif name != "index" and (value is not None or name not in choice):
            choice[name] = value


def _add_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            for call in value or ():
                _add_tool_call(message.setdefault("tool_calls", []), call)
        elif name == "function_call" and isinstance(value, dict):
            _join_texts(message.setdefault("function_call", {}), value, whole=("name",))
        elif isinstance(value, str) and name != "role":
            _append(message, name, value)
        elif value is not None or name not in message:
            message[name] = value


def _add_tool_call(calls: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    index = piece.get("index", len(calls))
    call = next((known for known in calls if known["index"] == index), None)
    if call is None:
        call = {"index": index}
        calls.append(call)
    for name, value in piece.items():
        if name == "function" and isinstance(value, dict):
            _join_texts(call.setdefault("function", {}), value, whole=("name",))
        elif name != "index" and value is not None:
            call[name] = value


def _join_texts(known: dict[str, Any], more: dict[str, Any], *, whole: tuple[str, ...]) -> None:
    for name, value in more.items():
        if isinstance(value, str) and name not in whole:
            _append(known, name, value)
        elif value:
            known[name] = value


def _append(known: dict[str, Any], name: str, text: str) -> None:
    # Pieces are joined once, at the end: adding up a long text piece by piece copies it each time.
    pieces = known.get(name)
    if not isinstance(pieces, list) or pieces[:1] != [_JOINED_PIECES]:
        pieces = known[name] = [_JOINED_PIECES]
    pieces.append(text)


def _joined_logprobs(known: Any, more: Any) -> Any:
    if not isinstance(known, dict) or not isinstance(more, dict):
        return more if more is not None else known
    joined = dict(known)
    for name, value in more.items():
        if isinstance(value, list) and isinstance(joined.get(name), list):
            joined[name] = [*joined[name], *value]
        elif value is not None:
            joined[name] = value
    return joined


def _finished(choice: dict[str, Any]) -> dict[str, Any]:
    message = {name: _text_of(value) for name, value in choice["message"].items()}
    for call in message.get("tool_calls") or ():
        call.pop("index", None)  # only chunks number their calls
        if isinstance(call.get("function"), dict):
            call["function"] = {name: _text_of(value) for name, value in call["function"].items()}
    if isinstance(message.get("function_call"), dict):
        message["function_call"] = {name: _text_of(value) for name, value in message["function_call"].items()}
    if message["content"] is None and not message.get("tool_calls") and not message.get("function_call"):
        message["content"] = ""
    return {**choice, "message": message, "finish_reason": choice.get("finish_reason")}


def _text_of(value: Any) -> Any:
    if isinstance(value, list) and value[:1] == [_JOINED_PIECES]:
        return "".join(value[1:])
    return value
