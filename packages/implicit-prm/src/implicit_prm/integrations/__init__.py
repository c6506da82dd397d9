"""One module a library that implicit PRMs plug into; each is imported by name."""
