"""The meta-trained model: a causal trunk over an agent's whole history, with a policy head (section 2.5)."""
