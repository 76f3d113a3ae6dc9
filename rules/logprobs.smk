"""Logprobs: per-token log-probabilities; a scorer, such as the teacher, scores each text once.

in:  a model, the answers to score
out: <results>/{responses}/reference/{shard}.parquet the opponent's, of all answers that an iteration trains on
     <results>/logprobs/{scorer}/{responses}/{shard}.parquet a scorer's, of the real answers (gold), of generated ones,
     or of one side of the preference pairs (preferences.chosen, preferences.rejected)
     <results>/{model}/preferences/{shard}.parquet the start model's, of the preference pairs
"""


rule logprobs_reference:
    """Score the real, this iteration's and the replayed answers with the opponent, in one load of the model."""
    input:
        model=ancient(inputs(PATHS.generator_model)),
        manifest=inputs(PATHS.generator_manifest),
        prompts=ancient("<results>/data/prompts.parquet"),
        digest="<results>/data/prompts.json",
        generations=inputs(PATHS.scored_answers),
        replayed=inputs(PATHS.replayed_answers),
    output:
        "<results>/{responses}/reference/{shard}.parquet",
    log:
        "<logs>/logprobs/reference/{responses}/{shard}.log",
    benchmark:
        "<benchmarks>/logprobs/reference/{responses}/{shard}.tsv"
    wildcard_constraints:
        responses=rf"{alternatives(PATHS.start_sets)}|{ITERATION}",
    conda:
        "../envs/torch.yaml"
    threads: STUDY.resources.logprobs.threads
    resources:
        **stage_resources("logprobs"),
    params:
        flags=flags(FLAGS.logprobs_reference),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/logprobs.py reference --model {input.model:q} --manifest {input.manifest:q} \
            --rows {input.prompts:q} --generations {input.generations:q} --replayed {input.replayed:q} \
            {params.flags:q} --output {output:q}
        """


rule logprobs_scorer:
    """Score one response set with a teacher or another scorer, in its own tokenizer; each text once per study."""
    input:
        model=ancient(inputs(PATHS.scorer_model)),  # of `sft@good` the model sft
        manifest=inputs(PATHS.scorer_manifest),
        rows=ancient(inputs(PATHS.scorer_rows)),
        digest=inputs(PATHS.scorer_digest),
        generations=inputs(PATHS.scorer_answers),  # [] for real answers
    output:
        "<results>/logprobs/{scorer}/{responses}/{shard}.parquet",
    log:
        "<logs>/logprobs/scorer/{scorer}/{responses}/{shard}.log",
    benchmark:
        "<benchmarks>/logprobs/scorer/{scorer}/{responses}/{shard}.tsv"
    wildcard_constraints:
        scorer=alternatives(PATHS.scorers),
        responses=rf"{alternatives((GOLD, *PREFERENCE_SIDES, *PATHS.start_sets))}|{ITERATION}",
    conda:
        "../envs/torch.yaml"
    threads: STUDY.resources.logprobs.threads
    resources:
        **stage_resources("logprobs"),
    params:
        flags=flags(FLAGS.logprobs_scorer),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/logprobs.py scorer --model {input.model:q} --manifest {input.manifest:q} \
            --rows {input.rows:q} --generations {input.generations:q} {params.flags:q} --output {output:q}
        """


rule logprobs_preferences:
    """Score the preference pairs with the model that a baseline starts from."""
    input:
        model=ancient("<results>/{scorer}/model"),
        manifest="<results>/{scorer}/manifest.json",
        pairs=ancient("<results>/data/preferences.parquet"),
        digest="<results>/data/preferences.json",
    output:
        "<results>/{scorer}/preferences/{shard}.parquet",
    log:
        "<logs>/logprobs/preferences/{scorer}/{shard}.log",
    benchmark:
        "<benchmarks>/logprobs/preferences/{scorer}/{shard}.tsv"
    wildcard_constraints:
        scorer=alternatives(PATHS.preference_references),
    conda:
        "../envs/torch.yaml"
    threads: STUDY.resources.logprobs.threads
    resources:
        **stage_resources("logprobs"),
    params:
        flags=flags(FLAGS.logprobs_preferences),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/logprobs.py preferences --model {input.model:q} --manifest {input.manifest:q} \
            --rows {input.pairs:q} {params.flags:q} --output {output:q}
        """
