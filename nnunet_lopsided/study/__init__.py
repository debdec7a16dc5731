"""Studies: many trainings on censored data, run by Snakemake, and one report about them."""
