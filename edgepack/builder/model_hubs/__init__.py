"""Where checkpoints are downloaded from, one module each: `HUB` asks one hub with its library."""
