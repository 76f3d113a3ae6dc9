"""Random models of several families, whose answers depend on what they read."""

import torch
import transformers

SHAPE = {"vocab_size": 270, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE |= {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128}
SHAPE |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
FAMILIES = [
    *[("Qwen2", {}), ("Llama", {"attn_implementation": "eager"}), ("Mistral", {"sliding_window": 5})],
    *[("GPT2", {"n_positions": 128}), ("GPTNeoX", {}), ("Bloom", {}), ("Gemma", {})],
]


def random_model(kind, own):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**SHAPE, **own})
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(10.0 if weight.dim() > 1 else 1.0)
    return model
