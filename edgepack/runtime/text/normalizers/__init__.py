"""Text normalisers, one module each: `NORMALIZER` follows `normalization.NormalizerModule`."""
