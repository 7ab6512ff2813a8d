"""From a text to token ids: cleaning, reading numbers aloud, splitting into utterances."""
