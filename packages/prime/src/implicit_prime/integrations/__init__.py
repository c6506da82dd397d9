"""PRIME inside other trainers; each module imports its own."""
