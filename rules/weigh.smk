"""Weigh: how much each token counts. Arithmetic on stored log-probabilities; no model is loaded.

in:  the answers of an iteration as the student and the teacher have read them
out: <results>/{arm}/ite{k}/weights/{shard}.parquet for arms whose loss reads weights
"""


rule weigh:
    """Turn the log-probabilities of one shard's answers into final token weights."""
    input:
        prompts="<results>/data/prompts.parquet",
        generations=inputs(PATHS.weighed_answers),
        reference=inputs(PATHS.weighed_reference),  # the student's log-probabilities, which are the training's reference too
        teacher=inputs(PATHS.teacher_reading),  # of the real answers and of these; [] where every weight is equal
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
    threads: resource("weigh", "threads")
    resources:
        **stage_resources("weigh"),
    params:
        flags=flags(FLAGS.weigh),
    shell:
        r"""
        exec &> >(tee {log:q})
        python workflow/scripts/weigh.py --rows {input.prompts:q} --generations {input.generations:q} \
            --reference {input.reference:q} --teacher {input.teacher:q} {params.flags:q} --output {output:q}
        """
