"""Sample a model's answers to one shard of the prompts.

    python workflow/scripts/generate.py --model results/sft/model --manifest results/sft/manifest.json \
        --prompts results/data/prompts.parquet --shard 0 --shard-size 10000 --seed 42 0 \
        --output results/sft/generations/00.parquet --engine transformers --temperature 1.0 ...
"""

import time
from dataclasses import asdict

from wspin import program, seeds, tables
from wspin.config import Dialogue, Generate


def main(argv=None):
    parser = program.parser("generate", __doc__, Generate, Dialogue)
    for flag in ("--model", "--manifest", "--prompts", "--output"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--shard", required=True, type=int)
    parser.add_argument("--shard-size", required=True, type=int)
    parser.add_argument("--seed", required=True, type=int, nargs=2, metavar=("SEED", "ITERATION"))
    arguments = parser.parse_args(argv)
    work = generate(arguments, program.settings(arguments, Generate), program.settings(arguments, Dialogue))
    program.leave_record(arguments, [arguments.output], [arguments.manifest, arguments.prompts], work=work)


def generate(arguments, settings, dialogue_settings):
    """Sample the answers and write them with what made them; returns their work."""
    program.offline()
    from wspin import engines, models
    from wspin.dialogue import Dialogue as Conversation

    rows = tables.shard(tables.read(arguments.prompts, "prompts"), arguments.shard, arguments.shard_size)
    ids = rows["prompt_id"].to_pylist()
    tokenizer = models.load_tokenizer(arguments.model)
    dialogue = Conversation(tokenizer, dialogue_settings)
    model = models.load_model(arguments.model, models.best_device())
    models.check_eos(model, dialogue.eos, arguments.model)
    began = time.perf_counter()
    answers, work = engines.generate(
        model,
        [dialogue.prompt_ids(prompt) for prompt in rows["prompt"].to_pylist()],
        lambda i: seeds.generator(*arguments.seed, "generate", ids[i]).random(settings.max_new_tokens),
        settings,
        dialogue.eos,
        program.progress("generate", len(ids)),
    )
    seconds = time.perf_counter() - began
    columns = {
        "prompt_id": ids,
        "response": [dialogue.text(answer.ids) for answer in answers],
        "token_ids": [answer.ids for answer in answers],
        "finish_reason": [answer.finish_reason for answer in answers],
    }
    made_with = {
        "tokenizer": models.tokenizer_hash(tokenizer),
        "model": program.manifest_hash(arguments.manifest),
        "template": dialogue_settings.template,
        "seed": arguments.seed,
        "settings": settings.model_dump(),
        "dtype": "float32",
        "autocast": "float32",
        "attention": model.config._attn_implementation,
    }
    tables.write(arguments.output, "generations", columns, made_with)
    same = sum(a == b for a, b in zip(columns["response"], rows["response"].to_pylist(), strict=True))
    cut = columns["finish_reason"].count("length")
    empty = sum(len(answer.ids) == 1 and answer.finish_reason == "stop" for answer in answers)
    speed = sum(map(len, columns["token_ids"])) / seconds
    print(
        f"generate: {len(ids)} answers; {cut} cut at the limit, {empty} empty, {same} equal to the real answer; "
        f"useful slot-steps {work.useful:.3f}, {speed:.0f} tokens/s",
        flush=True,
    )
    return asdict(work)


if __name__ == "__main__":
    program.run(main)
