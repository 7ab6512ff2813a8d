"""What is declared as data: target devices, recipes of quantization, languages, gates."""
