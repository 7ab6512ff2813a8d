"""Kinds of decoding: `STRATEGY` is a `stages.decode.SpeechDecoder`."""
