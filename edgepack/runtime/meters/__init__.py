"""Energy meters, one module each: `METER` follows `runtime.meter.Meter`."""
