"""Report: figures, each as PDF, SVG and PNG; report_comparisons.smk draws that of its pooled table.

in:  the averages; the training curve of every iteration; every token weight and generated answer, with their references
out: <figures>/{averages,rewards,weights,lengths}.{pdf,svg,png}
"""


rule report_figure:
    """Draw every arm's average by iteration, and its paired difference to the baseline, with intervals."""
    input:
        averages="<tables>/averages.csv",
        differences="<tables>/differences.csv",
        published=PATHS.published_csv(),  # none without published tables
    output:
        "<figures>/averages.pdf",
        "<figures>/averages.png",
        report("<figures>/averages.svg", **shown("averages", "Scores", "averages figure")),
    log:
        "<report_logs>/figure.log",
    benchmark:
        "<report_benchmarks>/figure.tsv"
    localrule: True
    conda:
        "../envs/driver.yaml"
    threads: STUDY.resources.report.threads
    resources:
        **stage_resources("report"),
    params:
        flags=flags(FLAGS.report_figure),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/report_figure.py {params.flags:q} --averages {input.averages:q} \
            --differences {input.differences:q} --output {output:q}
        """


rule report_rewards:
    """Draw the reward margins of every iteration's training, weighted and unweighted."""
    input:
        PATHS.curves(),
    output:
        "<figures>/rewards.pdf",
        "<figures>/rewards.png",
        report("<figures>/rewards.svg", **shown("rewards", "Training", "rewards figure")),
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
        exec &> >(tee -i {log:q})
        python workflow/scripts/report_rewards.py {params.flags:q} --curves {input:q} --output {output:q}
        """


rule report_histograms:
    """Draw histograms of the token weights, by arm, side and iteration."""
    input:
        PATHS.histogram_files(),
    output:
        "<figures>/weights.pdf",
        "<figures>/weights.png",
        report("<figures>/weights.svg", **shown("histograms", "Weights", "weights figure")),
    log:
        "<report_logs>/histograms.log",
    benchmark:
        "<report_benchmarks>/histograms.tsv"
    localrule: True
    conda:
        "../envs/driver.yaml"
    threads: STUDY.resources.report.threads
    resources:
        **stage_resources("report"),
    params:
        flags=flags(FLAGS.report_histograms),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/report_histograms.py {params.flags:q} --output {output:q}
        """


rule report_lengths:
    """Draw the lengths of all answers beside those of the real ones, and the share that is cut."""
    input:
        PATHS.length_files(),
    output:
        "<figures>/lengths.pdf",
        "<figures>/lengths.png",
        report("<figures>/lengths.svg", **shown("lengths", "Answers", "lengths figure")),
    log:
        "<report_logs>/lengths.log",
    benchmark:
        "<report_benchmarks>/lengths.tsv"
    localrule: True
    conda:
        "../envs/driver.yaml"
    threads: STUDY.resources.report.threads
    resources:
        **stage_resources("report"),
    params:
        flags=flags(FLAGS.report_lengths),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/report_lengths.py {params.flags:q} --output {output:q}
        """
