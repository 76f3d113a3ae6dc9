"""Generate: the opponent's own answers, the rejected side of self-play.

in:  the opponent's model, <results>/data/prompts.parquet; `generate.given`, if set: JSONL with the answers of iteration 0
out: <results>/{start}/generations/{shard}.parquet for iteration 0, generated once and shared by the arms
     <results>/{arm}/ite{k}/generations/{shard}.parquet after that
     <results>/{model}/answers/{shard}.parquet of a model that others are distilled from
     <results>/{model}/examples.parquet of a model that is no opponent: the first prompts alone, for readers
"""


rule generate:
    """Sample the opponent's answers to one shard of the prompts."""
    input:
        model=ancient(inputs(PATHS.generator_model)),
        manifest=inputs(PATHS.generator_manifest),
        prompts=ancient("<results>/data/prompts.parquet"),
        digest="<results>/data/prompts.json",
    output:
        "<results>/{responses}/generations/{shard}.parquet",
    log:
        "<logs>/generate/{responses}/{shard}.log",
    benchmark:
        "<benchmarks>/generate/{responses}/{shard}.tsv"
    wildcard_constraints:
        responses=rf"{alternatives(set(PATHS.start_sets).difference(STUDY.given_answers()))}|{ITERATION}",
    conda:
        environment
    threads: STUDY.resources.generate.threads
    resources:
        **stage_resources("generate"),
    params:
        flags=flags(FLAGS.generate),
        python=interpreter,  # takes `resources`, as does the state: no change of them re-runs the job
        state=saved_state("generate", "responses", "shard"),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        {params.python:q} workflow/scripts/generate.py --model {input.model:q} --manifest {input.manifest:q} \
            --prompts {input.prompts:q} {params.flags:q} --state {params.state:q} \
            --output {output:q}
        """


rule generate_answers:
    """Answer one shard of the prompts with a model that others are distilled from, in its own template."""
    input:
        model=ancient("<results>/{model}/model"),
        manifest="<results>/{model}/manifest.json",
        prompts=ancient("<results>/data/prompts.parquet"),
        digest="<results>/data/prompts.json",
    output:
        "<results>/{model}/answers/{shard}.parquet",
    log:
        "<logs>/generate/{model}/answers/{shard}.log",
    benchmark:
        "<benchmarks>/generate/{model}/answers/{shard}.tsv"
    wildcard_constraints:
        model=alternatives(PATHS.answering_models),
    conda:
        environment
    threads: STUDY.resources.generate.threads
    resources:
        **stage_resources("generate"),
    params:
        flags=flags(FLAGS.generate_answers),
        python=interpreter,
        state=lambda wildcards, resources: PATHS.state("generate", wildcards.model, "answers", wildcards.shard),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        {params.python:q} workflow/scripts/generate.py --model {input.model:q} --manifest {input.manifest:q} \
            --prompts {input.prompts:q} {params.flags:q} --state {params.state:q} --output {output:q}
        """


rule generate_examples:
    """Answer the first prompts with a model that is no opponent, for the page of answers."""
    input:
        model=ancient("<results>/{model}/model"),
        manifest="<results>/{model}/manifest.json",
        prompts=ancient("<results>/data/prompts.parquet"),
        digest="<results>/data/prompts.json",
    output:
        "<results>/{model}/examples.parquet",
    log:
        "<logs>/generate/{model}/examples.log",
    benchmark:
        "<benchmarks>/generate/{model}/examples.tsv"
    wildcard_constraints:
        model=alternatives(PATHS.silent_models()),
    conda:
        environment
    threads: STUDY.resources.generate.threads
    resources:
        **stage_resources("generate"),
    params:
        flags=flags(FLAGS.generate_examples),
        python=interpreter,
        state=lambda wildcards, resources: PATHS.state("generate", wildcards.model, "examples"),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        {params.python:q} workflow/scripts/generate.py --model {input.model:q} --manifest {input.manifest:q} \
            --prompts {input.prompts:q} {params.flags:q} --state {params.state:q} --output {output:q}
        """


rule generate_given:
    """Take the start model's answers to one shard of the prompts from a file."""
    input:
        model=ancient(inputs(PATHS.generator_model)),  # for its tokenizer: the file holds text
        manifest=inputs(PATHS.generator_manifest),
        prompts=ancient("<results>/data/prompts.parquet"),
        digest="<results>/data/prompts.json",
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
    threads: STUDY.resources.data.threads
    resources:
        **stage_resources("data"),
    params:
        flags=flags(FLAGS.generate_given),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/generate_given.py --model {input.model:q} --manifest {input.manifest:q} \
            --prompts {input.prompts:q} --given {input.given:q} {params.flags:q} --output {output:q}
        """
