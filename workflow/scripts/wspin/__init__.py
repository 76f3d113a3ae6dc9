"""The library of the study: a package for every stage, and below them what stages share.

No stage imports another one, except `data`, which the stages after it share. `study`, `manage`, `preflight` and
`report` stand above the stages; every package may import the modules beside this file but `cli`. Only modules that
compute with tensors import a tensor library: a plan of Snakemake, or a job that weighs tokens, loads none.
"""

from .interruption import shorten_interruptions

shorten_interruptions()
