"""Report: what the study shows in tables; beside this file stand comparisons, figures and pages.

in:  every score; every token weight with the answers it belongs to
out: <tables>/scores.{csv,md,tex,html}, weights.{csv,md,html}, examples.md
"""

for part in "comparisons figures pages".split():

    include: f"report_{part}.smk"


rule report_scores:
    """Gather the scores in one table, with standard errors; refuse to mix ways of scoring."""
    input:
        PATHS.all_scores(),
    output:
        csv="<tables>/scores.csv",
        markdown="<tables>/scores.md",
        html=report("<tables>/scores.html", **shown("scores", "Scores", "scores table")),
        latex="<tables>/scores.tex",
    log:
        "<report_logs>/scores.log",
    benchmark:
        "<report_benchmarks>/scores.tsv"
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
        exec &> >(tee -i {log:q})
        python workflow/scripts/report.py scores {params.flags:q} \
            --output {output.csv:q} {output.markdown:q} {output.html:q} {output.latex:q}
        """


rule report_weights:
    """Describe the token weights of every iteration."""
    input:
        PATHS.weight_files(),
        prompts=ancient("<results>/data/prompts.parquet"),
        digest="<results>/data/prompts.json",
    output:
        csv="<tables>/weights.csv",
        markdown="<tables>/weights.md",
        html=report("<tables>/weights.html", **shown("weights", "Weights", "weights table")),
    log:
        "<report_logs>/weights.log",
    benchmark:
        "<report_benchmarks>/weights.tsv"
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
        exec &> >(tee -i {log:q})
        python workflow/scripts/report.py weights {params.flags:q} --prompts {input.prompts:q} \
            --output {output.csv:q} {output.markdown:q} {output.html:q}
        """


rule report_examples:
    """Show some prompts, the answers of the models that served as opponents, and the weights of their tokens."""
    input:
        PATHS.example_files(),
        prompts=ancient("<results>/data/prompts.parquet"),
        digest="<results>/data/prompts.json",
    output:
        "<tables>/examples.md",
    log:
        "<report_logs>/examples.log",
    benchmark:
        "<report_benchmarks>/examples.tsv"
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
        exec &> >(tee -i {log:q})
        python workflow/scripts/report.py examples {params.flags:q} --prompts {input.prompts:q} --output {output:q}
        """
