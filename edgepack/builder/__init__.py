"""From a checkpoint to bundles: trimming, calibration, conversion, assembly."""
