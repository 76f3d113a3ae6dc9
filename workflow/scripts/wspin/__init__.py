"""The library of the study: a package for every stage, and below them what stages share.

No stage imports another one. `study`, `manage`, `preflight` and `report` stand above the stages; `errors`, `rng`,
`progress`, `templates` and `iteration` are the ground that everything may import. Only modules that compute with
tensors import a tensor library: a plan of Snakemake, or a job that weighs tokens, loads none.
"""
