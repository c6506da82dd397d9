"""PRIME inside verl 0.9, by its Ray workers and rollout engines, for models that outgrow one machine.

    python -m implicit_prime.integrations.verl.main launch/eurus2_7b_prime_verl.toml

settings    a run's TOML file as verl's configuration, and the settings of PRIME in it
advantages  the estimators "prime_rloo", "prime_grpo", "prime_reinforce", "prime_implicit_value"
workers     the PRM in the place of verl's critic, and its loss
filtering   the accuracy filter, as verl's replay buffer
rewards     our verifiers as verl's reward manager
trainer     the trainer, which verl knows as "prime"
runner      what Ray runs, and `main` that starts it

This package has nothing of verl in it until a module is imported. verl needs an environment of its own: see
the README.
"""
