"""Report: pages to look at, in a browser and without network.

in:  the first shard of an iteration's answers, their log-probabilities and token weights; the first answers of all models
out: <results>/{arm}/ite{k}/tokens.html for arms with a weighted loss
     <pages>/answers.html
"""

TOKENS = {
    "caption": "../workflow/report/tokens.rst",
    "category": "Weights",
    "subcategory": "Iterations",
    "labels": {"arm": "{arm}", "iteration": "{k}"},
}


rule report_tokens:
    """Show the first pairs of an iteration with the weight of every token."""
    input:
        inputs(PATHS.token_page_inputs),
        rows=ancient("<results>/data/prompts.parquet"),
        digest="<results>/data/prompts.json",
    output:
        report("<results>/{arm}/ite{k}/tokens.html", **TOKENS),
    log:
        "<logs>/report/tokens/{arm}/ite{k}.log",
    benchmark:
        "<benchmarks>/report/tokens/{arm}/ite{k}.tsv"
    wildcard_constraints:
        arm=alternatives(filter(STUDY.weighted, STUDY.arms)),
        k=r"\d+",
    localrule: True
    conda:
        "../envs/driver.yaml"
    threads: STUDY.resources.report.threads
    resources:
        **stage_resources("report"),
    params:
        flags=flags(FLAGS.report_tokens),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/report_tokens.py {params.flags:q} --rows {input.rows:q} --output {output:q}
        """


rule report_answers:
    """Show the first prompts with the answers of every model of the tables, side by side."""
    input:
        PATHS.shown_answers().values(),
        rows=ancient("<results>/data/prompts.parquet"),
        digest="<results>/data/prompts.json",
    output:
        report("<pages>/answers.html", **shown("answers", "Answers", "answers page")),
    log:
        "<report_logs>/answers.log",
    benchmark:
        "<report_benchmarks>/answers.tsv"
    localrule: True
    conda:
        "../envs/driver.yaml"
    threads: STUDY.resources.report.threads
    resources:
        **stage_resources("report"),
    params:
        flags=flags(FLAGS.report_answers),
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/report_answers.py {params.flags:q} --rows {input.rows:q} --output {output:q}
        """
