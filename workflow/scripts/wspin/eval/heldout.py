"""The study's held-out rows as documents of lm-eval's tasks."""

from pathlib import Path

from wspin.data.corruption import corrupt
from wspin.data.rendering import Template
from wspin.errors import StudyError
from wspin.models import folders
from wspin.rng import row_generator
from wspin.storage import tables

from .results import Row

CHOICES = 4


def heldout_documents(path: str | Path, template: str, eos: str, model: str | Path) -> list[Row]:
    """Held-out rows as documents: the rendered prompt, the real answer, and a choice of answers with its label.

    Prompts are rendered for the model in the folder `model`; every choice ends with EOS, as answers do in training.
    Raises `StudyError` if there is no row, or if the template holds special tokens, which lm-eval would take for text.
    """
    documents = tables.read(path, "prompts").select(["prompt_id", "prompt", "response"]).to_pylist()
    tokenizer = folders.load_tokenizer(model)
    rendering = Template(template, tokenizer)
    if special := [token for token in tokenizer.all_special_tokens if token in rendering.before + rendering.after]:
        raise StudyError(
            "dialogue.template: expected a template without special tokens for tasks on held-out rows, "
            f"found {', '.join(special)}; leave these tasks out, or choose another template"
        )
    for row in documents:
        texts, row["label"] = choices(row["prompt_id"], row["response"])
        row["choices"] = [text + eos for text in texts]
        row["text"] = rendering.render(row.pop("prompt")).text
    if not documents:
        raise StudyError(f"{path}: expected held-out rows, found none; make the file again")
    return documents


def choices(prompt_id: str, answer: str) -> tuple[list[str], int]:
    """The answer among distinct corruptions of it, in an order drawn for the prompt, and its index."""
    rng = row_generator("choices", prompt_id)
    texts = [answer]
    while len(texts) < CHOICES:
        corrupted = corrupt(answer, rng)
        if corrupted not in texts:
            texts.append(corrupted)
    order = rng.permutation(CHOICES).tolist()
    return [texts[i] for i in order], order.index(0)
