"""The experiment: needs the extra `reproduce`."""

import lmlab  # noqa: F401  # before transformers: who has neither is told of the extra that brings both
