"""Eval: lm-eval's tasks, a suite of them in one job.

in:  a model, <results>/fetched/tasks/{suite}/, for tasks on held-out rows <results>/data/heldout.parquet
out: <results>/{model}/scores/{suite}.json, {suite}.samples.parquet with one row per document
"""


rule eval:
    """Score a model on a suite of tasks."""
    input:
        model=ancient("<results>/{model}/model"),
        manifest="<results>/{model}/manifest.json",
        tasks=ancient("<results>/fetched/tasks/{suite}"),
        tasks_manifest="<results>/fetched/tasks/{suite}.json",
        heldout=ancient(inputs(PATHS.heldout)),
        digest=inputs(PATHS.heldout_digest),
    output:
        scores="<results>/{model}/scores/{suite}.json",
        samples="<results>/{model}/scores/{suite}.samples.parquet",
    log:
        "<logs>/eval/{model}/{suite}.log",
    benchmark:
        "<benchmarks>/eval/{model}/{suite}.tsv"
    wildcard_constraints:
        model=rf"{alternatives(STUDY.models)}|{ITERATION}",
    conda:
        environment
    threads: STUDY.resources.eval.threads
    resources:
        **stage_resources("eval"),
    params:
        flags=flags(FLAGS.eval),
        checks=lambda wildcards, resources: FLAGS.untracked_task_flags(wildcards.suite),
        python=interpreter,
        state=saved_state("eval", "model", "suite"),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        {params.python:q} workflow/scripts/eval.py --model {input.model:q} --manifest {input.manifest:q} \
            --tasks {input.tasks:q} --heldout {input.heldout:q} {params.flags:q} {params.checks:q} \
            --state {params.state:q} --scores {output.scores:q} --samples {output.samples:q}
        """
