"""Train: one program for every model that is trained here; the loss is a flag.

in:  the model to start from, <results>/data/prompts.parquet or preferences.parquet, its log-probabilities of the pairs,
     their token weights
out: <results>/{model}/model/, manifest.json, metrics.jsonl
"""


rule train:
    """Train a model of the registry, iteration k of an arm, or one of a pair that weighs tokens."""
    input:
        model=ancient(inputs(PATHS.parent_model)),  # the opponent of the iteration, or the model a baseline starts from
        parent=inputs(PATHS.parent_manifest),  # small and checksum-aware: this is what triggers a re-run
        rows=ancient(inputs(PATHS.training_rows)),
        digest=inputs(PATHS.training_digest),  # of the rows, likewise
        reference=inputs(PATHS.training_reference),  # the start model's log-probabilities of the pairs; [] for sft
        weights=inputs(PATHS.training_weights),  # [] for losses without token weights
        answers=inputs(PATHS.training_answers),  # of another model, whose pupil this one is; [] otherwise
    output:
        model=directory("<results>/{model}/model"),
        manifest="<results>/{model}/manifest.json",
        metrics="<results>/{model}/metrics.jsonl",
    log:
        "<logs>/train/{model}.log",
    benchmark:
        "<benchmarks>/train/{model}.tsv"
    wildcard_constraints:
        model=rf"{alternatives((*PATHS.trained_models, *PATHS.contrast_models))}|{ITERATION}",
    conda:
        "../envs/torch.yaml"
    threads: STUDY.resources.train.threads
    resources:
        **stage_resources("train"),
    params:
        flags=flags(FLAGS.train),
        untracked=untracked_flags,  # takes `resources`, as does `launch`: other GPUs re-run no training
        launch=launch,
    shell:
        r"""
        exec &> >(tee -i {log:q})
        {params.launch} workflow/scripts/train.py --model {input.model:q} --manifest {input.parent:q} --rows {input.rows:q} \
            --reference {input.reference:q} --weights {input.weights:q} --answers {input.answers:q} {params.flags:q} \
            {params.untracked:q} --output {output.model:q} --output-manifest {output.manifest:q} --metrics {output.metrics:q}
        """
