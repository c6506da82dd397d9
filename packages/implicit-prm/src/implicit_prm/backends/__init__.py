"""Where log-probabilities come from: one protocol, a module a library or server."""
