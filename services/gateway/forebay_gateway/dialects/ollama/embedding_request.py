"""Ollama's embedding requests, `/api/embed` and the older `/api/embeddings`: texts in, a vector for each out. Pure."""

from __future__ import annotations

from collections.abc import Callable

from forebay_gateway.asked import Asked
from forebay_gateway.canonical.dialect import Json, Translation
from forebay_gateway.canonical.fields import count_in, flag_in
from forebay_gateway.canonical.forms import EMBEDDING
from forebay_gateway.dialects.ollama.embedding_answer import EmbedTranslation, LegacyEmbeddingTranslation
from forebay_gateway.dialects.ollama.fields import parse_body, text_of
from forebay_gateway.dialects.ollama.loading import Loading, ends_at_once
from forebay_gateway.dialects.ollama.native import OllamaEmbeddingSpeech, UnscaledEmbeddingSpeech
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.refused import BadField

EMBED_PATH = "/api/embed"
LEGACY_PATH = "/api/embeddings"


def parse_embed(raw: bytes, now: Callable[[], float]) -> Asked | Loading:
    """`now`: seconds since the epoch. Raises BadField."""
    body, model = parse_body(raw, "`model` and `input`")
    ends_at_once(body)
    texts = _texts_in(body)
    fields: Json = {"model": model, "input": texts}
    dimensions = count_in(body, "dimensions", least=0)
    if dimensions:
        fields["dimensions"] = dimensions
    if flag_in(body, "truncate"):
        # vLLM's word for as much as the model takes. Ollama cuts unless told not to, but strict engines refuse words that
        # they do not know: so only for those who ask for it.
        fields["truncate_prompt_tokens"] = -1
    if not texts:
        return Loading(model, EMBED_PATH, False, body, lambda created_at: {"model": model, "embeddings": []})
    return _asked(model, body, fields, len(texts), EmbedTranslation(model, now), EMBED_PATH, "embeddings")


def parse_legacy_embeddings(raw: bytes) -> Asked | Loading:
    """Raises BadField."""
    body, model = parse_body(raw, "`model` and `prompt`")
    ends_at_once(body)
    prompt = text_of(body, "prompt")
    if not prompt:
        return Loading(model, LEGACY_PATH, False, body, lambda created_at: {"embedding": []})
    fields = {"model": model, "input": [prompt]}
    asked = _asked(model, body, fields, 1, LegacyEmbeddingTranslation(), LEGACY_PATH, "embedding")
    asked.native = {**asked.native, EngineKind.LLAMACPP: UnscaledEmbeddingSpeech(asked)}
    return asked


def _asked(
    model: str, body: Json, fields: Json, texts: int, translation: Translation, path: str, results: str
) -> Asked:
    asked = Asked(
        EMBEDDING,
        model,
        stream=False,
        width=1,
        choices=texts,
        samples=1,
        max_output_tokens=1,  # nearly none: without a number the scheduler would expect an answer as long as usual
        include_usage=True,
        fields=fields,
        raw=b"",
        translation=translation,
    )
    asked.native = {EngineKind.OLLAMA: OllamaEmbeddingSpeech(asked, path, results, body)}
    return asked


def _texts_in(body: Json) -> list[str]:
    """Nothing, or an empty text, is no text; an empty text in a list is one."""
    told = body.get("input")
    texts = [] if told is None or told == "" else told if isinstance(told, list) else [told]
    if not all(isinstance(text, str) for text in texts):
        raise BadField("invalid input type", param="input", code="invalid_type")
    return texts
