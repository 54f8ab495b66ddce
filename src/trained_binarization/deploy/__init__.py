"""The 1-bit network outside of the training framework: folded, exported, proven equal, measured."""
