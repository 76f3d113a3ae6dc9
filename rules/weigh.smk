"""Weigh: the weight of every token, computed from stored log-probabilities; no model is loaded.

in:  an iteration's answers, or the preference pairs, and their log-probabilities under student and scorers
     `weigh.given`, if set: JSONL with the weights of iteration 0, for the arms that weigh as the study does
out: <results>/{arm}/ite{k}/weights/{shard}.parquet for arms with a weighted loss
     <results>/{model}/weights/{shard}.parquet for models of the registry with a weighted loss
"""


rule weigh:
    """Compute the final token weights of one shard's answers from their log-probabilities."""
    input:
        prompts=ancient("<results>/data/prompts.parquet"),
        digest="<results>/data/prompts.json",
        generations=inputs(PATHS.weighted_answers),
        reference=inputs(PATHS.weighted_reference),  # the student's log-probabilities; training uses them as reference
        positive=inputs(PATHS.positive_logprobs),  # the teacher's, of real and generated answers; [] for the student's
        negative=inputs(PATHS.negative_logprobs),
    output:
        "<results>/{arm}/ite{k}/weights/{shard}.parquet",
    log:
        "<logs>/weigh/{arm}/ite{k}/{shard}.log",
    benchmark:
        "<benchmarks>/weigh/{arm}/ite{k}/{shard}.tsv"
    wildcard_constraints:
        arm=rf"(?!(?:{alternatives(STUDY.given_weights())})/ite0/)(?:{alternatives(filter(STUDY.weighted, STUDY.arms))})",
        k=r"\d+",
    conda:
        "../envs/torch.yaml"
    threads: STUDY.resources.weigh.threads
    resources:
        **stage_resources("weigh"),
    params:
        flags=flags(FLAGS.weigh),
    shell:
        r"""
        exec &> >(tee {log:q})
        python workflow/scripts/weigh.py --rows {input.prompts:q} --generations {input.generations:q} \
            --reference {input.reference:q} --positive-logprobs {input.positive:q} \
            --negative-logprobs {input.negative:q} {params.flags:q} --output {output:q}
        """


rule weigh_preferences:
    """Compute the final token weights of one shard of the preference pairs, for a model of the registry."""
    input:
        pairs=ancient("<results>/data/preferences.parquet"),
        digest="<results>/data/preferences.json",
        reference=inputs(PATHS.preference_reference),  # of the model that the training starts from
        positive=inputs(PATHS.positive_preferences),
        negative=inputs(PATHS.negative_preferences),
    output:
        "<results>/{model}/weights/{shard}.parquet",
    log:
        "<logs>/weigh/{model}/{shard}.log",
    benchmark:
        "<benchmarks>/weigh/{model}/{shard}.tsv"
    wildcard_constraints:
        model=alternatives(STUDY.weighted_models()),
    conda:
        "../envs/torch.yaml"
    threads: STUDY.resources.weigh.threads
    resources:
        **stage_resources("weigh"),
    params:
        flags=flags(FLAGS.weigh_preferences),
    shell:
        r"""
        exec &> >(tee {log:q})
        python workflow/scripts/weigh.py --rows {input.pairs:q} --reference {input.reference:q} \
            --positive-logprobs {input.positive:q} --negative-logprobs {input.negative:q} {params.flags:q} --output {output:q}
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
        "<results>/{arm}/ite{k}/weights/{shard}.parquet",
    log:
        "<logs>/weigh/{arm}/ite{k}/{shard}.log",
    benchmark:
        "<benchmarks>/weigh/{arm}/ite{k}/{shard}.tsv"
    wildcard_constraints:
        arm=alternatives(STUDY.given_weights()),
        k="0",
    conda:
        "../envs/torch.yaml"
    threads: STUDY.resources.weigh.threads
    resources:
        **stage_resources("weigh"),
    params:
        flags=flags(FLAGS.weigh_given),
    shell:
        r"""
        exec &> >(tee {log:q})
        python workflow/scripts/weigh_given.py --rows {input.prompts:q} --generations {input.generations:q} \
            --reference {input.reference:q} --given {input.given:q} {params.flags:q} --output {output:q}
        """
