"""Host loops, one module a kind: `Record` is its record, `STRATEGY` what runs it."""
