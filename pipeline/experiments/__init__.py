"""Experiments: many trainings, planned as phantumor commands and run one after the other; killed ones go on."""
