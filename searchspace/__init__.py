"""The words a search is written in: dimensions, methods (sampler x pruner), published rows, the study record.

Imports optuna; never torch, never ray. A family's `suggest(trial)` uses the words of `dimensions`; `study`
keeps the one memory of a search (an Optuna study in a database); `methods` names the samplers and pruners.
"""
