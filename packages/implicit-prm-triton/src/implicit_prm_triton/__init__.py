"""Triton kernels for log-probs of chosen tokens from hidden states, without the logits."""

from implicit_prm_triton.ops import linear_log_probs

__all__ = ["linear_log_probs"]
