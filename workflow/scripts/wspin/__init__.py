"""The library of the study, in rooms: a package for every stage, and below them what stages share.

No stage imports another one. `study`, `manage`, `preflight` and `report` stand above the stages; `errors`, `rng`,
`progress` and `templates` are the ground that everything may import. Tensor libraries are imported by those who compute
with tensors alone: a plan of Snakemake's, or a job that weighs tokens, loads none.
"""
