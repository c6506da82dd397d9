"""Tabular tasks: sampled, solved, stepped; numpy only."""
