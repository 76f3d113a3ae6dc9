"""TRL's DPOTrainer at its best legal settings; its sigmoid loss is the logistic loss of SPIN.

Gradient checkpointing, padding to a multiple and, on a CPU, bfloat16 are off, since they cost time here. Its
`padding_free` does nothing for DPO, and Liger's loss takes no precomputed references. Like the other contenders it gets
token ids, so its tokenisation is not timed.
"""

import tempfile
import uuid
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, TrainingArguments
from trl import DPOConfig, DPOTrainer

from wspin.engine.packing import Item

from ..measure import Clock

# Arguments that both sides share, copied from this library's so that they cannot differ.
SHARED = (
    "max_steps",
    "learning_rate",
    "weight_decay",
    "max_grad_norm",
    "lr_scheduler_type",
    "warmup_steps",
    "logging_strategy",
    "logging_steps",
    "logging_nan_inf_filter",
    "report_to",
    "disable_tqdm",
    "seed",
    "use_cpu",
    "bf16",
    "gradient_checkpointing",
)


class IdsTrainer(DPOTrainer):
    """DPOTrainer on token ids, with a clock on the pass that precomputes references."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset  # already token ids

    def _precompute_ref_logps(self, *arguments: Any) -> Dataset:
        with Clock(self.model.device.type) as self.precomputing:
            return super()._precompute_ref_logps(*arguments)


def trainer(
    model: Any,
    reference: Any,
    items: Sequence[Item],
    arguments: TrainingArguments,
    micro_batch: int,
    accumulation: int,
    beta: float,
    optimizer: Any,
    callbacks: Sequence[Any],
    liger: bool = False,
    kind: str = "sigmoid",
) -> IdsTrainer:
    """A trainer on the items in their order; without a `reference` model, its log-probabilities are precomputed."""
    config = DPOConfig(
        **{name: getattr(arguments, name) for name in SHARED},
        output_dir=tempfile.mkdtemp(dir=arguments.output_dir),
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=accumulation,
        train_sampling_strategy="sequential",
        save_strategy="no",
        dataloader_pin_memory=not arguments.use_cpu,
        loss_type=[kind],
        beta=beta,
        max_length=None,
        pad_to_multiple_of=None,
        precompute_ref_log_probs=reference is None,
        use_liger_kernel=liger,
    )
    trainer = IdsTrainer(
        model=model,
        ref_model=reference,
        args=config,
        train_dataset=_dataset(items),
        processing_class=_tokenizer(model.config),
        callbacks=list(callbacks),
    )
    trainer.optimizer_cls_and_kwargs = optimizer
    return trainer


def _dataset(items: Sequence[Item]) -> Dataset:
    columns = {
        "prompt_ids": [item.prompt.tolist() for item in items],
        "chosen_ids": [item.responses[0].tolist() for item in items],
        "rejected_ids": [item.responses[1].tolist() for item in items],
    }
    # Precomputed references are cached by fingerprint: a second round would reuse those of the first.
    return Dataset(Dataset.from_dict(columns).data, fingerprint=uuid.uuid4().hex)


def _tokenizer(config: Any) -> PreTrainedTokenizerFast:
    """TRL uses only its padding token."""
    vocabulary = {"<eos>": config.eos_token_id}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<eos>")),
        eos_token="<eos>",
        pad_token="<eos>",
    )


def collated_ids(trainer: IdsTrainer) -> list[list[int]]:
    """Ids of all conversations without padding: per batch the chosen ones, then the rejected ones."""
    batches = trainer.get_train_dataloader()
    return [
        ids[mask.bool()].tolist()
        for batch in batches
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"].to(torch.int64), strict=True)
    ]
