"""Tools of the analysis, each typed and registered; importing this registers them."""
