"""Manage: outdated results, saved states, cost, model cards, uploads."""


rule stale:
    """List the results that other code has made; re-run nothing."""
    log:
        "<logs>/manage/stale.log",
    localrule: True
    conda:
        "../envs/driver.yaml"
    params:
        results=PATHS.results,
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/manage.py stale --results {params.results:q}
        """


rule clean_state:
    """Remove the resumable states that no process holds."""
    log:
        "<logs>/manage/clean_state.log",
    localrule: True
    conda:
        "../envs/driver.yaml"
    params:
        results=PATHS.results,
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/manage.py clean_state --results {params.results:q}
        """


rule cost:
    """Sum up and draw the hours of all jobs from their records: <results>/tables/cost*.{csv,md}, figures/cost.*."""
    log:
        "<logs>/manage/cost.log",
    localrule: True
    conda:
        "../envs/driver.yaml"
    params:
        results=PATHS.results,
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/manage.py cost --results {params.results:q}
        """


rule cards:
    """Write the card of every finished model, with its scores: <results>/{model}/model/README.md."""
    log:
        "<logs>/manage/cards.log",
    localrule: True
    conda:
        "../envs/driver.yaml"
    params:
        results=PATHS.results,
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/manage.py cards --results {params.results:q}
        """


rule push:
    """Upload the model that the section `push` of the configuration names to the hub, with its card."""
    log:
        "<logs>/manage/push.log",
    localrule: True
    conda:
        "../envs/torch.yaml"
    params:
        results=PATHS.results,
    shell:
        r"""
        exec &> >(tee -i {log:q})
        python workflow/scripts/manage.py push --results {params.results:q}
        """
