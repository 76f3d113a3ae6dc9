"""Prompt templates that the configuration knows by name, and those that rows may stand in already."""

from collections.abc import Iterable

TEMPLATES = {
    "human-assistant": "\n\n<Human>:{prompt}\n\n<Assistant>:",  # SWIFT's code
    "instruction-response": "### Instruction: {prompt}\n\n### Response: ",  # SPIN's code
    # Chat template of zephyr-7b-sft-full, behind the BOS that its tokenizer put before every text it was trained on.
    "zephyr": "<s><|system|>\n</s>\n<|user|>\n{prompt}</s>\n<|assistant|>\n",
}


CHAT_FILE = "chat_template.jinja"  # where transformers has a model's chat template
CHAT = "chat"  # in place of a template: the chat template of the model's own tokenizer


def known_templates() -> str:
    """The valid values of a template, for messages."""
    return f"one of {', '.join(TEMPLATES)}, {CHAT} (the model's own), or a text that holds {{prompt}} once"


# What the templates of published rows put before and after a prompt; the study's own are added to these.
MARKERS = (
    ("<Human>:", "<Assistant>:"),
    ("Human:", "Assistant:"),  # transcripts, TIS-DPO's rows
    ("### Instruction:", "### Response:"),
    ("<|user|>", "<|assistant|>"),
    ("<|im_start|>user", "<|im_start|>assistant"),
    ("[INST]", "[/INST]"),
    ("USER:", "ASSISTANT:"),
)


def is_rendered(prompt: str, markers: Iterable[tuple[str, str]] = MARKERS) -> bool:
    """Whether a prompt stands in a template already: it holds what comes before one, and ends with what follows it."""
    return any(before in prompt and prompt.rstrip().endswith(after) for before, after in markers)
