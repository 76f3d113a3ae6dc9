"""Report: what the study shows beside published numbers.

in:  every score; the files of config/published/ that `report.published` names
out: <tables>/reproduction.{csv,md}
"""


rule report_reproduction:
    """Set published numbers beside ours, with intervals of the difference; mark those that fail a check."""
    input:
        PATHS.all_scores(),
        published=ancient(PATHS.published_files()),
    output:
        csv="<tables>/reproduction.csv",
        markdown=report(
            "<tables>/reproduction.md", caption="../workflow/report/reproduction.rst", category="Scores"
        ),
    log:
        "<report_logs>/reproduction.log",
    benchmark:
        "<benchmarks>/report/reproduction.tsv"
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
        exec &> >(tee {log:q})
        python workflow/scripts/report_reproduction.py {params.flags:q} --output {output.csv:q} {output.markdown:q}
        """
