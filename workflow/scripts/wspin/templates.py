"""Prompt templates that the configuration knows by name."""

TEMPLATES = {
    "human-assistant": "\n\n<Human>:{prompt}\n\n<Assistant>:",  # SWIFT's code
    "instruction-response": "### Instruction: {prompt}\n\n### Response: ",  # SPIN's code
    # Chat template of zephyr-7b-sft-full, behind the BOS that its tokenizer put before every text it was trained on.
    "zephyr": "<s><|system|>\n</s>\n<|user|>\n{prompt}</s>\n<|assistant|>\n",
}


CHAT = "chat"  # in place of a template: the chat template of the model's own tokenizer


def known_templates() -> str:
    """The valid values of a template, for messages."""
    return f"one of {', '.join(TEMPLATES)}, {CHAT} (the model's own), or a text that holds {{prompt}} once"
