"""The experiment: needs the extra `reproduce`."""
