"""Data: select the study's rows. Rows that do not fit every model are dropped here and nowhere else.

in:  <results>/fetched/{dataset}/, the models of data.fits
out: <results>/data/prompts.parquet, heldout.parquet, preferences.parquet
"""


rule data:
    """Draw prompts with real answers, and held-out rows."""
    input:
        source="<results>/fetched/sft",
        fits=ancient(PATHS.fits_models()),
        manifests=PATHS.fits_manifests(),
    output:
        prompts="<results>/data/prompts.parquet",
        heldout="<results>/data/heldout.parquet",
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
        exec &> >(tee {log:q})
        python workflow/scripts/data.py prompts --source {input.source:q} --fits {input.fits:q} {params.flags:q} \
            --output {output.prompts:q} --heldout {output.heldout:q}
        """


rule data_preferences:
    """Draw preference pairs for the baselines."""
    input:
        source=PATHS.fetched(STUDY.data.preferences.from_ or "preferences"),
        fits=ancient(PATHS.fits_models()),
        manifests=PATHS.fits_manifests(),
    output:
        "<results>/data/preferences.parquet",
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
        exec &> >(tee {log:q})
        python workflow/scripts/data.py preferences --source {input.source:q} --fits {input.fits:q} {params.flags:q} \
            --output {output:q}
        """
