"""Speaking with a bundle: numpy, a tokenizer, audio helpers and one inference engine."""
