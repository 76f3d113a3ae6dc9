"""The SPIN-versus-WSPIN study: config/config.yaml describes it; the rules follow in the order in which they run.

snakemake --profile local all                    everything, on this machine
snakemake --profile slurm results/wspin/ite3     one iteration and what it needs, on a cluster
"""

from snakemake.utils import min_version

min_version("9.27")


include: "rules/common.smk"  # reads and checks the configuration, before Snakemake does


configfile: "config/config.yaml"  # for Snakemake's messages and report


report: "workflow/report/index.rst"


container: "wspin.sif"  # of envs/Apptainer.def; only with `--sdm apptainer`


pathvars:
    results=STUDY.results,
    logs="<results>/logs",
    benchmarks="<results>/benchmarks",
    tables=PATHS.report_folder("tables"),
    figures=PATHS.report_folder("figures"),
    pages=PATHS.report_folder("pages"),
    report_logs=PATHS.report_folder("logs/report"),
    report_benchmarks=PATHS.report_folder("benchmarks/report"),


for stage in "fetch data train generate logprobs weigh eval report manage".split():

    include: f"rules/{stage}.smk"


rule all:
    """Every model of the study, its tables, figures and pages."""
    default_target: True
    input:
        models=PATHS.all_models(),
        tables=PATHS.tables(),
        figures=PATHS.figures(),
        pages=PATHS.pages(),
    localrule: True


rule models:
    """Every model of the study, without evaluation."""
    input:
        PATHS.all_models(),
    localrule: True


rule tables:
    """The tables."""
    input:
        PATHS.tables(),
    localrule: True


rule figures:
    """The figures."""
    input:
        PATHS.figures(),
    localrule: True


# `results/spin/ite3` is a rule, so that its files stay outputs of their own; completion adds a slash, hence the twin.
for target, files in PATHS.targets().items():
    for name in (target, f"{target}/"):

        rule:
            name:
                name
            input:
                files,
            localrule: True


onstart:
    try:  # before the first job
        for job in workflow.dag.needrun_jobs():
            check_job([*job.output, *job.log], job.benchmark)
        start_on_slurm(workflow, logger)
        ENDING.start(workflow.scheduler)
    except (StudyError, OSError) as error:
        sys.exit(error_line(error))
    write_yaml(f"{PATHS.results}/config.yaml", config["resolved"])


onsuccess:
    ENDING.finished(PATHS.results)


onerror:
    ENDING.unfinished(workflow.scheduler.failed)
