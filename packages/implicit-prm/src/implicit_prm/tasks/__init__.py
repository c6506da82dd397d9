"""Small verifiable tasks whose every step has a known truth, and generators that are right only sometimes."""
