"""Text normalisers, one module each: `NORMALIZER` follows `runtime.normalization.Normalizer`."""
