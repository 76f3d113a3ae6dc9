"""Report: what the study shows.

in:  every score, every file of samples; every token weight with the answers it belongs to
out: <results>/tables/{scores,differences}.{csv,md,tex}, averages.csv, weights.{csv,md}, examples.md
     <results>/figures/averages.{pdf,svg,png}
"""


rule report_scores:
    """Gather the scores in one table, with standard errors; refuse to mix ways of scoring."""
    input:
        PATHS.all_scores(),
    output:
        csv="<results>/tables/scores.csv",
        markdown=report("<results>/tables/scores.md", caption="../workflow/report/scores.rst", category="Scores"),
        latex="<results>/tables/scores.tex",
    log:
        "<logs>/report/scores.log",
    benchmark:
        "<benchmarks>/report/scores.tsv"
    localrule: True
    conda:
        "../envs/driver.yaml"
    threads: STUDY.resources.report.threads
    resources:
        **stage_resources("report"),
    params:
        flags=flags(FLAGS.report_scores),
    shell:
        r"""
        exec &> >(tee {log:q})
        python workflow/scripts/report.py scores {params.flags:q} \
            --output {output.csv:q} {output.markdown:q} {output.latex:q}
        """


rule report_differences:
    """Compare arms document by document, and average the tasks, with bootstrap intervals."""
    input:
        PATHS.all_scores(),
        PATHS.all_samples(),
    output:
        csv="<results>/tables/differences.csv",
        markdown=report("<results>/tables/differences.md", caption="../workflow/report/versus.rst", category="Scores"),
        latex="<results>/tables/differences.tex",
        averages="<results>/tables/averages.csv",
    log:
        "<logs>/report/differences.log",
    benchmark:
        "<benchmarks>/report/differences.tsv"
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
        exec &> >(tee {log:q})
        python workflow/scripts/report.py differences {params.flags:q} --averages {output.averages:q} \
            --output {output.csv:q} {output.markdown:q} {output.latex:q}
        """


rule report_weights:
    """Describe the token weights of every iteration."""
    input:
        PATHS.weight_files(),
        prompts=ancient("<results>/data/prompts.parquet"),
        digest="<results>/data/prompts.json",
    output:
        csv="<results>/tables/weights.csv",
        markdown=report("<results>/tables/weights.md", caption="../workflow/report/weights.rst", category="Weights"),
    log:
        "<logs>/report/weights.log",
    benchmark:
        "<benchmarks>/report/weights.tsv"
    localrule: True
    conda:
        "../envs/driver.yaml"
    threads: STUDY.resources.report.threads
    resources:
        **stage_resources("report"),
    params:
        flags=flags(FLAGS.report_weights),
    shell:
        r"""
        exec &> >(tee {log:q})
        python workflow/scripts/report.py weights {params.flags:q} --prompts {input.prompts:q} \
            --output {output.csv:q} {output.markdown:q}
        """


rule report_examples:
    """Show some prompts, the answers of the models that served as opponents, and the weights of their tokens."""
    input:
        PATHS.example_files(),
        prompts=ancient("<results>/data/prompts.parquet"),
        digest="<results>/data/prompts.json",
    output:
        report("<results>/tables/examples.md", caption="../workflow/report/examples.rst", category="Answers"),
    log:
        "<logs>/report/examples.log",
    benchmark:
        "<benchmarks>/report/examples.tsv"
    localrule: True
    conda:
        "../envs/driver.yaml"
    threads: STUDY.resources.report.threads
    resources:
        **stage_resources("report"),
    params:
        flags=flags(FLAGS.report_examples),
    shell:
        r"""
        exec &> >(tee {log:q})
        python workflow/scripts/report.py examples {params.flags:q} --prompts {input.prompts:q} --output {output:q}
        """


rule report_figure:
    """Draw every arm's average by iteration, with intervals."""
    input:
        "<results>/tables/averages.csv",
    output:
        "<results>/figures/averages.pdf",
        "<results>/figures/averages.png",
        report("<results>/figures/averages.svg", caption="../workflow/report/averages.rst", category="Scores"),
    log:
        "<logs>/report/figure.log",
    benchmark:
        "<benchmarks>/report/figure.tsv"
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
        exec &> >(tee {log:q})
        python workflow/scripts/report.py figure {params.flags:q} --averages {input:q} --output {output:q}
        """
