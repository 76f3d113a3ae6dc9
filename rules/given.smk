"""Given: files of the published codes in place of what iteration 0 would make (`generate.given`, `weigh.given`).

in:  JSONL with answers of the start model, and with their token weights
out: <results>/{start}/generations/{shard}.parquet
     <results>/{arm}/ite0/weights/{shard}.parquet for arms that weigh as the study does
"""


rule generate_given:
    """Take the start model's answers to one shard of the prompts from a file."""
    input:
        model=ancient(inputs(PATHS.generator_model)),  # for its tokenizer: the file holds text
        manifest=inputs(PATHS.generator_manifest),
        prompts="<results>/data/prompts.parquet",
        given=STUDY.generate.given or [],
    output:
        "<results>/{responses}/generations/{shard}.parquet",
    log:
        "<logs>/generate/{responses}/{shard}.log",
    benchmark:
        "<benchmarks>/generate/{responses}/{shard}.tsv"
    wildcard_constraints:
        responses=alternatives(STUDY.given_answers()),
    conda:
        "../envs/torch.yaml"
    threads: resource("data", "threads")
    resources:
        **stage_resources("data"),
    params:
        flags=flags(FLAGS.generate_given),
    shell:
        r"""
        exec &> >(tee {log:q})
        python workflow/scripts/given.py answers --model {input.model:q} --manifest {input.manifest:q} \
            --rows {input.prompts:q} --given {input.given:q} {params.flags:q} --output {output:q}
        """


rule weigh_given:
    """Take the token weights of one shard of iteration 0 from a file."""
    input:
        prompts="<results>/data/prompts.parquet",
        generations=inputs(PATHS.weighed_answers),
        reference=inputs(PATHS.weighed_reference),  # for the tokens that the weights belong to
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
    threads: resource("weigh", "threads")
    resources:
        **stage_resources("weigh"),
    params:
        flags=flags(FLAGS.weigh_given),
    shell:
        r"""
        exec &> >(tee {log:q})
        python workflow/scripts/given.py weights --rows {input.prompts:q} --generations {input.generations:q} \
            --reference {input.reference:q} --given {input.given:q} {params.flags:q} --output {output:q}
        """
