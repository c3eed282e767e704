"""Reports: HTML pages, plots, rollout videos and tables for a terminal, for the demo and for each model."""
