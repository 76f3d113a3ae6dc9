"""Weigh: the weight of every token, computed from stored log-probabilities; no model is loaded.

in:  an iteration's answers, or the preference pairs, and their log-probabilities under student and scorers
     `weigh.given`, if set: JSONL with the weights of iteration 0, for the arms that weigh as the study does
out: <results>/{arm}/ite{k}/weights/{shard}.parquet for arms with a weighted loss
     <results>/{model}/weights/{shard}.parquet for models of the registry with a weighted loss
     <results>/{model}/weight_sums/{shard}.json where `weigh.normalise_over` asks for them
"""

WEIGHTED_MODEL = (
    rf"(?:{alternatives(filter(STUDY.weighted, STUDY.arms))})/ite\d+|{alternatives(STUDY.weighted_models())}"
)


rule weigh:
    """Compute the final token weights of one shard of an iteration's pairs, or of the preference pairs."""
    input:
        rows=ancient(inputs(PATHS.training_rows)),
        digest=inputs(PATHS.training_digest),
        generations=inputs(PATHS.weighted_answers),  # [] for preference pairs
        reference=inputs(PATHS.weighted_reference),  # the student's log-probabilities; training uses them as reference
        positive=inputs(PATHS.positive_logprobs),  # the teacher's, of real and generated answers; [] for the student's
        negative=inputs(PATHS.negative_logprobs),
        sums=inputs(PATHS.weight_sums),  # of all shards; [] unless the weights are normalised over them
    output:
        "<results>/{model}/weights/{shard}.parquet",
    log:
        "<logs>/weigh/{model}/{shard}.log",
    benchmark:
        "<benchmarks>/weigh/{model}/{shard}.tsv"
    wildcard_constraints:
        model=rf"(?!(?:{alternatives(STUDY.given_weights())})/ite0/)(?:{WEIGHTED_MODEL})",
    conda:
        "../envs/torch.yaml"
    threads: STUDY.resources.weigh.threads
    resources:
        **stage_resources("weigh"),
    params:
        flags=flags(FLAGS.weigh),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/weigh.py --rows {input.rows:q} --generations {input.generations:q} \
            --reference {input.reference:q} --positive-logprobs {input.positive:q} \
            --negative-logprobs {input.negative:q} --sums {input.sums:q} {params.flags:q} --output {output:q}
        """


rule weigh_sums:
    """Add up the token weights of one shard before they are normalised over the whole data set."""
    input:
        rows=ancient(inputs(PATHS.training_rows)),
        digest=inputs(PATHS.training_digest),
        generations=inputs(PATHS.weighted_answers),  # [] for preference pairs
        reference=inputs(PATHS.weighted_reference),  # the student's log-probabilities; training uses them as reference
        positive=inputs(PATHS.positive_logprobs),  # the teacher's, of real and generated answers; [] for the student's
        negative=inputs(PATHS.negative_logprobs),
    output:
        "<results>/{model}/weight_sums/{shard}.json",
    log:
        "<logs>/weigh/{model}/sums/{shard}.log",
    benchmark:
        "<benchmarks>/weigh/{model}/sums/{shard}.tsv"
    wildcard_constraints:
        model=WEIGHTED_MODEL,
    conda:
        "../envs/torch.yaml"
    threads: STUDY.resources.weigh.threads
    resources:
        **stage_resources("weigh"),
    params:
        flags=flags(FLAGS.weigh),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/weigh.py --rows {input.rows:q} --generations {input.generations:q} \
            --reference {input.reference:q} --positive-logprobs {input.positive:q} \
            --negative-logprobs {input.negative:q} --only-sums {params.flags:q} --output {output:q}
        """


rule weigh_given:
    """Take the token weights of one shard of iteration 0 from a file."""
    input:
        prompts=ancient("<results>/data/prompts.parquet"),
        digest="<results>/data/prompts.json",
        generations=inputs(PATHS.weighted_answers),
        reference=inputs(PATHS.weighted_reference),  # for the token ids
        given=STUDY.weigh.given or [],
    output:
        "<results>/{model}/weights/{shard}.parquet",
    log:
        "<logs>/weigh/{model}/{shard}.log",
    benchmark:
        "<benchmarks>/weigh/{model}/{shard}.tsv"
    wildcard_constraints:
        model=rf"(?:{alternatives(STUDY.given_weights())})/ite0",
    conda:
        "../envs/torch.yaml"
    threads: STUDY.resources.weigh.threads
    resources:
        **stage_resources("weigh"),
    params:
        flags=flags(FLAGS.weigh_given),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/weigh_given.py --rows {input.prompts:q} --generations {input.generations:q} \
            --reference {input.reference:q} --given {input.given:q} {params.flags:q} --output {output:q}
        """
