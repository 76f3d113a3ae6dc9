"""Report: what differs between arms, over their seeds, and from published numbers.

in:  every score, every file of samples; the preregistered family of tests, published tables
out: <tables>/{differences,tests}.{csv,md,html}, differences.tex, averages.csv; pooled.{csv,md,tex,html} where there are
     replicates; reproduction.{csv,md,html} where `report.published` names tables
     <figures>/pooled.{pdf,svg,png}: the differences of the last iterations
"""


rule report_differences:
    """Compare arms document by document, and average the tasks, with bootstrap intervals."""
    input:
        PATHS.all_scores(),
        PATHS.all_samples(),
    output:
        csv="<tables>/differences.csv",
        markdown="<tables>/differences.md",
        html=report("<tables>/differences.html", **shown("versus", "Scores", "differences table")),
        latex="<tables>/differences.tex",
        averages="<tables>/averages.csv",
    log:
        "<report_logs>/differences.log",
    benchmark:
        "<report_benchmarks>/differences.tsv"
    localrule: True
    conda:
        "../envs/driver.yaml"
    threads: STUDY.resources.report.threads
    resources:
        **stage_resources("report"),
    params:
        flags=flags(FLAGS.report_differences),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/report.py differences {params.flags:q} --averages {output.averages:q} \
            --output {output.csv:q} {output.markdown:q} {output.html:q} {output.latex:q}
        """


rule report_pooled:
    """Pool replicates of different seeds in a table, and draw the last iterations' differences to the baseline."""
    input:
        PATHS.all_scores(),
        PATHS.all_samples(),
    output:
        "<figures>/pooled.pdf",
        "<figures>/pooled.png",
        report("<figures>/pooled.svg", **shown("forest", "Scores", "pooled figure")),
        tables=PATHS.pooled_tables("csv", "md", "tex"),  # none without replicates
        html=[report(path, **shown("pooled", "Scores", "pooled table")) for path in PATHS.pooled_tables("html")],
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
        exec &> >(tee -i {log:q})
        python workflow/scripts/report_pooled.py {params.flags:q} --output {output:q}
        """


rule report_tests:
    """Test the differences between arms, and adjust the p of the preregistered family."""
    input:
        PATHS.all_scores(),
        PATHS.all_samples(),
        ancient(STUDY.report.preregistration or []),
    output:
        csv="<tables>/tests.csv",
        markdown="<tables>/tests.md",
        html=report("<tables>/tests.html", **shown("tests", "Scores", "tests table")),
    log:
        "<report_logs>/tests.log",
    benchmark:
        "<report_benchmarks>/tests.tsv"
    localrule: True
    conda:
        "../envs/driver.yaml"
    threads: STUDY.resources.report.threads
    resources:
        **stage_resources("report"),
    params:
        flags=flags(FLAGS.report_tests),
        contents=contents(filter(None, [STUDY.report.preregistration])),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/report_tests.py {params.flags:q} \
            --output {output.csv:q} {output.markdown:q} {output.html:q}
        """


rule report_reproduction:
    """Set published numbers beside ours, with intervals of the difference; mark those that fail a check."""
    input:
        PATHS.all_scores(),
        published=ancient(PATHS.published_files()),
    output:
        csv="<tables>/reproduction.csv",
        markdown="<tables>/reproduction.md",
        html=report("<tables>/reproduction.html", **shown("reproduction", "Scores", "reproduction table")),
    log:
        "<report_logs>/reproduction.log",
    benchmark:
        "<report_benchmarks>/reproduction.tsv"
    localrule: True
    conda:
        "../envs/driver.yaml"
    threads: STUDY.resources.report.threads
    resources:
        **stage_resources("report"),
    params:
        flags=flags(FLAGS.report_reproduction),
        contents=lambda wildcards: contents(PATHS.published_files()),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/report_reproduction.py {params.flags:q} \
            --output {output.csv:q} {output.markdown:q} {output.html:q}
        """
