"""Preflight: what the study will take and what would stop it, before the first GPU minute.

in:  the configuration; what has been fetched and measured, as far as it is there
out: a table in the log and on the terminal
"""


rule preflight:
    """Tell sizes, times, memory, price, disk and access of the whole study; fail if it would."""
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
