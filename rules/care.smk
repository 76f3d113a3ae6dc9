"""Care of the results: what other code has made, states nobody needs, what all of it cost, model cards, uploads."""


rule stale:
    """List results that were made by other code than the present; nothing is re-run."""
    log:
        "<logs>/report/stale.log",
    localrule: True
    conda:
        "../envs/driver.yaml"
    params:
        results=PATHS.results,
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
        state=f"{PATHS.results}/.state",
    shell:
        r"""
        exec &> >(tee {log:q})
        python workflow/scripts/clean_state.py --state {params.state:q}
        """


rule cost:
    """Tell what the results took, in hours and memory, from their records: <results>/tables/cost.{csv,md}."""
    log:
        "<logs>/report/cost.log",
    localrule: True
    conda:
        "../envs/driver.yaml"
    params:
        results=PATHS.results,
    shell:
        r"""
        exec &> >(tee {log:q})
        python workflow/scripts/cost.py --results {params.results:q}
        """


rule cards:
    """Write the card of every model that is there, its scores included: <results>/{model}/model/README.md."""
    log:
        "<logs>/report/cards.log",
    localrule: True
    conda:
        "../envs/driver.yaml"
    params:
        results=PATHS.results,
    shell:
        r"""
        exec &> >(tee {log:q})
        python workflow/scripts/cards.py --results {params.results:q}
        """


rule push:
    """Upload the model that the section `push` of the configuration names to the hub, with its card."""
    log:
        "<logs>/report/push.log",
    localrule: True
    conda:
        "../envs/torch.yaml"
    params:
        results=PATHS.results,
    shell:
        r"""
        exec &> >(tee {log:q})
        python workflow/scripts/push.py --results {params.results:q}
        """
