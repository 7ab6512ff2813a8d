"""What recorded files mean, one package a family and one module a file: `check` compares all."""
