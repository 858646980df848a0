"""What the fake engine tells of texts in numbers: embeddings, ranks, scores, moderations. From a body to an answer; the same
texts, the same numbers. A text suits a query by the share of the query's words that it has."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping
from typing import Any

from tests.fakes.engine_dialects import openai_usage
from tests.fakes.engine_flavours import Dimensions, Traits
from tests.fakes.engine_messages import text_of
from tests.fakes.engine_orders import BadOrder, Usage, cached_tokens, texts_in, words_in
from tests.fakes.engine_prompts import BadPrompt, prompts_in

EMBEDDING_WIDTH = 8
UNSCALED = 7.0
"""The length of every vector before it is brought to one."""
FLAGGED_WORD = "bad"

USUAL = Traits()
Body = Mapping[str, Any]
Json = dict[str, Any]


def embed(body: Body, traits: Traits = USUAL) -> Json:
    try:
        inputs = prompts_in(body, "input", traits.inputs)
    except BadPrompt as error:
        raise BadOrder(str(error)) from error
    length = UNSCALED if body.get("embd_normalize") == -1 and traits.dimensions is Dimensions.LEFT_ASIDE else 1.0
    vectors = [_cut(_embedding(given.text), body.get("dimensions"), traits.dimensions) for given in inputs]
    data = [
        {"object": "embedding", "index": i, "embedding": [length * x for x in vector]}
        for i, vector in enumerate(vectors)
    ]
    usage = openai_usage(Usage(sum(given.tokens for given in inputs), 0), cached_tokens(body))
    return {"object": "list", "data": data, "model": body.get("model"), "usage": usage}


def embed_for_ollama(body: Body) -> Json:
    texts = texts_in(body, "input")
    counted = {"total_duration": 1, "load_duration": 1, "prompt_eval_count": _count(texts)}
    vectors = [_cut(_embedding(text), body.get("dimensions") or None, Dimensions.CUT) for text in texts]
    return {"model": body.get("model"), "embeddings": vectors, **counted}


def embed_for_older_ollama(body: Body) -> Json:
    """/api/embeddings: one text, and its vector as the model made it. Without a text it only loads the model."""
    prompt = body.get("prompt") or ""
    if not isinstance(prompt, str):
        raise BadOrder("json: cannot unmarshal into Go struct field EmbeddingRequest.prompt of type string")
    return {"embedding": [UNSCALED * x for x in _embedding(prompt)] if prompt else []}


def rank_for_sglang(body: Body) -> list[Json]:
    """SGLang's answer is the list itself, best first; documents are texts."""
    if not all(isinstance(document, str) and document for document in body.get("documents") or ()):
        raise BadOrder("Each document must be a non-empty string")
    told = rerank(body)
    return [
        {
            "score": result["relevance_score"],
            "document": result["document"]["text"],
            "index": result["index"],
            "meta_info": {"prompt_tokens": words_in(result["document"]["text"])},
        }
        for result in told["results"]
    ]


def rerank(body: Body) -> Json:
    """Jina's and Cohere's question, vLLM's answer. Documents are texts or objects with a `text`."""
    (query,) = texts_in(body, "query")
    given = body.get("documents")
    documents = [_document(document) for document in given] if isinstance(given, list) else []
    if not documents:
        raise BadOrder("'documents' must be a list of texts or of objects with a text")
    scores = [_share(query, document) for document in documents]
    best_first = sorted(range(len(documents)), key=lambda i: -scores[i])
    results = [{"index": i, "document": {"text": documents[i]}, "relevance_score": scores[i]} for i in best_first]
    return {
        "id": f"rerank-{secrets.token_hex(12)}",
        "model": body.get("model"),
        "usage": {"total_tokens": len(documents) * _count([query]) + _count(documents)},
        "results": results[: body.get("top_n") or None],
    }


def score(body: Body) -> Json:
    """Of each pair, or of one text with each of the others."""
    first, second = texts_in(body, "text_1"), texts_in(body, "text_2")
    if len(first) == 1:
        first *= len(second)
    if len(first) != len(second):
        raise BadOrder("'text_1' must be one text, or as many as 'text_2'")
    pairs = enumerate(zip(first, second, strict=True))
    return {
        "id": f"score-{secrets.token_hex(12)}",
        "object": "list",
        "created": int(time.time()),
        "model": body.get("model"),
        "data": [{"index": i, "object": "score", "score": _share(one, other)} for i, (one, other) in pairs],
        "usage": _usage(body, first + second),
    }


def moderate(body: Body) -> Json:
    """A result for each text; parts of one message, as OpenAI's newer models take them, have one together."""
    given = body.get("input")
    in_parts = isinstance(given, list) and any(isinstance(part, dict) for part in given)
    texts = [text_of(given)] if in_parts else texts_in(body, "input")
    return {
        "id": f"modr-{secrets.token_hex(12)}",
        "model": body.get("model"),
        "results": [_moderation(FLAGGED_WORD in text.lower()) for text in texts],
    }


def _moderation(is_flagged: bool) -> Json:
    return {
        "flagged": is_flagged,
        "categories": {"harassment": is_flagged, "violence": False},
        "category_scores": {"harassment": 0.99 if is_flagged else 0.01, "violence": 0.01},
    }


def _document(given: Any) -> str:
    text = given.get("text") if isinstance(given, dict) else given
    if not isinstance(text, str):
        raise BadOrder("'documents' must be a list of texts or of objects with a text")
    return text


def _share(query: str, text: str) -> float:
    wanted = set(query.lower().split())
    return len(wanted & set(text.lower().split())) / max(1, len(wanted))


def _usage(body: Body, texts: list[str]) -> Json:
    return openai_usage(Usage(_count(texts), 0), cached_tokens(body))


def _count(texts: list[str]) -> int:
    return sum(words_in(text) for text in texts)


def _cut(vector: list[float], dimensions: Any, way: Dimensions) -> list[float]:
    if dimensions is None or way is Dimensions.LEFT_ASIDE:
        return vector
    if way is Dimensions.REFUSED:
        raise BadOrder(
            "Model 'fake-model' does not support Matryoshka embeddings; dimensions must be unset "
            f"(received dimensions={dimensions})."
        )
    if not isinstance(dimensions, int) or not 1 <= dimensions <= len(vector):
        raise BadOrder(f"only supports dimensions in range [1, {len(vector)}], got {dimensions}.")
    rest = vector[:dimensions]
    length = sum(x * x for x in rest) ** 0.5
    return [x / length for x in rest]


def _embedding(text: str) -> list[float]:
    """The same unit vector for the same text."""
    raw = [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:EMBEDDING_WIDTH]]
    length = sum(x * x for x in raw) ** 0.5
    return [x / length for x in raw]
