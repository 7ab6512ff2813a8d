"""Energy meters, one module each: `METER` follows `energy.meter.Meter`."""
