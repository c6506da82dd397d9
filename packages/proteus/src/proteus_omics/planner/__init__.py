"""Planners: rules, or a language model."""
