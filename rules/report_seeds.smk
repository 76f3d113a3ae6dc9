"""Report: what the study shows of replicates with different seeds, and of its trainings.

in:  every score, every file of samples; the training curve of every iteration
out: <tables>/pooled.{csv,md,tex}, where there are replicates
     <figures>/{differences,rewards}.{pdf,svg,png}
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


rule report_rewards:
    """Draw the reward margins of every iteration's training, weighted and unweighted."""
    input:
        PATHS.curves(),
    output:
        "<figures>/rewards.pdf",
        "<figures>/rewards.png",
        report("<figures>/rewards.svg", caption="../workflow/report/rewards.rst", category="Training"),
    log:
        "<report_logs>/rewards.log",
    benchmark:
        "<report_benchmarks>/rewards.tsv"
    localrule: True
    conda:
        "../envs/driver.yaml"
    threads: STUDY.resources.report.threads
    resources:
        **stage_resources("report"),
    params:
        flags=flags(FLAGS.report_rewards),
    shell:
        r"""
        exec &> >(tee {log:q})
        python workflow/scripts/report_rewards.py {params.flags:q} --curves {input:q} --output {output:q}
        """
