"""Every reader of files from outside under Atheris: `make fuzz`."""
