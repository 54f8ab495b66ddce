"""Training: `runs` (one run of a study, from its settings to its record), `loop`, and what they are made of."""
