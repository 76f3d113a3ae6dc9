"""Generate: the opponent's own answers, the rejected side of self-play.

in:  the opponent's model, <results>/data/prompts.parquet
out: <results>/{start}/generations/{shard}.parquet for iteration 0, made once and shared by the arms
     <results>/{arm}/ite{k}/generations/{shard}.parquet after that
"""


rule generate:
    """Sample the opponent's answers to one shard of the prompts."""
    input:
        model=ancient(inputs(PATHS.generator_model)),
        manifest=inputs(PATHS.generator_manifest),
        prompts="<results>/data/prompts.parquet",
    output:
        "<results>/{responses}/generations/{shard}.parquet",
    log:
        "<logs>/generate/{responses}/{shard}.log",
    benchmark:
        "<benchmarks>/generate/{responses}/{shard}.tsv"
    wildcard_constraints:
        responses=rf"{alternatives(set(PATHS.starts).difference(STUDY.given_answers()))}|{ITERATION}",
    conda:
        environment("generate")
    threads: resource("generate", "threads")
    resources:
        **stage_resources("generate"),
    params:
        flags=flags(FLAGS.generate),
        python=interpreter("generate"),  # never compared, as is the state
        state=answers_so_far,
    shell:
        r"""
        exec &> >(tee {log:q})
        {params.python:q} workflow/scripts/generate.py --model {input.model:q} --manifest {input.manifest:q} \
            --prompts {input.prompts:q} {params.flags:q} --state {params.state:q} \
            --output {output:q}
        """
