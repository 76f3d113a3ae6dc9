"""Report: what the study shows of replicates with different seeds.

in:  every score, every file of samples
out: <tables>/pooled.{csv,md,tex}, where there are replicates
     <figures>/differences.{pdf,svg,png}
"""


rule report_pooled:
    """Pool replicates of different seeds in a table, and draw the last iterations' differences to the baseline."""
    input:
        PATHS.all_scores(),
        PATHS.all_samples(),
    output:
        "<figures>/differences.pdf",
        "<figures>/differences.png",
        report("<figures>/differences.svg", caption="../workflow/report/differences.rst", category="Scores"),
        tables=[
            report(path, caption="../workflow/report/pooled.rst", category="Scores") if path.endswith(".md") else path
            for path in PATHS.pooled_tables()  # none without replicates
        ],
    log:
        "<report_logs>/pooled.log",
    benchmark:
        "<report_benchmarks>/pooled.tsv"
    localrule: True
    conda:
        "../envs/driver.yaml"
    threads: STUDY.resources.report.threads
    resources:
        **stage_resources("report"),
    params:
        flags=flags(FLAGS.report_pooled),
    shell:
        r"""
        exec &> >(tee {log:q})
        python workflow/scripts/report_pooled.py {params.flags:q} --output {output:q}
        """
