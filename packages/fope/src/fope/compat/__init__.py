"""Other people's FoPE: what they compute, and how their checkpoints name the coefficients."""
