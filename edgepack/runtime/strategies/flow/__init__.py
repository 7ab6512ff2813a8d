"""Kinds of flow decoders: `STRATEGY` is a `stages.flow.FlowDecoder`."""
