"""Data: select the study's rows. Rows that do not fit every model are dropped here and nowhere else.

in:  <results>/fetched/{dataset}/, the models of data.fits
out: <results>/data/prompts.parquet, heldout.parquet, preferences.parquet
     beside each a digest of its rows (.json), which later stages track: equal rows re-run nothing
"""


rule data:
    """Draw prompts with real answers."""
    input:
        source=ancient("<results>/fetched/sft"),
        source_manifest="<results>/fetched/sft.json",
        fits=ancient(PATHS.fits_models()),
        manifests=PATHS.fits_manifests(),
    output:
        rows="<results>/data/prompts.parquet",
        digest="<results>/data/prompts.json",
    log:
        "<logs>/data/prompts.log",
    benchmark:
        "<benchmarks>/data/prompts.tsv"
    conda:
        "../envs/torch.yaml"
    threads: STUDY.resources.data.threads
    resources:
        **stage_resources("data"),
    params:
        flags=flags(FLAGS.data),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/data.py prompts --source {input.source:q} --fits {input.fits:q} {params.flags:q} \
            --output {output.rows:q} --output-digest {output.digest:q}
        """


rule data_heldout:
    """Draw held-out rows, for evaluation alone."""
    input:
        source=ancient("<results>/fetched/heldout"),
        source_manifest="<results>/fetched/heldout.json",
        training=ancient("<results>/fetched/sft"),  # prompts that are trained on are left out
        training_manifest="<results>/fetched/sft.json",
        fits=ancient(PATHS.fits_models()),
        manifests=PATHS.fits_manifests(),
    output:
        rows="<results>/data/heldout.parquet",
        digest="<results>/data/heldout.json",
    log:
        "<logs>/data/heldout.log",
    benchmark:
        "<benchmarks>/data/heldout.tsv"
    conda:
        "../envs/torch.yaml"
    threads: STUDY.resources.data.threads
    resources:
        **stage_resources("data"),
    params:
        flags=flags(FLAGS.data_heldout),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/data.py heldout --source {input.source:q} --training {input.training:q} \
            --fits {input.fits:q} {params.flags:q} --output {output.rows:q} --output-digest {output.digest:q}
        """


rule data_preferences:
    """Draw preference pairs for the baselines."""
    input:
        source=ancient("<results>/fetched/preferences"),
        source_manifest="<results>/fetched/preferences.json",
        fits=ancient(PATHS.fits_models()),
        manifests=PATHS.fits_manifests(),
    output:
        rows="<results>/data/preferences.parquet",
        digest="<results>/data/preferences.json",
    log:
        "<logs>/data/preferences.log",
    benchmark:
        "<benchmarks>/data/preferences.tsv"
    conda:
        "../envs/torch.yaml"
    threads: STUDY.resources.data.threads
    resources:
        **stage_resources("data"),
    params:
        flags=flags(FLAGS.data_preferences),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/data.py preferences --source {input.source:q} --fits {input.fits:q} {params.flags:q} \
            --output {output.rows:q} --output-digest {output.digest:q}
        """
