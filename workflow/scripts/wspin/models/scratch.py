"""Small models made from scratch: random weights, and a tokenizer trained on the study's text."""

from pathlib import Path
from typing import Any

from wspin.config.sources import Scratch
from wspin.errors import StudyError


def make_scratch(settings: Scratch, texts: list[str], eos: str, seed: int, folder: Path) -> None:
    """Write a model with random weights and a byte-level BPE trained on `texts` to `folder`.

    Raises `StudyError` if the texts have too few repetitions for the vocabulary.
    """
    import torch
    from transformers import GenerationConfig, Qwen2ForCausalLM, Qwen2Tokenizer

    byte_pairs = _byte_level_bpe(texts, settings.vocabulary, eos)
    tokenizer = Qwen2Tokenizer(tokenizer_object=byte_pairs, eos_token=eos, pad_token=eos, unk_token=None)
    if len(tokenizer) != settings.vocabulary:
        difference = f"expected {settings.vocabulary} tokens, found text for only {len(tokenizer)}"
        raise StudyError(f"scratch.vocabulary: {difference}; lower it, or train the tokenizer on more text")
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(scratch_config(settings, tokenizer.eos_token_id))
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def scratch_config(settings: Scratch, eos: int | None = None) -> Any:
    """The config of a model made from scratch; `eos` is its padding token too."""
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=settings.vocabulary,
        hidden_size=settings.hidden,
        intermediate_size=settings.intermediate,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=eos,
    )


def _byte_level_bpe(texts: list[str], vocabulary: int, eos: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    # AutoTokenizer puts Qwen2's pre-tokenizer into the tokenizer of every qwen2 model, whatever was saved.
    qwen2, tokenizer = Qwen2Tokenizer().backend_tokenizer, Tokenizer(models.BPE())
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        setattr(tokenizer, part, getattr(qwen2, part))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = {"vocab_size": vocabulary, "special_tokens": [eos], "initial_alphabet": alphabet}
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(**options, show_progress=False))
    return tokenizer
