"""Preflight: what the study needs and what would stop it, before the first GPU minute.

in:  the configuration; sizes and lengths from the results, as far as they exist
out: a table in the log and on the terminal
"""


rule preflight:
    """Estimate times, memory, price and disk of the whole study and check access; exit 1 if a problem is found."""
    log:
        "<logs>/preflight.log",
    localrule: True
    conda:
        "../envs/torch.yaml"
    params:
        config=f"{PATHS.results}/config.yaml",
    shell:
        r"""
        exec &> >(tee {log:q})
        python workflow/scripts/preflight.py --config {params.config:q}
        """
