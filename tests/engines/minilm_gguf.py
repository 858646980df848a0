"""The sentence model all-MiniLM-L6-v2, from its package's safetensors to a GGUF that llama.cpp reads. A program of an
environment of its own: `python minilm_gguf.py FILE`.

The names of tensors and fields are those of llama.cpp's own converter (convert_hf_to_gguf.py, `BertModel`)."""

from __future__ import annotations

import io
import json
import struct
import sys
import zipfile
from importlib.resources import files
from typing import Any

import gguf
import numpy as np

_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_EMBEDDINGS = {
    "word_embeddings": "token_embd",
    "position_embeddings": "position_embd",
    "token_type_embeddings": "token_types",
    "LayerNorm": "token_embd_norm",
}


def main(path: str) -> None:
    # Opened where it lies: the package prints when it is imported.
    with zipfile.ZipFile(io.BytesIO((files("all_minilm_l6_v2") / "model.zip").read_bytes())) as model:
        config = json.loads(model.read("config.json"))
        tokenizer = json.loads(model.read("tokenizer.json"))["model"]
        weights = model.read("model.safetensors")
    writer = gguf.GGUFWriter(path, "bert")
    _write_shape(writer, config)
    _write_words(writer, tokenizer["vocab"])
    for name, tensor in _tensors(weights):
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_shape(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def _write_words(writer: gguf.GGUFWriter, vocabulary: dict[str, int]) -> None:
    words = sorted(vocabulary, key=lambda word: vocabulary[word])
    special = [word.startswith("[") and word.endswith("]") for word in words]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en")  # llama.cpp's name for a plain WordPiece
    writer.add_token_type_count(2)
    # Where WordPiece marks what goes on within a word, llama.cpp marks where a word begins.
    writer.add_token_list([
        word if is_special else word.removeprefix("##") if word.startswith("##") else "\u2581" + word
        for word, is_special in zip(words, special, strict=True)
    ])  # fmt: skip
    kinds = (gguf.TokenType.NORMAL, gguf.TokenType.CONTROL)
    writer.add_token_types([kinds[is_special] for is_special in special])
    writer.add_bos_token_id(vocabulary["[CLS]"])
    writer.add_eos_token_id(vocabulary["[SEP]"])
    writer.add_sep_token_id(vocabulary["[SEP]"])
    writer.add_unk_token_id(vocabulary["[UNK]"])
    writer.add_pad_token_id(vocabulary["[PAD]"])
    writer.add_mask_token_id(vocabulary["[MASK]"])


def _tensors(raw: bytes) -> list[tuple[str, np.ndarray[Any, Any]]]:
    """safetensors: the length of a JSON head in 8 bytes, that head, and numbers where it says."""
    (length,) = struct.unpack("<Q", raw[:8])
    head, numbers = json.loads(raw[8 : 8 + length]), memoryview(raw)[8 + length :]
    named = []
    for name, about in head.items():
        new_name = _renamed(name)
        if new_name is not None:
            assert about["dtype"] == "F32", f"{name} has {about['dtype']}"
            begin, end = about["data_offsets"]
            named.append((new_name, np.frombuffer(numbers[begin:end], np.float32).reshape(about["shape"])))
    return named


def _renamed(name: str) -> str | None:
    """None for what a sentence's vector does not need."""
    place, _, kind = name.rpartition(".")
    where, _, part = place.partition(".")
    if where == "embeddings" and part in _EMBEDDINGS:
        return f"{_EMBEDDINGS[part]}.{kind}"
    if where == "encoder":
        _, number, part = part.split(".", 2)
        return f"blk.{number}.{_LAYER[part]}.{kind}"
    return None


if __name__ == "__main__":
    main(sys.argv[1])
