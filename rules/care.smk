"""Care of the results: what other code has made, and states that nobody needs any more."""


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
