"""Report: what the study shows; report_comparisons.smk compares.

in:  every score; every token weight with the answers it belongs to; the training curve of every iteration
out: <tables>/scores.{csv,md,tex,html}, weights.{csv,md,html}, examples.md
     <figures>/{averages,rewards}.{pdf,svg,png}
"""


rule report_scores:
    """Gather the scores in one table, with standard errors; refuse to mix ways of scoring."""
    input:
        PATHS.all_scores(),
    output:
        csv="<tables>/scores.csv",
        markdown="<tables>/scores.md",
        html=report("<tables>/scores.html", caption="../workflow/report/scores.rst", category="Scores"),
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
        html=report("<tables>/weights.html", caption="../workflow/report/weights.rst", category="Weights"),
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


rule report_figure:
    """Draw every arm's average by iteration, with intervals."""
    input:
        "<tables>/averages.csv",
    output:
        "<figures>/averages.pdf",
        "<figures>/averages.png",
        report("<figures>/averages.svg", caption="../workflow/report/averages.rst", category="Scores"),
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
        python workflow/scripts/report.py figure {params.flags:q} --averages {input:q} --output {output:q}
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
        exec &> >(tee -i {log:q})
        python workflow/scripts/report_rewards.py {params.flags:q} --curves {input:q} --output {output:q}
        """
