"""Model families, one module each: `FAMILY` says what a checkpoint of the family is made of."""
