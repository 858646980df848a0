"""Documents in the order in which they answer a query (`rerank`, in Jina's and in Cohere's form), and pairs of texts and how
alike they are (`score`, vLLM's). An engine reads them as one batch, so each takes one slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from forebay_gateway.asked import Asked
from forebay_gateway.canonical.fields import count_in, flag_in, model_in, parse_object, texts_in, wrong_type
from forebay_gateway.canonical.forms import RERANK, SCORE
from forebay_gateway.refused import BadField

MOST_DOCUMENTS = 2048
_NEARLY_NONE = 1  # tokens that it makes: without a number the scheduler would expect an answer as long as usual

Json = dict[str, Any]


def parse_rerank(raw: bytes) -> Asked:
    """Jina's, which is also vLLM's and llama.cpp's. Raises BadField."""
    return _rerank(raw, is_cohere=False)


def parse_cohere_rerank(raw: bytes) -> Asked:
    """Cohere's, version 2. Raises BadField."""
    return _rerank(raw, is_cohere=True)


def parse_score(raw: bytes) -> Asked:
    """Raises BadField."""
    body = parse_object(raw, "`model`, `text_1` and `text_2`")
    model = model_in(body)
    first = texts_in(body, "text_1", "send a text, or a list of texts")
    second = texts_in(body, "text_2", "send a text, or a list of texts")
    if first not in (1, second):
        raise BadField(
            f"`text_1` has {first} texts and `text_2` has {second}: send one text first, or as many as `text_2` has.",
            param="text_1",
            code="invalid_value",
        )
    return Asked(SCORE, model, False, 1, second, 1, _NEARLY_NONE, False, body, raw)


@dataclass(frozen=True, slots=True)
class RerankTranslation:
    """Engines sort, cut and repeat documents each in its own way; the client gets what it asked for."""

    documents: list[str]
    top_n: int
    returns_documents: bool
    is_cohere: bool

    def rename(self, model: str) -> None:
        """The engine's answer is renamed already, where it names one."""

    def whole(self, answer: Json) -> Json:
        results = [self._result(result) for result in answer["results"]]
        results.sort(key=lambda result: -result["relevance_score"])
        del results[self.top_n :]
        if self.is_cohere:
            meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
            return {"id": answer.get("id", ""), "results": results, "meta": meta}
        return {**answer, "results": results}

    def writer(self, estimated_prompt: int) -> NoReturn:
        raise AssertionError("rankings are not streamed")

    def _result(self, result: Json) -> Json:
        index = result.get("index", 0)
        told: Json = {"index": index, "relevance_score": result.get("relevance_score", result.get("score", 0.0))}
        if self.returns_documents and 0 <= index < len(self.documents):
            told["document"] = {"text": self.documents[index]}
        return told


def _rerank(raw: bytes, *, is_cohere: bool) -> Asked:
    body = parse_object(raw, "`model`, `query` and `documents`")
    model = model_in(body)
    if not isinstance(body.get("query"), str):
        raise wrong_type("query", "a string", body.get("query"))
    documents = _documents_in(body)
    top_n = count_in(body, "top_n") or len(documents)
    returns_documents = not is_cohere and (body.get("return_documents") is None or flag_in(body, "return_documents"))
    fields = {**body, "documents": documents}
    fields.pop("return_documents", None)
    translation = RerankTranslation(documents, top_n, returns_documents, is_cohere)
    return Asked(RERANK, model, False, 1, len(documents), 1, _NEARLY_NONE, False, fields, b"", translation=translation)


def _documents_in(body: Json) -> list[str]:
    documents = body.get("documents")
    if not isinstance(documents, list):
        raise wrong_type("documents", "a list of texts", documents)
    if not 0 < len(documents) <= MOST_DOCUMENTS:
        raise BadField(
            f"`documents` has {len(documents)} texts; one request takes 1 to {MOST_DOCUMENTS}.",
            param="documents",
            code="invalid_value",
        )
    return [_text_of(document, place) for place, document in enumerate(documents)]


def _text_of(document: Any, place: int) -> str:
    text = document.get("text") if isinstance(document, dict) else document
    if not isinstance(text, str):
        raise wrong_type(f"documents[{place}]", "a text, or an object with `text`", text)
    return text
