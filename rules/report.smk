"""Report: what the study shows, and the care of its folder.

in:  every score
out: <results>/tables/scores.csv, scores.md
"""


rule report:
    """Gather the scores in one table, with standard errors; refuse to mix ways of scoring."""
    input:
        LAYOUT.all_scores(),
    output:
        csv="<results>/tables/scores.csv",
        markdown=report("<results>/tables/scores.md", caption="../workflow/report/scores.rst", category="Scores"),
    log:
        "<logs>/report/scores.log",
    benchmark:
        "<benchmarks>/report/scores.tsv"
    localrule: True
    conda:
        "../envs/driver.yaml"
    threads: resource("report", "threads")
    resources:
        mem_mb=resource("report", "mem_mb"),
        runtime=minutes("report"),
    params:
        flags=flags("report"),
    shell:
        r"""
        exec &> >(tee {log:q})
        python workflow/scripts/report.py {params.flags:q} --csv {output.csv:q} --markdown {output.markdown:q}
        """


rule stale:
    """List results that were made by other code than the present; nothing is re-run."""
    log:
        "<logs>/report/stale.log",
    localrule: True
    conda:
        "../envs/driver.yaml"
    params:
        results=LAYOUT.results,
    shell:
        r"""
        exec &> >(tee {log:q})
        python workflow/scripts/stale.py --results {params.results:q}
        """


rule clean_state:
    """Remove the resumable states that no process holds."""
    log:
        "<logs>/report/clean_state.log",
    localrule: True
    conda:
        "../envs/driver.yaml"
    params:
        state=f"{LAYOUT.results}/.state",
    shell:
        r"""
        exec &> >(tee {log:q})
        python workflow/scripts/clean_state.py --state {params.state:q}
        """
