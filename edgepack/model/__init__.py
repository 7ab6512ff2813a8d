"""What a checkpoint is: its files, the family it belongs to, the networks rebuilt from it."""
