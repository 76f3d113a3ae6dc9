"""Report: what of the study is significant.

in:  every score, every file of samples; the family of tests, if one is preregistered
out: <tables>/tests.{csv,md}
"""


rule report_tests:
    """Test the differences between arms, and adjust the p of the preregistered family."""
    input:
        PATHS.all_scores(),
        PATHS.all_samples(),
        ancient(STUDY.report.preregistration or []),
    output:
        csv="<tables>/tests.csv",
        markdown=report("<tables>/tests.md", caption="../workflow/report/tests.rst", category="Scores"),
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
        exec &> >(tee {log:q})
        python workflow/scripts/report_tests.py {params.flags:q} --output {output.csv:q} {output.markdown:q}
        """
