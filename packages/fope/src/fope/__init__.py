"""FoPE: Fourier Position Embedding (Hua et al., ICML 2025)."""
